"""Small pictures of an image, so that nobody reads millions of pixels to draw a thumbnail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.rows import over_rows, rows_between
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
    grid = cells((visit_image.image.shape[0], visit_image.image.shape[1]), edge)
    parts = over_rows(
        _binned,
        (visit_image.image, visit_image.mask),
        spans=rows_between(grid.y_edges),
        grid=grid,
        excluded=visit_image.bits(*planes_with("no_science")),
        sources=visit_image.bits(*SOURCE_PLANES),
        defects=visit_image.bits(*planes_with("no_science", "saturated")),
    )
    made = (np.concatenate(each) for each in zip(*parts, strict=True))
    return dict(zip(("image", "residual", "sources", "defects"), made, strict=True))


def _binned(
    units: range,
    image: NDArray[np.float32],
    mask: NDArray[np.signedinteger],
    *,
    grid: SuperpixelGrid,
    excluded: int,
    sources: int,
    defects: int,
    threads: int,
) -> list[NDArray[np.float32]]:
    """The four pictures in some rows of cells."""
    from skysub.pipeline.preview_kernels import bin_preview

    del threads
    made = [np.empty((len(units), grid.shape[1]), np.float32) for _ in range(4)]
    edges = grid.y_edges[units.start : units.stop + 1], grid.x_edges
    bin_preview(image, mask, excluded, sources, defects, *edges, LEAST_GOOD, *made)
    return made
