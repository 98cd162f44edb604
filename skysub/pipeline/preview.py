"""Small pictures of an image, so that nobody reads millions of pixels to draw a thumbnail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.superpixels import SuperpixelGrid
from skysub.visit.plane_table import planes_with

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = ["LEAST_GOOD", "PREVIEW_EDGE", "SOURCE_PLANES", "cells", "preview_of"]

PREVIEW_EDGE = 56
"""Cells along the longer side of a preview."""
SOURCE_PLANES = ("DETECTED", "DETECTED_NEGATIVE")
LEAST_GOOD = 0.15
"""A cell of a residual whose share of good pixels is smaller shows nothing."""


def cells(shape: tuple[int, int], edge: int) -> SuperpixelGrid:
    """Cells of nearly one size over an image (ny, nx); the longer side has ``edge`` of them at most."""
    cell = max(1, -(-max(shape) // edge))
    return SuperpixelGrid.of_counts(shape, gy=-(-shape[0] // cell), gx=-(-shape[1] // cell))


def preview_of(visit_image: VisitImage, edge: int = PREVIEW_EDGE) -> dict[str, NDArray[np.float32]]:
    """Bin a background-subtracted image and its mask into cells, in one pass over the pixels.

    Returns
    -------
    preview
        Arrays (gy, gx) float32 by name, row 0 first: "image" is the mean of pixels that are not bad,
        "residual" that of pixels without any mask, both in the image's unit and NaN where there are too
        few; "sources" and "defects" are shares (0 to 1) of pixels that are masked as such.
    """
    from skysub.pipeline.preview_kernels import bin_preview

    grid = cells((visit_image.image.shape[0], visit_image.image.shape[1]), edge)
    made = {name: np.empty(grid.shape, np.float32) for name in ("image", "residual", "sources", "defects")}
    bin_preview(
        visit_image.image,
        visit_image.mask,
        visit_image.bits(*planes_with("no_science")),
        visit_image.bits(*SOURCE_PLANES),
        visit_image.bits(*planes_with("no_science", "saturated")),
        grid.y_edges,
        grid.x_edges,
        LEAST_GOOD,
        *made.values(),
    )
    return made
