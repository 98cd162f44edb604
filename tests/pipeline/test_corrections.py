"""Corrections of the level, each against a simulation of what it corrects."""

import dataclasses

import numpy as np
import pytest

from skysub.background.clipping import superpixel_statistics
from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.pipeline.config import CorrectionsConfig
from skysub.pipeline.corrections import (
    clip_skew,
    faint_counts,
    find_corrections,
    find_faint_light,
    noise_peaks,
)
from skysub.sources.flags import NOT_SKY
from skysub.sources.mask import SourceMaskConfig, mask_sources

SHAPE = (2000, 2000)


def mask_of(image, noise, config):
    flags = np.zeros(image.shape, np.uint8)
    grid = SuperpixelGrid.over(image.shape, BackgroundConfig())
    mask = mask_sources(
        image.astype(np.float32),
        flags,
        np.zeros((1, 1)),
        np.full(grid.shape, noise),
        grid,
        config=config,
        fwhm=4.0,
    )
    return mask, flags


@pytest.mark.parametrize("gain", [1.0, 2.5])
@pytest.mark.parametrize("clip_sigma", [2.5, 3.0])
def test_clip_skew(gain, clip_sigma):
    rng = np.random.default_rng(1)
    counts = (rng.poisson(400, SHAPE) / gain).astype(np.float32)
    # integers of few levels would jump; spread them over their step
    counts += rng.uniform(-0.5, 0.5, SHAPE).astype(np.float32) / np.float32(gain)
    config = BackgroundConfig(superpixel=2000, clip_sigma=clip_sigma, clip_passes=8)
    grid = SuperpixelGrid.over(SHAPE, config)
    measured = superpixel_statistics(counts, np.empty((0, 0), np.uint8), 0, grid, config).mean[0, 0]
    bias = float(measured) - float(counts.mean(dtype=np.float64))
    assert clip_skew(gain, clip_sigma) == pytest.approx(-bias, rel=0.25)


def test_noise_peaks():
    config = SourceMaskConfig(peak_threshold=3.0, extended=None)
    biases = []
    for seed in range(3):
        image = np.random.default_rng(seed).normal(0, 30, SHAPE)
        _, flags = mask_of(image, 30.0, config)
        biases.append(image[(flags & NOT_SKY) == 0].mean() - image.mean())
    assert noise_peaks(30.0, 3.0, fwhm=4.0) == pytest.approx(-np.mean(biases), rel=0.45)
    assert noise_peaks(30.0, 5.0, fwhm=4.0) < 0.001


def test_faint_counts_measures_light_per_magnitude():
    rng = np.random.default_rng(4)
    noise, unit = 30.0, 30.0 / 0.166
    n = 400
    flux = unit * 14 * 2 ** rng.uniform(0.2, 0.8, n)
    image = rng.normal(0, noise, SHAPE)
    yy, xx = np.mgrid[-12:13, -12:13]
    for x, y, f in zip(rng.integers(13, 1987, n), rng.integers(13, 1987, n), flux, strict=True):
        image[y - 12 : y + 13, x - 12 : x + 13] += f / (2 * np.pi * 2.89) * np.exp(-(xx**2 + yy**2) / 5.78)
    mask, _ = mask_of(image, noise, SourceMaskConfig())
    light, error = faint_counts(mask, noise, fwhm=4.0)
    expected = flux.sum() / image.size / (2.5 * np.log10(2))
    assert light == pytest.approx(expected, rel=0.2)
    assert 0 < error < light / 10


SETTINGS = {
    "config": CorrectionsConfig(),
    "sources": SourceMaskConfig(),
    "level": 900.0,
    "noise": 30.0,
    "gain": 1.0,
    "fwhm": 4.0,
    "crowded": False,
}


def test_without_noise_or_gain_nothing_is_added():
    mask, _ = mask_of(np.random.default_rng(0).normal(0, 30, (500, 500)), 30.0, SourceMaskConfig())
    bare = SETTINGS | {"config": CorrectionsConfig(noise_peaks=False), "gain": None}
    assert find_corrections(mask, BackgroundConfig(), **bare).total == 0
    assert find_corrections(mask, BackgroundConfig(), **(SETTINGS | {"noise": np.nan})).total == 0
    crowded = find_corrections(mask, BackgroundConfig(), **(SETTINGS | {"crowded": True}))
    assert crowded.noise_peaks == 0
    assert crowded.uncertainty > 1


@pytest.mark.parametrize(("level", "share"), [(900.0, 1.0), (450.0, 0.5), (-10.0, 0.0), (2000.0, 1.0)])
def test_only_the_noise_of_counts_is_skewed(level, share):
    mask, _ = mask_of(np.random.default_rng(0).normal(0, 30, (500, 500)), 30.0, SourceMaskConfig())
    found = find_corrections(mask, BackgroundConfig(), **(SETTINGS | {"level": level}))
    assert found.clip_skew == pytest.approx(share * clip_skew(1.0, 3.0))
    # by the gain it is in the image's unit, and the share is that of the counts' variance
    found = find_corrections(
        mask, BackgroundConfig(), **(SETTINGS | {"level": level / 2, "gain": 2.0, "noise": 15.0})
    )
    assert found.clip_skew == pytest.approx(share * clip_skew(2.0, 3.0))


