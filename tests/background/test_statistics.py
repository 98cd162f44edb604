"""Kernels against the rules in plain NumPy, over shapes, types, masks and distributions of pixels."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import skysub
from skysub.background import kernels, quartile_kernels
from skysub.background.clipping import superpixel_statistics
from skysub.background.superpixels import SuperpixelGrid
from tests.background import plain

KINDS = (
    "gauss",
    "cauchy",
    "integers",
    "two_values",
    "bimodal",
    "constant",
    "ramp",
    "tiny",
    "huge",
    "pedestal",
)


def pixels(kind, shape, seed, dtype):
    random = np.random.default_rng(seed)
    gauss = random.standard_normal(shape)
    image = {
        "gauss": lambda: 1000 + 30 * gauss,
        "cauchy": lambda: 1000 + 30 * random.standard_cauchy(shape),
        "integers": lambda: np.rint(1000 + 2.2 * gauss),
        "two_values": lambda: np.where(random.random(shape) < 0.3, 7.0, 9.0),
        "bimodal": lambda: np.where(random.random(shape) < 0.5, 0.0, 5000.0) + gauss,
        "constant": lambda: np.full(shape, 123.456),
        "ramp": lambda: np.add.outer(50.0 * np.arange(shape[0]), 3.0 * np.arange(shape[1])) + gauss,
        "tiny": lambda: 1e-20 * (1000 + 30 * gauss),
        "huge": lambda: 1e15 * (1000 + 30 * gauss),
        "pedestal": lambda: 1e7 + 3 * gauss,
    }[kind]()
    return image.astype(dtype)


def agree(statistics, expected):
    value, error, count = expected
    np.testing.assert_array_equal(statistics.count, count)
    # the sums are taken in another order: one unit in the last place of float32
    np.testing.assert_allclose(statistics.mean, value.astype(np.float32), rtol=1.2e-7, atol=0)
    scale = np.max(np.abs(value), where=np.isfinite(value), initial=0.0)
    np.testing.assert_allclose(statistics.error, error.astype(np.float32), rtol=2.4e-7, atol=1e-12 * scale)


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    ny=st.integers(1, 150),
    nx=st.integers(1, 150),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    statistic=st.sampled_from(["meanclip", "mean", "median"]),
    sigma=st.sampled_from([1.0, 2.5, 3.0]),
    passes=st.integers(1, 5),
    masked=st.sampled_from([0.0, 0.03, 0.5, 0.99]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
@example("gauss", 150, 150, (70, 70), "meanclip", 3.0, 3, 0.03, np.float32, 1)
def test_statistics_follow_the_rules(kind, ny, nx, size, statistic, sigma, passes, masked, dtype, seed):
    # whole numbers may lie at exactly one sigma, where rounding decides whether they are clipped
    assume(not (kind == "integers" and sigma == 1.0))
    config = skysub.BackgroundConfig(
        superpixel=size, statistic=statistic, clip_sigma=sigma, clip_passes=passes
    )
    image = pixels(kind, (ny, nx), seed, dtype)
    random = np.random.default_rng(seed + 1)
    image[random.random((ny, nx)) < 0.01] = np.nan
    image[random.random((ny, nx)) < 0.002] = np.inf
    mask = np.where(random.random((ny, nx)) < masked, 4, 2).astype(np.int32)
    before = image.copy(), mask.copy()
    grid = SuperpixelGrid.over((ny, nx), config)
    statistics = superpixel_statistics(image, mask.view(np.uint32), 4, grid, config)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    expected = plain.statistics(image, mask == 4, grid, statistic=statistic, sigma=sigma, passes=passes)
    agree(statistics, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neighbour", ["none", "right", "far", "narrow"])
def test_quartiles_do_not_depend_on_the_guess(kind, neighbour):
    tile = np.full(128 * 128 + kernels.BLOCK, np.nan, np.float32)
    tile[: 128 * 128] = pixels(kind, (128, 128), 5, np.float32).ravel()
    tile[::37] = np.nan
    good = tile[np.isfinite(tile)]
    expected = plain.quartiles(good)
    guess = {
        "none": np.full(3, np.nan),
        "right": expected.copy(),
        "far": expected + 100 * (expected[2] - expected[0] + 1e-30),
        "narrow": expected[1] + (expected - expected[1]) * 1e-3,
    }[neighbour]
    marks, words = np.empty(len(tile), np.uint8), np.empty(len(tile), np.int32)
    marked, windows = (
        np.empty(quartile_kernels.ROOM, np.float32),
        np.empty((3, quartile_kernels.ROOM), np.float32),
    )
    found = quartile_kernels.quartiles_by_counting(tile, len(good), 3.0, guess, marks, words, marked, windows)
    if kind in {"gauss", "ramp", "tiny", "huge"}:
        assert found[0] >= 0, "counting should do here"
    if found[0] >= 0:
        np.testing.assert_array_equal(guess, expected)
    quartile_kernels.quartiles_by_sorting(tile, len(good), guess)
    np.testing.assert_array_equal(guess, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_what_lies_beside(kind):
    """The neighbour's guess, the group, the band and the number of threads change the time alone."""
    config = skysub.BackgroundConfig(superpixel=64)
    image = pixels(kind, (256, 640), 3, np.float32)
    image[:, 320:] *= np.float32(1.5)
    grid = SuperpixelGrid.over(image.shape, config)
    none = np.empty((0, 0), np.uint8)
    together = superpixel_statistics(image, none, 0, grid, config)
    threaded = superpixel_statistics(image, none, 0, grid, config, threads=3)
    for name in ("mean", "error", "count"):
        np.testing.assert_array_equal(getattr(together, name), getattr(threaded, name))
    for j in range(4):
        for i in range(10):
            alone = image[64 * j : 64 * j + 64, 64 * i : 64 * i + 64]
            one = superpixel_statistics(alone, none, 0, SuperpixelGrid.over(alone.shape, config), config)
            assert one.mean.tobytes() == together.mean[j, i].tobytes()
            assert one.error.tobytes() == together.error[j, i].tobytes()


