"""Sky with structure beyond a polynomial of order 6: what the mask takes, and what the uncertainty says."""

import dataclasses

import numpy as np
import pytest

import skysub
from skysub.background.config import BackgroundConfig
from skysub.background.robust import RobustConfig, fit_robust
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.pipeline.config import SkyConfig
from skysub.pipeline.sky_fit import filled_where_starved
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

BARE = skysub.CalibrateImageConfig(cosmic_rays=None, psf=None)


def observed(sky, light=0.0, *, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.poisson(np.maximum(sky + light, 0)) + rng.normal(0, 6, sky.shape)
    return VisitImage(
        image=image.astype(np.float32),
        mask=np.zeros(sky.shape, np.int32),
        planes=AFW_PLANES,
        variance=(sky + light + 36).astype(np.float32),
        visit=7,
        detector=3,
        exposure_time=30.0,
    )


def sources(shape, number, *, seed=1):
    rng = np.random.default_rng(seed)
    ny, nx = shape
    light = np.zeros((ny + 80, nx + 80))
    y, x = np.mgrid[-40:41, -40:41]
    stamp = 2 / (np.pi * 15.2) * (1 + (x * x + y * y) / 15.2) ** -3.0
    for _ in range(number):
        j, i = rng.integers(0, ny), rng.integers(0, nx)
        light[j : j + 81, i : i + 81] += 10 ** rng.uniform(2.5, 5) * stamp
    return light[40:-40, 40:-40]


def dusty(shape=(680, 1000)):
    """Vignetting towards all edges and the corners most, a bright margin, shadows of dust: 4 % of the sky."""
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx].astype(np.float64)
    u, v = 2 * x / nx - 1, 2 * y / ny - 1
    sky = 8000 * (1 - 0.02 * (u * u + v * v) ** 2 - 0.012 * np.exp(-(1 - v) * ny / 2 / 25))
    sky += 70 * np.exp(-(nx - x) / 25)
    for cy, cx, radius in ((170, 300, 40), (430, 690, 45), (560, 200, 35), (300, 850, 40), (120, 620, 45)):
        r = np.hypot(y - cy, x - cx)
        sky -= 60 * np.exp(-(((r - radius) / 12) ** 2))
    return sky


def pulls_of(found, sky):
    background = found.preliminary_visit_image_background
    off = background.evaluate() - sky
    return off[::8, ::8], (off / background.uncertainty())[::8, ::8]


@pytest.fixture(scope="module")
def dust():
    sky = dusty()
    return sky, skysub.calibrate_image(observed(sky, sources(sky.shape, 250)), BARE)


def test_the_mask_does_not_run_away_over_dust_and_vignetting(dust):
    sky, found = dust
    assert "mask_ran_away" not in found.flags
    assert found.sky.mask.masked < 0.6
    off, _ = pulls_of(found, sky)
    assert abs(np.median(off)) < 4
    assert np.sqrt(np.mean(off**2)) < 20
    detected = found.preliminary_visit_image.mask & found.preliminary_visit_image.planes.bits("DETECTED")
    assert (detected[:, -30:] != 0).mean() < 0.9


def test_structure_is_said_and_in_the_uncertainty(dust):
    sky, found = dust
    _, pulls = pulls_of(found, sky)
    assert "sky_structure" in found.flags
    assert 0.6 < np.sqrt(np.mean(pulls**2)) < 1.9
    assert np.mean(np.abs(pulls) < 1.96) > 0.9


