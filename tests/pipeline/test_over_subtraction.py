"""Light that a background has taken from galaxies: predicted, and as it truly is."""

import numpy as np
import pytest

import skysub
from skysub.errors import ConfigError
from skysub.pipeline.over_subtraction import OverSubtractionConfig, predict_losses
from skysub.pipeline.source_sizes import HALF_LIGHT, exponential_sizes

SHAPE = (640, 720)
GALAXIES = ((250.0, 300.0, 36.0, 3e5), (370.0, 280.0, 12.0, 1.2e5), (620.0, 560.0, 5.0, 2e4))
"""x, y, half-light radius, flux."""


def exponential(x, y, radius, flux):
    j, i = np.mgrid[: SHAPE[0], : SHAPE[1]]
    scale = radius / HALF_LIGHT
    return flux / (2 * np.pi * scale**2) * np.exp(-np.hypot(i - x, j - y) / scale)


@pytest.fixture(scope="module")
def scene():
    """Background with and without the galaxies, and the mask with which both were fit."""
    rng = np.random.default_rng(5)
    sky = (900 + rng.normal(0, 30, SHAPE)).astype(np.float32)
    light = sum(exponential(*galaxy) for galaxy in GALAXIES)
    mask = light > 60
    # unclipped, so that the difference of two fits is light alone
    config = skysub.BackgroundConfig(superpixel=32, order=4, statistic="mean")
    with_light = skysub.fit_background((sky + light).astype(np.float32), mask, config)
    without = skysub.fit_background(sky, mask, config)
    rise = with_light.evaluate().astype(float) - without.evaluate()
    j, i = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lost = [rise[np.hypot(i - x, j - y) <= 4 * r].sum() / f for x, y, r, f in GALAXIES]
    return skysub.BackgroundList([with_light]), mask, np.array(lost)


def predicted(scene, **changes):
    layers, mask, _ = scene
    x, y, radius, flux = (np.array(column) for column in zip(*GALAXIES, strict=True))
    arguments = {"flux": flux, "radius": radius, "core": flux / radius**2} | changes
    return predict_losses(layers, mask, x, y, **arguments)


def test_losses_to_own_light_and_to_a_neighbour_s(scene):
    lost = scene[2]
    # the large galaxy loses to its own light; the small ones only to the large one's
    assert lost[0] > 0.3
    assert lost[1] > 0.1
    found = predicted(scene)
    np.testing.assert_allclose(found.loss, lost, atol=0.04)
    np.testing.assert_array_equal(found.flag, lost > 0.05)
    columns = found.columns()
    assert set(columns) == {"overSubtraction_loss", "overSubtraction_lossErr", "overSubtraction_flag"}


def test_the_uncertainty_is_that_of_the_background_over_the_circle(scene):
    layers, _, _ = scene
    found = predicted(scene)
    x, y, radius, flux = GALAXIES[1]
    deviation = float(layers.uncertainty()[int(y), int(x)])
    expected = np.pi * (4 * radius) ** 2 * deviation / flux
    assert found.error[1] == pytest.approx(expected, rel=1e-6)


def test_a_knot_does_not_count_the_galaxy_s_light_twice(scene):
    layers, mask, lost = scene
    x, y, radius, flux = (np.array(column) for column in zip(*GALAXIES, strict=True))
    knots = {"x": np.append(x, 280.0), "y": np.append(y, 330.0)}
    sizes = {"flux": np.append(flux, 2e5), "radius": np.append(radius, 50.0)}
    found = predict_losses(layers, mask, *knots.values(), **sizes, core=np.append(flux / radius**2, 1.0))
    np.testing.assert_allclose(found.loss[:3], lost, atol=0.04)


def test_what_is_not_known_is_not_predicted(scene):
    found = predicted(scene, flux=np.array([4e5, np.nan, -5.0]), radius=np.array([60.0, 12.0, 5.0]))
    assert np.isfinite(found.loss[0])
    assert np.isnan(found.loss[1:]).all()
    assert np.isnan(found.error[1:]).all()
    assert not found.flag[1:].any()
    layers, mask, _ = scene
    nothing = predict_losses(
        layers, mask, np.zeros(0), np.zeros(0), flux=np.zeros(0), radius=np.zeros(0), core=np.zeros(0)
    )
    assert len(nothing.loss) == 0


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="loss must be a positive number"):
        OverSubtractionConfig(loss=0)
    assert predict_losses.__doc__


APERTURES = {f"ap{r:02d}Flux": float(r) for r in (3, 6, 9, 12, 17, 25, 35, 50, 70)}


def apertures(radius, flux, constant=0.0, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    edges = np.array([0.0, *APERTURES.values()])
    t = edges / (radius / HALF_LIGHT)
    area = np.pi * np.diff(edges**2)
    rings = flux * np.diff(1 - (1 + t) * np.exp(-t)) + constant * area
    rings = rings + noise * np.sqrt(area) * rng.standard_normal(len(area))
    columns = dict(zip(APERTURES, np.cumsum(rings)[:, None], strict=True))
    errors = max(noise, 1e-3) * np.sqrt(np.cumsum(area))
    return columns | {f"{n}Err": errors[k : k + 1] for k, n in enumerate(APERTURES)}


@pytest.mark.parametrize("radius", [3.0, 10.0, 40.0, 90.0])
def test_sizes_of_exponential_profiles(radius):
    flux, found = exponential_sizes(apertures(radius, 1e5), APERTURES, np.array([1e-4]))
    # scales are tried at steps of 8 %
    assert found[0] == pytest.approx(radius, rel=0.05)
    assert flux[0] == pytest.approx(1e5, rel=0.06)


def test_a_background_that_is_off_neither_shrinks_nor_swells_a_galaxy():
    given = apertures(20.0, 5e5, constant=-15.0, noise=10.0)
    flux, found = exponential_sizes(given, APERTURES, np.array([30.0]))
    assert found[0] == pytest.approx(20.0, rel=0.06)
    assert flux[0] == pytest.approx(5e5, rel=0.05)
    # believing the background, the same light looks much smaller
    assert exponential_sizes(given, APERTURES, np.array([1e-3]))[1][0] < 17


def test_incomplete_apertures_and_no_light():
    given = apertures(10.0, 1e5)
    given["ap35Flux"] = np.array([np.nan])
    _, found = exponential_sizes(given, APERTURES, np.array([1e-4]))
    assert found[0] == pytest.approx(10.0, rel=0.05)
    given["ap06Flux"] = np.array([np.nan])
    assert np.isnan(exponential_sizes(given, APERTURES, np.array([1e-4]))[1][0])
    dark = apertures(10.0, -1e5)
    assert np.isnan(exponential_sizes(dark, APERTURES, np.array([1e-4]))[0][0])