def test_rim_and_whole_sums_are_used_alike():
    """A last clip far from the first, as in a field of faint sources, sums the tile afresh."""
    random = np.random.default_rng(8)
    image = (1000 + 30 * random.standard_normal((128, 128))).astype(np.float32)
    image[random.random(image.shape) < 0.2] += 60
    grid = SuperpixelGrid.over(image.shape, skysub.BackgroundConfig())
    for sigma in (1.0, 3.0, 6.0):
        config = skysub.BackgroundConfig(clip_sigma=sigma, clip_passes=6)
        got = superpixel_statistics(image, np.empty((0, 0), np.uint8), 0, grid, config)
        agree(got, plain.statistics(image, np.zeros(image.shape, bool), grid, sigma=sigma, passes=6))


@pytest.mark.parametrize("half", [0.0, 1e-30, 0.3, 5.0, 1e30])
@pytest.mark.parametrize("centre", [0.0, 1.0, 1000.1, -3.7, 1e15])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_are_inclusive_and_tight(centre, half, dtype):
    tile = np.empty(1, dtype)
    low, high = (dtype(v) for v in kernels._bounds(tile, centre, half))
    for bound, outward in ((low, -np.inf), (high, np.inf)):
        beyond = np.nextafter(bound, dtype(outward))
        assert not abs(float(beyond) - centre) <= half
        if low <= high:
            assert abs(float(bound) - centre) <= half


@pytest.mark.parametrize("mask_type", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, ">i4"])
def test_any_integer_mask(mask_type):
    image = pixels("gauss", (64, 64), 2, np.float32)
    mask = np.zeros((64, 64), mask_type)
    mask[:32] = 64
    image[:32] = 1e6
    background = skysub.fit_background(image, (mask, 64 | 1), skysub.BackgroundConfig(superpixel=64))
    assert background.statistics.count[0, 0] == 32 * 64
    assert abs(background.statistics.mean[0, 0] - 1000) < 5


def test_sign_bit_of_a_mask_is_a_bit():
    image = pixels("gauss", (64, 64), 2, np.float32)
    mask = np.zeros((64, 64), np.int32)
    mask[:32] = np.int32(-(2**31))
    for bits in (1 << 31, -(1 << 31)):
        background = skysub.fit_background(image, (mask, bits), skysub.BackgroundConfig(superpixel=64))
        assert background.statistics.count[0, 0] == 32 * 64


def test_statistics_of_what_a_model_leaves_do_not_depend_on_the_gradient():
    draw = np.random.default_rng(9)
    y, x = np.mgrid[:256, :300].astype(np.float64)
    u, v = (2 * y - 255) / 256, (2 * x - 299) / 300
    noise = draw.normal(0, 3, y.shape)
    monomials = np.array([[500.0, 80.0], [-60.0, 25.0]])
    model = 500 + 80 * v - 60 * u + 25 * u * v
    mask = (draw.random(y.shape) < 0.2 + 0.6 * (x > 150)).astype(np.uint8)
    config = skysub.BackgroundConfig(superpixel=64)
    grid = SuperpixelGrid.over((256, 300), config)
    steep = superpixel_statistics((model + noise).astype(np.float32), mask, 1, grid, config, model=monomials)
    flat = superpixel_statistics(noise.astype(np.float32), mask, 1, grid, config)
    np.testing.assert_allclose(steep.mean, flat.mean, atol=1e-3)
    np.testing.assert_allclose(steep.error, flat.error, rtol=1e-3)
    np.testing.assert_array_equal(steep.count, flat.count)
