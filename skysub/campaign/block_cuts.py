"""Where an image is cut into blocks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.campaign.store.arrays import chunk_edge

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK_BYTES", "block_cuts"]

BLOCK_BYTES = 32 << 20
"""Bytes of a float32 image that a block holds, at most, where that leaves it a superpixel's rows."""
_LEAST_ROWS = 32
"""Rows of a block, about, at least."""


def block_cuts(shape: tuple[int, int], edges: NDArray[np.int64] | None, workers: int) -> list[int]:
    """Rows at which blocks begin, and the last: about as many blocks for each worker, cut at ``edges``.

    Where chunks of the store begin at one of them nearby that is taken, so that none lies in two blocks.
    """
    ny, nx = shape
    blocks = max(workers, -(-4 * ny * nx // BLOCK_BYTES))
    blocks = max(1, min(-(-blocks // workers) * workers, ny // _LEAST_ROWS))
    edges = np.array([0, ny]) if edges is None else edges
    shared = edges[edges % chunk_edge(ny) == 0]
    cuts = [0]
    for i in range(1, blocks):
        ideal = ny * i / blocks
        near = [int(each[np.argmin(np.abs(each - ideal))]) for each in (shared, edges)]
        cuts.append(near[0] if abs(near[0] - ideal) < ny / blocks / 3 else near[1])
    return sorted({*cuts, ny})
