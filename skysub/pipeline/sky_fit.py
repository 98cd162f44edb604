"""Fits of what a source mask leaves of an image, and what they tell of light and of the sky's structure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import design_matrix, monomial_coefficients
from skysub.background.clipping import superpixel_statistics
from skysub.background.robust import TRACE, RobustConfig, RobustFit, fit_robust
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.sources.flags import NOT_SKY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.pipeline.config import SkyConfig

__all__ = [
    "BETTER",
    "FEWEST_COMPARED",
    "UNDERFIT",
    "at_centres",
    "chi2_per_freedom",
    "filled_where_starved",
    "finer_fit",
    "fit_masked",
    "fit_with_compact_masked",
    "missed_structure",
    "moved_by",
    "statistics_about",
    "unfollowed_structure",
    "without_brightest",
]

_NEAR = 2
"""Superpixels on each side over which structure below the model is averaged,"""
_CLEAR_OF_NOISE = 12.0
"""beyond this many times the variance that noise alone would show."""
_CHANCE = 3.0
"""Errors of a superpixel by which it lies off the model by chance."""
FEWEST_COMPARED = 20
"""Superpixels that tell something of the others: fewer tell nothing."""
_FEW_BRIGHT = 0.01
"""Share of the superpixels that may be full of light without there being light at large."""
_OUTLIER, _OUTLIER_TURNS = 3.0, 6
"""Superpixels this many times the scatter of the darker ones above a fit of high order hold light."""
UNDERFIT, BETTER = 1.3, 0.7
"""Mean square of superpixels' pulls above which the polynomial does not follow the sky, and what a finer fit
must make of it; light of undetected sources leaves about as much in either."""


def fit_masked(
    grid: SuperpixelGrid,
    statistics: SuperpixelStatistics,
    config: BackgroundConfig,
    robust: RobustConfig,
    *,
    light: float,
    steep: bool = False,
    rugged: bool = False,
) -> RobustFit:
    """Fit to what a mask has left.

    Where there is no light at large, superpixels that lie off are judged by a finer fit: those that it
    follows are sky, and the others hold what the mask has left of a source. Where it is known that the sky is
    ``steep``, more than the polynomial follows, that is so whatever the residuals look like. Where it is
    ``rugged``, all superpixels are believed but the few that hold most light.
    """
    if rugged:
        # what lies off is sky as well
        fit = fit_robust(grid, statistics, config, robust, believed=True)
        trimmed = without_brightest(statistics, fit)
        return dataclasses.replace(fit_robust(grid, trimmed, config, robust, believed=True), one_sided=TRACE)
    fit = fit_robust(grid, statistics, config, robust, light=light)
    if light > TRACE or (fit.balanced and not steep):
        return fit
    trusted = _followed(grid, statistics, dataclasses.replace(config, order=2 * config.order), robust)
    if not trusted.any():
        return fit
    mean = np.where(trusted, statistics.mean, np.float32(np.nan))
    kept = fit_robust(grid, dataclasses.replace(statistics, mean=mean), config, robust, believed=True)
    kept = dataclasses.replace(
        kept,
        one_sided=TRACE,
        background=dataclasses.replace(kept.background, statistics=statistics),
    )
    return kept if steep or trusted.sum() > fit.background.usable.sum() else fit


def _followed(
    grid: SuperpixelGrid, statistics: SuperpixelStatistics, config: BackgroundConfig, robust: RobustConfig
) -> NDArray[np.bool_]:
    """(gy, gx): superpixels that a fit of high order follows, those far above it left out in turns."""
    mean = statistics.mean.copy()
    for _ in range(_OUTLIER_TURNS):
        finer = fit_robust(grid, dataclasses.replace(statistics, mean=mean), config, robust, believed=True)
        usable = finer.background.usable
        with np.errstate(divide="ignore", invalid="ignore"):
            pulls = np.where(usable, (statistics.mean - at_centres(finer.background)) / statistics.error, 0.0)
        # by the darker side, which light does not touch
        below = pulls[usable & (pulls < 0)]
        scatter = max(1.0, float(np.sqrt(np.mean(below**2)))) if below.size else 1.0
        bright = usable & (pulls > _OUTLIER * scatter)
        if not bright.any():
            break
        mean[bright] = np.nan
    return usable & ~bright


def without_brightest(statistics: SuperpixelStatistics, fit: RobustFit) -> SuperpixelStatistics:
    """Statistics without the few superpixels that lie highest above a fit."""
    residual = np.where(np.isfinite(statistics.mean), statistics.mean - at_centres(fit.background), -np.inf)
    if np.isfinite(residual).sum() < FEWEST_COMPARED:
        return statistics
    brightest = np.argsort(residual, axis=None)[-max(1, int(_FEW_BRIGHT * residual.size)) :]
    mean = statistics.mean.copy()
    mean.flat[brightest] = np.nan
    return dataclasses.replace(statistics, mean=mean)


def fit_with_compact_masked(
    image: NDArray[np.float32],
    compact: NDArray[np.uint8],
    guess: RobustFit,
    *,
    grid: SuperpixelGrid,
    background: BackgroundConfig,
    config: SkyConfig,
    threads: int,
) -> RobustFit:
    """Fit with compact sources masked alone, and without the few superpixels that hold most light.

    It tells whether there is light as large as what the polynomial follows. A mask of large sources hides
    what that is to be judged by, and a bright star in one superpixel says nothing of it.

    Parameters
    ----------
    compact
        Flags from `skysub.sources.mask.mask_compact`.
    """
    statistics = statistics_about(guess.background, image, compact, grid, background, threads=threads)
    first = fit_robust(grid, statistics, background, config.robust)
    if first.balanced:
        return first
    return fit_robust(grid, without_brightest(statistics, first), background, config.robust)


def filled_where_starved(
    fit: RobustFit, statistics: SuperpixelStatistics, inclusive: RobustFit, *, least: int
) -> SuperpixelStatistics | None:
    """Statistics whose starved superpixels are filled from those with compact sources masked alone.

    Where it is known that there is no light at large, that is better than to extrapolate. What the two kinds
    differ by on the average is taken off, and how much they scatter about it is the error. A superpixel stays
    starved where the fit knows it better from its neighbours, or where it lies off what a fit makes of its
    like, which tells of a large source.

    Parameters
    ----------
    fit, statistics
        With the mask.
    inclusive
        From `fit_with_compact_masked`, or a finer fit to the same superpixels.
    least
        Pixels of sky that a superpixel must have.

    Returns
    -------
    statistics
        None where there is nothing to fill.
    """
    wide = inclusive.background.statistics
    off = wide.mean - at_centres(inclusive.background)
    seen = (statistics.count >= least) & np.isfinite(statistics.mean)
    known = (wide.count >= least) & np.isfinite(wide.mean)
    both = seen & known
    if both.sum() < FEWEST_COMPARED or not np.any(known & ~seen):
        return None
    apart = (wide.mean - statistics.mean)[both].astype(np.float64)
    low, level, high = (float(value) for value in np.percentile(apart, (16, 50, 84)))
    error = np.hypot(wide.error, (high - low) / 2)
    starved = known & ~seen & (np.abs(off) < _CHANCE * error) & (fit.deviation > error)
    if not starved.any():
        return None
    return SuperpixelStatistics(
        mean=np.where(starved, wide.mean - level, statistics.mean).astype(np.float32),
        error=np.where(starved, error, statistics.error).astype(np.float32),
        count=np.where(starved, wide.count, statistics.count).astype(statistics.count.dtype),
    )


def statistics_about(
    model: Background,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    grid: SuperpixelGrid,
    config: BackgroundConfig,
    *,
    threads: int = 1,
) -> SuperpixelStatistics:
    """Statistics of the sky's superpixels, measured on what a model leaves and put back onto its level.

    Returns
    -------
    statistics
        What a superpixel without a gradient would show: the model at its centre plus the clipped mean of the
        residual.
    """
    monomials = monomial_coefficients(model.coefficients, model.order)
    left = superpixel_statistics(image, flags, NOT_SKY, grid, config, model=monomials, threads=threads)
    mean = (left.mean + at_centres(model, grid)).astype(np.float32)
    return SuperpixelStatistics(mean=mean, error=left.error, count=left.count)


def finer_fit(
    fit: RobustFit, config: BackgroundConfig, robust: RobustConfig, *, steep: bool = False
) -> RobustFit | None:
    """A fit of twice the order to look for sources by; None where the sky does not ask for it.

    It does where superpixels lie off the model by more than their errors, as much above it as below: that is
    a smooth sky which the polynomial cannot follow, and what lies above must not be taken for light.
    """
    if not fit.balanced:
        return None
    statistics = fit.background.statistics
    before = chi2_per_freedom(fit)
    if not (steep or before > UNDERFIT):
        return None
    finer = fit_robust(
        fit.background.grid,
        statistics,
        dataclasses.replace(config, order=2 * config.order),
        robust,
        believed=True,
    )
    if steep:
        return dataclasses.replace(finer, one_sided=min(finer.one_sided, TRACE))
    return finer if finer.balanced and chi2_per_freedom(finer) < BETTER * before else None


def chi2_per_freedom(fit: RobustFit) -> float:
    """Mean square of superpixels' pulls for each degree of freedom; NaN where there is none."""
    statistics = fit.background.statistics
    with np.errstate(divide="ignore", invalid="ignore"):
        pulls = (statistics.mean - at_centres(fit.background)) / statistics.error
    pulls = pulls[fit.background.usable & np.isfinite(pulls)]
    freedom = len(pulls) - fit.freedom
    return float(np.sum(pulls**2)) / freedom if freedom >= 1 else np.nan


