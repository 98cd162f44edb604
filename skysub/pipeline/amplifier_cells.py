"""What small cells of an image leave over a smooth sky, ordered by amplifiers, and steps between these."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.rows import over_rows, rows_between

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.amplifiers import Amplifier

__all__ = ["BIN_ROWS", "Boundary", "Cells", "Lattice", "boundaries", "measure_cells"]

BIN_ROWS = 8
"""Rows of a cell, and of a bin of drift."""
_CELL_COLUMNS = 32
"""Columns of a cell, about, and of the strips on both sides of a boundary."""
_LEAST_SEEN = 0.15
"""Share of its pixels that a cell must have left to be used."""
_SEGMENT = 8
"""Cells along a boundary that are averaged before their scatter is believed."""
_FEWEST_SEGMENTS = 4
_CUT = 4.0
"""Of bisquare weights, in units of the scatter."""
_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Lattice:
    """Amplifiers in rows and columns."""

    amplifiers: tuple[Amplifier, ...]
    """Row by row from the lower left."""
    y_edges: tuple[int, ...]
    x_edges: tuple[int, ...]

    @classmethod
    def of(cls, amplifiers: Sequence[Amplifier]) -> Lattice | None:
        """Return the lattice that amplifiers form, or None where they form none."""
        y = tuple(sorted({edge for a in amplifiers for edge in a.y}))
        x = tuple(sorted({edge for a in amplifiers for edge in a.x}))
        by_corner = {(a.y, a.x): a for a in amplifiers}
        wanted = [((y[j], y[j + 1]), (x[i], x[i + 1])) for j in range(len(y) - 1) for i in range(len(x) - 1)]
        if len(by_corner) != len(wanted) or set(by_corner) != set(wanted):
            return None
        if min(np.diff(y)) < 2 * BIN_ROWS or min(np.diff(x)) < 2 * _CELL_COLUMNS:
            return None
        return cls(tuple(by_corner[corner] for corner in wanted), y, x)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of amplifiers."""
        return len(self.y_edges) - 1, len(self.x_edges) - 1


@dataclass(frozen=True, eq=False)
class Cells:
    """Mean residuals of cells of 8 rows and about 32 columns, none of which crosses a boundary."""

    lattice: Lattice
    y_edges: NDArray[np.int64]
    x_edges: NDArray[np.int64]
    y_amplifier: NDArray[np.int64]
    """(cells in y,) row of amplifiers in which each lies; the same for x."""
    x_amplifier: NDArray[np.int64]
    mean: NDArray[np.float64]
    """(cells in y, cells in x) mean residual, unit of the image; 0 where nothing is seen."""
    count: NDArray[np.float64]
    """Pixels of each that were seen; 0 for a cell that has too few."""


