"""L.A.Cosmic in compiled loops against the same steps written plainly, and on hits that are known."""

import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.estimate import fit_background
from skysub.pipeline.cosmic_rays import CosmicRayConfig, find_cosmic_rays
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene
from skysub.sources import cosmic_ray_kernels as kernels
from skysub.sources.flags import COSMIC_RAY, IGNORED

FWHM = 4.0
EDGE = 64


def median(image, reach):
    """Separable; pixels at the edge stay as they are."""
    for axis in (1, 0):
        moved = np.stack([np.roll(image, k, axis) for k in range(-reach, reach + 1)])
        inner = [slice(None), slice(None)]
        inner[axis] = slice(reach, -reach)
        filtered = image.copy()
        filtered[tuple(inner)] = np.median(moved, axis=0)[tuple(inner)]
        image = filtered
    return image


def convolved(image, kernel):
    padded = np.pad(image, 3)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    return np.einsum("yxba,ba->yx", windows, kernel)


def grown(hits):
    padded = np.pad(hits, 1)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).any((2, 3))


def replaced(image, hits, bad):
    out = image.copy()
    for y, x in np.argwhere(hits):
        window = slice(y - 2, y + 3), slice(x - 2, x + 3)
        out[y, x] = np.median(image[window][~(hits | bad)[window]])
    return out


def plainly(light, bad, psf, sigma, low, contrast):
    """Two iterations on light in units of the noise, unit of the noise 1."""
    bad = grown(bad)
    inner = np.zeros(light.shape, bool)
    inner[7:-7, 7:-7] = True
    variance, hits = 1 + np.maximum(light, 0), np.zeros(light.shape, bool)
    for _ in range(2):
        noise = np.sqrt(median(variance, 3))
        fine = np.kron(light, np.ones((2, 2)))
        laplacian = 4 * fine - sum(np.roll(fine, k, axis) for k in (-1, 1) for axis in (0, 1))
        positive = np.maximum(laplacian, 0)
        sharp = positive.reshape(EDGE, 2, EDGE, 2).mean((1, 3)) / (2 * noise)
        sharp[[0, -1]] = sharp[:, [0, -1]] = 0
        sharp -= median(sharp, 3)
        matched = convolved(light / noise**2, psf) / convolved(1 / noise**2, psf)
        fine = np.maximum((matched - median(matched, 4)) / noise, 0.01)
        found = inner & ~bad & (sharp > sigma) & (sharp / fine > contrast)
        found = grown(found) & ~bad & (sharp > sigma)
        found = grown(found) & ~bad & (sharp > low)
        hits |= found
        light, variance = replaced(light, hits, bad), replaced(variance, hits, bad)
    return hits, light


def psf():
    square = (np.arange(7) - 3) ** 2
    profile = np.exp(-4 * np.log(2) * (square[:, None] + square) / FWHM**2)
    return (profile / profile.sum()).astype(np.float32)


