"""Faint extended light: what only shows after smoothing over many pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.rows import changed_rows, over_rows, rows_between
from skysub.background.threads import in_threads
from skysub.sources.detect import grown, runs_above, smoothing_kernel
from skysub.sources.flags import EXTENDED, NOT_SKY
from skysub.sources.verification import (
    believed,
    inclusive_polynomial,
    polynomial_at_blocks,
    regions_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid
    from skysub.sources.detect import Footprints

__all__ = ["ExtendedConfig", "find_extended", "paint_blocks", "roughness", "structure_left"]

_SMOOTHING_FWHM = 2.4
"""Smoothing at each scale, in blocks of that scale."""
_LOWER, _LOWER_NORMAL = (0.05, 0.25), (-1.6448536, -0.6744898)
"""Quantiles that give level and scatter at each scale, and where a standard normal distribution has them."""
_SAMPLED = 20000
"""Blocks by which these are told, about."""
_STEP = 3
"""Ratio of one scale to the next."""
_LEAST_COVERAGE = 0.05
"""A smoothed block that has less of its pixels left is not judged."""
_VERIFIED = 0.75
"""Superpixels along the edge of the square whose area makes a region large enough to be sky that the model
misses."""
_STRUCTURE_BLOCK = 16
"""Edge of the blocks between which structure of the sky is looked for, pixel."""
_STRUCTURE_COVERAGE = 0.25
"""Share of its pixels that such a block must have left;"""
_STRUCTURE_LEAST = (0.024, 0.012)
"""Structure, in units of the noise per pixel, above what undetected sources have in common one and two blocks
apart,"""
_STRUCTURE_SURE = 4.0
"""and it must be so many times what chance gives."""


@dataclass(frozen=True, slots=True)
class ExtendedConfig:
    """How faint extended light is found.

    Parameters
    ----------
    block, scales
        Edge of the finest blocks in pixels, and how many scales there are, each three times coarser.
    peak_threshold, edge_threshold
        In units of the scatter at each scale.
    growth
        A region grows by this share of the radius of a circle of its area.
    """

    block: int = 8
    scales: int = 3
    peak_threshold: float = 4.0
    edge_threshold: float = 1.5
    growth: float = 1.2


def find_extended(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    *,
    config: ExtendedConfig,
    ignored: int,
    footprints: Footprints | None = None,
    light: bool = True,
    threads: int = 1,
) -> NDArray[np.bool_]:
    """Blocks that hold faint extended light.

    The residual is averaged over blocks without the pixels that ``ignored`` flags, smoothed, and
    compared with its scatter: the larger of what pixel noise explains and of what the negative side
    shows. A sky that the model does not follow thus raises the bar rather than fill the mask.

    Parameters
    ----------
    image, flags, monomials
        As for `skysub.sources.detect.find_footprints`.
    noise
        (gy, gx) noise per pixel in each superpixel of ``grid``, unit of the image.
    footprints
        Sources; a large region round one of them is believed for its sake
        (`skysub.sources.verification`).
    light
        Whether it is known that there is light as large as what the background's model follows. If it is not,
        and nothing here tells of it either, a large region is believed for a source's sake alone.

    Returns
    -------
    blocks
        (ceil(ny / block), ceil(nx / block)) bool.
    """
    size = config.block
    total, count = _binned(image, flags, monomials, ignored, size, threads=threads)
    shape = (total.shape[0], total.shape[1])
    level = float(np.nanmedian(noise)) if np.isfinite(noise).any() else math.nan
    cell = max(1, int(np.min(np.diff(grid.y_edges))) // size)
    inclusive, leaves_light = inclusive_polynomial(
        total, count, noise=level, cell=cell, order=monomials.shape[0] - 1
    )
    verified = config.peak_threshold if leaves_light or light else None
    found = np.zeros(shape, bool)
    for scale in range(config.scales):
        factor = _STEP**scale
        if min(shape) < 2 * factor:
            break
        if found.any():
            # what a finer scale has found must not shine into a coarser one
            total[found] = 0
            count[found] = 0
        sums, counts = _coarser(total, factor), _coarser(count, factor)
        local = _at_blocks(noise, grid, sums.shape, size * factor)
        explained = polynomial_at_blocks(inclusive, shape, factor, (sums.shape[0], sums.shape[1]))
        region = _region(
            sums,
            counts,
            local,
            config,
            explained=explained,
            verified=verified,
            footprints=footprints,
            level=level,
            size=size * factor,
            least=(_VERIFIED * cell / factor) ** 2,
        )
        if region.any():
            found |= np.repeat(np.repeat(region, factor, 0), factor, 1)[: shape[0], : shape[1]]
    return found


def paint_blocks(blocks: NDArray[np.bool_], size: int, value: int, flags: NDArray[np.uint8]) -> None:
    """Set bits ``value`` in all pixels of the blocks, (by, bx) bool, of ``size`` pixels."""
    changed_rows(_paint, flags, blocks=blocks, size=size, value=value)


def structure_left(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: float,
    *,
    crowding: float = 1.0,
    threads: int = 1,
) -> float:
    """Rms of what the sky has and the model does not: fringes, ghosts, steps, cirrus.

    The residual is averaged over blocks of 16 pixels. What neighbouring blocks have in common is no noise. It
    counts when blocks away from all that is masked have more in common than undetected sources and chance
    give; its size is then taken from where faint extended light was masked as well, because such structure
    is taken for that.

    Parameters
    ----------
    image, flags, monomials
        As for `skysub.sources.detect.find_footprints`, the flags with SOURCE and EXTENDED set.
    noise
        Per pixel, unit of the image.
    crowding
        How many times the light of undetected sources varies more than in an open field.

    Returns
    -------
    structure
        Unit of the image; 0 where there is none to speak of.
    """
    if not (noise > 0 and image.shape[1] > 2 * _STRUCTURE_BLOCK):
        return 0.0
    sky_alone = _in_common(image, flags, monomials, ignored=NOT_SKY, threads=threads)
    if not any(
        abs(product) > noise**2 * max((crowding * least) ** 2, _STRUCTURE_SURE * chance)
        for (product, chance), least in zip(sky_alone, _STRUCTURE_LEAST, strict=True)
    ):
        return 0.0
    light_and_sky = _in_common(image, flags, monomials, ignored=NOT_SKY & ~EXTENDED, threads=threads)
    # what repeats within a few blocks, as fringes do, has less than nothing in common with its neighbours
    return math.sqrt(max(abs(product) for product, _ in light_and_sky))


def roughness(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: float,
    *,
    threads: int = 1,
) -> float:
    """Scatter of the sky about the model between blocks of 16 pixels, beyond their noise, unit of the image.

    It is taken from the darker side, which light does not touch; parameters as for `structure_left`. What
    repeats within a few blocks counts in full, unlike there.
    """
    mean, variance, seen = _block_means(image, flags, monomials, ignored=NOT_SKY, threads=threads)
    if not seen.any():
        return 0.0
    low, middle = np.quantile(mean[seen], (_LOWER[0], 0.5))
    scatter = float(middle - low) / -_LOWER_NORMAL[0]
    return math.sqrt(max(0.0, scatter**2 - noise**2 * float(np.median(variance[seen]))))


def _in_common(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    *,
    ignored: int,
    threads: int,
) -> list[tuple[float, float]]:
    """Mean product of residuals of blocks one and two columns apart, and its deviation for noise of 1."""
    mean, variance, seen = _block_means(image, flags, monomials, ignored=ignored, threads=threads)
    found = []
    for apart in (1, 2):
        pairs = max(1, int(np.sum(seen[:, apart:] & seen[:, :-apart])))
        product = float(np.sum(mean[:, apart:] * mean[:, :-apart])) / pairs
        chance = math.sqrt(float(np.sum(variance[:, apart:] * variance[:, :-apart]))) / pairs
        found.append((product, chance))
    return found


def _block_means(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    *,
    ignored: int,
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Mean residuals of blocks, their variance for noise of 1 (both 0 where not seen), and which are seen."""
    size = _STRUCTURE_BLOCK
    binned = _binned(image, flags, monomials, ignored, size, threads=threads)
    total, count = (each.astype(np.float64) for each in binned)
    seen = count > _STRUCTURE_COVERAGE * size * size
    mean = np.where(seen, total / np.maximum(count, 1), 0.0)
    variance = np.where(seen, 1 / np.maximum(count, 1), 0.0)
    return mean, variance, seen


