"""Sky and source mask of one image, in turns, until the sky no longer moves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import monomial_coefficients
from skysub.background.clipping import superpixel_statistics
from skysub.background.robust import TRACE, RobustFit, fit_robust
from skysub.background.rows import over_rows
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.pipeline.corrections import Corrections, corrected, find_corrections, find_faint_light
from skysub.pipeline.open_sky import FAR, find_open_sky, plausible_width
from skysub.pipeline.sky_fit import (
    at_centres,
    chi2_per_freedom,
    filled_where_starved,
    finer_fit,
    fit_masked,
    fit_with_compact_masked,
    missed_structure,
    moved_by,
    statistics_about,
    unfollowed_structure,
)
from skysub.pipeline.sky_flags import quality_flags_of
from skysub.sources.detect import measured_fwhm, smoothing_kernel
from skysub.sources.extended import roughness, structure_left
from skysub.sources.flags import EXTENDED, NOT_SKY, SOURCE, share_flagged
from skysub.sources.mask import (
    BARE,
    DARKEST_LEFT,
    SourceMask,
    mask_compact,
    mask_sources,
    mask_with_less_growth,
)
from skysub.sources.noise import correlated_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.pipeline.config import SkyConfig
    from skysub.pipeline.timing import Stopwatch

__all__ = ["Sky", "find_sky", "first_guess"]

_ROW_STEP = 4
"""The first guess looks at every so many rows,"""
_LEAST_ROWS = 16
"""but at no fewer than these in a superpixel."""
_FREE_OF_SOURCES = 0.04
"""Share of the pixels that noise alone makes a mask take at most."""
_SHARP = 1.0
"""How sure of light residuals to one side make one."""
_BEYOND_GROWTH = 1.0
"""Variance of what light beyond the mask moves the model by, over that of light which a third of the growth
leaves: the middle of some twenty kinds of scenes made by other code."""
_EXPLAINED = 1.6
"""Mean square of its pulls up to which a finer fit follows all of the sky's structure."""
_TEXTURED = 4.0
"""Mean square of pulls, compact sources masked, from which the sky has structure that no fit follows."""
_SUSPECT = 0.02
"""Share of the pixels masked as faint extended light that is looked at anew."""
_CLEAR = 0.6
"""Share of the pixels that sources leave in an open field,"""
_SAMPLE = 16
"""judged by every so many rows."""
_RUNS_AWAY = 0.3
"""Share of the pixels by which a mask does not grow from one turn to the next of itself."""
_CLIPS = ((3.0, 3), (2.0, 6))
"""Half-width and passes of the two clips whose levels the first guess extrapolates,"""
_EXTRAPOLATION = 2.0
"""by so many times their difference below the narrower one,"""
_MOST_EXTRAPOLATED = 0.3
"""and by this share of the noise at most."""


@dataclass(frozen=True, eq=False)
class Sky:
    """The sky of an image, the mask it was measured with, and how they were found."""

    background: Background
    """The sky: the last fit, its level corrected."""
    fit: RobustFit
    """The last fit as it was."""
    corrections: Corrections
    structure: float
    """Rms of structure that the background does not follow, unit of the image; 0 where there is none."""
    mask: SourceMask
    noise: NDArray[np.float64]
    """(gy, gx) noise per pixel in each superpixel, unit of the image."""
    fwhm: float
    """Full width at half maximum by which sources were looked for, pixel: measured, or the one given."""
    passes: int
    """Turns of mask and background."""
    moved: float
    """How far the last turn moved the model, in its own errors, rms over superpixels."""
    flags: dict[str, str]
    """What a person should know, by a short name."""

    def __repr__(self) -> str:
        return (
            f"Sky({self.background!r}, structure={self.structure:.3g}, masked={self.mask.masked:.3g}, "
            f"passes={self.passes}, flags={' '.join(self.flags) or 'none'})"
        )


