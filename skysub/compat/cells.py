"""Pixels of a row of cells at a time, for the statistics of the originals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.kernels import BLOCK, gather
from skysub.background.quartile_kernels import LANES
from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["cell_edges", "each_band", "processors"]


def cell_edges(length: int, size: int) -> NDArray[np.int64]:
    """Edges of cells of ``size`` pixels and, where they do not fill ``length``, a smaller one at the end."""
    return np.append(np.arange(0, length, size, dtype=np.int64), length)


def each_band(
    image: NDArray[np.floating],
    mask: NDArray[np.uint8],
    y_edges: NDArray[np.int64],
    x_edges: NDArray[np.int64],
    work: Callable[[int, NDArray[Any], NDArray[np.int64]], None],
    *,
    threads: int,
) -> None:
    """Call ``work`` with the number of each row of cells, the pixels of each cell, and how many these are.

    A cell's pixels are a row of an array, NaN where they are masked or not finite and behind the last one.
    ``mask`` is (ny, nx), or (0, 0) where nothing is masked.
    """
    widest, highest = int(np.diff(x_edges).max()), int(np.diff(y_edges).max())

    def bands(rows: range) -> None:
        tiles = np.empty((len(x_edges) - 1, widest * highest + LANES + BLOCK), image.dtype)
        row = np.zeros(image.shape[1] + LANES, image.dtype)
        for band in rows:
            y = slice(int(y_edges[band]), int(y_edges[band + 1]))
            planes = for_kernels(mask[y]) if mask.size else mask
            gather(
                for_kernels(image[y]),
                planes,
                np.uint8(1),
                mask.size > 0,
                x_edges,
                image.dtype.type(np.nan),
                row,
                tiles,
            )
            sizes = np.diff(x_edges) * (y.stop - y.start)
            work(band, tiles[:, : widest * (y.stop - y.start)], sizes)

    in_threads(bands, len(y_edges) - 1, threads)


def processors() -> int:
    """Number of processors that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
