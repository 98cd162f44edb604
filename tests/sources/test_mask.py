"""The source mask: growth, halos, bleeds, faint extended light, and the budget."""

import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import ConfigError
from skysub.sources.dark import keep_darkest
from skysub.sources.flags import EXTENDED, IGNORED, NOT_SKY, SATURATED, SOURCE
from skysub.sources.lsst import detect_as_lsst
from skysub.sources.mask import (
    BARE,
    DARKEST_LEFT,
    FALLBACK_SHARES,
    SourceMaskConfig,
    find_sources,
    mask_compact,
    mask_sources,
    mask_with_less_growth,
)

SHAPE = (512, 640)
NOISE = 10.0


def moffat(shape, x, y, flux, fwhm=4.0, beta=3.0):
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    r2 = ((xx - x) ** 2 + (yy - y) ** 2) / alpha**2
    return flux * (beta - 1) / (np.pi * alpha**2) * (1 + r2) ** -beta


def masked(image, flags=None, config=None, **settings):
    flags = np.zeros(image.shape, np.uint8) if flags is None else flags
    grid = SuperpixelGrid.over(image.shape, BackgroundConfig(superpixel=64))
    mask = mask_sources(
        image.astype(np.float32),
        flags,
        np.zeros((1, 1)),
        np.full(grid.shape, NOISE),
        grid,
        config=config or SourceMaskConfig(**settings),
        fwhm=4.0,
    )
    return mask, flags


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(5).normal(0, NOISE, SHAPE)


def reach(flags, x, y):
    """Radius of the circle with the area masked about a place."""
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    near = np.hypot(xx - x, yy - y) < 150
    return np.sqrt(((flags & SOURCE) != 0)[near].sum() / np.pi)


def test_brighter_stars_are_masked_farther_out(noise):
    radii = []
    for flux in (3e3, 3e4, 3e5, 3e6):
        _, flags = masked(noise + moffat(SHAPE, 320, 256, flux), extended=None)
        radii.append(reach(flags, 320, 256))
    assert np.all(np.diff(radii) > 1)
    assert radii[0] < 40
    assert radii[-1] > 80


def test_no_light_of_a_star_is_left(noise):
    star = moffat(SHAPE, 320, 256, 2e5)
    _, flags = masked(noise + star)
    assert star[flags == 0].max() < 0.1 * NOISE


def test_mere_noise_masks_little(noise):
    mask, flags = masked(noise)
    assert mask.masked < 0.02
    assert mask.fallback_level == 0
    assert not (flags & EXTENDED).any()


def test_faint_extended_light_is_masked_as_such(noise):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    galaxy = 2.5 * np.exp(-np.hypot(xx - 300, yy - 250) / 50)
    _, with_it = masked(noise + galaxy)
    _, without = masked(noise + galaxy, extended=None)
    core = galaxy > 1
    assert ((with_it[core] & NOT_SKY) != 0).mean() > 0.9
    assert (without[core] != 0).mean() < 0.5


def test_a_bleed_is_not_grown_by_the_star_s_halo(noise):
    image = noise + moffat(SHAPE, 320, 256, 1e6)
    flags = np.zeros(SHAPE, np.uint8)
    bleed = (slice(100, 420), slice(318, 323))
    image[bleed] += 300
    flags[bleed] = SATURATED
    _, flags = masked(image, flags, extended=None)
    at_the_end = (flags[110] & SOURCE) != 0
    beside_the_core = (flags[256] & SOURCE) != 0
    assert at_the_end[318:323].all()
    assert at_the_end.sum() < 30
    assert beside_the_core.sum() > 100


def test_ignored_pixels_are_not_sources_and_old_marks_are_cleared(noise):
    flags = np.full(SHAPE, SOURCE | EXTENDED, np.uint8)
    flags[:50] |= IGNORED
    image = noise.copy()
    image[:50] = 1e5
    _, flags = masked(image, flags)
    assert not (flags[:40] & (SOURCE | EXTENDED)).any()
    assert (flags[60:] == 0).mean() > 0.95


def test_a_crowded_field_keeps_some_sky(noise):
    rng = np.random.default_rng(6)
    image = noise.copy()
    for x, y, flux in zip(
        rng.uniform(0, 640, 2500), rng.uniform(0, 512, 2500), 10 ** rng.uniform(3, 5, 2500), strict=True
    ):
        cut = (slice(max(0, int(y) - 20), int(y) + 21), slice(max(0, int(x) - 20), int(x) + 21))
        shape = image[cut].shape
        image[cut] += moffat(shape, x - cut[1].start, y - cut[0].start, flux)
    mask, flags = masked(image)
    assert mask.fallback_level > 0
    usable = mask.good >= SourceMaskConfig().darkest * 64 * 64 * 0.9
    assert usable.mean() > 0.45
    assert mask.good.sum() == ((flags & NOT_SKY) == 0).sum()
    strict, _ = masked(image, least_sky=0.6, darkest=0.7)
    assert strict.fallback_level == DARKEST_LEFT


