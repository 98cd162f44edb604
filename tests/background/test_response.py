"""What light in superpixels does to a fit: against fits of superpixels that were changed by hand."""

import dataclasses

import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.estimate import fit_background
from skysub.background.model import fit_statistics
from skysub.background.response import find_response
from skysub.background.robust import RobustConfig, fit_robust

CONFIG = BackgroundConfig(superpixel=16, order=3)
SHAPE = (200, 260)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sky = 500 + 20 * x / 260 - 10 * (y / 200) ** 2
    image = (sky + rng.normal(0, 20, SHAPE)).astype(np.float32)
    ignored = rng.random(SHAPE) < 0.2 + 0.6 * (x > 200)
    return fit_background(image, ignored, CONFIG)


def raised(statistics, j, i, by):
    mean = statistics.mean.copy()
    mean[j, i] += np.float32(by)
    return dataclasses.replace(statistics, mean=mean), float(mean[j, i]) - float(statistics.mean[j, i])


@pytest.mark.parametrize("weighting", [True, False])
def test_plain_least_squares(fitted, weighting):
    config = dataclasses.replace(CONFIG, weighting=weighting)
    model = fit_statistics(fitted.grid, fitted.statistics, config)
    response = find_response(model)
    assert response.apart < 1e-9
    statistics, by = raised(fitted.statistics, 3, 11, 5.0)
    moved = fit_statistics(fitted.grid, statistics, config).coefficients - model.coefficients
    values = np.zeros(fitted.grid.shape)
    values[3, 11] = by
    np.testing.assert_allclose(response.change(values.ravel()), moved, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("light", [0.0, 1.0])
def test_robust_fits_and_what_holds_them_back(fitted, light):
    fit = fit_robust(fitted.grid, fitted.statistics, CONFIG, RobustConfig(), light=light)
    # corrections of the level and of the uncertainty are no part of the fit
    covariance = fit.background.covariance.copy()
    covariance[0, 0] += 0.3
    coefficients = fit.background.coefficients.copy()
    coefficients[0] += 0.4
    given = dataclasses.replace(fit.background, coefficients=coefficients, covariance=covariance)
    response = find_response(given)
    assert response.apart < 1e-6
    assert response.order == 3
    # a little light, so that neither weights nor the prior move by much
    y, x = (c.ravel() for c in np.meshgrid(fitted.grid.y_centers, fitted.grid.x_centers, indexing="ij"))
    near = np.exp(-((x - 60) ** 2 + (y - 80) ** 2) / 2 / 40**2).reshape(fitted.grid.shape)
    lit = dataclasses.replace(
        fitted.statistics, mean=(fitted.statistics.mean + 0.5 * near).astype(np.float32)
    )
    moved = fit_robust(fitted.grid, lit, CONFIG, RobustConfig(), light=light).background
    expected = response.terms(x, y) @ (moved.coefficients - fit.background.coefficients)
    found = response.terms(x, y) @ response.change(0.5 * near.ravel())
    np.testing.assert_allclose(found, expected, atol=0.2 * np.abs(expected).max())
    assert found.max() > 0.05


def test_superpixels_without_weight_do_nothing(fitted):
    statistics = dataclasses.replace(fitted.statistics, mean=fitted.statistics.mean.copy())
    statistics.mean[2:5, 3:6] = np.nan
    model = fit_statistics(fitted.grid, statistics, CONFIG)
    matrix = find_response(model).matrix.reshape(-1, *fitted.grid.shape)
    assert (matrix[:, 2:5, 3:6] == 0).all()
    assert (matrix[0, 6:, 6:] != 0).all()


def test_a_model_that_other_detectors_helped_to_fit_gives_way_less(fitted):
    def other(certain):
        return dataclasses.replace(
            fitted,
            coefficients=fitted.coefficients + np.r_[0, 3.0, -2.0, np.zeros(7)],
            covariance=fitted.covariance / certain,
        )

    some, more = find_response(other(100)), find_response(other(900))
    assert some.apart > 1
    np.testing.assert_allclose(more.matrix, some.matrix / 9, rtol=1e-9)
    y, x = (c.ravel() for c in np.meshgrid(fitted.grid.y_centers, fitted.grid.x_centers, indexing="ij"))
    whole = find_response(fitted)
    values = np.exp(-((x - 60) ** 2 + (y - 80) ** 2) / 2 / 40**2)
    assert (
        np.ptp(some.terms(x, y) @ some.change(values)) < np.ptp(whole.terms(x, y) @ whole.change(values)) / 50
    )


def test_a_spline_follows_its_superpixels():
    rng = np.random.default_rng(3)
    image = (500 + rng.normal(0, 20, SHAPE)).astype(np.float32)
    config = BackgroundConfig(superpixel=20, model="akima")
    model = fit_background(image, None, config)
    response = find_response(model)
    values = np.zeros(model.grid.shape)
    values[4, 5] = 2.0
    y, x = model.grid.y_centers, model.grid.x_centers
    change = response.change(values.ravel())
    places = np.array([x[5], (x[5] + x[6]) / 2, x[7], x[5]]), np.array([y[4], y[4], y[4], (y[3] + y[4]) / 2])
    np.testing.assert_allclose(response.terms(*places) @ change, [2.0, 1.0, 0.0, 1.0], atol=1e-12)


def test_a_background_of_constant_pixels():
    flat = fit_background(np.full(SHAPE, 7.0, np.float32), None, dataclasses.replace(CONFIG, weighting=False))
    response = find_response(flat)
    # all superpixels alike: light in each of them is taken in full
    assert response.change(np.ones(flat.grid.shape).ravel())[0] == pytest.approx(1.0)
