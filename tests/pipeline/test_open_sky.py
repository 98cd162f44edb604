"""Skies that polynomials hardly follow, with sources: moonlight, fringes; and a galaxy that is neither."""

import dataclasses

import numpy as np
import pytest

import skysub
from skysub.background.superpixels import SuperpixelGrid
from skysub.pipeline.open_sky import find_open_sky, plausible_width
from skysub.pipeline.sky import first_guess
from skysub.pipeline.timing import Stopwatch
from skysub.sources.flags import EXTENDED, SOURCE
from skysub.sources.noise import pixel_noise
from skysub.visit.planes import AFW_PLANES

SHAPE = (768, 768)
FAST = skysub.CalibrateImageConfig(cosmic_rays=None, psf=None)


def axes():
    y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    return y[:, None], x[None, :]


def moonlight(level=8000.0, amplitude=0.16):
    """Light that falls as 1/r^2 from 1.7 half-widths away, in the direction of a corner."""
    y, x = axes()
    relief = 1 / ((y - 1.25) ** 2 + (x + 1.15) ** 2)
    return level * (1 + amplitude * (relief - relief.mean()) / np.ptp(relief))


def fringes(level=8000.0):
    y, x = axes()
    return level * (1 + 0.006 * np.cos(40 * (x + 0.3 * y + 0.2 * x * y)))


def corner_galaxy(level=8000.0):
    """A flat sky, and a galaxy whose middle lies in the frame's corner."""
    y, x = axes()
    return level + 0 * x * y, 500 * np.exp(-np.hypot(y - 0.9, x + 0.9) / 0.1)


def sources(seed, number=500):
    """Stars whose counts grow towards faint ones, of 4 pixels."""
    rng = np.random.default_rng(seed)
    light = np.zeros(SHAPE)
    yy, xx = np.mgrid[-30:31, -30:31]
    alpha2 = 2.0**2 / (2 ** (1 / 3) - 1)
    star = 2 / (np.pi * alpha2) * (1 + (yy**2 + xx**2) / alpha2) ** -3.0
    padded = np.zeros((SHAPE[0] + 60, SHAPE[1] + 60))
    for y, x, flux in zip(
        rng.integers(0, SHAPE[0], number),
        rng.integers(0, SHAPE[1], number),
        2e3 * rng.pareto(1.1, number) + 500,
        strict=True,
    ):
        padded[y : y + 61, x : x + 61] += min(flux, 1e6) * star
    light += padded[30:-30, 30:-30]
    return light


def visit_image_of(sky, light, seed):
    rng = np.random.default_rng(seed)
    image = rng.poisson(sky + light) + rng.normal(0, 6, SHAPE)
    return skysub.VisitImage(
        image=image.astype(np.float32),
        mask=np.zeros(SHAPE, np.int32),
        planes=AFW_PLANES,
        variance=(sky + light + 36).astype(np.float32),
        unit="electron",
        visit=1,
        detector=1,
        band="r",
    )


def opened(image):
    config = FAST.sky.for_shape(SHAPE)
    grid = SuperpixelGrid.over(SHAPE, config.background)
    flags = np.zeros(SHAPE, np.uint8)
    noise = pixel_noise(image, flags, grid)
    guess = first_guess(image, flags, noise, grid, config=config)
    found = find_open_sky(
        image,
        flags,
        guess,
        noise=noise,
        grid=grid,
        background=dataclasses.replace(config.background, min_good_pixels=20),
        config=config,
        fwhm=4.0,
        correlation=(1.0, 1.0),
        stopwatch=Stopwatch(),
        threads=1,
    )
    assert not (flags & (SOURCE | EXTENDED)).any()
    return found


@pytest.fixture(scope="module")
def moonlit():
    return visit_image_of(moonlight(), sources(3), 4)


@pytest.fixture(scope="module")
def fringed():
    return visit_image_of(fringes(), sources(5), 6)


def test_moonlight_in_a_corner_is_sky(moonlit):
    sky = moonlight()
    found = skysub.calibrate_image(moonlit, FAST)
    layers = found.preliminary_visit_image_background
    exact = skysub.fit_background(
        sky.astype(np.float32),
        None,
        dataclasses.replace(FAST.sky.for_shape(SHAPE).background, weighting=False),
    )
    missed = (exact.evaluate() - sky).std()
    off = layers.evaluate() - sky
    assert off.std() < 1.5 * missed + 1.0
    pull = (off - off.mean()) / layers.uncertainty()
    assert 0.3 < np.sqrt(np.mean(pull**2)) < 2


def test_a_steep_sky_is_open_and_followed_by_a_finer_fit(moonlit):
    found = opened(moonlit.image)
    assert found.found.finer is not None
    assert not found.found.rugged
    assert found.found.finer.background.order == 12
    assert found.found.fit.balanced
    assert 0 < (found.compact != 0).mean() < 0.4


def test_a_galaxy_in_a_corner_is_not_moonlight():
    sky, galaxy = corner_galaxy()
    assert opened(visit_image_of(sky, galaxy + sources(7), 8).image) is None


def test_fringes_are_sky(fringed):
    found = opened(fringed.image)
    assert found.found.rugged
    assert found.found.finer is None
    result = skysub.calibrate_image(fringed, FAST)
    off = result.preliminary_visit_image_background.evaluate() - fringes()
    noise = np.sqrt(8000)
    assert abs(off.mean()) < 0.08 * noise
    masked = (result.preliminary_visit_image.mask & AFW_PLANES.bits("DETECTED")) != 0
    assert masked.mean() < 0.35
    assert "sky_structure" in result.flags


def test_a_field_of_sources_on_a_flat_sky_is_neither_steep_nor_rugged():
    found = opened(visit_image_of(np.full(SHAPE, 2000.0), sources(9), 10).image)
    assert found is not None
    assert found.found.finer is None
    assert not found.found.rugged


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(4.5, None), (3.3, None), (6.0, 6.0), (2.0, 2.0), (30.0, 8.0), (0.5, 1.5), (np.nan, None)],
)
def test_the_width_of_the_psf_is_believed_within_reason(measured, expected):
    assert plausible_width(measured, 4.0) == expected