@pytest.fixture(scope="module")
def deep(noise):
    """A field whose sources leave too little sky when they grow in full, and a faint galaxy."""
    rng = np.random.default_rng(8)
    image = np.pad(noise, 15)
    star = moffat((31, 31), 15, 15, 1.0)
    for y, x in zip(rng.integers(0, 512, 700), rng.integers(0, 640, 700), strict=True):
        image[y : y + 31, x : x + 31] += rng.uniform(1e3, 3e3) * star
    return image[15:-15, 15:-15]


def test_growth_is_given_up_before_faint_extended_light_is(deep):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    galaxy = 6 * np.exp(-np.hypot(xx - 300, yy - 250) / 40)
    mask, flags = masked(deep + galaxy)
    assert 0 < mask.fallback_level < BARE
    assert FALLBACK_SHARES[mask.fallback_level] < 1
    assert mask.good.sum() > 0.1 * flags.size
    assert (flags & EXTENDED).any()


def test_a_third_of_the_growth_masks_less_and_keeps_faint_extended_light(noise):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = noise + moffat(SHAPE, 100, 100, 2e5) + 2.5 * np.exp(-np.hypot(xx - 400, yy - 250) / 50)
    config = SourceMaskConfig()
    mask, flags = masked(image, config=config)
    less = mask_with_less_growth(flags, mask, config=config, noise=NOISE)
    assert ((less & EXTENDED) == (flags & EXTENDED)).all()
    star, fewer = ((each[:200, :200] & SOURCE) != 0 for each in (flags, less))
    assert not (fewer & ~star).any()
    assert 0.05 < fewer.sum() / star.sum() < 0.8
    assert fewer[95:106, 95:106].all()


def test_chains_are_marked_only_where_they_are_asked_for(noise):
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = (noise + moffat(SHAPE, 100, 100, 3e4) + 500 * np.exp(-np.hypot(xx - 400, yy - 250) / 40)).astype(
        np.float32
    )
    grid = SuperpixelGrid.over(SHAPE, BackgroundConfig(superpixel=64))
    flags, config = np.zeros(SHAPE, np.uint8), SourceMaskConfig()
    noises = np.full(grid.shape, NOISE)
    found = find_sources(image, flags, np.zeros((1, 1)), noises, grid, config=config, fwhm=4.0)
    assert found.radius.max() > 64
    compact, chains = (
        mask_compact(flags, found, grid, config=config, noise=NOISE, chains=chains)
        for chains in (False, True)
    )
    assert not compact[250, 400]
    assert chains[250, 400]
    assert compact[100, 100]
    assert chains[100, 100]
    assert (compact[:200, :200] != 0).sum() > 1.5 * (chains[:200, :200] != 0).sum()
    assert not flags.any()


def test_the_darkest_surroundings_do_not_bias_mere_noise(noise):
    flags = np.zeros(SHAPE, np.uint8)
    grid = SuperpixelGrid.over(SHAPE, BackgroundConfig(superpixel=64))
    image = noise.astype(np.float32)
    image[3, 3] = np.nan
    keep_darkest(image, flags, grid, fraction=0.05, fwhm=4.0)
    kept = flags == 0
    assert abs(kept.mean() - 0.05) < 0.002
    assert not kept[3, 3]
    assert abs(image[kept].mean()) < 4 * NOISE / np.sqrt(kept.sum())


def test_lsst_s_rules(noise):
    image = (noise + moffat(SHAPE, 100, 100, 2e4) - moffat(SHAPE, 400, 300, 2e4)).astype(np.float32)
    variance = np.full(SHAPE, NOISE**2, np.float32)
    flags = np.zeros(SHAPE, np.uint8)
    detected, negative, edge = detect_as_lsst(image, variance, flags, threshold=5, multiplier=1, fwhm=4)
    assert edge == 6
    assert detected[100, 100]
    assert not detected[300, 400]
    assert negative[300, 400]
    assert not negative[100, 100]
    higher, _, _ = detect_as_lsst(image, variance, flags, threshold=5, multiplier=1000, fwhm=4)
    assert not higher.any()
    unknown = np.full(SHAPE, np.nan, np.float32)
    assert not detect_as_lsst(image, unknown, flags, threshold=5, multiplier=1, fwhm=4)[0].any()


@pytest.mark.parametrize(
    "setting",
    [
        {"peak_threshold": 0.0},
        {"peak_threshold": 1.0, "edge_threshold": 2.0},
        {"growth": -1.0},
        {"halo_light": float("nan")},
        {"least_sky": 1.5},
        {"darkest": -0.1},
    ],
)
def test_settings_out_of_range(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        SourceMaskConfig(**setting)
