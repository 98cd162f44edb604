"""Whether a region of faint extended light could be sky that the background's model has missed.

A model that was fit without a region says nothing about the region: where it is wrong there, sky looks like
light. So a large region is believed only when it still stands out after a polynomial of the model's order was
fit to all pixels, its own included; or when it surrounds a source large enough to be its middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import degrees, design_matrix, least_squares
from skysub.background.robust import one_sided

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.sources.detect import Footprints, Runs

__all__ = ["Region", "believed", "inclusive_polynomial", "polynomial_at_blocks", "regions_of"]

_LEAST_COVERAGE = 0.05
"""A cell that has less of its pixels left does not enter the fit."""
_DARK_ALLOWED = 2.5
"""How far, in units of the scatter, blocks beside a region may lie below the polynomial by chance."""
_OVER_DARK = 2.0
"""A region must stand out by this many times what lies below the polynomial beside it beyond that."""
_CORE_PEAK = 7.0
"""Brightest pixel of such a source, in units of the noise."""
_CORE_SIZE = 0.2
"""Radius of a source over that of the region round it, from which the source is the region's middle."""


def inclusive_polynomial(
    total: NDArray[np.float32], count: NDArray[np.float32], *, noise: float, cell: int, order: int
) -> tuple[NDArray[np.float64], bool]:
    """Polynomial that explains as much as it can of a residual, light included, and whether it leaves light.

    Parameters
    ----------
    total, count
        (by, bx) sums of residuals over blocks, unit of the image, and their numbers of pixels.
    noise
        Per pixel, unit of the image.
    cell
        Blocks along the edge of a cell; the polynomial is fit to the means of cells by least squares.
    order
        Total degree, lowered where there are too few cells.

    Returns
    -------
    coefficients
        (n_terms,) in the order of `skysub.background.chebyshev`, over the blocks as pixels; all zero where
        nothing can be fit.
    leaves_light
        Whether the means of cells lie to one side of it, as light leaves them; a smooth sky that is too much
        for the polynomial leaves as much below as above.
    """
    shape = total.shape
    rows, columns = (np.arange(0, n, cell) for n in shape)

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        cells: NDArray[np.float64] = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
        return cells

    weight = summed(count.astype(np.float64))
    seen = weight > _LEAST_COVERAGE * weight.max(initial=0)
    order = min(order, *(len(np.unique(index)) - 1 for index in np.nonzero(seen))) if seen.any() else -1
    if order < 0:
        return np.zeros(1), False
    mean = summed(total.astype(np.float64))[seen] / weight[seen]
    places = (np.arange(shape[0], dtype=np.float64)[:, None], np.arange(shape[1], dtype=np.float64))
    y, x = (summed(count * place)[seen] / weight[seen] for place in places)
    root = np.sqrt(weight[seen])
    matrix = design_matrix(x, y, shape=(shape[0], shape[1]), order=order)
    coefficients = least_squares(matrix * root[:, None], mean * root)
    pulls = (mean - np.einsum("ki,i->k", matrix, coefficients)) * root / noise
    return coefficients, one_sided(pulls) > 0


def polynomial_at_blocks(
    coefficients: NDArray[np.float64], shape: tuple[int, int], factor: int, blocks: tuple[int, int]
) -> NDArray[np.float32]:
    """Values of that polynomial at the middle of coarser blocks.

    Parameters
    ----------
    shape
        Of the blocks over which it was fit.
    factor, blocks
        How many of those lie along the edge of a coarser one, and how many coarser ones there are, (by, bx).
    """
    order = 0
    while len(degrees(order)) < len(coefficients):
        order += 1
    middle = (factor - 1) / 2
    table = np.zeros((order + 1, order + 1))
    for value, (p, q) in zip(coefficients, degrees(order), strict=True):
        table[q, p] = value
    across, along = (
        np.polynomial.chebyshev.chebvander((2 * (factor * np.arange(n) + middle) - size + 1) / size, order)
        for n, size in zip(blocks, shape, strict=True)
    )
    values: NDArray[np.float64] = np.einsum(
        "yq,qp,xp->yx", across, table, along, optimize=["einsum_path", (0, 1), (0, 1)]
    )
    return values.astype(np.float32)


class Region:
    """Connected blocks that stand out: their rows, bounds and number."""

    __slots__ = ("blocks", "bottom", "left", "right", "rows", "top")

    def __init__(self, runs: Runs, label: int) -> None:
        own = np.flatnonzero(runs.label == label)
        start, stop, rows = runs.start[own], runs.stop[own], runs.y[own]
        self.rows = list(zip(rows.tolist(), start.tolist(), stop.tolist(), strict=True))
        self.bottom, self.top = int(rows.min()), int(rows.max()) + 1
        self.left, self.right = int(start.min()), int(stop.max())
        self.blocks = int((stop - start).sum())

    def peak(self, values: NDArray[np.float32]) -> float:
        """Largest of the values (by, bx) in it."""
        return max(float(values[y, first:last].max()) for y, first, last in self.rows)

    def touched_by(self, sources: Footprints, size: int) -> bool:
        """Whether its bounds reach within a source's radius of the source's edge.

        ``size`` of a block in pixels.
        """
        if not len(sources):
            return False
        y, x, reach = sources.y / size, sources.x / size, 2 * sources.radius / size
        off_y = np.maximum(np.maximum(self.bottom - y, y - self.top), 0)
        off_x = np.maximum(np.maximum(self.left - x, x - self.right), 0)
        return bool((np.hypot(off_y, off_x) <= reach).any())


def regions_of(runs: Runs, *, least: float) -> list[tuple[int, Region]]:
    """Labels and regions of at least so many blocks."""
    area = np.bincount(runs.label, weights=runs.stop - runs.start, minlength=runs.footprints)
    return [(int(label), Region(runs, int(label))) for label in np.flatnonzero(area >= least)]


def believed(
    region: Region,
    above: NDArray[np.float32],
    *,
    threshold: float | None,
    footprints: Footprints | None,
    noise: float,
    size: int,
) -> bool:
    """Whether a region is light.

    Parameters
    ----------
    above
        (by, bx) residual of the inclusive polynomial in units of its scatter, 0 where it is not judged.
    threshold
        What its peak must reach there; None where nothing tells of light, and only a middle counts.
    footprints
        Sources, one of which may be the region's middle.
    noise
        Per pixel, unit of the image.
    size
        Edge of a block, pixel.
    """
    if footprints is not None and len(footprints):
        radius = np.sqrt(region.blocks / np.pi) * size
        core = (footprints.radius > _CORE_SIZE * radius) & (
            (footprints.peak > _CORE_PEAK * noise) | (footprints.saturated > 0)
        )
        if region.touched_by(footprints.of(core), size):
            return True
    if threshold is None:
        return False
    high, wide = region.top - region.bottom, region.right - region.left
    beside = above[
        max(0, region.bottom - high) : region.top + high, max(0, region.left - wide) : region.right + wide
    ]
    dark = max(0.0, -float(beside.min(initial=0)) - _DARK_ALLOWED)
    return region.peak(above) >= max(threshold, _OVER_DARK * dark)
