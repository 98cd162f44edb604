"""Numbers of the robust fit that can be worked out by hand, on grids whose axes differ."""

import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.robust import RobustConfig, fit_robust
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics

SHAPE = (640, 2048)
FREE = RobustConfig(cut_above=1e6, cut_below=1e6, prior=False)


@pytest.fixture(scope="module")
def grid():
    return SuperpixelGrid.over(SHAPE, BackgroundConfig())


def fit(grid, values, *, error=1.0, order=6, robust=FREE, believed=True):
    statistics = SuperpixelStatistics(
        mean=np.asarray(values, np.float32),
        error=np.broadcast_to(np.float32(error), values.shape).copy(),
        count=np.full(values.shape, 16384, np.int32),
    )
    return fit_robust(grid, statistics, BackgroundConfig(order=order), robust, believed=believed)


def test_an_axis_with_few_superpixels_limits_the_order(grid):
    assert grid.shape == (5, 16)
    values = np.full(grid.shape, 7.0)
    assert fit(grid, values).background.order == 4
    few = np.full(grid.shape, np.nan)
    few[:, 3:6] = 7
    assert fit(grid, few).background.order == 2


def test_a_slope_along_one_axis_stays_on_that_axis(grid):
    x = grid.x_centers
    values = np.broadcast_to(100 + x / 50, grid.shape).copy()
    model = fit(grid, values, order=1).background.evaluate()
    assert model[10, 2000] - model[10, 100] == pytest.approx(1900 / 50, abs=1e-3)
    assert model[600, 100] - model[10, 100] == pytest.approx(0, abs=1e-3)


def test_uncertainty_of_a_constant_is_that_of_a_mean(grid):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, grid.shape)
    found = fit(grid, 50 + 2 * noise, error=2.0, order=0)
    # 80 superpixels of 2 each; inflated by what they scatter more than that, and never deflated
    chi2 = np.sum((noise - noise.mean()) ** 2) / 79
    assert found.background.chi2_per_freedom == pytest.approx(chi2, rel=1e-3)
    assert found.deviation.min() >= 2 / np.sqrt(80) * (1 - 1e-6)
    assert found.deviation[0, 0] == pytest.approx(2 / np.sqrt(80) * np.sqrt(found.inflation), rel=1e-6)


def test_scatter_is_what_is_there_beyond_noise(grid):
    checks = np.where((np.arange(80) % 2 == 0).reshape(grid.shape), 5.0, -5.0)
    found = fit(grid, 100 + checks, error=3.0, order=0)
    # the median of |residual| is 5, in a normal distribution that of 1.4826 * 5
    assert found.scatter == pytest.approx(np.sqrt((1.4826 * 5) ** 2 - 9), rel=1e-3)
    assert fit(grid, 100 + checks, error=30.0, order=0).scatter == 0


def test_neighbours_that_err_together_inflate_the_errors():
    grid = SuperpixelGrid.over((2048, 4096), BackgroundConfig())
    assert grid.shape == (16, 32)
    rng = np.random.default_rng(2)
    alone = rng.normal(0, 1, grid.shape)
    together = np.repeat(np.repeat(rng.normal(0, 1, (4, 8)), 4, axis=0), 4, axis=1)
    loose = fit(grid, 50 + alone, order=0)
    tight = fit(grid, 50 + together, order=0)
    assert loose.inflation < 1.6
    # a block of 16 that err alike counts once
    chi2 = np.var(together) * 512 / 511
    expected = max(1, chi2) * np.mean((together - together.mean()) ** 2) * 16
    assert tight.inflation == pytest.approx(expected, rel=1e-3)


def test_what_is_seen_is_not_extrapolated_however_uncertain(grid):
    values = np.full(grid.shape, 10.0)
    error = np.ones(grid.shape, np.float32)
    error[:, 12:] = 1000
    found = fit(grid, values, error=error, order=4)
    assert found.deviation[2, 15] > 3 * np.median(found.deviation)
    assert not found.extrapolated.any()
    values[:, 12:] = np.nan
    found = fit(grid, values, error=error, order=4)
    assert found.extrapolated[:, 14:].all()
    assert not found.extrapolated[:, :12].any()


def test_superpixels_below_the_least_count_are_not_used(grid):
    values = np.full(grid.shape, 10.0)
    values[0, 0] = 1e6
    count = np.full(grid.shape, 16384, np.int32)
    config = BackgroundConfig(order=0)
    count[0, 0] = config.min_good_pixels - 1
    statistics = SuperpixelStatistics(
        mean=values.astype(np.float32), error=np.ones(grid.shape, np.float32), count=count
    )
    assert fit_robust(grid, statistics, config, FREE, believed=True).background.coefficients[0] == 10
    count[0, 0] = config.min_good_pixels
    assert fit_robust(grid, statistics, config, FREE, believed=True).background.coefficients[0] > 1e3
