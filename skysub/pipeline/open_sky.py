"""Whether the sky shows between compact sources alone: no light is as large as what its model follows.

The search starts from a fit that takes all for sky. A fit that guards against light would take the bright
side of a steep sky for it, and a mask made with that fit would hide the very superpixels that show it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import monomial_coefficients
from skysub.background.robust import TRACE, RobustFit, fit_robust
from skysub.errors import NoUsableSuperpixelsError
from skysub.pipeline.sky_fit import (
    BETTER,
    FEWEST_COMPARED,
    UNDERFIT,
    at_centres,
    chi2_per_freedom,
    statistics_about,
    without_brightest,
)
from skysub.sources.detect import measured_fwhm
from skysub.sources.extended import roughness
from skysub.sources.mask import find_sources, mask_compact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
    from skysub.pipeline.config import SkyConfig
    from skysub.pipeline.timing import Stopwatch
    from skysub.sources.detect import Footprints

__all__ = ["FAR", "OpenFit", "OpenSky", "find_open_sky", "plausible_width"]

FAR = 0.05
"""How far a guess may lie off, in units of the noise per pixel, before sources are looked for anew."""
_TURNS = 2
"""Turns of compact sources and a fit to all else."""
_GIANT = 1.5
"""Radius of a source, in superpixels, by which there is light at large."""
_SAME_WIDTH = 1.25
"""Ratio of the PSF's width measured to the one given up to which they agree."""
_WIDTHS = (1.5, 8.0)
"""Least and largest width that sources are looked for by, pixel."""
_EDGE, _ALONG_EDGES = 8, 0.5
"""The frame's edge is an eighth of its superpixels wide on each side; and the share of the structure there by
which it is no large source's: noise has 0.44 of it there, galaxies in the frame at most 0.26, moonlight 0.52
to 0.89."""
_DECAYS = 0.85
"""What the next two orders leave together of what lies between an order and its double: moonlight 0.3 to 0.8,
galaxies 0.95 to 1.5."""
_RUGGED, _MEDIAN_SQUARE = 3.5, 0.455
"""Ruggedness from which a sky is rugged: 1.4 to 2.8 in fields with sources, 4.5 to 13 with ghosts, fringes
and cirrus; and the median square of a normal variable."""


@dataclass(frozen=True, eq=False)
class OpenFit:
    """A fit that takes all but compact sources for sky."""

    fit: RobustFit
    """Every superpixel believed but the few that hold most light."""
    finer: RobustFit | None
    """Of twice the order; None where it is no better, or the sky is rugged."""
    rugged: bool
    """Whether the sky has structure that neighbouring superpixels do not share, which no fit follows."""


@dataclass(frozen=True, eq=False)
class OpenSky:
    """A sky seen between compact sources, and those."""

    found: OpenFit
    compact: NDArray[np.uint8]
    """(ny, nx) flags in which compact sources alone are marked."""
    width: float
    """Full width at half maximum that sources are looked for by, pixel."""


def find_open_sky(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    guess: RobustFit,
    *,
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    background: BackgroundConfig,
    config: SkyConfig,
    fwhm: float,
    correlation: tuple[float, float],
    stopwatch: Stopwatch,
    threads: int,
) -> OpenSky | None:
    """Look for compact sources and fit all else, in turns; None where there may be light at large.

    Parameters
    ----------
    image, flags
        As for `skysub.pipeline.sky.find_sky`; the flags are not changed.
    guess
        Its superpixels, measured without a mask, are what the first fit is made to.
    noise
        (gy, gx) per pixel in each superpixel, unit of the image.
    background
        With the least number of pixels of sky that a superpixel must have.
    fwhm
        Of the PSF, pixel.
    correlation
        How many times more than independent pixels of that noise those of the smoothed image scatter, and
        superpixels.
    """
    start = guess.background
    first = fit_robust(start.grid, start.statistics, start.config, config.robust, believed=True)
    model, found, width = first.background, None, fwhm
    level = float(np.nanmedian(noise))
    side = min(int(np.min(np.diff(edges))) for edges in (grid.y_edges, grid.x_edges))

    def sources_about(model: Background, structure: float) -> Footprints:
        with stopwatch("mask"):
            return find_sources(
                image,
                flags,
                monomial_coefficients(model.coefficients, model.order),
                noise,
                grid,
                config=config.mask,
                fwhm=width,
                correlation=correlation[0],
                structure=structure,
                threads=threads,
            )

    rough = 0.0
    for _ in range(_TURNS):
        footprints = sources_about(model, rough)
        if rough == 0 and np.max(footprints.radius, initial=0) > _GIANT * side:
            # fringes join what lies on them
            power = monomial_coefficients(model.coefficients, model.order)
            rough = roughness(image, flags, power, level, threads=threads)
            footprints = sources_about(model, rough)
        if np.max(footprints.radius, initial=0) > _GIANT * side:
            return None
        width = plausible_width(measured_fwhm(footprints, level), fwhm) or width
        with stopwatch("statistics"):
            compact = mask_compact(flags, footprints, grid, config=config.mask, noise=level, chains=True)
            try:
                found = _fit_open(
                    image,
                    compact,
                    model,
                    grid=grid,
                    background=background,
                    config=config,
                    correlation=correlation[1],
                    threads=threads,
                )
            except NoUsableSuperpixelsError:
                # sources leave no sky between them, or a pixel is out of all bounds
                return None
        if found is None:
            return None
        before, model = model, (found.finer or found.fit).background
        off = np.max(np.abs(at_centres(model) - at_centres(before, grid)))
        if found.finer is None and off < FAR * level:
            break
    return None if found is None else OpenSky(found, compact, width)