def test_corrections_are_as_uncertain_as_their_formulas():
    mask, _ = mask_of(np.random.default_rng(0).normal(0, 30, (500, 500)), 30.0, SourceMaskConfig())
    found = find_corrections(mask, BackgroundConfig(), **SETTINGS)
    assert found.uncertainty == pytest.approx(np.hypot(0.15 * found.clip_skew, 0.25 * found.noise_peaks))


def test_light_that_the_mask_takes_from_below_the_limit_is_that_of_the_magnitudes_between():
    rng = np.random.default_rng(14)
    noise, unit = 30.0, 30.0 / 0.166
    image = rng.normal(0, noise, SHAPE)
    yy, xx = np.mgrid[-12:13, -12:13]
    star = np.exp(-(xx**2 + yy**2) / 5.78) / (2 * np.pi * 2.89)
    for x, y in rng.integers(13, 1987, (300, 2)):
        image[y - 12 : y + 13, x - 12 : x + 13] += unit * 20 * star
    mask, _ = mask_of(image, noise, SourceMaskConfig())
    light = faint_counts(mask, noise, fwhm=4.0)[0]
    assert light > 0
    found = find_corrections(mask, BackgroundConfig(), **SETTINGS)
    # from 3.5 to 5 sigma there are 0.387 magnitudes
    assert found.masked_faint == pytest.approx(0.3873 * light, rel=1e-3)
    assert found.total == pytest.approx(found.clip_skew + found.noise_peaks + found.masked_faint)
    assert found.uncertainty > 0.2 * found.masked_faint
    as_bright = SETTINGS | {"sources": SourceMaskConfig(peak_threshold=5.0)}
    assert find_corrections(mask, BackgroundConfig(), **as_bright).masked_faint == 0
    without = SETTINGS | {"config": CorrectionsConfig(masked_faint=False)}
    assert find_corrections(mask, BackgroundConfig(), **without).masked_faint == 0
    crowded = SETTINGS | {"crowded": True}
    assert find_corrections(mask, BackgroundConfig(), **crowded).masked_faint == 0


def test_faint_light_is_that_of_the_magnitudes_below_the_limit():
    rng = np.random.default_rng(4)
    noise, unit, n = 30.0, 30.0 / 0.166, 400
    flux = unit * 14 * 2 ** rng.uniform(0.2, 0.8, n)
    image = rng.normal(0, noise, SHAPE)
    yy, xx = np.mgrid[-12:13, -12:13]
    for x, y, f in zip(rng.integers(13, 1987, n), rng.integers(13, 1987, n), flux, strict=True):
        image[y - 12 : y + 13, x - 12 : x + 13] += f / (2 * np.pi * 2.89) * np.exp(-(xx**2 + yy**2) / 5.78)
    mask, _ = mask_of(image, noise, SourceMaskConfig())
    asked = {"config": CorrectionsConfig(faint_magnitudes=3.0), "noise": noise, "fwhm": 4.0, "crowded": False}
    found = find_faint_light(mask, **asked)
    light, error = faint_counts(mask, noise, fwhm=4.0)
    assert found.value == pytest.approx(3 * light)
    assert found.uncertainty == pytest.approx(3 * np.hypot(error, 0.4 * light))
    assert "3 magnitudes" in found.provenance
    assert find_faint_light(mask, **(asked | {"crowded": True})) is None
    assert find_faint_light(mask, **(asked | {"config": CorrectionsConfig(faint_light=False)})) is None
    empty, _ = mask_of(rng.normal(0, noise, (500, 500)), noise, SourceMaskConfig())
    assert find_faint_light(empty, **asked) is None


def test_footprints_that_cover_half_of_the_field_leave_the_level_uncertain():
    rng = np.random.default_rng(2)
    yy, xx = np.mgrid[-12:13, -12:13]
    image = rng.normal(0, 30, (600, 600))
    for x, y in rng.integers(13, 587, (60, 2)):
        image[y - 12 : y + 13, x - 12 : x + 13] += 3600 / (2 * np.pi * 2.89) * np.exp(-(xx**2 + yy**2) / 5.78)
    mask, _ = mask_of(image, 30.0, SourceMaskConfig())
    taken = int(mask.footprints.area.sum())
    uncertainty = []
    for covered in (0.4, 0.6):
        found = find_corrections(
            dataclasses.replace(mask, area=int(taken / covered)),
            BackgroundConfig(),
            **SETTINGS,
        )
        uncertainty.append(found.uncertainty / 30.0)
    # between sources that blend the level is not known better than to a twentieth of the noise
    assert uncertainty[1] == pytest.approx(0.05, rel=0.01)
    assert uncertainty[0] != pytest.approx(0.2, rel=0.1)
