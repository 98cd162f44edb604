"""The source mask for the sky's sake: footprints grown with their light, halos, and a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.rows import changed_rows, copied
from skysub.errors import ConfigError
from skysub.sources.dark import keep_darkest
from skysub.sources.detect import Runs, find_footprints, no_bits, smoothed_noise, smoothing_kernel
from skysub.sources.extended import ExtendedConfig, find_extended, paint_blocks
from skysub.sources.flags import EXTENDED, IGNORED, NOT_SKY, SATURATED, SOURCE, count_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid
    from skysub.sources.detect import Footprints

__all__ = [
    "BARE",
    "DARKEST_LEFT",
    "FALLBACK_SHARES",
    "SourceMask",
    "SourceMaskConfig",
    "find_sources",
    "mask_compact",
    "mask_sources",
    "mask_with_less_growth",
]

FALLBACK_SHARES = (1.0, 0.6, 0.3, 0.6, 0.3)
"""Share of the growth that each step of the budget keeps."""
BARE = 3
"""The step from which faint extended light is not masked."""
DARKEST_LEFT = len(FALLBACK_SHARES)
"""The last step: footprints are given up for the pixels with the darkest surroundings."""

_KEPT = 0xFF & ~(SOURCE | EXTENDED)
"""Bits of the flags that a mask leaves alone."""
_AUREOLE_DECADES = 6.0
"""Logarithm of the ratio of radii over which an r^-2 aureole is spread: 1 to 400 pixels."""
_ROUND_ENOUGH = 0.55
"""Share of its moments' ellipse that a footprint fills when the ellipse describes it well."""
_CELL = 128
"""Edge of the cells that the budget counts where superpixels are smaller, and in each of which the darkest
pixels are chosen, pixel."""
_COMPACT = 1.0
"""Radius of the largest compact source, in superpixels."""
_LARGE = 0.5
"""Edge of the square with the area of a large footprint, in superpixels."""
_BRIGHT_PIXEL = 7.0
"""Brightest pixel, in units of the noise, by which a large footprint is known to hold a source."""
_LEAST_LEFT = (0.2, 0.15, 0.1)
"""Share of all pixels that a mask must leave at each step with faint extended light: what more growth keeps
out is little, and the noise of what is left, and a model that extrapolates, are worse."""
_CHAIN = 0.15
"""Share of it below which a footprint grows by less than its area suggests."""


