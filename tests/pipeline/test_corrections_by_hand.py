"""Corrections of the level in numbers worked out by hand, so that a sign or a square cannot be lost."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

import skysub
from skysub.background.config import BackgroundConfig
from skysub.pipeline.config import CorrectionsConfig
from skysub.pipeline.corrections import (
    Corrections,
    clip_skew,
    corrected,
    faint_counts,
    find_corrections,
    find_faint_light,
    noise_peaks,
)
from skysub.sources.mask import SourceMaskConfig

FWHM = 4.0
UNIT = 10 * math.sqrt(4 * math.pi) * FWHM / 2.3548
"""Flux of one sigma for a noise of 10 per pixel: that of a Gaussian matched filter."""


def mask(flux, *, masked=0.2, area=1_000_000, covered=0.0):
    flux = np.asarray(flux, float)
    area_each = np.full(len(flux), covered * area / max(1, len(flux)))
    footprints = SimpleNamespace(flux=flux, area=area_each)
    return SimpleNamespace(footprints=footprints, area=area, masked=masked)


def test_the_clip_takes_the_level_down_by_a_number_that_tables_give():
    # k = 3: phi = 0.0044318, P = 0.9973002; 27 phi / (3 P) = 0.039995, 1 - 6 phi / P = 0.973337
    assert clip_skew(1.0, 3.0) == pytest.approx(0.039995 / 0.973337, rel=1e-3)
    assert clip_skew(4.0, 3.0) == pytest.approx(clip_skew(1.0, 3.0) / 4)


def test_peaks_of_noise():
    # nu = 3.5: density nu exp(-6.125) / ((2 pi)^1.5 2 s^2), each of (nu + 1 / nu) fluxes of one sigma
    sigma = FWHM / 2.3548
    density = 3.5 * math.exp(-6.125) / ((2 * math.pi) ** 1.5 * 2 * sigma**2)
    assert noise_peaks(10.0, 3.5, fwhm=FWHM) == pytest.approx(density * 3.7857 * UNIT, rel=0.02)


def test_light_per_magnitude_and_its_error():
    inside = np.full(25, 20 * UNIT)
    outside = [13 * UNIT, 29 * UNIT, 1e9]
    light, error = faint_counts(mask([*inside, *outside]), 10.0, fwhm=FWHM)
    # 14 to 28 times the limit are 0.7526 magnitudes
    assert light == pytest.approx(25 * 20 * UNIT / 1e6 / 0.7526, rel=1e-4)
    assert error == pytest.approx(light / 5)
    assert faint_counts(mask(inside[:19]), 10.0, fwhm=FWHM) == (0.0, 0.0)
    assert faint_counts(mask(inside[:20]), 10.0, fwhm=FWHM)[0] > 0


def test_faint_light_is_trusted_less_the_more_is_masked():
    config = CorrectionsConfig(faint_magnitudes=2.0, faint_uncertainty=0.5)
    settings = {"config": config, "noise": 10.0, "fwhm": FWHM, "crowded": False}
    flux = np.full(25, 20 * UNIT)
    light, error = faint_counts(mask(flux), 10.0, fwhm=FWHM)
    clear = find_faint_light(mask(flux, masked=0.2), **settings)
    assert clear.value == pytest.approx(2 * light)
    assert clear.uncertainty == pytest.approx(2 * math.hypot(error, 0.5 * light))
    dense = find_faint_light(mask(flux, masked=0.8), **settings)
    # 0.6 / 0.2
    assert dense.uncertainty == pytest.approx(2 * math.hypot(error, 1.5 * light))


@pytest.mark.parametrize(
    ("masked", "covered", "crowded", "expected"),
    [
        (0.2, 0.1, False, 0.0),
        (0.95, 0.1, False, 0.05 * 10),
        (0.2, 0.6, False, 0.05 * 10),
        (0.2, 0.1, True, 0.2 * 10),
    ],
)
def test_crowding_leaves_the_level_uncertain(masked, covered, crowded, expected):
    found = find_corrections(
        mask([1.0], masked=masked, covered=covered),
        BackgroundConfig(),
        config=CorrectionsConfig(clip_skew=False, noise_peaks=False),
        sources=SourceMaskConfig(),
        level=100.0,
        noise=10.0,
        gain=1.0,
        fwhm=FWHM,
        crowded=crowded,
    )
    assert found.total == 0
    assert found.uncertainty == pytest.approx(expected)


def test_corrections_raise_the_level_and_its_variance():
    image = np.random.default_rng(0).normal(100, 5, (512, 768)).astype(np.float32)
    background = skysub.fit_background(image)
    corrections = Corrections(clip_skew=0.3, noise_peaks=0.2, uncertainty=0.4)
    found = corrected(background, corrections, structure=0.3)
    assert found.coefficients[0] == pytest.approx(background.coefficients[0] + 0.5)
    np.testing.assert_array_equal(found.coefficients[1:], background.coefficients[1:])
    assert found.covariance[0, 0] == pytest.approx(background.covariance[0, 0] + 0.25)
    np.testing.assert_array_equal(found.covariance[1:], background.covariance[1:])
    assert dataclasses.replace(corrections, clip_skew=0).total == pytest.approx(0.2)
