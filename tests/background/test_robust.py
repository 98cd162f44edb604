"""The robust fit: what it follows, what it leaves, and what it knows about itself."""

import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.robust import TRACE, RobustConfig, fit_robust, one_sided
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.errors import ConfigError, NoUsableSuperpixelsError

SHAPE = (2048, 2048)
ERROR = 0.25


def sky(grid):
    y, x = np.meshgrid(grid.y_centers / SHAPE[0], grid.x_centers / SHAPE[1], indexing="ij")
    return 900 + 8 * x - 5 * y + 3 * x * y + 2 * y * y


def statistics(values, *, error=ERROR, count=16384):
    shape = values.shape
    return SuperpixelStatistics(
        mean=values.astype(np.float32),
        error=np.full(shape, error, np.float32),
        count=np.full(shape, count, np.int32),
    )


@pytest.fixture(scope="module")
def grid():
    return SuperpixelGrid.over(SHAPE, BackgroundConfig())


@pytest.fixture
def noisy(grid):
    return sky(grid) + np.random.default_rng(4).normal(0, ERROR, grid.shape)


def fit(grid, values, *, config=None, robust=None, light=0.0, believed=False, **kwargs):
    return fit_robust(
        grid,
        statistics(values, **kwargs),
        config or BackgroundConfig(),
        robust or RobustConfig(),
        light=light,
        believed=believed,
    )


def model_at_centres(grid, found):
    ys, xs = np.round(grid.y_centers).astype(int), np.round(grid.x_centers).astype(int)
    return found.background.evaluate()[np.ix_(ys, xs)]


def test_smooth_sky_costs_few_coefficients(grid, noisy):
    found = fit(grid, noisy)
    off = model_at_centres(grid, found) - sky(grid)
    # degrees that the sky lacks count for less, as the prior is not much wider than their coefficients'
    # errors; for nothing where sources make the most of what superpixels show
    assert found.freedom < 23
    assert fit(grid, noisy, light=TRACE).freedom < 14
    assert np.sqrt(np.mean(off**2)) < 0.08
    free = fit(grid, noisy, robust=RobustConfig(prior=False))
    assert free.freedom == pytest.approx(28, abs=0.1)
    worse = model_at_centres(grid, free) - sky(grid)
    assert np.std(off) < np.std(worse)


def test_structure_that_is_there_is_followed(grid):
    y, x = np.meshgrid(grid.y_centers / SHAPE[0], grid.x_centers / SHAPE[1], indexing="ij")
    true = 900 + 10 * np.cos(5 * x) * np.sin(4 * y)
    found = fit(grid, true + np.random.default_rng(1).normal(0, ERROR, grid.shape))
    assert np.std(model_at_centres(grid, found) - true) < 0.3


def test_superpixels_full_of_light_are_not_believed(grid, noisy):
    rng = np.random.default_rng(7)
    bright = rng.random(grid.shape) < 0.25
    values = noisy + np.where(bright, rng.exponential(20, grid.shape) + 1, 0)
    found = fit(grid, values)
    assert found.weights[bright & (values - noisy > 5)].max() < 0.1
    assert abs(np.mean(model_at_centres(grid, found) - sky(grid))) < 0.1
    plain = fit(grid, values, robust=RobustConfig(cut_above=1e6, cut_below=1e6))
    assert np.mean(model_at_centres(grid, plain) - sky(grid)) > 3


def test_asymmetric_weights_do_not_shift_mere_noise(grid):
    rng = np.random.default_rng(8)
    offsets = [
        np.mean(
            model_at_centres(
                grid,
                fit(
                    grid,
                    900 + rng.normal(0, ERROR, grid.shape),
                    robust=RobustConfig(cut_above=2.0, cut_below=6.0),
                ),
            )
        )
        - 900
        for _ in range(20)
    ]
    assert abs(np.mean(offsets)) < 0.01


def test_a_corner_without_sky_is_extrapolated_tamely_and_said(grid, noisy):
    values = noisy.copy()
    values[:7, :7] = np.nan
    found = fit(grid, values)
    off = np.abs(model_at_centres(grid, found) - sky(grid))
    assert found.deviation[0, 0] > 3 * np.median(found.deviation)
    assert found.extrapolated[0, 0]
    assert not found.extrapolated[8:, 8:].any()
    assert off[:7, :7].max() < 4
    assert off[0, 0] < 4 * found.deviation[0, 0]
    runaway = fit(grid, values, robust=RobustConfig(prior=False))
    assert off[:7, :7].max() < np.abs(model_at_centres(grid, runaway) - sky(grid))[:7, :7].max()