def find_sky(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    config: SkyConfig,
    *,
    noise: NDArray[np.float64],
    guess: RobustFit,
    fwhm: float,
    gain: float | None = None,
    stopwatch: Stopwatch,
    threads: int = 1,
) -> Sky:
    """Find sky and sources of an image.

    Parameters
    ----------
    image
        (ny, nx) float32 with its sky; NaN where nothing is known.
    flags
        (ny, nx) uint8 of `skysub.sources.flags`; its bits SOURCE and EXTENDED are set in place.
    noise
        (gy, gx) per pixel in each superpixel (`skysub.sources.detect.pixel_noise`), unit of the image.
    guess
        Where to start (`first_guess`).
    fwhm
        Of the PSF, pixel.
    gain
        Electrons per unit of the image; None where unknown.

    Raises
    ------
    NoUsableSuperpixelsError
        When there is no background at all, and why.
    """
    background = config.background
    grid = SuperpixelGrid.over((image.shape[0], image.shape[1]), background)
    size = int(np.min(np.diff(grid.y_edges)) * np.min(np.diff(grid.x_edges)))
    least = max(background.min_good_pixels, min(int(config.mask.least_sky * size), size))
    background = dataclasses.replace(background, min_good_pixels=least)

    def measured(model: RobustFit) -> RobustFit:
        with stopwatch("statistics"):
            statistics = statistics_about(model.background, image, flags, grid, background, threads=threads)
        with stopwatch("fit"):
            fit = fit_masked(
                grid, statistics, background, config.robust, light=light, steep=steep, rugged=rugged
            )
            if inclusive is None or light > TRACE or rugged:
                return fit
            own = finer_fit(fit, background, config.robust, steep=True) if steep else None
            filled = filled_where_starved(own or fit, statistics, finer or inclusive, least=least)
            if filled is None:
                return fit
            return fit_masked(
                grid, filled, background, config.robust, light=light, steep=steep, rugged=rugged
            )

    def masked(fit: RobustFit, fallback_level: int) -> SourceMask:
        with stopwatch("fit"):
            finer = (
                finer_fit(fit, background, config.robust, steep=steep)
                if light <= TRACE and not rugged
                else None
            )
        model = (finer or fit).background
        scatter = max(texture, rough, guess.scatter if finer is None else finer.scatter)
        with stopwatch("mask"):
            return mask_sources(
                image,
                flags,
                monomial_coefficients(model.coefficients, model.order),
                noise,
                grid,
                config=sources,
                fwhm=width,
                correlation=correlation,
                light=light > TRACE,
                structure=np.hypot(scatter, unfollowed_structure(finer or fit)),
                fallback_level=fallback_level,
                threads=threads,
            )

    def with_compact_masked(model: RobustFit) -> tuple[RobustFit, NDArray[np.uint8]]:
        with stopwatch("statistics"):
            compact = mask_compact(flags, mask.footprints, grid, config=config.mask, noise=level)
            return (
                fit_with_compact_masked(
                    image, compact, model, grid=grid, background=background, config=config, threads=threads
                ),
                compact,
            )

    def texture_left(model: RobustFit, compact: NDArray[np.uint8]) -> tuple[float, float]:
        # only where superpixels show it as well: noise that neighbours share is structure of small blocks
        if not chi2_per_freedom(model) > _TEXTURED * spread**2:
            return 0.0, 0.0
        with stopwatch("structure"):
            monomials = monomial_coefficients(model.background.coefficients, model.background.order)
            left = structure_left(image, compact, monomials, level, threads=threads)
            rough = roughness(image, compact, monomials, level, threads=threads) if left else 0.0
            return left, rough

    def moved_by_growth() -> float:
        """Mean square by which the model's shape moves when sources grow less, beyond what noise moves it."""
        if mask.fallback_level == DARKEST_LEFT or not mask.footprints:
            return 0.0
        with stopwatch("statistics"):
            marked = mask_with_less_growth(flags, mask, config=config.mask, noise=level)
            statistics = statistics_about(fit.background, image, marked, grid, background, threads=threads)
        with stopwatch("fit"):
            other = fit_masked(
                grid, statistics, background, config.robust, light=light, steep=steep, rugged=rugged
            )
        seen = fit.weights > 0
        apart = (at_centres(other.background) - at_centres(fit.background))[seen]
        by_noise = float(np.mean(fit.deviation[seen] ** 2)) * max(
            0.0, 1 - float(mask.good.sum()) / max(1, int(statistics.count.sum()))
        )
        return max(0.0, float(np.var(apart)) - by_noise)

    def structure() -> float:
        with stopwatch("structure"):
            model = fit.background
            monomials = monomial_coefficients(model.coefficients, model.order)
            # the more pixels sources take the more of them are too faint or too close to be masked
            sources_take = share_flagged(flags, SOURCE, step=_SAMPLE)
            crowding = max(1.0, _CLEAR / max(1e-3, 1 - sources_take))
            return structure_left(image, flags, monomials, level, crowding=crowding, threads=threads)

    with stopwatch("noise"):
        per_pixel, smoothed = correlated_noise(
            image,
            flags,
            monomial_coefficients(guess.background.coefficients, guess.background.order),
            noise,
            grid,
            kernel=smoothing_kernel(fwhm),
        )
    noise, correlation, width = noise * per_pixel, smoothed / per_pixel, fwhm
    spread = smoothed
    level = float(np.nanmedian(noise)) if np.isfinite(noise).any() else np.nan
    sources = config.mask
    before, fit = guess, guess
    inclusive: RobustFit | None = None
    finer: RobustFit | None = None
    texture = rough = 0.0
    light, steep, rugged = guess.one_sided, False, False
    opened = None
    if np.isfinite(level):
        opened = find_open_sky(
            image,
            flags,
            guess,
            noise=noise,
            grid=grid,
            background=background,
            config=config,
            fwhm=fwhm,
            correlation=(correlation, spread),
            stopwatch=stopwatch,
            threads=threads,
        )
    if opened is not None:
        inclusive, finer, rugged = opened.found.fit, opened.found.finer, opened.found.rugged
        light, steep, width = TRACE, finer is not None, opened.width
        texture, rough = texture_left(finer or inclusive, opened.compact)
        if rugged:
            # no search for faint extended light tells it from such a sky
            sources = dataclasses.replace(sources, extended=None)
        mask = masked(inclusive, BARE - 1 if rugged else 0)
        if guess.one_sided == 0 and mask.masked <= _FREE_OF_SOURCES and not rugged:
            light, inclusive, finer, steep = 0.0, None, None, False
        del opened
    else:
        mask = masked(guess, 0)
        seen = plausible_width(measured_fwhm(mask.footprints, level), fwhm)
        if seen is not None:
            width = seen
            mask = masked(guess, 0)
        if (light > 0 or mask.masked > _FREE_OF_SOURCES) and mask.fallback_level < DARKEST_LEFT:
            inclusive, compact = with_compact_masked(guess)
            finer = finer_fit(inclusive, background, config.robust)
            # structure that no fit follows is sky all the same where as much of it lies below as above
            smooth = inclusive.balanced
            light = TRACE if smooth else _SHARP
            if smooth:
                off = float(np.max(np.abs(at_centres(inclusive.background) - at_centres(guess.background))))
                suspect = share_flagged(flags, EXTENDED, step=_SAMPLE) > _SUSPECT
                texture, rough = texture_left(finer or inclusive, compact)
            if smooth and (finer is not None or suspect or off > FAR * level or texture > 0):
                # the guess may have taken some of a sky that it cannot follow for light
                mask = masked(inclusive, 0)
                if (off > FAR * level or texture > 0) and mask.fallback_level < DARKEST_LEFT:
                    again, compact = with_compact_masked(inclusive)
                    if again.balanced:
                        inclusive, finer = again, finer_fit(again, background, config.robust)
                        texture, rough = max((texture, rough), texture_left(finer or inclusive, compact))
                        mask = masked(again, 0)
    if light == 0 and mask.masked > _FREE_OF_SOURCES:
        light = TRACE
    turns, moved, ran_away = 1, np.inf, False
    while True:
        before, fit = fit, measured(fit)
        # the darkest pixels do not depend on the model: once measured, nothing moves
        moved = 0.0 if mask.fallback_level == DARKEST_LEFT else moved_by(before, fit)
        if moved < config.tolerance or turns == config.passes:
            break
        next_mask = masked(fit, mask.fallback_level)
        # a mask that comes to leave no sky as the sky falls to what it leaves has run away
        starved = (
            next_mask.fallback_level > mask.fallback_level
            and next_mask.fallback_level >= BARE
            and mask.fallback_level != BARE - 1
        )
        if starved or next_mask.masked > mask.masked + _RUNS_AWAY:
            mask = masked(before, mask.fallback_level)
            if sources.extended is not None and structure() > 0:
                sources = dataclasses.replace(sources, extended=None)
                mask, ran_away, fit = masked(guess, mask.fallback_level), True, guess
            elif starved:
                ran_away = True
                break
            else:
                mask = masked(fit, mask.fallback_level)
            turns += 1
            continue
        mask, turns = next_mask, turns + 1
    corrections = find_corrections(
        mask,
        background,
        config=config.corrections,
        sources=config.mask,
        level=float(np.mean(at_centres(fit.background))),
        noise=level,
        gain=gain,
        fwhm=width,
        crowded=mask.fallback_level == DARKEST_LEFT,
    )
    faint = find_faint_light(
        mask, config=config.corrections, noise=level, fwhm=width, crowded=mask.fallback_level == DARKEST_LEFT
    )
    left, sky = 0.0, dataclasses.replace(fit.background, faint_light=faint)
    if moved >= config.tolerance and before.background.order == sky.order:
        # what has not come to rest is not known better than by its last step
        step = sky.coefficients - before.background.coefficients
        sky = dataclasses.replace(sky, covariance=sky.covariance + np.outer(step, step))
    if config.structure:
        finer = (
            finer_fit(fit, background, config.robust, steep=steep) if light <= TRACE and not rugged else None
        )
        explained = finer is not None and chi2_per_freedom(finer) < _EXPLAINED
        # where a mask has taken all that stands out, what is left shows nothing of it
        left = 0.0 if explained else structure() or texture
        if finer is not None:
            # what the finer fit follows is structure, and not an error that averages out
            left = max(left, missed_structure(fit, finer))
            shrunk = sky.covariance * (min(finer.inflation, fit.inflation) / fit.inflation)
            sky = dataclasses.replace(sky, covariance=shrunk)
    typical = float(np.mean(fit.deviation[fit.weights > 0] ** 2)) if (fit.weights > 0).any() else 0.0
    if typical > 0 and np.isfinite(level):
        wider = 1 + _BEYOND_GROWTH * moved_by_growth() / typical
        sky = dataclasses.replace(sky, covariance=sky.covariance * wider)
    return Sky(
        background=corrected(sky, corrections, structure=left),
        fit=fit,
        corrections=corrections,
        structure=left,
        mask=mask,
        noise=noise,
        fwhm=width,
        passes=turns,
        moved=moved,
        flags=quality_flags_of(
            fit,
            mask,
            noise,
            config,
            moved=moved,
            ran_away=ran_away,
            bare=sources.extended is None,
            structure=left,
        ),
    )


