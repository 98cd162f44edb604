"""What the tasks of `skysub.background.blocks` do in a worker: NumPy arrays in and out, no Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.clipping import superpixel_statistics
from skysub.background.model import fit_statistics
from skysub.background.pixels import checked_ignored, checked_image
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.errors import NoUsableSuperpixelsError, UndersampledError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background

__all__ = [
    "STATISTICS",
    "boxed",
    "evaluated",
    "fit_detector",
    "fitted",
    "statistics",
    "subtracted",
    "unboxed",
    "uncertainty",
]

STATISTICS = np.dtype([("mean", np.float32), ("error", np.float32), ("count", np.int32)])
"""One superpixel of a statistics image."""


def statistics(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    bits: int,
    grid: SuperpixelGrid,
    config: BackgroundConfig,
    threads: int,
    block_info: dict[Any, Any],
) -> NDArray[np.void]:
    """Statistics of the superpixels of one block, (gy, gx) or (detector, gy, gx) of `STATISTICS`.

    ``grid`` is that of the whole image; the block is a union of its superpixels.
    """
    if image.ndim == 3:
        masks = [None] * len(image) if mask is None else mask
        return np.stack(
            [
                statistics(i, m, bits=bits, grid=grid, config=config, threads=threads, block_info=block_info)
                for i, m in zip(image, masks, strict=True)
            ]
        )
    pixels = checked_image(image)
    ignored = None if mask is None else mask if mask.dtype == np.bool_ else (mask, bits)
    working_mask, working_bits = checked_ignored(ignored, image.shape)
    (y0, y1), (x0, x1) = block_info[0]["array-location"][-2:]
    own = SuperpixelGrid(y_edges=_within(grid.y_edges, y0, y1), x_edges=_within(grid.x_edges, x0, x1))
    found = superpixel_statistics(pixels, working_mask, working_bits, own, config, threads=threads)
    out = np.empty(own.shape, STATISTICS)
    out["mean"], out["error"], out["count"] = found.mean, found.error, found.count
    return out


def fitted(
    blocks: list[Any], grid: SuperpixelGrid, config: BackgroundConfig, first_detector: int | None
) -> NDArray[np.object_]:
    """Gather the statistics of all blocks and fit each detector; see `boxed` for what is returned.

    ``blocks`` are nested lists as the blocks lie; ``first_detector`` is None for an image alone.
    """
    whole = np.block(blocks)
    if first_detector is None:
        return boxed([fit_detector(whole, grid, config, None)], 2)
    return boxed([fit_detector(one, grid, config, first_detector + i) for i, one in enumerate(whole)], 3)


def fit_detector(
    whole: NDArray[np.void], grid: SuperpixelGrid, config: BackgroundConfig, detector: int | None
) -> Background:
    """Fit the gathered statistics image of one detector; errors name its place in the stack."""
    gathered = SuperpixelStatistics(
        mean=np.ascontiguousarray(whole["mean"]),
        error=np.ascontiguousarray(whole["error"]),
        count=np.ascontiguousarray(whole["count"]),
    )
    try:
        return fit_statistics(grid, gathered, config)
    except (NoUsableSuperpixelsError, UndersampledError) as error:
        if detector is None:
            raise
        raise type(error)(f"detector {detector} of the stack: {error}") from error


def boxed(backgrounds: Sequence[Background], ndim: int) -> NDArray[np.object_]:
    """Backgrounds along the first of ``ndim`` axes, so that they broadcast against blocks of pixels."""
    box = np.empty((len(backgrounds), 1, 1)[-ndim:], np.object_)
    box.reshape(-1)[:] = backgrounds
    return box


def unboxed(box: NDArray[np.object_], i: int) -> Background:
    """Background of detector ``i`` of a box."""
    background: Background = box.reshape(-1)[i]
    return background


def subtracted(
    image: NDArray[Any], box: NDArray[np.object_], *, threads: int, block_info: dict[Any, Any]
) -> NDArray[np.floating]:
    """``image - model`` of one block of one or several detectors."""
    if image.ndim == 3:
        pairs = zip(image, box, strict=True)
        return np.stack([subtracted(i, b, threads=threads, block_info=block_info) for i, b in pairs])
    (y0, y1), (x0, x1) = block_info[0]["array-location"][-2:]
    pixels = checked_image(image)
    return unboxed(box, 0).subtract_from(pixels, y=slice(y0, y1), x=slice(x0, x1), threads=threads)


def evaluated(
    rows: NDArray[np.int64], columns: NDArray[np.int64], background: Background
) -> NDArray[np.float32]:
    """Evaluate the model over a block of consecutive rows and columns."""
    return background.evaluate(y=_span(rows), x=_span(columns))


def uncertainty(
    rows: NDArray[np.int64], columns: NDArray[np.int64], background: Background
) -> NDArray[np.float32]:
    """Evaluate the standard deviation of the model over a block of consecutive rows and columns."""
    return background.uncertainty(y=_span(rows), x=_span(columns))


def _within(edges: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Edges between two of them, counted from the first."""
    first, last = np.searchsorted(edges, (start, stop))
    own: NDArray[np.int64] = edges[first : last + 1] - start
    return own


def _span(index: NDArray[np.int64]) -> slice:
    return slice(int(index[0]), int(index[-1]) + 1) if len(index) else slice(0, 0)
