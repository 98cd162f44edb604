"""The stand-in for sep's Background beside sep."""

import numpy as np
import pytest

from skysub.compat.sep import Background
from skysub.errors import ConfigError, InvalidImageError

NOISE = 20.0


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(5)
    ny, nx = 401, 506
    y, x = np.mgrid[:ny, :nx]
    image = 1000 + 0.3 * x + 0.5 * y + 20 * np.sin(x / 90) * np.cos(y / 70) + rng.normal(0, NOISE, (ny, nx))
    for _ in range(250):
        a, b = rng.integers(5, ny - 5), rng.integers(5, nx - 5)
        image[a - 4 : a + 5, b - 4 : b + 5] += rng.exponential(400)
    mask = np.zeros((ny, nx), bool)
    mask[100:180, 200:330] = True
    return image.astype(np.float32), mask


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bw": 32, "bh": 48},
        {"bw": 33, "bh": 41, "fw": 5, "fh": 1},
        {"bw": 50, "bh": 40, "fthresh": 3.0},
        {"fw": 1, "fh": 1},
        {"bw": 16, "bh": 16, "masked": True},
        {"bw": 600, "bh": 64},
    ],
)
def test_the_numbers_are_seps(scene, arguments):
    sep = pytest.importorskip("sep")
    image, mask = scene
    arguments = dict(arguments)
    mask = mask if arguments.pop("masked", False) else None
    theirs, ours = sep.Background(image, mask, **arguments), Background(image, mask, **arguments)
    assert ours.globalback == pytest.approx(theirs.globalback, abs=0.005 * NOISE)
    assert ours.globalrms == pytest.approx(theirs.globalrms, abs=0.002 * NOISE)
    apart = np.abs(ours.back() - theirs.back())
    # a pixel on the border of two levels of a histogram falls into one or the other
    assert apart.max() < 0.02 * NOISE
    assert np.sqrt(np.mean(apart**2)) < 0.003 * NOISE
    assert np.abs(ours.rms() - theirs.rms()).max() < 0.01 * NOISE


def test_in_place_operators_and_types(scene):
    sep = pytest.importorskip("sep")
    image, _ = scene
    theirs, ours = sep.Background(image), Background(image)
    a, b = image.copy(), image.copy()
    theirs.subfrom(a)
    ours.subfrom(b)
    np.testing.assert_allclose(b, a, atol=0.02 * NOISE)
    np.testing.assert_allclose(image - ours, b, atol=1e-3)
    assert ours.back().dtype == np.float64
    assert ours.back(np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.asarray(ours), ours.back())


def test_any_byte_order_threads_and_nan(scene):
    image, _ = scene
    plain = Background(image, threads=1)
    np.testing.assert_array_equal(Background(image.astype(">f4"), threads=3).back(), plain.back())
    holed = image.copy()
    holed[50:60, 50:60] = np.nan
    assert np.isfinite(Background(holed).back()).all()


def test_all_masked_is_zero_and_one_as_in_sep():
    background = Background(np.ones((100, 100)), np.ones((100, 100), bool))
    assert (background.globalback, background.globalrms) == (0.0, 1.0)
    np.testing.assert_array_equal(background.back(), 0)


def test_wrong_arguments_are_refused():
    image = np.ones((50, 60))
    with pytest.raises(ConfigError, match="bw must be a whole number"):
        Background(image, bw=0)
    with pytest.raises(InvalidImageError, match="mask"):
        Background(image, np.ones((5, 5)))
    with pytest.raises(InvalidImageError, match="shape"):
        Background(image).subfrom(np.ones((5, 5)))
    with pytest.raises(InvalidImageError, match="in place"):
        Background(image).subfrom(np.ones((50, 60), int))
