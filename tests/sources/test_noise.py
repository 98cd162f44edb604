"""Noise of whole-number and of resampled pixels, and the seeing."""

import numpy as np
import pytest
from scipy import ndimage

from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.sources.detect import (
    find_footprints,
    measured_fwhm,
    smoothed_noise,
    smoothing_kernel,
)
from skysub.sources.noise import correlated_noise, pixel_noise

SHAPE = (600, 800)
GRID = SuperpixelGrid.over(SHAPE, BackgroundConfig())
LEVEL = np.array([[100.0]])


def noise_of(image):
    return pixel_noise(image.astype(np.float32), np.zeros(SHAPE, np.uint8), GRID)


@pytest.mark.parametrize("sigma", [0.6, 0.9, 1.4, 2.7, 5.3])
def test_whole_numbers_are_as_noisy_as_they_are(sigma):
    image = np.rint(np.random.default_rng(1).normal(100.2, sigma, SHAPE))
    assert np.median(noise_of(image)) == pytest.approx(image.std(), rel=0.05)


def correlated(image):
    return correlated_noise(
        image.astype(np.float32),
        np.zeros(SHAPE, np.uint8),
        LEVEL,
        noise_of(image),
        GRID,
        kernel=smoothing_kernel(4.0),
    )


def test_independent_pixels_share_no_noise():
    assert correlated(np.random.default_rng(2).normal(100, 3, SHAPE)) == (1.0, 1.0)


@pytest.mark.parametrize("width", [0.5, 0.8])
def test_resampled_pixels_do(width):
    image = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 3, SHAPE), width) + 100
    per_pixel, smoothed = correlated(image)
    measured = np.median(noise_of(image))
    assert measured * per_pixel == pytest.approx(image.std(), rel=0.05)
    light = ndimage.gaussian_filter(image, 4.0 / 2.3548)
    white = smoothed_noise(smoothing_kernel(4.0))
    assert measured * smoothed * white == pytest.approx(light.std(), rel=0.08)


def stars(fwhm, number=150):
    draw = np.random.default_rng(4)
    image = draw.normal(0, 5, SHAPE)
    yy, xx = np.mgrid[-20:21, -20:21]
    for y, x in draw.uniform(25, np.array(SHAPE) - 25, (number, 2)):
        j, i = int(y), int(x)
        r2 = (yy - (y - j)) ** 2 + (xx - (x - i)) ** 2
        profile = (1 + r2 / (fwhm / 2) ** 2 * (2 ** (1 / 3.5) - 1)) ** -3.5
        image[j - 20 : j + 21, i - 20 : i + 21] += draw.uniform(1000, 6000) * profile
    return image.astype(np.float32)


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 7.0])
def test_the_seeing_is_measured_on_stars(fwhm):
    kernel = smoothing_kernel(4.0)
    image = stars(fwhm)
    found = find_footprints(
        image,
        np.zeros(SHAPE, np.uint8),
        np.zeros((1, 1)),
        np.full(GRID.shape, 5 * smoothed_noise(kernel)),
        GRID,
        kernel=kernel,
        peak_threshold=3.5,
        edge_threshold=2.0,
    )
    assert measured_fwhm(found, 5.0) == pytest.approx(fwhm, rel=0.15)


def test_too_few_stars_tell_no_seeing():
    kernel = smoothing_kernel(4.0)
    found = find_footprints(
        stars(4.0, number=5),
        np.zeros(SHAPE, np.uint8),
        np.zeros((1, 1)),
        np.full(GRID.shape, 5 * smoothed_noise(kernel)),
        GRID,
        kernel=kernel,
        peak_threshold=3.5,
        edge_threshold=2.0,
    )
    assert np.isnan(measured_fwhm(found, 5.0))