def scene(seed):
    """A star, a track and noise of 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:EDGE, :EDGE]
    light = rng.normal(0, 1, (EDGE, EDGE))
    for _ in range(3):
        cy, cx = rng.uniform(15, 50, 2)
        light += rng.uniform(20, 400) * np.exp(-4 * np.log(2) * ((y - cy) ** 2 + (x - cx) ** 2) / FWHM**2)
    for _ in range(4):
        cy, cx = rng.integers(12, 45, 2)
        light[cy, cx : cx + rng.integers(1, 7)] += rng.uniform(15, 200)
    return light.astype(np.float32), rng.random((EDGE, EDGE)) < 0.002


@pytest.mark.parametrize("seed", range(6))
def test_the_same_pixels_as_the_steps_one_by_one(seed):
    light, bad = scene(seed)
    level = np.full((EDGE, EDGE), 700, np.float32)
    hits, cleaned = np.empty((EDGE, EDGE), np.uint8), np.empty_like(level)
    planes = np.full((kernels.PLANES, EDGE, EDGE), np.nan, np.float32)
    light[bad] = 0
    image = level + light
    seen = image - level
    count = kernels.search_block(
        image, level, np.where(bad, IGNORED, 0).astype(np.uint8), np.uint8(IGNORED), 0, 0, np.float32(1),
        psf(), np.float32(4.5), np.float32(1.35), np.float32(5), 2, planes, hits, cleaned,
    )  # fmt: skip
    expected, left = plainly(seen.astype(float), bad, psf().astype(float), 4.5, 1.35, 5.0)
    assert expected.sum() > 3
    assert count >= expected.sum()
    np.testing.assert_array_equal(hits == 1, expected)
    np.testing.assert_allclose(cleaned, left, atol=1e-3)


def test_median_of_seven():
    rng = np.random.default_rng(1)
    # with and without equal values
    for image in (rng.integers(0, 4, (64, 64)).astype(np.float32), rng.random((64, 64), np.float32)):
        spare, out = np.empty_like(image), np.empty_like(image)
        kernels._median_filter(image, spare, out)
        np.testing.assert_array_equal(out, median(image, 3))


def flat_sky(shape, level):
    config = BackgroundConfig(weighting=False, order=0)
    return fit_background(np.full(shape, level, np.float32), config=config)


def search(image, flags=None, **settings):
    flags = np.zeros(image.shape, np.uint8) if flags is None else flags
    sky = flat_sky(image.shape, 500)
    clean = find_cosmic_rays(image, sky, flags, CosmicRayConfig(**settings), noise=5.0, fwhm=FWHM)
    return flags, clean


def test_hits_at_edges_and_across_blocks():
    rng = np.random.default_rng(3)
    image = rng.normal(500, 5, (200, 230)).astype(np.float32)
    # the outermost row and column are not judged by themselves
    tracks = [(2, slice(100, 104)), (197, slice(60, 63)), (slice(80, 84), 2), (slice(30, 33), 227)]
    tracks += [(slice(0, 4), 150), (190, slice(226, 230))]
    tracks += [(64, slice(29, 35)), (slice(5, 9), 5)]
    for track in tracks:
        image[track] += 400
    before = image.copy()
    flags, clean = search(image, interpolate=True)
    hit = (flags & COSMIC_RAY) != 0
    np.testing.assert_array_equal(image, before)
    for track in tracks:
        assert hit[track].mean() > 0.9, track
        assert np.abs(clean[track][hit[track]] - 500).max() < 40
    assert hit.sum() < 130
    np.testing.assert_array_equal(clean[~hit], image[~hit])
    assert ((flags & IGNORED) != 0)[hit].all()


def test_what_is_not_judged():
    image = np.random.default_rng(3).normal(500, 5, (100, 120)).astype(np.float32)
    image[50, 40:44] += 400
    image[20, 20:24] += 400
    image[70, 70] = np.nan
    flags = np.zeros(image.shape, np.uint8)
    flags[48:53, 38:46] = IGNORED
    found, _ = search(image, flags)
    assert not (found[45:56, 35:50] & COSMIC_RAY).any()
    assert (found[20, 20:24] & COSMIC_RAY).all()


def test_whatever_the_unit():
    rng = np.random.default_rng(3)
    image = rng.normal(500, 5, (100, 120)).astype(np.float32)
    image[50, 40:44] += 400
    for factor in (1e-3, 1e3):
        flags = np.zeros(image.shape, np.uint8)
        sky = flat_sky(image.shape, 500 * factor)
        scaled = image * np.float32(factor)
        find_cosmic_rays(scaled, sky, flags, CosmicRayConfig(), noise=5.0 * factor, fwhm=FWHM)
        assert (flags[50, 40:44] & COSMIC_RAY).all(), factor


@pytest.mark.parametrize(("name", "least", "most_false"), [("quiet", 0.6, 0.4), ("crowded:30", 0.6, 0.3)])
def test_true_cosmic_rays(name, least, most_false):
    visit_image, truth = simulate_detector(named_scene(name), 1, 0, seed=5, shape=(1000, 1018))
    noise = float(np.median(np.sqrt(visit_image.variance)))
    true = truth.planes["cosmic_rays"] > 10 * noise
    flags = np.where(visit_image.mask != 0, IGNORED, 0).astype(np.uint8)
    usable = flags == 0
    sky = fit_background(visit_image.image, flags != 0)
    find_cosmic_rays(visit_image.image, sky, flags, CosmicRayConfig(), noise=noise, fwhm=FWHM)
    found = (flags & COSMIC_RAY) != 0
    touched = truth.planes["cosmic_rays"] > noise
    assert found[true & usable].mean() > least
    assert (found & ~touched).sum() < most_false * found.sum()