def plausible_width(measured: float, given: float) -> float | None:
    """Width of the PSF to look for sources by, pixel; None where the one given will do or none was seen."""
    if not np.isfinite(measured) or 1 / _SAME_WIDTH < measured / given < _SAME_WIDTH:
        return None
    return min(max(measured, _WIDTHS[0]), _WIDTHS[1])


def _fit_open(
    image: NDArray[np.float32],
    compact: NDArray[np.uint8],
    guess: Background,
    *,
    grid: SuperpixelGrid,
    background: BackgroundConfig,
    config: SkyConfig,
    correlation: float,
    threads: int,
) -> OpenFit | None:
    """Fit to all superpixels with compact sources masked alone, where nothing larger shows in it.

    Residuals of a sky without large sources are balanced. Or they are not, but a fit of twice the order
    follows them, what it follows lies along the frame's edges, where polynomials fail first, and most of it
    is gone at the next order already: the sky steepens there as moonlight does, whose source lies outside the
    frame, so that polynomials converge to it geometrically (Bernstein). To a galaxy, with its peak in the
    frame, they converge slowly, and what is left of it lies round it.

    Where most superpixels differ from their neighbours by more than noise, as fringes and cirrus make them,
    nothing tells light from sky, and all of it is sky.

    Parameters
    ----------
    correlation
        How many times more the pixels scatter together than independent ones would.

    Returns
    -------
    fit
        None where there may be light at large.
    """
    statistics = statistics_about(guess, image, compact, grid, background, threads=threads)
    order = background.order

    def of_order(order: int, statistics: SuperpixelStatistics) -> RobustFit:
        return fit_robust(
            grid, statistics, dataclasses.replace(background, order=order), config.robust, believed=True
        )

    # those that the finer fit does not follow: a steep corner is no star
    trimmed = without_brightest(statistics, of_order(2 * order, statistics))
    fit, finer = of_order(order, trimmed), of_order(2 * order, trimmed)
    coarse, fine = chi2_per_freedom(fit), chi2_per_freedom(finer)
    better = fine < BETTER * coarse
    rugged = _ruggedness(finer) > _RUGGED * correlation**2
    if not rugged and better:
        # a galaxy in a corner leaves as much below an inclusive fit as above it
        between = sum(chi2_per_freedom(of_order(order + n, trimmed)) - fine for n in (1, 2))
        if not between < _DECAYS * (coarse - fine):
            return None
    if not (rugged or fit.balanced or (better and _along_edges(fit, finer) > _ALONG_EDGES)):
        return None
    fit, finer = (dataclasses.replace(one, one_sided=min(one.one_sided, TRACE)) for one in (fit, finer))
    return OpenFit(
        fit=fit, finer=finer if better and coarse > UNDERFIT and not rugged else None, rugged=rugged
    )


def _ruggedness(fit: RobustFit) -> float:
    """Median square of second differences between neighbouring superpixels' residuals, over that of noise.

    Large sources, of which there are few, do not touch a median.
    """
    statistics = fit.background.statistics
    seen = fit.background.usable & np.isfinite(statistics.mean)
    residual = np.where(seen, statistics.mean - at_centres(fit.background), np.nan)
    variance = statistics.error.astype(np.float64) ** 2
    squares = []
    for axis in (0, 1):
        r, v = (np.moveaxis(values, axis, 0) for values in (residual, variance))
        second = r[2:] - 2 * r[1:-1] + r[:-2]
        squares.append((second**2 / (v[2:] + 4 * v[1:-1] + v[:-2])).ravel())
    values = np.concatenate(squares)
    values = values[np.isfinite(values)]
    return float(np.median(values)) / _MEDIAN_SQUARE if len(values) >= FEWEST_COMPARED else 0.0


def _along_edges(fit: RobustFit, finer: RobustFit) -> float:
    """Share of what a finer fit follows and this one does not, squared, that lies near the frame's edges."""
    apart = (at_centres(finer.background) - at_centres(fit.background)) ** 2
    y, x = (max(1, n // _EDGE) for n in apart.shape)
    inner = apart[y:-y, x:-x]
    return 1 - float(inner.sum() / max(apart.sum(), 1e-300))
