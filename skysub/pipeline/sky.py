"""Sky and source mask of one image, in turns, until the sky no longer moves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import design_matrix, power_coefficients
from skysub.background.clipping import superpixel_statistics
from skysub.background.robust import TRACE, RobustConfig, RobustFit, fit_robust
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.pipeline.corrections import Corrections, corrected, find_corrections, find_faint_light
from skysub.sources.detect import correlated_noise, measured_fwhm, smoothing_kernel
from skysub.sources.extended import structure_left
from skysub.sources.flags import EXTENDED, NOT_SKY, SOURCE
from skysub.sources.mask import DARKEST, RUNGS, SourceMask, mask_compact, mask_sources

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.pipeline.config import SkyConfig
    from skysub.pipeline.timing import Stopwatch

__all__ = ["Sky", "find_sky", "first_guess"]

_WORTH_SAYING = 0.005
"""Share of superpixels without sky, or over which the model must extrapolate, before that is said."""
_ROW_STEP = 4
"""The first guess looks at every so many rows,"""
_LEAST_ROWS = 16
"""but at no fewer than these in a superpixel."""
_NEAR = 2
"""Superpixels on each side over which structure below the model is averaged,"""
_CLEAR_OF_NOISE = 12.0
"""beyond this many times the variance that noise alone would show."""
_CHANCE = 3.0
"""Errors of a superpixel by which it lies off the model by chance."""
_FREE_OF_SOURCES = 0.04
"""Share of the pixels that noise alone makes a mask take at most."""
_SMOOTH, _SHARP = 3.0, 1.0
"""Mean square of pulls that a finer fit leaves of a smooth sky at most; and how sure of light it makes one
when it leaves more."""
_SUSPECT = 0.02
"""Share of the pixels masked as faint extended light that is looked at anew."""
_FAR = 0.05
"""How far the guess may lie off, in units of the noise per pixel, before sources are looked for anew."""
_FEW_BRIGHT = 0.01
"""Share of the superpixels that may be full of light without there being light at large."""
_SAME_WIDTH = 1.25
"""Ratio of the PSF's width measured to the one given up to which they agree."""
_WIDTHS = (1.5, 8.0)
"""Least and largest width that sources are looked for by, pixel."""
_UNDERFIT, _BETTER = 1.3, 0.7
"""Mean square of superpixels' pulls above which the polynomial does not follow the sky, and what a finer fit
must make of it; light of undetected sources leaves about as much in either."""
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
            return _fit(grid, statistics, background, config.robust, light=light)

    def masked(fit: RobustFit, rung: int) -> SourceMask:
        with stopwatch("fit"):
            finer = _finer(fit, background, config.robust) if light <= TRACE else None
        model = (finer or fit).background
        scatter = guess.scatter if finer is None else finer.scatter
        with stopwatch("mask"):
            return mask_sources(
                image,
                flags,
                power_coefficients(model.coefficients, model.order),
                noise,
                grid,
                config=sources,
                fwhm=width,
                correlation=correlation,
                light=light > TRACE,
                structure=np.hypot(scatter, _structure(finer or fit)),
                rung=rung,
                threads=threads,
            )

    def structure() -> float:
        with stopwatch("structure"):
            model = fit.background
            power = power_coefficients(model.coefficients, model.order)
            # the more pixels sources take the more of them are too faint or too close to be masked
            sources_take = float(np.mean((flags[::_SAMPLE] & SOURCE) != 0))
            crowding = max(1.0, _CLEAR / max(1e-3, 1 - sources_take))
            return structure_left(image, flags, power, level, crowding=crowding, threads=threads)

    with stopwatch("noise"):
        per_pixel, smoothed = correlated_noise(
            image,
            flags,
            power_coefficients(guess.background.coefficients, guess.background.order),
            noise,
            grid,
            kernel=smoothing_kernel(fwhm),
        )
    noise, correlation, width = noise * per_pixel, smoothed / per_pixel, fwhm
    level = float(np.nanmedian(noise)) if np.isfinite(noise).any() else np.nan
    sources = config.mask
    before, fit = guess, guess
    light = guess.one_sided
    mask = masked(guess, 0)
    seen = measured_fwhm(mask.footprints, level)
    if not 1 / _SAME_WIDTH < seen / fwhm < _SAME_WIDTH and np.isfinite(seen):
        width = min(max(seen, _WIDTHS[0]), _WIDTHS[1])
        mask = masked(guess, 0)
    if light > 0 and mask.rung < DARKEST:
        with stopwatch("statistics"):
            inclusive = _with_compact_masked(
                image,
                flags,
                guess,
                mask,
                grid=grid,
                background=background,
                config=config,
                noise=level,
                threads=threads,
            )
        finer = _finer(inclusive, background, config.robust)
        smooth = inclusive.balanced and _chi2(finer or inclusive) < _SMOOTH
        light = TRACE if smooth else max(inclusive.one_sided, _SHARP)
        if smooth:
            moved = float(np.max(np.abs(_at_centres(inclusive.background) - _at_centres(guess.background))))
            suspect = float(np.mean((flags[::_SAMPLE] & EXTENDED) != 0)) > _SUSPECT
        if smooth and (finer is not None or suspect or moved > _FAR * level):
            # the guess may have taken some of a sky that it cannot follow for light
            mask = masked(inclusive, 0)
    if light == 0 and mask.masked > _FREE_OF_SOURCES:
        light = TRACE
    turns, moved, ran_away = 1, np.inf, False
    while True:
        before, fit = fit, measured(fit)
        # the darkest pixels do not depend on the model: once measured, nothing moves
        moved = 0.0 if mask.rung == DARKEST else _moved(before, fit)
        if moved < config.tolerance or turns == config.passes:
            break
        next_mask = masked(fit, mask.rung)
        # a mask that comes to leave no sky as the sky falls to what it leaves has run away
        dry = next_mask.rung > mask.rung
        if dry or next_mask.masked > mask.masked + _RUNS_AWAY:
            mask = masked(before, mask.rung)
            if sources.extended is not None and structure() > 0:
                sources = dataclasses.replace(sources, extended=None)
                mask, ran_away, fit = masked(guess, mask.rung), True, guess
            elif dry:
                ran_away = True
                break
            else:
                mask = masked(fit, mask.rung)
            turns += 1
            continue
        mask, turns = next_mask, turns + 1
    corrections = find_corrections(
        mask,
        background,
        config=config.corrections,
        sources=config.mask,
        level=float(np.mean(_at_centres(fit.background))),
        noise=level,
        gain=gain,
        fwhm=width,
        crowded=mask.rung == DARKEST,
    )
    faint = find_faint_light(
        mask, config=config.corrections, noise=level, fwhm=width, crowded=mask.rung == DARKEST
    )
    left, sky = 0.0, dataclasses.replace(fit.background, faint_light=faint)
    if config.structure:
        finer = _finer(fit, background, config.robust) if light <= TRACE else None
        left = structure()
        if finer is not None:
            # what the finer fit follows is structure, and not an error that averages out
            left = max(left, _missed(fit, finer))
            shrunk = sky.covariance * (min(finer.inflation, fit.inflation) / fit.inflation)
            sky = dataclasses.replace(sky, covariance=shrunk)
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
        flags=_worth_saying(
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
    rows, row_flags = np.ascontiguousarray(image[::step]), np.ascontiguousarray(flags[::step])
    coarse = SuperpixelGrid.of_counts((rows.shape[0], rows.shape[1]), gy=grid.shape[0], gx=grid.shape[1])
    wide, narrow = (
        superpixel_statistics(
            rows,
            row_flags,
            NOT_SKY,
            coarse,
            dataclasses.replace(
                config.background, statistic="meanclip", clip_sigma=sigma, clip_passes=passes
            ),
        )
        for sigma, passes in _CLIPS
    )
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


def _fit(
    grid: SuperpixelGrid,
    statistics: SuperpixelStatistics,
    config: BackgroundConfig,
    robust: RobustConfig,
    *,
    light: float,
) -> RobustFit:
    """Fit to what a mask has left.

    Where there is no light at large, superpixels that lie off are judged by a finer fit: those that it
    follows are sky, and the others hold what the mask has left of a source.
    """
    fit = fit_robust(grid, statistics, config, robust, light=light)
    if light > TRACE or fit.balanced:
        return fit
    finer = fit_robust(grid, statistics, dataclasses.replace(config, order=2 * config.order), robust)
    trusted = finer.weights > 0
    if not trusted.any():
        return fit
    mean = np.where(trusted, statistics.mean, np.float32(np.nan))
    kept = fit_robust(grid, dataclasses.replace(statistics, mean=mean), config, robust, believed=True)
    kept = dataclasses.replace(
        kept,
        one_sided=TRACE,
        background=dataclasses.replace(kept.background, statistics=statistics),
    )
    return kept if trusted.sum() > fit.background.usable.sum() else fit


def _with_compact_masked(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    guess: RobustFit,
    mask: SourceMask,
    *,
    grid: SuperpixelGrid,
    background: BackgroundConfig,
    config: SkyConfig,
    noise: float,
    threads: int,
) -> RobustFit:
    """Fit with compact sources masked alone, and without the few superpixels that hold most light.

    It tells whether there is light as large as what the polynomial follows. A mask of large sources hides
    what that is to be judged by, and a bright star in one superpixel says nothing of it.
    """
    compact = mask_compact(flags, mask.footprints, grid, config=config.mask, noise=noise)
    statistics = statistics_about(guess.background, image, compact, grid, background, threads=threads)
    first = fit_robust(grid, statistics, background, config.robust)
    if first.balanced:
        return first
    residual = np.where(
        np.isfinite(statistics.mean), statistics.mean - _at_centres(first.background), -np.inf
    )
    brightest = np.argsort(residual, axis=None)[-max(1, int(_FEW_BRIGHT * residual.size)) :]
    mean = statistics.mean.copy()
    mean.flat[brightest] = np.nan
    return fit_robust(grid, dataclasses.replace(statistics, mean=mean), background, config.robust)


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
    power = power_coefficients(model.coefficients, model.order)
    left = superpixel_statistics(image, flags, NOT_SKY, grid, config, model=power, threads=threads)
    mean = (left.mean + _at_centres(model, grid)).astype(np.float32)
    return SuperpixelStatistics(mean=mean, error=left.error, count=left.count)


def _finer(fit: RobustFit, config: BackgroundConfig, robust: RobustConfig) -> RobustFit | None:
    """A fit of twice the order to look for sources by; None where the sky does not ask for it.

    It does where superpixels lie off the model by more than their errors, as much above it as below: that is
    a smooth sky which the polynomial cannot follow, and what lies above must not be taken for light.
    """
    if not fit.balanced:
        return None
    statistics = fit.background.statistics
    before = _chi2(fit)
    if not before > _UNDERFIT:
        return None
    finer = fit_robust(
        fit.background.grid,
        statistics,
        dataclasses.replace(config, order=2 * config.order),
        robust,
        believed=True,
    )
    return finer if finer.balanced and _chi2(finer) < _BETTER * before else None


def _chi2(fit: RobustFit) -> float:
    """Mean square of superpixels' pulls for each degree of freedom; NaN where there is none."""
    statistics = fit.background.statistics
    with np.errstate(divide="ignore", invalid="ignore"):
        pulls = (statistics.mean - _at_centres(fit.background)) / statistics.error
    pulls = pulls[fit.background.usable & np.isfinite(pulls)]
    freedom = len(pulls) - fit.freedom
    return float(np.sum(pulls**2)) / freedom if freedom >= 1 else np.nan


def _missed(fit: RobustFit, finer: RobustFit) -> float:
    """Rms of what a finer fit follows and this one does not, unit of the image."""
    apart = _at_centres(finer.background) - _at_centres(fit.background)
    return float(np.sqrt(np.mean(apart**2)))


def _structure(fit: RobustFit) -> NDArray[np.float64]:
    """(gy, gx) structure of the sky that the fit does not follow, rms, from what it leaves nearby.

    Where it leaves as much above as below, all of it is sky. Else light may be among it, and only what lies
    below the model counts: light only ever lies above. Mere noise has none.
    """
    statistics = fit.background.statistics
    residual = statistics.mean - _at_centres(fit.background)
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


def _moved(before: RobustFit, after: RobustFit) -> float:
    error = np.sqrt(np.mean(after.deviation**2))
    apart = _at_centres(before.background) - _at_centres(after.background)
    return float(np.sqrt(np.mean(apart**2)) / error) if error > 0 else 0.0


def _at_centres(model: Background, grid: SuperpixelGrid | None = None) -> NDArray[np.float64]:
    """(gy, gx) values of a model at the centres of superpixels, its own by default."""
    grid = grid or model.grid
    y, x = (c.ravel() for c in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    terms = design_matrix(x, y, shape=grid.image_shape, order=model.order)
    values: NDArray[np.float64] = np.einsum("ki,i->k", terms, model.coefficients).reshape(grid.shape)
    return values


def _worth_saying(
    fit: RobustFit,
    mask: SourceMask,
    noise: NDArray[np.float64],
    config: SkyConfig,
    *,
    moved: float,
    ran_away: bool,
    bare: bool,
    structure: float,
) -> dict[str, str]:
    said = {}
    model = fit.background
    outside = float(fit.extrapolated.mean())
    if outside > _WORTH_SAYING:
        worst, typical = float(fit.deviation[fit.extrapolated].max()), float(np.median(fit.deviation))
        said["background_extrapolated"] = (
            f"No sky was seen in {100 * outside:.1f} % of the detector; the background is extrapolated "
            f"there, with an uncertainty of up to {worst:.3g} ({typical:.3g} elsewhere)."
        )
    if model.reduced:
        said["background_order_reduced"] = f"The background is simpler than asked for: {model.reduced}."
    if mask.rung == DARKEST:
        said["crowded"] = (
            "The field is so crowded that sources leave no sky between them; the background was measured on "
            f"the {100 * config.mask.darkest:.0f} % of the pixels with the darkest surroundings, and lies "
            "too high by what starlight is left there."
        )
    elif mask.rung:
        left_out = "" if config.mask.extended is None else ", and faint extended light is not masked"
        said["mask_budget"] = (
            f"Sources leave little sky between them: they are masked with {100 * RUNGS[mask.rung]:.0f} % "
            f"of their growth{left_out}, so that superpixels keep some sky; expect the background to lie "
            "too high."
        )
    if mask.dry > _WORTH_SAYING * mask.good.size:
        said["superpixels_dry"] = (
            f"Sources leave too little sky in {mask.dry} superpixels, which were not used."
        )
    if structure:
        said["sky_structure"] = (
            f"The sky has structure of about {structure:.2g} that the background does not follow; its "
            "uncertainty includes it, and faint extended light of that brightness cannot be told from it."
        )
    if ran_away:
        said["mask_ran_away"] = (
            "From turn to turn the source mask grew until it left no sky, as it does where the sky has "
            "structure that the background does not follow; "
            + ("faint extended light is not masked." if bare else "the last mask that left some was kept.")
        )
    elif moved >= config.tolerance:
        said["background_not_converged"] = (
            f"After {config.passes} passes the background still moved by {moved:.1f} of its own errors."
        )
    if not np.isfinite(noise).any():
        said["no_noise"] = "The pixels show no noise, so that no source could be told from the sky."
    return said
