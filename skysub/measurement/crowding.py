"""How crowded a place is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["DENSE", "Budget", "crowding"]

DENSE = 0.06
"""Crowding from which stars are dense: a source wider than the PSF is then likely to be some stars."""
_NEAR = 2.5
"""Distance, in sigma of the PSF, within which two stars look like one wide source."""


def crowding(  # noqa: PLR0917
    frame: Frame,
    psf: PsfTable,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    at_y: NDArray[np.float64],
    at_x: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sources expected by chance near each of some places (n,): from those at (y, x) in its cell."""
    grid = frame.grid
    counts, _, _ = np.histogram2d(y, x, bins=(grid.y_edges - 0.5, grid.x_edges - 0.5))
    area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    expected = counts / area * np.pi * (_NEAR * psf.sigma) ** 2
    gy, gx = grid.shape
    row = np.clip(np.searchsorted(grid.y_edges, at_y, side="right") - 1, 0, gy - 1)
    column = np.clip(np.searchsorted(grid.x_edges, at_x, side="right") - 1, 0, gx - 1)
    out: NDArray[np.float64] = expected[row, column]
    return out


class Budget:
    """How many sources a cell may have; where there are more, the faintest are given up.

    Attributes
    ----------
    exceeded
        (gy, gx) bool: cells where sources were given up.
    """

    def __init__(self, frame: Frame, config: MeasurementConfig) -> None:
        self._grid = frame.grid
        area = np.outer(np.diff(frame.grid.y_edges), np.diff(frame.grid.x_edges))
        self._most = np.maximum(np.ceil(area * config.most_sources), 4).astype(np.int64)
        self.exceeded = np.zeros(area.shape, np.bool_)

    def accept(
        self,
        y: NDArray[np.float64],
        x: NDArray[np.float64],
        new_y: NDArray[np.float64],
        new_x: NDArray[np.float64],
        brightness: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """Which new sources there is room for, beside those at (y, x): the brightest of each cell."""
        cells = self._cell_of(new_y, new_x)
        number = self._most.size
        room = self._most.ravel() - np.bincount(self._cell_of(y, x), minlength=number)
        order = np.lexsort((np.arange(len(cells)), -brightness, cells))
        starts = np.searchsorted(cells[order], np.arange(number))
        rank = np.empty(len(cells), np.int64)
        rank[order] = np.arange(len(cells)) - starts[cells[order]]
        accepted: NDArray[np.bool_] = rank < room[cells]
        self.exceeded.ravel()[cells[~accepted]] = True
        return accepted

    def plane(self) -> NDArray[np.bool_]:
        """(ny, nx): pixels of cells where sources were given up."""
        rows = np.repeat(self.exceeded, np.diff(self._grid.y_edges), axis=0)
        plane: NDArray[np.bool_] = np.repeat(rows, np.diff(self._grid.x_edges), axis=1)
        return plane

    def at(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether sources were given up in the cells of places (n,)."""
        return self.exceeded.ravel()[self._cell_of(y, x)]

    def _cell_of(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.int64]:
        gy, gx = self.exceeded.shape
        row = np.clip(np.searchsorted(self._grid.y_edges, y, side="right") - 1, 0, gy - 1)
        column = np.clip(np.searchsorted(self._grid.x_edges, x, side="right") - 1, 0, gx - 1)
        return row * gx + column
