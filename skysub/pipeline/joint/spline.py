"""A tensor product of cubic B-splines over the focal plane, with a penalty on curvature (a P-spline).

Eilers & Marx 1996, Statistical Science 11, 89: differences of second order between neighbouring coefficients
are held small, which leaves planes and the term xy free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Basis", "Spline", "cubic", "difference_penalty"]

FREE = 4
"""Coefficients that the penalty leaves free: 1, x, y, xy."""


@dataclass(frozen=True, eq=False)
class Basis:
    """Values of the spline's basis at points, 4 x 4 for each, from one rectangle of coefficients."""

    index_y: NDArray[np.int64]
    """(n,) first coefficient along y, counted within the rectangle;"""
    index_x: NDArray[np.int64]
    """(n,) the same along x."""
    basis_y: NDArray[np.float64]
    """(n, 4) values of the basis along y;"""
    basis_x: NDArray[np.float64]
    """(n, 4) along x."""
    columns: int
    """Coefficients of the rectangle along x."""
    members: NDArray[np.int64]
    """(m,) numbers of the rectangle's coefficients among all of the spline's, ascending."""


@dataclass(frozen=True, slots=True)
class Spline:
    """Knots of equal spacing over a box of the focal plane."""

    x0: float
    y0: float
    """Lower left corner, pixel."""
    step_x: float
    step_y: float
    """Distance between knots, pixel."""
    cells_x: int
    cells_y: int
    """Intervals between knots."""

    @classmethod
    def over(cls, box: tuple[float, float, float, float], spacing: float) -> Spline:
        """Spline over a box (x0, x1, y0, y1), pixel, with knots about ``spacing`` apart, never closer."""
        x0, x1, y0, y1 = box
        cells_x = max(1, math.floor((x1 - x0) / spacing + 1e-9))
        cells_y = max(1, math.floor((y1 - y0) / spacing + 1e-9))
        return cls(x0, y0, (x1 - x0) / cells_x, (y1 - y0) / cells_y, cells_x, cells_y)

    @property
    def shape(self) -> tuple[int, int]:
        """Coefficients along y and x."""
        return self.cells_y + 3, self.cells_x + 3

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return self.shape[0] * self.shape[1]

    def basis(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Basis:
        """Basis at points of the focal plane, (n,) each; points outside continue the outermost interval."""
        cell_x, basis_x = cubic((x - self.x0) / self.step_x, self.cells_x)
        cell_y, basis_y = cubic((y - self.y0) / self.step_y, self.cells_y)
        low_x, high_x = int(cell_x.min()), int(cell_x.max()) + 4
        low_y, high_y = int(cell_y.min()), int(cell_y.max()) + 4
        rows, columns = np.arange(low_y, high_y), np.arange(low_x, high_x)
        return Basis(
            index_y=cell_y - low_y,
            index_x=cell_x - low_x,
            basis_y=basis_y,
            basis_x=basis_x,
            columns=len(columns),
            members=(rows[:, None] * self.shape[1] + columns).ravel(),
        )

    def penalty(self) -> NDArray[np.float64]:
        """(size, size) quadratic form of squared second differences along both axes."""
        rows, columns = self.shape
        along_y, along_x = difference_penalty(rows), difference_penalty(columns)
        return np.kron(along_y, np.eye(columns)) + np.kron(np.eye(rows), along_x)


def difference_penalty(n: int) -> NDArray[np.float64]:
    """(n, n): sum of squared second differences of n numbers."""
    differences = np.diff(np.eye(n), n=2, axis=0)
    penalty: NDArray[np.float64] = np.einsum("ki,kj->ij", differences, differences)
    return penalty


def cubic(t: NDArray[np.float64], cells: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First coefficient and four values of uniform cubic B-splines, at positions in units of the spacing."""
    cell = np.clip(np.floor(t), 0, cells - 1).astype(np.int64)
    u = t - cell
    values = np.stack(
        [
            (1 - u) ** 3 / 6,
            (3 * u**3 - 6 * u**2 + 4) / 6,
            (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
            u**3 / 6,
        ],
        axis=1,
    )
    return cell, values