@dataclass(frozen=True, slots=True)
class SourceMaskConfig:
    """How sources are masked before the sky is measured.

    Parameters
    ----------
    peak_threshold, edge_threshold
        In units of the smoothed noise: a footprint is kept if its peak reaches the first, and ends at
        the second.
    growth, growth_with_size
        Every footprint grows by ``growth`` pixels and by ``growth_with_size`` times its own radius.
    halo_light, halo_depth, halo_limit
        A circle is masked round each source out to where an r^-2 aureole of ``halo_light`` of its flux
        falls below ``halo_depth`` of the noise per pixel, ``halo_limit`` pixels at most.
    saturated_growth
        That circle reaches this many times the half-width of a saturated star at least.
    extended
        The search for faint extended light; None to leave it out.
    least_sky, least_superpixels
        The budget. A superpixel is starved when less than ``least_sky`` of its pixels are left; when
        fewer than ``least_superpixels`` of those that had sky before the mask are left, growth is given
        up step by step.
    darkest
        Share of the pixels that the last step keeps: those with the darkest surroundings.
    """

    peak_threshold: float = 3.5
    edge_threshold: float = 2.0
    growth: float = 3.0
    growth_with_size: float = 0.65
    halo_light: float = 0.03
    halo_depth: float = 0.01
    halo_limit: float = 400.0
    saturated_growth: float = 2.0
    extended: ExtendedConfig | None = field(default_factory=ExtendedConfig)
    least_sky: float = 0.02
    least_superpixels: float = 0.5
    darkest: float = 0.03

    def __post_init__(self) -> None:
        for name in ("peak_threshold", "edge_threshold", "halo_depth"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be a positive number, not {getattr(self, name)!r}")
        if self.edge_threshold > self.peak_threshold:
            raise ConfigError(
                f"edge_threshold {self.edge_threshold} must not exceed peak_threshold {self.peak_threshold}"
            )
        for name in ("growth", "growth_with_size", "halo_light", "halo_limit", "saturated_growth"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} must be zero or a positive number, not {getattr(self, name)!r}")
        for name in ("least_sky", "least_superpixels", "darkest"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class SourceMask:
    """What was masked; the pixels themselves are in the flags."""

    footprints: Footprints
    area: int
    """Pixels in which sources could be found."""
    good: NDArray[np.int64]
    """(gy, gx) pixels of each superpixel that are left for the sky."""
    masked: float
    """Share of the pixels that had sky before which the mask took."""
    fallback_level: int
    """How many steps of growth were given up to stay within the budget."""
    starved: int
    """Superpixels without enough sky left, among those that had it before."""


def mask_sources(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    *,
    config: SourceMaskConfig,
    fwhm: float,
    correlation: float = 1.0,
    light: bool = True,
    structure: float | NDArray[np.float64] = 0.0,
    fallback_level: int = 0,
    threads: int = 1,
) -> SourceMask:
    """Mark sources in ``flags`` (bits SOURCE and EXTENDED, cleared first).

    Parameters
    ----------
    image, flags, monomials
        As for `skysub.sources.detect.find_footprints`.
    noise
        (gy, gx) noise per pixel in each superpixel, unit of the image.
    fwhm
        Of the PSF, pixel.
    correlation
        How many times more the smoothed image scatters than independent pixels of that noise would.
    light
        As for `skysub.sources.extended.find_extended`.
    structure
        Scatter of the sky about the model beyond noise, one number or (gy, gx): it raises thresholds, so that
        a sky that the model does not follow is not taken for sources.
    fallback_level
        First step of the budget to try: where an earlier pass ended.
    """
    cells = _no_finer(grid, _CELL)
    level = float(np.nanmedian(noise)) if np.isfinite(noise).any() else np.nan
    footprints = find_sources(
        image,
        flags,
        monomials,
        noise,
        grid,
        config=config,
        fwhm=fwhm,
        correlation=correlation,
        structure=structure,
        threads=threads,
    )
    while True:
        if fallback_level == DARKEST_LEFT:
            changed_rows(_clear, flags)
            keep_darkest(image, flags, cells, fraction=config.darkest, fwhm=fwhm, threads=threads)
        else:
            shapes = _shapes(footprints, config=config, share=FALLBACK_SHARES[fallback_level], noise=level)
            changed_rows(_flag, flags, shapes=shapes)
            if config.extended is not None and fallback_level < BARE:
                blocks = find_extended(
                    image,
                    flags,
                    monomials,
                    noise,
                    grid,
                    config=config.extended,
                    ignored=NOT_SKY,
                    footprints=footprints,
                    light=light,
                    threads=threads,
                )
                paint_blocks(blocks, config.extended.block, EXTENDED, flags)
        before, good = _pixels_left(flags, grid)
        had_sky, left = (_with_sky(pixels, grid, config) for pixels in (before, good))
        in_cells = (before, good) if cells is grid else _pixels_left(flags, cells)
        asked, there = (_with_sky(pixels, cells, config).sum() for pixels in in_cells)
        enough = fallback_level >= BARE or good.sum() >= _LEAST_LEFT[fallback_level] * before.sum()
        if (enough and there >= config.least_superpixels * asked) or fallback_level == DARKEST_LEFT:
            break
        fallback_level += 1
    return SourceMask(
        footprints=footprints,
        area=int(before.sum()),
        good=good,
        masked=1 - float(good.sum()) / max(1, int(before.sum())),
        fallback_level=fallback_level,
        starved=int(np.sum(had_sky & ~left)),
    )


def find_sources(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    *,
    config: SourceMaskConfig,
    fwhm: float,
    correlation: float = 1.0,
    structure: float | NDArray[np.float64] = 0.0,
    threads: int = 1,
) -> Footprints:
    """Footprints of sources, but for large ones that lack a bright pixel; see `mask_sources`."""
    kernel = smoothing_kernel(fwhm)
    footprints = find_footprints(
        image,
        flags,
        monomials,
        np.hypot(noise * correlation * smoothed_noise(kernel), structure),
        grid,
        kernel=kernel,
        peak_threshold=config.peak_threshold,
        edge_threshold=config.edge_threshold,
        threads=threads,
    )
    level = float(np.nanmedian(noise)) if np.isfinite(noise).any() else np.nan
    vague = _vague(footprints, grid, level)
    return footprints.of(~vague) if vague.any() else footprints


def mask_compact(
    flags: NDArray[np.uint8],
    footprints: Footprints,
    grid: SuperpixelGrid,
    *,
    config: SourceMaskConfig,
    noise: float,
    chains: bool = False,
) -> NDArray[np.uint8]:
    """Flags with the sources marked that are much smaller than a superpixel, and no others.

    What is left shows whether there is light as large as what the background's model follows. With
    ``chains``, larger footprints are marked as well, and nothing grows by more than it must: sources of deep
    images touch each other, and light of a large one shows round its footprint.
    """
    side = min(int(np.min(np.diff(edges))) for edges in (grid.y_edges, grid.x_edges))
    small = footprints.radius < _COMPACT * side
    if not chains:
        footprints, small = footprints.of(small), small[small]
    share = np.where(small, FALLBACK_SHARES[BARE - 1], 0.0) if chains else 1.0
    marked: NDArray[np.uint8] = copied(flags)
    changed_rows(_flag, marked, shapes=_shapes(footprints, config=config, share=share, noise=noise))
    return marked


def mask_with_less_growth(
    flags: NDArray[np.uint8],
    mask: SourceMask,
    *,
    config: SourceMaskConfig,
    noise: float,
) -> NDArray[np.uint8]:
    """Flags with the same sources marked, grown by a third of what they grew in the mask.

    How far the sky moves tells how far light beyond the mask may have moved it. Faint extended light stays
    masked.
    """
    shapes = _shapes(
        mask.footprints,
        config=config,
        share=FALLBACK_SHARES[BARE - 1] * FALLBACK_SHARES[mask.fallback_level],
        noise=noise,
    )
    marked: NDArray[np.uint8] = copied(flags)
    changed_rows(_flag, marked, shapes=shapes, kept=_KEPT | EXTENDED)
    return marked


def _vague(found: Footprints, grid: SuperpixelGrid, noise: float) -> NDArray[np.bool_]:
    """Footprints as large as a superpixel without a bright pixel in them.

    They may be sky that the model does not follow; what is light among them the search for faint extended
    light finds, which tells the two apart.
    """
    side = _LARGE * min(int(np.min(np.diff(edges))) for edges in (grid.y_edges, grid.x_edges))
    vague: NDArray[np.bool_] = (found.area > side**2) & (found.peak < _BRIGHT_PIXEL * noise)
    vague &= found.saturated == 0
    return vague


def _with_sky(good: NDArray[np.int64], grid: SuperpixelGrid, config: SourceMaskConfig) -> NDArray[np.bool_]:
    """Superpixels that are not starved."""
    size = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    return good >= np.maximum(1, config.least_sky * size)


def _no_finer(grid: SuperpixelGrid, size: int) -> SuperpixelGrid:
    """``grid``, or cells of about ``size`` pixels where its superpixels are smaller."""
    shape = grid.image_shape
    if all(n // cells >= size * 3 // 4 for n, cells in zip(shape, grid.shape, strict=True)):
        return grid
    gy, gx = (min(cells, -(-n // size)) for n, cells in zip(shape, grid.shape, strict=True))
    return type(grid).of_counts(shape, gy=gy, gx=gx)


def _pixels_left(flags: NDArray[np.uint8], grid: SuperpixelGrid) -> NDArray[np.int64]:
    """(2, gy, gx): pixels of each superpixel in which sky can be seen, without sources and with them."""
    size = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    left: NDArray[np.int64] = size - count_pixels(flags, (IGNORED | SATURATED, NOT_SKY), grid)
    return left


@dataclass(frozen=True, eq=False)
class _Shapes:
    """Shapes that are painted: runs of pixels that grow, and ellipses."""

    runs: Runs
    reach: NDArray[np.float64]
    """(footprints,) pixels by which their runs grow; negative: they are not painted."""
    ellipses: NDArray[np.float64]
    """(n, 5): centre x and y, and the moments xx, xy, yy that bound it, pixel and pixel squared."""

    def within(self, first: int, last: int) -> _Shapes:
        """Shapes that reach into the rows from ``first`` to ``last`` - 1."""
        most = int(np.max(self.reach, initial=0))
        _, y, _, _, yy = self.ellipses.T
        height = np.sqrt(np.maximum(yy, 0))
        near = (y + height >= first - 1) & (y - height <= last)
        return _Shapes(self.runs.within(first - most, last + most), self.reach, self.ellipses[near])


def _shapes(
    found: Footprints, *, config: SourceMaskConfig, share: float | NDArray[np.float64], noise: float
) -> _Shapes:
    """Grown footprints: ellipses where their moments describe them, else run by run; and halos."""
    # eigenvalues of the moments; a uniform ellipse has semi-axes of twice their roots
    mean = (found.xx + found.yy) / 2
    apart = np.hypot((found.xx - found.yy) / 2, found.xy)
    major, minor = 2 * np.sqrt(mean + apart), 2 * np.sqrt(np.maximum(mean - apart, 0.05))
    filled = found.area / (np.pi * major * minor)
    # a chain of sources, or sky that the model does not follow, is narrower than its area says
    narrow = np.minimum(1.0, filled / _CHAIN)
    growth = share * (config.growth + config.growth_with_size * found.radius * narrow)
    simple = (filled > _ROUND_ENOUGH) & (found.saturated == 0)
    # bleeds are long and their own growth is for the star, not the trail
    own = np.where(found.saturated > 0, share * config.growth, growth)
    reach = np.where(simple & (growth >= 2), -1.0, own)
    grown_major, grown_minor = (major + growth) ** 2, (minor + growth) ** 2
    mean, half = (grown_major + grown_minor) / 2, (grown_major - grown_minor) / 2
    with np.errstate(invalid="ignore"):
        cos = np.where(apart > 0, (found.xx - found.yy) / 2 / apart, 1.0)
        sin = np.where(apart > 0, found.xy / apart, 0.0)
    ellipses = np.stack([found.x, found.y, mean + half * cos, half * sin, mean - half * cos], axis=1)
    halos = _halos(found, growth, config=config, share=share, noise=noise)
    return _Shapes(found.runs, reach, np.concatenate([ellipses[simple], halos]))


def _halos(
    found: Footprints,
    growth: NDArray[np.float64],
    *,
    config: SourceMaskConfig,
    share: float | NDArray[np.float64],
    noise: float,
) -> NDArray[np.float64]:
    """Circles round sources that an aureole fills, as ellipses of `_Shapes`."""
    if not (noise > 0 and np.any(np.asarray(share) > 0)):
        return np.empty((0, 5))
    faintest = 2 * np.pi * _AUREOLE_DECADES * config.halo_depth * noise
    halo = share * np.sqrt(config.halo_light * np.maximum(found.flux, 0) / faintest)
    saturated = found.saturated > 0
    least = config.saturated_growth * found.core_width / 2 + growth
    halo = np.where(saturated, np.maximum(halo, least), halo)
    halo = np.minimum(halo, config.halo_limit)
    wide = halo > found.radius + growth
    wide |= saturated
    square = halo[wide] ** 2
    x = np.where(saturated, found.core_x, found.x)[wide]
    y = np.where(saturated, found.core_y, found.y)[wide]
    return np.stack([x, y, square, np.zeros_like(square), square], axis=1)


def _flag(rows: range, flags: NDArray[np.uint8], *, shapes: _Shapes, kept: int = _KEPT, threads: int) -> None:
    """Set SOURCE where shapes are, and clear what an earlier mask has set but the bits that are kept."""
    from skysub.sources import paint_kernels as kernels

    del threads
    painted = no_bits((flags.shape[0], flags.shape[1]))
    runs, width = shapes.runs, flags.shape[1]
    kernels.paint_runs(runs.y, runs.start, runs.stop, runs.label, shapes.reach, width, painted)
    x, y, xx, xy, yy = np.ascontiguousarray(shapes.ellipses.T)
    kernels.paint_ellipses(x, y, xx, xy, yy, width, painted)
    cut = slice(rows.start, rows.stop)
    kernels.flag_painted(painted[cut].view(np.uint8), kept, SOURCE, flags[cut])


def _clear(rows: range, flags: NDArray[np.uint8], *, threads: int) -> None:
    del threads
    flags[rows.start : rows.stop] &= np.uint8(_KEPT)
