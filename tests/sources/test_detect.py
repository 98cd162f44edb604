"""Footprints: found, measured and shared among threads."""

import numpy as np
import pytest
from scipy import ndimage

from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.sources.detect import (
    FWHM_TO_SIGMA,
    find_footprints,
    grown,
    runs_above,
    smoothed,
    smoothed_noise,
    smoothing_kernel,
)
from skysub.sources.flags import (
    EXTENDED,
    IGNORED,
    SATURATED,
    SOURCE,
    count_pixels,
    mark_planes,
    working_flags,
)
from skysub.sources.noise import pixel_noise

SHAPE = (200, 237)
LEVEL, NOISE = 500.0, 10.0


def gaussian(shape, x, y, flux, fwhm=4.0):
    sigma = fwhm * FWHM_TO_SIGMA
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return flux * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def found(image, flags=None, *, monomials=None, threads=1, peak=5.0, edge=2.5, fwhm=4.0):
    grid = SuperpixelGrid.over(image.shape, BackgroundConfig(superpixel=64))
    kernel = smoothing_kernel(fwhm)
    return find_footprints(
        image.astype(np.float32, copy=False),
        np.zeros(image.shape, np.uint8) if flags is None else flags,
        np.full((1, 1), LEVEL) if monomials is None else monomials,
        np.full(grid.shape, NOISE * smoothed_noise(kernel)),
        grid,
        kernel=kernel,
        peak_threshold=peak,
        edge_threshold=edge,
        threads=threads,
    )


@pytest.fixture(scope="module")
def field():
    image = np.random.default_rng(1).normal(LEVEL, NOISE, SHAPE)
    for x, y, flux in ((40.3, 50.8, 8000), (120, 130, 20000), (200, 60, 5000)):
        image += gaussian(SHAPE, x, y, flux)
    return image


def test_sources_are_found_where_they_are(field):
    f = found(field)
    assert len(f) == 3
    order = np.argsort(f.x)
    np.testing.assert_allclose(f.x[order], [40.3, 120, 200], atol=0.8)
    np.testing.assert_allclose(f.y[order], [50.8, 130, 60], atol=0.8)
    assert np.all(np.abs(f.flux[order] / [8000, 20000, 5000] - 1) < 0.2)
    # round sources have round footprints
    assert np.all(np.abs(f.xx / f.yy - 1) < 0.5)


