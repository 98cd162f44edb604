"""Means of a detector's sky over small cells, from which sky frames are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.clipping import superpixel_statistics
from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import InvalidImageError
from skysub.pipeline.preview import SOURCE_PLANES
from skysub.visit.plane_table import planes_with

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = ["CELL", "SkyCells", "cells_of"]

CELL = 32
"""Edge of a cell, pixel: fringes of 100 pixels and more are resolved."""
_LEAST = 0.1
"""Share of its pixels that a cell must keep to count."""


@dataclass(frozen=True, eq=False)
class SkyCells:
    """What a detector's own background left, in cells that divide the image evenly.

    Raises
    ------
    InvalidImageError
        When mean and error are not two grids of one shape.
    """

    mean: NDArray[np.float32]
    """(cy, cx) float32 clipped mean of image minus background, unit of the image; NaN where too few pixels
    are sky."""
    error: NDArray[np.float32]
    """(cy, cx) float32 standard error of ``mean``; NaN where that is."""

    def __post_init__(self) -> None:
        if self.mean.ndim != 2 or self.mean.shape != self.error.shape:
            raise InvalidImageError(
                f"Shape of the means {self.mean.shape} does not match that of their errors {self.error.shape}"
            )


def cells_of(subtracted: VisitImage, *, cell: int = CELL, threads: int = 1) -> SkyCells:
    """Bin a background-subtracted image, such as ``preliminary_visit_image``, into cells.

    Parameters
    ----------
    subtracted
        Image whose mask tells sources (DETECTED) and defects; masked pixels and those that are not finite are
        left out.
    cell
        Edge of the cells, pixel; they are spread evenly, so that their edges differ a little.
    """
    ny, nx = subtracted.shape
    grid = SuperpixelGrid.of_counts((ny, nx), gy=max(1, round(ny / cell)), gx=max(1, round(nx / cell)))
    # one clip takes cosmic rays and what is left of sources; a mean of so few pixels needs no more
    config = BackgroundConfig(superpixel=cell, clip_passes=2)
    mask: NDArray[np.unsignedinteger] = subtracted.mask.view(f"u{subtracted.mask.itemsize}")
    bits = subtracted.bits(*planes_with("no_science", "saturated"), *SOURCE_PLANES)
    found = superpixel_statistics(subtracted.image, mask, bits, grid, config, threads=threads)
    area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    seen = (found.count >= np.maximum(2, _LEAST * area)) & np.isfinite(found.error) & (found.error > 0)
    return SkyCells(
        mean=np.where(seen, found.mean, np.float32(np.nan)),
        error=np.where(seen, found.error, np.float32(np.nan)),
    )