def first_guess(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    *,
    config: SkyConfig,
) -> RobustFit:
    """Sky without a source mask, from every few rows.

    Light that a clip leaves in shrinks as the clip narrows, so the levels of two clips are extrapolated,
    by a share of the noise at most.
    """
    step = max(1, min(_ROW_STEP, image.shape[0] // (grid.shape[0] * _LEAST_ROWS)))
    ny, nx = image.shape
    coarse = SuperpixelGrid.of_counts((-(-ny // step), nx), gy=grid.shape[0], gx=grid.shape[1])
    spans = np.stack([coarse.y_edges[:-1] * step, (coarse.y_edges[1:] - 1) * step + 1], axis=1)
    parts = over_rows(
        _clipped_twice, (image, flags), spans=spans, coarse=coarse, step=step, background=config.background
    )
    wide, narrow = (_joined([part[clip] for part in parts]) for clip in range(len(_CLIPS)))
    excess = (wide.mean - narrow.mean)[np.isfinite(wide.mean) & np.isfinite(narrow.mean)]
    lower = _EXTRAPOLATION * max(0.0, float(np.median(excess))) if excess.size else 0.0
    if np.isfinite(noise).any():
        lower = min(lower, _MOST_EXTRAPOLATED * float(np.nanmedian(noise)))
    lowered = SuperpixelStatistics(
        mean=(narrow.mean - np.float32(lower)), error=narrow.error, count=narrow.count
    )
    background = dataclasses.replace(config.background, min_good_pixels=0)
    fit = fit_robust(coarse, lowered, background, config.robust)
    # the polynomial's own coordinates run from -1 to 1 over either grid
    return dataclasses.replace(fit, background=dataclasses.replace(fit.background, grid=grid))


def _clipped_twice(
    units: range,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    coarse: SuperpixelGrid,
    step: int,
    background: BackgroundConfig,
    threads: int,
) -> list[SuperpixelStatistics]:
    """Statistics of some rows of superpixels by either clip, from every so many rows of pixels."""
    first, last = int(coarse.y_edges[units.start]), int(coarse.y_edges[units.stop])
    rows = slice(first * step, (last - 1) * step + 1, step)
    pixels, bits = np.ascontiguousarray(image[rows]), np.ascontiguousarray(flags[rows])
    own = SuperpixelGrid(x_edges=coarse.x_edges, y_edges=coarse.y_edges[units.start : units.stop + 1] - first)
    found = []
    for sigma, passes in _CLIPS:
        clip = dataclasses.replace(background, statistic="meanclip", clip_sigma=sigma, clip_passes=passes)
        found.append(superpixel_statistics(pixels, bits, NOT_SKY, own, clip, threads=threads))
    return found


def _joined(parts: list[SuperpixelStatistics]) -> SuperpixelStatistics:
    return SuperpixelStatistics(
        mean=np.concatenate([part.mean for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        count=np.concatenate([part.count for part in parts]),
    )