def test_any_number_of_threads_gives_the_same_footprints(field):
    one, three = found(field, edge=1.5), found(field, edge=1.5, threads=3)
    for name in ("area", "flux", "peak", "xy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
    for name in ("y", "start", "stop", "label"):
        np.testing.assert_array_equal(getattr(one.runs, name), getattr(three.runs, name))


def test_a_footprint_is_kept_by_its_peak(field):
    faint = np.full(SHAPE, LEVEL) + gaussian(SHAPE, 100, 100, 1500)
    assert len(found(faint, peak=5.0)) == 1
    assert len(found(faint, peak=40.0)) == 0
    assert len(found(field, peak=3.0, edge=3.0)) >= len(found(field, peak=5.0, edge=3.0))


def test_a_model_with_slopes_is_followed():
    v, u = ((2 * np.arange(n) - n + 1) / n for n in SHAPE)
    image = LEVEL + 300 * u[None, :] - 200 * v[:, None] ** 2 + gaussian(SHAPE, 60, 70, 5000)
    monomials = np.zeros((15, 15))
    monomials[0, 0], monomials[0, 1], monomials[2, 0] = LEVEL, 300, -200
    for order in (3, 9, 15):
        f = found(image, monomials=monomials[:order, :order])
        assert len(f) == 1
        assert abs(f.x[0] - 60) < 0.2
        assert abs(f.flux[0] / 5000 - 1) < 0.1


def test_nan_and_ignored_pixels_are_empty_sky(field):
    image = field.copy()
    image[:, 90:94] = np.nan
    image[20:24, 20:24] = 1e6
    flags = np.zeros(SHAPE, np.uint8)
    flags[20:24, 20:24] = IGNORED
    assert len(found(image, flags)) == 3


def test_saturated_pixels_count_as_light(field):
    flags = np.zeros(SHAPE, np.uint8)
    flags[129:132, 119:122] = SATURATED
    f = found(field, flags)
    star = np.argmin(np.hypot(f.x - 120, f.y - 130))
    assert f.saturated[star] == 9
    assert f.saturated.sum() == 9


def test_unknown_noise_finds_nothing(field):
    grid = SuperpixelGrid.over(SHAPE, BackgroundConfig(superpixel=64))
    for noise in (np.nan, 0.0):
        f = find_footprints(
            field.astype(np.float32),
            np.zeros(SHAPE, np.uint8),
            np.full((1, 1), LEVEL),
            np.full(grid.shape, noise),
            grid,
            kernel=smoothing_kernel(4),
            peak_threshold=5,
            edge_threshold=2,
        )
        assert len(f) == 0


@pytest.mark.parametrize("density", [0.05, 0.4, 0.6, 0.95])
@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 131])
def test_labels_are_those_of_scipy(density, width):
    rng = np.random.default_rng(int(100 * density) + width)
    pixels = (rng.random((57, width)) < density).astype(np.float32)
    runs = runs_above(pixels, 0.5, 0.9)
    mine = np.zeros(pixels.shape, int)
    for y, a, b, label in zip(runs.y, runs.start, runs.stop, runs.label, strict=True):
        assert not mine[y, a:b].any()
        mine[y, a:b] = label + 1
    theirs, n = ndimage.label(pixels, np.ones((3, 3)))
    assert runs.footprints == n
    assert len(np.unique(mine * (n + 1) + theirs)) == len(np.unique(theirs))


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
def test_only_runs_with_a_peak_are_kept(width):
    rng = np.random.default_rng(width)
    values = rng.random((40, width)).astype(np.float32)
    runs = runs_above(values, 0.7, 0.95)
    labels, n = ndimage.label(values >= 0.7, np.ones((3, 3)))
    peaked = [k for k in range(1, n + 1) if values[labels == k].max() >= 0.95]
    assert runs.footprints == len(peaked)
    mine = np.zeros(values.shape, bool)
    for y, a, b in zip(runs.y, runs.start, runs.stop, strict=True):
        mine[y, a:b] = True
    np.testing.assert_array_equal(mine, np.isin(labels, peaked))


@pytest.mark.parametrize("width", [1, 64, 150])
def test_runs_grow_into_circles(width):
    values = (np.random.default_rng(width).random((60, width)) < 0.01).astype(np.float32)
    runs = runs_above(values, 0.5, 0.5)
    radius = 1.0 + np.arange(runs.footprints) % 5
    expected = np.zeros(values.shape, bool)
    yy, xx = np.mgrid[: values.shape[0], :width]
    for y, a, b, k in zip(runs.y, runs.start, runs.stop, runs.label, strict=True):
        for x in range(a, b):
            expected |= np.hypot(yy - y, xx - x) <= radius[k]
    np.testing.assert_array_equal(grown(runs, radius, values.shape), expected)


@pytest.mark.parametrize("fwhm", [1.5, 4.0, 9.0])
@pytest.mark.parametrize("taps", [6, None])
def test_smoothing_is_a_convolution(fwhm, taps):
    kernel = smoothing_kernel(fwhm, taps=taps)
    both = np.concatenate([kernel[:0:-1], kernel])
    assert abs(both.sum() - 1) < 1e-6
    image = np.random.default_rng(2).normal(size=(40, 50)).astype(np.float32)
    expected = ndimage.convolve1d(
        ndimage.convolve1d(image, both, axis=0, mode="constant"), both, axis=1, mode="constant"
    )
    np.testing.assert_allclose(smoothed(image, kernel), expected, atol=2e-6)
    np.testing.assert_array_equal(smoothed(image, kernel, threads=3), smoothed(image, kernel))
    large = np.random.default_rng(3).normal(size=(500, 500)).astype(np.float32)
    inner = smoothed(large, kernel)[30:-30, 30:-30]
    assert abs(inner.std() / smoothed_noise(kernel) - 1) < 0.05