@pytest.mark.parametrize("kind", ["steps", "ghost", "fringes"])
def test_uncertainty_covers_sharp_structure(kind):
    y, x = np.mgrid[:1000, :1100].astype(np.float64)
    sky = 900 + 6 * x / 1100
    if kind == "steps":
        steps = np.random.default_rng(3).normal(0, 1.2, (2, 8))
        sky += steps[(y >= 500).astype(int), (x * 8 // 1100).astype(int)]
    elif kind == "ghost":
        sky += np.where(np.abs(np.hypot(x - 200, y - 1200) - 700) < 200, 5.0, 0.0)
    else:
        sky += 3 * np.sin(2 * np.pi * (x / 140 + (y / 900) ** 2))
    found = skysub.calibrate_image(observed(sky, sources(sky.shape, 150)), BARE)
    _, pulls = pulls_of(found, sky)
    assert "sky_structure" in found.flags
    assert 0.7 < np.sqrt(np.mean(pulls**2)) < 1.4
    off = dataclasses.replace(BARE, sky=dataclasses.replace(BARE.sky, structure=False))
    without = skysub.calibrate_image(observed(sky, sources(sky.shape, 150)), off)
    assert without.sky.structure == 0
    assert "sky_structure" not in without.flags
    # scatter of superpixels, which enters the covariance, does not cover it
    assert np.sqrt(np.mean(pulls_of(without, sky)[1] ** 2)) > 1.5


def test_a_smooth_sky_has_no_structure():
    y, x = np.mgrid[:1000, :1100].astype(np.float64)
    sky = 900 + 6 * x / 1100 - 9 * (y / 1000) ** 2
    found = skysub.calibrate_image(observed(sky, sources(sky.shape, 150)), BARE)
    assert found.sky.structure == 0
    assert not found.flags.keys() & {"sky_structure", "mask_ran_away"}
    assert found.preliminary_visit_image_background[0].order == 6


def test_a_galaxy_that_fills_the_frame_keeps_its_light():
    y, x = np.mgrid[:380, :280].astype(np.float64)
    galaxy = 3000 * np.exp(-np.hypot(x - 140, 1.1 * (y - 160)) / 16)
    sky = np.full(galaxy.shape, 170.0)
    found = skysub.calibrate_image(observed(sky, galaxy), BARE)
    off, _ = pulls_of(found, sky)
    near = np.hypot(x - 140, y - 160)[::8, ::8] < 130
    assert abs(off[near].sum()) < 0.02 * galaxy[::8, ::8][near].sum()


def test_detectors_of_full_size_keep_their_superpixels():
    config = SkyConfig()
    assert config.for_shape((4000, 4072)) == config
    assert config.for_shape((2000, 2036)) == config


@pytest.mark.parametrize(("shape", "edge"), [((1489, 2048), 64), ((1024, 1024), 64), ((150, 150), 32)])
def test_small_images_get_small_superpixels(shape, edge):
    assert SkyConfig().for_shape(shape).background.superpixel_xy == (edge, edge)


def test_a_low_order_needs_few_superpixels():
    config = SkyConfig(background=BackgroundConfig(order=1))
    assert config.for_shape((400, 400)) == config


def test_structure_has_the_same_bits_with_any_number_of_threads():
    sky = dusty((400, 500))
    one, three = (skysub.calibrate_image(observed(sky), BARE, threads=n) for n in (1, 3))
    assert one.sky.structure == three.sky.structure > 0
    np.testing.assert_array_equal(
        one.preliminary_visit_image_background.uncertainty(),
        three.preliminary_visit_image_background.uncertainty(),
    )


@pytest.mark.parametrize(("amplitude", "level"), [(16, 5), (32, 15)])
def test_fringes_are_told(amplitude, level):
    """Fringes 58 pixels apart, whose blocks of 16 pixels are unlike those two blocks away."""
    ny, nx = shape = (900, 1000)
    y, x = np.mgrid[:ny, :nx].astype(np.float64)
    sky = 8000 + amplitude * np.cos(2 * np.pi * (x + 0.4 * y + 40 * np.sin(y / 160)) / 62)
    found = skysub.calibrate_image(observed(sky, sources(shape, 120), seed=4), BARE)
    off, pulls = pulls_of(found, sky)
    assert "sky_structure" in found.flags
    assert 0.4 * amplitude < found.sky.structure < amplitude
    assert abs(off.mean()) < level
    assert 0.6 < np.sqrt(np.mean(pulls**2)) < 1.9


def grid_of(mean, error, count):
    grid = SuperpixelGrid.of_counts((80, 80), gy=8, gx=8)
    statistics = SuperpixelStatistics(
        mean=mean.astype(np.float32), error=error.astype(np.float32), count=count.astype(np.int32)
    )
    return grid, statistics


def test_only_dry_superpixels_that_are_not_known_better_are_filled():
    config = BackgroundConfig(superpixel=10, order=2, min_good_pixels=10)
    rng = np.random.default_rng(3)
    wide_mean = 100 + rng.normal(0, 0.2, (8, 8))
    full = np.full((8, 8), 100)
    grid, wide = grid_of(wide_mean, np.full((8, 8), 0.5), full)
    # the mask takes 2 e- of light off, and starves one in the middle, a corner, and one of a large source
    mean, count = wide_mean - 2 + rng.normal(0, 0.2, (8, 8)), full.copy()
    for place in ((4, 4), (0, 0), (0, 1), (1, 0), (1, 1), (7, 7)):
        mean[place], count[place] = np.nan, 0
    wide.mean[7, 7] += 50
    _, masked = grid_of(mean, np.full((8, 8), 0.5), count)
    inclusive = fit_robust(grid, wide, config, RobustConfig())
    fit = fit_robust(grid, masked, config, RobustConfig(), believed=True)
    deviation = np.where(count == 0, 10.0, fit.deviation)
    deviation[4, 4] = 0.1
    filled = filled_where_starved(dataclasses.replace(fit, deviation=deviation), masked, inclusive, least=10)
    changed = np.argwhere((filled.count > 0) & (count == 0)).tolist()
    assert changed == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert filled.mean[0, 0] == pytest.approx(wide_mean[0, 0] - 2, abs=0.2)
    assert filled.error[0, 0] == pytest.approx(np.hypot(0.5, 0.2), abs=0.1)
    assert np.array_equal(filled.mean[2:7, :4], masked.mean[2:7, :4])
    assert filled_where_starved(fit, wide, inclusive, least=10) is None