def _binned(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    ignored: int,
    size: int,
    *,
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sums of residuals over blocks of ``size`` pixels, and their numbers of pixels, (by, bx) each."""
    edges = np.append(np.arange(0, image.shape[0], size), image.shape[0])
    parts = over_rows(
        _bin,
        (image, flags),
        spans=rows_between(edges),
        threads=threads,
        monomials=monomials,
        ignored=ignored,
        size=size,
    )
    total, count = (np.concatenate(each) for each in zip(*parts, strict=True))
    return total, count


def _bin(
    units: range,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    monomials: NDArray[np.float64],
    ignored: int,
    size: int,
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from skysub.sources import block_kernels as kernels

    image = for_kernels(image)
    shape = (len(units), -(-image.shape[1] // size))
    total = np.empty(shape, np.float32)
    count = np.empty(shape, np.float32)

    def band(rows: range) -> None:
        kernels.bin_residual(
            image, flags, monomials, ignored, size, rows.start, rows.stop, units.start, total, count
        )

    in_threads(band, units, threads)
    return total, count


def _paint(
    rows: range, flags: NDArray[np.uint8], *, blocks: NDArray[np.bool_], size: int, value: int, threads: int
) -> None:
    from skysub.sources import paint_kernels as kernels

    del threads
    first, last = rows.start // size, -(-rows.stop // size)
    kernels.paint_blocks(blocks[first:last], size, value, flags[first * size : last * size])


def _region(
    total: NDArray[np.float32],
    count: NDArray[np.float32],
    noise: NDArray[np.float32],
    config: ExtendedConfig,
    *,
    explained: NDArray[np.float32],
    verified: float | None,
    footprints: Footprints | None,
    level: float,
    size: int,
    least: float,
) -> NDArray[np.bool_]:
    """Blocks of one scale that stand out after smoothing, grown."""
    from skysub.sources import block_kernels as kernels

    kernel = smoothing_kernel(_SMOOTHING_FWHM)
    ny = total.shape[0]
    light, weight, variance = np.empty_like(total), np.empty_like(total), np.empty_like(total)
    kernels.convolve(total, kernel, 0, ny, light)
    kernels.convolve(count, kernel, 0, ny, weight)
    kernels.convolve(count * noise**2, kernel**2, 0, ny, variance)
    # the kernel sums to 1, so the weight is the mean number of good pixels per block
    judged = weight > _LEAST_COVERAGE * count.max(initial=0)
    judged &= variance > 0
    chosen = np.flatnonzero(judged)
    if chosen.size < 16:
        return np.zeros(total.shape, bool)
    # every few of them: neighbours are alike
    chosen = chosen[:: max(1, chosen.size // _SAMPLED)].copy()
    variance[~judged] = 1
    deviation = np.sqrt(variance, out=variance)
    above = _standardised(light, deviation, judged, chosen)
    runs = runs_above(above, config.edge_threshold, config.peak_threshold)
    area = np.bincount(runs.label, weights=runs.stop - runs.start, minlength=runs.footprints)
    large = regions_of(runs, least=least)
    if large:
        kernels.convolve(count * explained, kernel, 0, ny, weight)
        above = _standardised(light - weight, deviation, judged, chosen)
        for label, region in large:
            if not believed(region, above, threshold=verified, footprints=footprints, noise=level, size=size):
                area[label] = -1
        runs = runs.of(area > 0)
        area = area[area > 0]
    return grown(runs, np.maximum(1, config.growth * np.sqrt(area / np.pi)), above.shape)


def _standardised(
    light: NDArray[np.float32],
    deviation: NDArray[np.float32],
    judged: NDArray[np.bool_],
    chosen: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Smoothed light from its level, in units of its scatter; 0 where it is not judged."""
    above = np.where(judged, light / deviation, np.float32(0))
    # from the lower side alone, which light does not touch
    values = above.ravel()[chosen]
    low, middle = (float(value) for value in np.quantile(values, _LOWER))
    scatter = (middle - low) / (_LOWER_NORMAL[1] - _LOWER_NORMAL[0])
    # measured from the level: a pedestal of faint sources everywhere is no extended source
    middle -= _LOWER_NORMAL[1] * scatter
    above -= np.float32(middle)
    above /= np.float32(max(1.0, scatter))
    above[~judged] = 0
    return above


def _coarser(blocks: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Sums over factor x factor blocks, (ceil(ny / factor), ceil(nx / factor))."""
    if factor == 1:
        return blocks
    from skysub.sources import block_kernels as kernels

    sums = np.empty([-(-n // factor) for n in blocks.shape], np.float32)
    kernels.coarsen(blocks, factor, sums)
    return sums


def _at_blocks(
    noise: NDArray[np.float64], grid: SuperpixelGrid, shape: tuple[int, int], size: int
) -> NDArray[np.float32]:
    """Noise of the superpixel in which each block's first pixel lies."""
    rows = np.searchsorted(grid.y_edges, size * np.arange(shape[0]), side="right") - 1
    columns = np.searchsorted(grid.x_edges, size * np.arange(shape[1]), side="right") - 1
    return noise.astype(np.float32)[rows].take(columns, axis=1)
