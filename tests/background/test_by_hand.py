"""Numbers worked out by hand, and clips that end where ordinary skies have none."""

import numpy as np
import pytest

import skysub
from skysub.background.chebyshev import design_matrix
from skysub.background.clipping import superpixel_statistics
from skysub.background.model import median_filtered
from skysub.background.quartile_kernels import CORE, RIM
from skysub.background.superpixels import SuperpixelGrid
from tests.background import plain
from tests.background.test_statistics import agree

NO_MASK = np.zeros((0, 0), np.uint32)


def ends(good, clips=2):
    """Ends of the first clips, about the first one's centre and in its half-widths."""
    q1, median, q3 = plain.quartiles(good)
    first = 3 * 0.741301109252802 * (q3 - q1)
    centre, half, found = median, first, []
    for _ in range(clips):
        found.append(((centre - half - median) / first, (centre + half - median) / first))
        centre, variance = plain.moments(good[np.abs(good.astype(np.float64) - centre) <= half], centre)
        half = 3 * np.sqrt(variance)
    return found


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_later_clip_that_reaches_beyond_the_rim_on_one_side(side, dtype):
    rng = np.random.default_rng(5)
    good = np.concatenate([rng.normal(0, 1, 3470), rng.normal(3.3, 0.5, 610)])
    (_, (low, high)) = ends(good)
    # what it would miss lies between the end of the rim and that of the clip
    q1, median, q3 = plain.quartiles(good)
    first = 3 * 0.741301109252802 * (q3 - q1)
    beyond = median + first * np.linspace(RIM, high, 18)[1:-1]
    good = np.concatenate([good, beyond])
    (_, (low, high)) = ends(good)
    assert -RIM < low < -CORE
    assert high > RIM
    image = rng.permutation(side * good).reshape(64, 64).astype(dtype)
    config = skysub.BackgroundConfig(superpixel=64, clip_passes=2)
    grid = SuperpixelGrid.over(image.shape, config)
    found = superpixel_statistics(image, NO_MASK, 0, grid, config)
    agree(found, plain.statistics(image, np.zeros(image.shape, bool), grid, passes=2))


@pytest.mark.parametrize("seed", range(40))
def test_clips_of_lopsided_skies_follow_the_rules(seed):
    rng = np.random.default_rng(seed)
    share, place, width = rng.uniform(0.02, 0.3), rng.uniform(1.5, 6), rng.uniform(0.05, 1.5)
    gauss = rng.normal(0, 1, (60, 70))
    tail = rng.normal(place, width, gauss.shape)
    image = rng.choice([-1, 1]) * np.where(rng.random(gauss.shape) < share, tail, gauss) + rng.uniform(
        -50, 50
    )
    config = skysub.BackgroundConfig(superpixel=(35, 30), clip_passes=int(rng.integers(1, 6)))
    grid = SuperpixelGrid.over(image.shape, config)
    for dtype in (np.float32, np.float64):
        typed = image.astype(dtype)
        found = superpixel_statistics(typed, NO_MASK, 0, grid, config)
        agree(found, plain.statistics(typed, np.zeros(typed.shape, bool), grid, passes=config.clip_passes))


def test_the_median_filter_mirrors_the_edge_itself():
    values = np.add.outer(10.0 * np.arange(4), np.arange(5.0))
    found = median_filtered(values, 3)
    assert found[1:-1, 1:-1].tolist() == values[1:-1, 1:-1].tolist()
    # about the corner: 0 four times, 1 and 10 twice, 11 once
    assert found[0, 0] == 1
    # 34 four times, 33 and 24 twice, 23 once
    assert found[3, 4] == 33
    # 4 four times, 3 and 14 twice, 13 once: a median of 4; then 30 four times, 20, 31 and 21
    assert (found[0, 4], found[3, 0]) == (4, 30)
    # along the edges: of 1, 2, 3 twice and 11, 12, 13 the fifth
    assert found[0, 2] == 3
    values[1, 3] = np.nan
    # it counts as the median of all
    assert median_filtered(values, 3)[1, 3] == np.median([2, 3, 4, 12, np.nanmedian(values), 14, 22, 23, 24])


def test_the_fit_of_a_filtered_grid_is_that_of_the_filtered_values():
    rng = np.random.default_rng(2)
    image = rng.normal(100, 1, (160, 240)) + np.add.outer(0.3 * np.arange(160), -0.1 * np.arange(240))
    settings = {"superpixel": 40, "order": 1, "weighting": False}
    filtered = skysub.fit_background(image, None, skysub.BackgroundConfig(**settings, superpixel_filter=3))
    values = median_filtered(filtered.statistics.mean.astype(np.float64), 3)
    y, x = np.meshgrid(filtered.grid.y_centers, filtered.grid.x_centers, indexing="ij")
    matrix = design_matrix(x.ravel(), y.ravel(), shape=image.shape, order=1)
    expected = np.linalg.lstsq(matrix, values.ravel(), rcond=None)[0]
    np.testing.assert_allclose(filtered.coefficients, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def tilted():
    """A fit whose grid, order and errors are alike in no two directions."""
    rng = np.random.default_rng(8)
    shape = (150, 250)
    noise = np.linspace(1, 5, shape[1])
    image = 200 + np.add.outer(-0.2 * np.arange(shape[0]), 0.05 * np.arange(shape[1]))
    image = image + rng.normal(0, 1, shape) * noise
    ignored = np.zeros(shape, bool)
    ignored[:50, :100] = True
    return skysub.fit_background(image, ignored, skysub.BackgroundConfig(superpixel=(50, 30), order=2))


def test_model_and_uncertainty_at_a_pixel_are_those_of_its_terms(tilted):
    for y, x in ((0, 0), (3, 240), (149, 7), (70, 201)):
        terms = design_matrix(np.array([float(x)]), np.array([float(y)]), shape=tilted.shape, order=2)[0]
        window = {"y": slice(y, y + 1), "x": slice(x, x + 1)}
        assert tilted.evaluate(**window)[0, 0] == pytest.approx(terms @ tilted.coefficients, rel=1e-6)
        deviation = np.sqrt(terms @ tilted.covariance @ terms)
        assert tilted.uncertainty(**window)[0, 0] == pytest.approx(deviation, rel=1e-5)


def test_the_fit_weighs_by_errors_and_says_how_far_it_is_off(tilted):
    statistics = tilted.statistics
    iy, ix = np.nonzero(tilted.usable)
    assert not tilted.usable[:1, :2].any()
    matrix = design_matrix(tilted.grid.x_centers[ix], tilted.grid.y_centers[iy], shape=tilted.shape, order=2)
    values, errors = (
        plane[tilted.usable].astype(np.float64) for plane in (statistics.mean, statistics.error)
    )
    assert errors.max() > 2 * errors.min()
    # the weight of a squared residual is 1 / error, as in afw
    root = np.sqrt(errors)
    expected, *_ = np.linalg.lstsq(matrix / root[:, None], values / root, rcond=None)
    np.testing.assert_allclose(tilted.coefficients, expected, rtol=1e-5, atol=1e-6)
    left = (values - matrix @ expected) / errors
    freedom = len(values) - 6
    assert tilted.chi2_per_freedom == pytest.approx(np.sum(left**2) / freedom, rel=1e-5)