def measure_cells(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    ignored: int,
    monomials: NDArray[np.float64],
    lattice: Lattice,
    *,
    limit: float,
    step: int = 1,
) -> Cells:
    """Mean residuals of cells.

    Parameters
    ----------
    ignored
        Bits of ``flags`` whose pixels are left out, and with them pixels that lie beyond ``limit``.
    monomials
        Monomial coefficients of the smooth sky.
    step
        Only every so many rows are looked at.
    """
    y_edges, y_amplifier = _divided(lattice.y_edges, BIN_ROWS, whole=True)
    x_edges, x_amplifier = _divided(lattice.x_edges, _CELL_COLUMNS, whole=False)
    parts = over_rows(
        _sums,
        (image, flags),
        spans=rows_between(y_edges),
        ignored=ignored,
        monomials=monomials,
        limit=limit,
        edges=(y_edges, x_edges),
        step=step,
    )
    total, count = (np.concatenate(each) for each in zip(*parts, strict=True))
    rows = -(-np.diff(y_edges) // step)
    area = np.outer(rows, np.diff(x_edges))
    seen = count >= _LEAST_SEEN * area
    mean = np.where(seen, total, 0).astype(np.float64) / np.maximum(count, 1)
    return Cells(
        lattice=lattice,
        y_edges=y_edges,
        x_edges=x_edges,
        y_amplifier=y_amplifier,
        x_amplifier=x_amplifier,
        mean=mean,
        count=np.where(seen, count, 0).astype(np.float64),
    )


def _sums(
    units: range,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    ignored: int,
    monomials: NDArray[np.float64],
    limit: float,
    edges: tuple[NDArray[np.int64], NDArray[np.int64]],
    step: int,
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sums of residuals and numbers of pixels of some rows of cells."""
    from skysub.background import amplifier_kernels as kernels

    del threads
    y_edges, x_edges = edges[0][units.start : units.stop + 1], edges[1]
    total = np.empty((len(units), len(x_edges) - 1), np.float32)
    count = np.empty_like(total)
    kernels.cell_sums(
        for_kernels(image), flags, ignored, monomials, limit, y_edges, x_edges, step, total, count
    )
    return total, count


@dataclass(frozen=True, slots=True)
class Boundary:
    """The step from one amplifier to the next, measured in strips on both sides."""

    first: int
    second: int
    """Numbers of the amplifiers, left and right or below and above."""
    step: float
    """Second minus first, unit of the image."""
    error: float
    across_rows: bool
    """The amplifiers lie one above the other."""


def boundaries(cells: Cells, noise: float, *, slope: bool = False) -> list[Boundary]:
    """Steps across all boundaries that enough is seen of.

    Light and sky go on across a boundary; what jumps there is the amplifiers'. The errors are those of the
    scatter among stretches of a boundary.

    Parameters
    ----------
    noise
        Per pixel, unit of the image.
    slope
        Extrapolate the strips by those farther out: for cells whose model does not follow the sky yet.
    """
    found = []
    rows, columns = cells.lattice.shape
    mean, count = cells.mean, cells.count
    for i in range(columns - 1):
        right = int(np.searchsorted(cells.x_amplifier, i + 1))
        sides = [(mean[:, right + k], count[:, right + k]) for k in (-2, -1, 0, 1)]
        for j in range(rows):
            own = cells.y_amplifier == j
            step = _step([(m[own], n[own]) for m, n in sides], noise, slope=slope)
            if step is not None:
                found.append(Boundary(j * columns + i, j * columns + i + 1, *step, across_rows=False))
    for j in range(rows - 1):
        upper = int(np.searchsorted(cells.y_amplifier, j + 1))
        # as deep a strip as those along columns are wide
        deep = max(1, _CELL_COLUMNS // BIN_ROWS)
        strips = []
        for k in (-2, -1, 0, 1):
            cut = slice(max(0, upper + k * deep), max(0, upper + (k + 1) * deep))
            n = count[cut].sum(axis=0)
            strips.append(((mean[cut] * count[cut]).sum(axis=0) / np.maximum(n, 1), n))
        for i in range(columns):
            own = cells.x_amplifier == i
            step = _step([(m[own], n[own]) for m, n in strips], noise, slope=slope)
            if step is not None:
                found.append(Boundary(j * columns + i, (j + 1) * columns + i, *step, across_rows=True))
    return found


def _step(
    sides: list[tuple[NDArray[np.float64], NDArray[np.float64]]], noise: float, *, slope: bool
) -> tuple[float, float] | None:
    """Step across a boundary and its error, from strips two and one before it, one and two after it."""
    factors = (0.5, -1.5, 1.5, -0.5) if slope else (0.0, -1.0, 1.0, 0.0)
    used = [(f, m, n) for f, (m, n) in zip(factors, sides, strict=True) if f]
    seen = np.logical_and.reduce([n > 0 for _, _, n in used])
    if seen.sum() < 2 * _FEWEST_SEGMENTS:
        return None
    value = sum(f * m[seen] for f, m, _ in used)
    variance = noise**2 * sum(f**2 / n[seen] for f, _, n in used)
    value, variance = np.asarray(value), np.asarray(variance)
    centre, weights, scatter = _located(value, variance)
    error = scatter / np.sqrt(np.sum(weights / variance))
    # what neighbouring cells have in common does not average out
    starts = np.arange(0, len(value), min(_SEGMENT, max(1, len(value) // _FEWEST_SEGMENTS)))
    w = np.add.reduceat(weights / variance, starts)
    known = w > 0
    if known.sum() >= _FEWEST_SEGMENTS:
        means = np.add.reduceat(weights / variance * value, starts)[known] / w[known]
        chi2 = float(np.sum(w[known] * (means - centre) ** 2)) / (known.sum() - 1)
        error = max(error, np.sqrt(chi2 / np.sum(w)))
    return centre, float(error)


def _located(
    value: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], float]:
    """Centre by bisquare weights, the weights, and the scatter about it in units of the errors (>= 1)."""
    error = np.sqrt(variance)
    centre = float(np.median(value))
    weights, scatter = np.ones(len(value)), 1.0
    for _ in range(_ROUNDS):
        pulls = (value - centre) / error
        scatter = max(1.0, 1.4826 * float(np.median(np.abs(pulls))))
        t = np.minimum(np.abs(pulls) / (_CUT * scatter), 1)
        weights = (1 - t * t) ** 2
        if not weights.any():
            return centre, np.ones(len(value)), scatter
        centre = float(np.sum(weights / variance * value) / np.sum(weights / variance))
    return centre, weights, scatter


def _divided(
    edges: tuple[int, ...], size: int, *, whole: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of cells of about ``size`` pixels between the given ones, and the interval that each lies in.

    With ``whole`` all but the last of an interval have that size exactly; else they are alike.
    """
    found, owner = [edges[0]], []
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        if whole:
            inner = [*range(first + size, last, size), last]
        else:
            parts = max(1, round((last - first) / size))
            inner = [first + (last - first) * (i + 1) // parts for i in range(parts)]
        found += inner
        owner += [number] * len(inner)
    return np.array(found, np.int64), np.array(owner, np.int64)
