"""Smooth light that no model holds: far wings, halos, a sky that was left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame

__all__ = ["pedestal"]

_BLOCK, _REACH = 16, 2
"""Edge of the blocks that are averaged, pixel, and blocks to each side that a median is taken over."""
_LIFTED = 0.1
"""Light per pixel, in units of the noise, that lifts noise above the threshold; less is let be."""


def pedestal(residual: NDArray[np.float32], frame: Frame) -> NDArray[np.float32] | None:
    """Level of a residual (ny, nx) on which noise has peaks, counts; 0 where it is low, or None."""
    if min(residual.shape) < _BLOCK:
        return None
    ny, nx = (n // _BLOCK for n in residual.shape)
    blocks = residual[: ny * _BLOCK, : nx * _BLOCK].reshape(ny, _BLOCK, nx, _BLOCK)
    means = np.pad(blocks.mean(axis=(1, 3), dtype=np.float64), _REACH, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(means, (2 * _REACH + 1, 2 * _REACH + 1))
    level = np.median(windows.reshape(ny, nx, -1), axis=-1)
    middle_y, middle_x = (_BLOCK * np.arange(n) + _BLOCK / 2 for n in (ny, nx))
    at_y, at_x = (a.ravel() for a in np.meshgrid(middle_y, middle_x, indexing="ij"))
    noise = np.nan_to_num(frame.noise_at(at_y, at_x), nan=np.inf).reshape(ny, nx)
    level[~(level > _LIFTED * noise)] = 0
    if not level.any():
        return None
    rows, columns = (
        np.minimum(np.arange(n) // _BLOCK, blocks_along - 1)
        for n, blocks_along in zip(residual.shape, (ny, nx), strict=True)
    )
    plane: NDArray[np.float32] = level.astype(np.float32)[rows][:, columns]
    return plane
