"""The grid of superpixels over an image, and the statistics image that lies on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig

__all__ = ["SuperpixelGrid", "SuperpixelStatistics", "candidate_grids"]


@dataclass(frozen=True, eq=False)
class SuperpixelGrid:
    """Edges of the superpixels of an image of ``shape`` (ny, nx) pixels.

    Superpixels are spread evenly: with n of them over a length W, edge i lies at
    ``min((i W + n // 2) // n, W)`` (LSST afw's rule), so their sizes differ by one pixel at most.
    """

    x_edges: NDArray[np.int64]
    """(gx + 1,) int64, pixel; superpixel i holds columns x_edges[i] to x_edges[i + 1] - 1."""
    y_edges: NDArray[np.int64]
    """(gy + 1,) int64, pixel; the same for rows."""

    @classmethod
    def over(cls, shape: tuple[int, int], config: BackgroundConfig) -> SuperpixelGrid:
        """Grid that ``config`` puts over an image of ``shape`` (ny, nx)."""
        ny, nx = shape
        size_x, size_y = config.superpixel_xy
        if config.grid_rule == "ceil":
            return cls.of_counts(shape, gy=-(-ny // size_y), gx=-(-nx // size_x))
        # never more superpixels than pixels, which LSST's older rule allows at size 1
        return cls.of_counts(shape, gy=min(ny // size_y + 1, ny), gx=min(nx // size_x + 1, nx))

    @classmethod
    def of_counts(cls, shape: tuple[int, int], *, gy: int, gx: int) -> SuperpixelGrid:
        """Grid of ``gy`` times ``gx`` superpixels over an image of ``shape`` (ny, nx)."""
        return cls(x_edges=_edges(shape[1], gx), y_edges=_edges(shape[0], gy))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of superpixels (gy, gx)."""
        return len(self.y_edges) - 1, len(self.x_edges) - 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of the image under the grid, pixel."""
        return int(self.y_edges[-1]), int(self.x_edges[-1])

    @property
    def x_centers(self) -> NDArray[np.float64]:
        """(gx,) float64, pixel; the centre of pixel 0 is 0."""
        return _centers(self.x_edges)

    @property
    def y_centers(self) -> NDArray[np.float64]:
        """(gy,) float64, pixel; the centre of pixel 0 is 0."""
        return _centers(self.y_edges)


@dataclass(frozen=True, eq=False)
class SuperpixelStatistics:
    """The statistics image: one value per superpixel, each (gy, gx)."""

    mean: NDArray[np.float32]
    """Clipped mean, mean or median, float32, unit of the image; NaN where no pixel is good."""
    error: NDArray[np.float32]
    """Standard error of ``mean``, float32, unit of the image; NaN where fewer than two pixels were kept."""
    count: NDArray[np.int32]
    """Number of good pixels (finite, not ignored), before clipping."""


def candidate_grids(shape: tuple[int, int], config: BackgroundConfig) -> list[SuperpixelGrid]:
    """Grids to try in turn: the one asked for and, with "refine", ever finer ones.

    The first refinement is LSST's: square superpixels of min(ny, nx) // order pixels, n // size + 1 of
    them along an axis; each later one halves the size, down to 4 pixels.
    """
    grid = SuperpixelGrid.over(shape, config)
    grids = [grid]
    if config.undersampled == "refine":
        size = min(*config.superpixel_xy)
        order = config.needed_superpixels - 1
        if min(grid.shape) <= order:
            grids, size = [], 2 * (min(shape) // max(order, 1))
        while size // 2 >= 4 or (not grids and size >= 2):
            size //= 2
            grids.append(
                SuperpixelGrid.over(shape, replace(config, superpixel=size, grid_rule="floor_plus_one"))
            )
    return grids or [grid]


def _edges(length: int, n: int) -> NDArray[np.int64]:
    i = np.arange(n + 1, dtype=np.int64)
    edges: NDArray[np.int64] = np.minimum((i * length + n // 2) // n, length)
    edges[0] = 0
    return edges


def _centers(edges: NDArray[np.int64]) -> NDArray[np.float64]:
    centers: NDArray[np.float64] = edges[:-1] + 0.5 * np.diff(edges) - 0.5
    return centers