def test_uncertainty_is_that_of_the_fit(grid):
    pulls = []
    for seed in range(6):
        values = sky(grid) + np.random.default_rng(seed).normal(0, ERROR, grid.shape)
        found = fit(grid, values)
        pulls.append((model_at_centres(grid, found) - sky(grid)) / found.deviation)
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.5


def test_few_superpixels_lower_the_order(grid, noisy):
    values = np.full(grid.shape, np.nan)
    values[3, 2:9] = noisy[3, 2:9]
    found = fit(grid, values)
    assert found.background.order == 0
    assert "7 of 16 x 16" in found.background.reduced
    assert abs(np.median(found.background.evaluate()) - np.nanmean(values)) < 3


def test_one_superpixel(grid):
    values = np.full(grid.shape, np.nan)
    values[5, 5] = 77
    found = fit(grid, values)
    np.testing.assert_allclose(found.background.evaluate()[::500, ::500], 77, atol=1e-3)


def test_scale_does_not_matter(grid, noisy):
    small = fit(grid, noisy)
    large = fit(grid, 1e6 * noisy, error=1e6 * ERROR)
    np.testing.assert_allclose(
        large.background.evaluate()[::100, ::100], 1e6 * small.background.evaluate()[::100, ::100], rtol=1e-5
    )


def test_constant_pixels_have_no_errors(grid):
    found = fit(grid, np.full(grid.shape, 500.0), error=0.0)
    np.testing.assert_allclose(found.background.evaluate()[::300, ::300], 500, rtol=1e-6)
    assert (found.deviation == 0).all()


def test_nothing_to_fit(grid):
    with pytest.raises(NoUsableSuperpixelsError):
        fit(grid, np.full(grid.shape, np.nan), count=0)


@pytest.mark.parametrize("setting", [{"cut_above": 0.5}, {"cut_below": float("nan")}])
def test_settings_out_of_range(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        RobustConfig(**setting)


def steep(grid):
    """A sky that no polynomial of order 6 follows, in units of the superpixels' errors."""
    y, x = np.meshgrid(grid.y_centers / 2048, grid.x_centers / 2048, indexing="ij")
    return 600 / ((x - 1.15) ** 2 + (y - 1.1) ** 2)


def test_a_smooth_sky_that_is_too_much_for_the_polynomial_is_believed_everywhere(grid):
    noisy = steep(grid) + np.random.default_rng(3).normal(0, 1, grid.shape)
    found = fit(grid, noisy, error=1.0)
    assert found.balanced
    assert (found.weights == 1).all()
    off = model_at_centres(grid, found) - steep(grid)
    assert abs(off.mean()) < 0.05 * off.std()
    # said in the errors, which pixel noise alone would make 0.3
    assert found.inflation > 3


def test_light_that_spreads_over_superpixels_is_not_believed(grid):
    y, x = np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij")
    galaxy = 40 * np.exp(-np.hypot(y - 700, x - 1300) / 250)
    found = fit(grid, 100 + x / 500 + galaxy + np.random.default_rng(4).normal(0, 1, grid.shape), error=1.0)
    assert found.one_sided == 1
    off = model_at_centres(grid, found) - (100 + x / 500)
    assert np.sqrt(np.mean(off[galaxy < 1] ** 2)) < 1.2
    assert found.weights[np.unravel_index(galaxy.argmax(), galaxy.shape)] == 0
    lean = fit(grid, 100 + x / 500 + galaxy, error=1.0, believed=True)
    assert (lean.weights == 1).all()
    assert np.abs(model_at_centres(grid, lean) - (100 + x / 500)).max() > 5


def test_sure_of_light_the_fit_leans_below_what_scatters(grid):
    noisy = np.random.default_rng(5).normal(0, 1, grid.shape)
    calm, wary = fit(grid, noisy, error=1.0), fit(grid, noisy, error=1.0, light=1.0)
    assert calm.balanced
    assert not wary.balanced
    assert wary.weights.min() < 0.6
    # its weights lean, and what that shifts is put back
    assert abs(model_at_centres(grid, wary).mean() - noisy.mean()) < 0.1


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, 1.0)])
def test_few_deep_holes_are_one_sided_like_few_high_peaks(sign, expected):
    pulls = np.random.default_rng(6).normal(0, 1, 400)
    assert one_sided(pulls) == 0
    pulls[:8] = sign * 15
    assert one_sided(pulls) == expected


def test_scatter_beyond_the_errors_is_counted_once(grid):
    # three times the errors, independent: the covariance grows by nine, not by nine times nine
    values = sky(grid) + np.random.default_rng(21).normal(0, 3 * ERROR, grid.shape)
    found = fit(grid, values, believed=True)
    assert 7 < found.inflation < 15
