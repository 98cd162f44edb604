"""How crowded a place is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["DENSE", "crowding"]

DENSE = 0.06
"""Crowding from which stars are dense: a source wider than the PSF is then likely to be some stars."""
_NEAR = 2.5
"""Distance, in sigma of the PSF, within which two stars look like one wide source."""


def crowding(
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