def missed_structure(fit: RobustFit, finer: RobustFit) -> float:
    """Rms of what a finer fit follows and this one does not, unit of the image."""
    apart = at_centres(finer.background) - at_centres(fit.background)
    return float(np.sqrt(np.mean(apart**2)))


def unfollowed_structure(fit: RobustFit) -> NDArray[np.float64]:
    """(gy, gx) structure of the sky that the fit does not follow, rms, from what it leaves nearby.

    Where it leaves as much above as below, all of it is sky. Else light may be among it, and only what lies
    below the model counts: light only ever lies above. Mere noise has none.
    """
    statistics = fit.background.statistics
    residual = statistics.mean - at_centres(fit.background)
    seen = np.isfinite(residual) & np.isfinite(statistics.error) & (statistics.count > 0)
    error = np.where(seen, statistics.error, 0).astype(np.float64)
    if fit.balanced:
        off = np.where(seen, np.maximum(np.abs(residual) - _CHANCE * error, 0), 0)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(off, 1), (3, 3))
        largest: NDArray[np.float64] = windows.max(axis=(2, 3))
        return largest
    below = np.where(seen, np.minimum(residual, 0), 0) ** 2
    sums = [_boxed(a) for a in (below, error**2, seen.astype(np.float64))]
    number = np.maximum(sums[2], 1)
    excess = 2 * sums[0] / number - _CLEAR_OF_NOISE * sums[1] / number
    return np.sqrt(np.maximum(excess, 0))


def _boxed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over _NEAR superpixels in each direction."""
    n = 2 * _NEAR + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, _NEAR), (n, n))
    summed: NDArray[np.float64] = windows.sum(axis=(2, 3))
    return summed


def moved_by(before: RobustFit, after: RobustFit) -> float:
    """How far one fit lies from the other, in its own errors, rms over superpixels."""
    error = np.sqrt(np.mean(after.deviation**2))
    apart = at_centres(before.background) - at_centres(after.background)
    return float(np.sqrt(np.mean(apart**2)) / error) if error > 0 else 0.0


def at_centres(model: Background, grid: SuperpixelGrid | None = None) -> NDArray[np.float64]:
    """(gy, gx) values of a model at the centres of superpixels, its own by default."""
    grid = grid or model.grid
    y, x = (c.ravel() for c in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    terms = design_matrix(x, y, shape=grid.image_shape, order=model.order)
    values: NDArray[np.float64] = np.einsum("ki,i->k", terms, model.coefficients).reshape(grid.shape)
    return values