def test_lsst_kernel_width():
    # sigma 1.6986: int(7 sigma + 0.5) = 12, so 13 pixels wide
    assert len(smoothing_kernel(4.0, taps=None)) == 7


def test_pixel_noise_ignores_gradients_and_sources(field):
    grid = SuperpixelGrid.over(SHAPE, BackgroundConfig(superpixel=64))
    image = (field + np.linspace(0, 500, SHAPE[1])).astype(np.float32)
    noise = pixel_noise(image, np.zeros(SHAPE, np.uint8), grid)
    assert noise.shape == grid.shape
    assert abs(np.median(noise) / NOISE - 1) < 0.06


def test_pixel_noise_of_constant_and_empty_images_is_unknown():
    grid = SuperpixelGrid.over(SHAPE, BackgroundConfig(superpixel=64))
    nothing = np.zeros(SHAPE, np.uint8)
    assert np.isnan(pixel_noise(np.full(SHAPE, 7, np.float32), nothing, grid)).all()
    assert np.isnan(pixel_noise(np.full(SHAPE, np.nan, np.float32), nothing, grid)).all()
    tiny = SuperpixelGrid.over((3, 2), BackgroundConfig())
    assert np.isnan(pixel_noise(np.ones((3, 2), np.float32), np.zeros((3, 2), np.uint8), tiny)).all()


def test_working_flags_take_planes_apart():
    mask = np.array([[0, 1, 2, 3, 4]], np.int32)
    flags = working_flags(mask, ignored=1, saturated=2)
    np.testing.assert_array_equal(flags, [[0, IGNORED, SATURATED, IGNORED | SATURATED, 0]])
    wide = mask.astype(np.int64) << 40
    np.testing.assert_array_equal(working_flags(wide, ignored=1 << 40, saturated=2 << 40, threads=2), flags)


def test_sign_bits_of_masks_are_bits_like_others():
    mask = np.array([[-(2**31), 1, 0]], np.int32)
    np.testing.assert_array_equal(
        working_flags(mask, ignored=1 << 31, saturated=1), [[IGNORED, SATURATED, 0]]
    )


@pytest.mark.parametrize("shape", [(600, 70), (31, 130)])
def test_flagged_pixels_are_counted_by_superpixel(shape):
    flags = np.random.default_rng(4).integers(0, 16, shape).astype(np.uint8)
    flags[: shape[0] // 2] |= SOURCE
    grid = SuperpixelGrid.of_counts(shape, gy=2, gx=3)
    kinds = (SOURCE | EXTENDED, IGNORED)
    counted = count_pixels(flags, kinds, grid)
    for j in range(2):
        for i in range(3):
            cut = flags[grid.y_edges[j] : grid.y_edges[j + 1], grid.x_edges[i] : grid.x_edges[i + 1]]
            assert [*counted[:, j, i]] == [((cut & bits) != 0).sum() for bits in kinds]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_planes_are_marked_where_flags_say(dtype):
    rng = np.random.default_rng(5)
    mask = rng.integers(0, 64, (150, 33)).astype(dtype)
    flags = rng.integers(0, 32, mask.shape).astype(np.uint8)
    expected = mask & ~32
    expected[(flags & (SOURCE | EXTENDED)) != 0] |= 32
    expected[(flags & IGNORED) != 0] |= 8
    marks = {SOURCE | EXTENDED: 32, IGNORED: 8}
    out, given = np.empty_like(mask), mask.copy()
    mark_planes(mask, flags, marks, cleared=32, out=out, threads=2)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(mask, given)
    mark_planes(mask, flags, marks, cleared=32, out=mask)
    np.testing.assert_array_equal(mask, expected)


def test_images_that_cannot_be_written_or_lie_apart_are_searched(field):
    image = field.astype(np.float32)
    expected = found(image)
    apart = np.empty((2 * SHAPE[0], SHAPE[1]), np.float32)
    apart[::2] = image
    image.flags.writeable = False
    for given in (image, apart[::2]):
        np.testing.assert_array_equal(found(given).flux, expected.flux)
