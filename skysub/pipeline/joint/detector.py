"""One detector's background out of the joint solution of its visit."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import degrees, design_matrix
from skysub.background.layered import LayeredBackground
from skysub.pipeline.joint.focal_plane import positions
from skysub.pipeline.joint.structure import finer_cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.faint_light import FaintLight
    from skysub.pipeline.joint.fit import Fit
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.rows import Scale
    from skysub.pipeline.joint.spline import Basis
    from skysub.pipeline.joint.system import System

__all__ = ["LevelTerms", "detector_background", "with_finer_cells"]

ORDER = 8
"""Total degree of the polynomial that the spline is written as, detector by detector: with knots at half
its width or farther they differ by a few 10^-4 of what the sky varies by."""
_NODES = 12
_CELLS = 2
"""Cells per superpixel and axis of the finer model."""


@dataclass(frozen=True, slots=True)
class LevelTerms:
    """What is added to the whole detector, and what is not known of its level."""

    shift: float
    variance: float


def detector_background(
    record: DetectorRecord,
    place: NDArray[np.float64],
    system: System,
    fit: Fit,
    number: int,
    *,
    scale: Scale,
    level: LevelTerms,
    faint_light: FaintLight | None,
    frames: NDArray[np.float32] | None,
) -> tuple[LayeredBackground, tuple[float, float]]:
    """Return the background of one detector of a system, and its offset with its standard deviation."""
    rows, local, spline = system.detectors[number], fit.solution.local[number], system.spline
    m, k = len(rows.basis.members), system.templates
    covariance = local.covariance * (fit.inflation * scale.unit**2)
    offset_at = m + k + np.flatnonzero(rows.groups == 0)
    offset = float(np.sum(local.terms[rows.groups == 0])) * scale.unit

    x, y, project = _nodes(record.shape)
    basis = spline.basis(*positions(place, x, y))
    design = np.zeros((len(x), m + k + len(rows.groups)))
    design[:, :m] = _dense(basis, rows.basis)
    smooth = np.einsum("ki,i->k", design[:, :m], fit.solution.coefficients[rows.basis.members]) * scale.unit
    design[:, offset_at] = 1.0
    smooth += scale.level + offset + level.shift
    projected = np.einsum("ik,kj->ij", project, design)
    spread = np.einsum("ik,jk->ij", np.einsum("ij,jk->ik", projected, covariance), projected)
    spread[0, 0] += level.variance
    background = record.background
    whole = LayeredBackground(
        grid=background.grid,
        statistics=background.statistics,
        coefficients=np.einsum("ik,k->i", project, smooth),
        covariance=spread,
        order=ORDER,
        usable=(fit.weights[number] > 0).reshape(background.grid.shape),
        chi2_per_freedom=fit.chi2,
        config=dataclasses.replace(background.config, order=ORDER),
        faint_light=faint_light,
        # superpixels were measured without what the detector's own amplifiers add
        amplifiers=background.amplifiers,
    )
    steps = cells = None
    amplifiers = rows.groups == 1
    told = record.detector in system.steps
    if amplifiers.any() and (fit.solution.widths.amplifier > 0 or told):
        steps = local.terms[amplifiers] * scale.unit
        whole = dataclasses.replace(whole, boxes=record.amplifiers, steps=steps)
    if frames is not None:
        scales = fit.solution.coefficients[spline.size :]
        cells = np.einsum("k,kyx->yx", scales, frames.astype(np.float64)).astype(np.float32)
        whole = dataclasses.replace(whole, cells=cells)
    if steps is not None or cells is not None:
        deviation = _deviation(rows.basis, rows.local, covariance, level.variance, background.grid.shape)
        whole = dataclasses.replace(whole, deviation=deviation)
    own = covariance[np.ix_(offset_at, offset_at)]
    return whole, (offset, float(np.sqrt(np.sum(own))))


def with_finer_cells(
    made: LayeredBackground,
    residual: NDArray[np.float64],
    error: NDArray[np.float64],
    seen: NDArray[np.bool_],
) -> LayeredBackground:
    """Return the background with structure that the joint fit left, for detection.

    ``residual``, ``error`` and ``seen`` are (gy, gx): values minus model, and which of them are sky.
    """
    finer = finer_cells(residual, error, seen, upsampled=_CELLS)
    if finer is None:
        return made
    if made.cells is not None:
        finer = _resampled(finer, made.cells.shape) + made.cells
    return dataclasses.replace(made, cells=finer)


def _resampled(cells: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    from skysub.background.layered import interpolated

    return interpolated(cells, (shape[0], shape[1]), range(shape[0]), range(shape[1]))


@functools.lru_cache(maxsize=16)
def _nodes(
    shape: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of Chebyshev nodes on a detector, and what makes values there a polynomial.

    The terms are orthogonal on the nodes, so that least squares are sums.
    """
    ny, nx = shape
    node = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    y, x = (
        c.ravel() for c in np.meshgrid((node + 1) / 2 * ny - 0.5, (node + 1) / 2 * nx - 0.5, indexing="ij")
    )
    terms = design_matrix(x, y, shape=shape, order=ORDER)
    norm = np.array([(1 if p == 0 else 0.5) * (1 if q == 0 else 0.5) for p, q in degrees(ORDER)])
    return x, y, np.ascontiguousarray(terms.T / (norm * _NODES**2)[:, None])


def _dense(basis: Basis, within: Basis) -> NDArray[np.float64]:
    """(n, m) values of a basis, in the columns of another's rectangle of coefficients.

    Coefficients outside that rectangle are those of points beyond all superpixels; they belong to none.
    """
    out = np.zeros((len(basis.index_y), len(within.members)))
    every = np.arange(len(out))
    columns = np.searchsorted(within.members, basis.members)
    columns[columns == len(within.members)] = 0
    columns = np.where(within.members[columns] == basis.members, columns, -1)
    for q in range(4):
        for p in range(4):
            column = columns[(basis.index_y + q) * basis.columns + basis.index_x + p]
            inside = column >= 0
            value = basis.basis_y[:, q] * basis.basis_x[:, p]
            np.add.at(out, (every[inside], column[inside]), value[inside])
    return out


def _deviation(
    basis: Basis,
    local: NDArray[np.float64],
    covariance: NDArray[np.float64],
    variance: float,
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """(gy, gx) standard deviation of the whole model at the centres of superpixels."""
    from skysub.pipeline.joint import kernels

    rows = np.ascontiguousarray(np.concatenate([_dense(basis, basis), local], axis=1))
    squares = np.empty(len(rows))
    kernels.quadratic(rows, np.ascontiguousarray(covariance), squares)
    return np.sqrt(np.maximum(squares, 0) + variance).reshape(shape).astype(np.float32)
