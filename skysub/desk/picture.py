"""A picture of one subtracted image: before, what was masked, the background, and what is left."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import OutputError
from skysub.report import kernels
from skysub.report.colour import diverging, mask_palette, sequential
from skysub.report.png import indexed, true_colour_png

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.desk.subtract import Subtracted

__all__ = ["picture_element", "picture_of", "write_picture"]

_GAP = 8
_PAPER = 255
_NOTHING = 128
"""Grey of pixels about which nothing is known."""
_SPREAD = 4.0
"""What is left is drawn within so many times the noise of a cell's mean,"""
_LEAST_SPREAD = 0.05
"""but no narrower than this share of the noise of a pixel."""


def write_picture(result: Subtracted, path: str | os.PathLike[str], *, edge: int) -> None:
    """Write `picture_of` a result as PNG.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    try:
        Path(path).write_bytes(true_colour_png(picture_of(result, edge=edge)))
    except OSError as error:
        raise OutputError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error


def picture_element(result: Subtracted) -> str:
    """HTML element with `picture_of` a result."""
    url = base64.b64encode(true_colour_png(picture_of(result, edge=240))).decode()
    about = "image, mask, background, and the image without it"
    return f'<img src="data:image/png;base64,{url}" alt="{about}">'


def picture_of(result: Subtracted, *, edge: int) -> NDArray[np.uint8]:
    """Draw (ny, nx, 3) uint8 sRGB: image with its sky, mask, background, image without sky; left to right.

    The first panel spans the sky and its brighter half, the last one zero and a few times the noise about it
    (blue below, red above, without masked pixels). Colours of a cube are averaged.
    """
    before, model, left, mask = _flat(result)
    cell = max(1, -(-max(before.shape) // edge))
    ny, nx = before.shape
    grid = SuperpixelGrid.of_counts((ny, nx), gy=-(-ny // cell), gx=-(-nx // cell))
    masked = (mask != 0).astype(np.int32)
    nothing = np.zeros_like(masked)
    seen = _binned(before, nothing, grid, 0.0)
    sky = _binned(model, nothing, grid, 0.0)
    rest = _binned(left, masked, grid, 0.25)
    noise = result.noise if np.isfinite(result.noise) and result.noise > 0 else 1.0
    covered = np.clip(np.rint(15 * _binned(masked.astype(np.float32), nothing, grid, 0.0)), 0, 15)
    low, high = _span(seen, 1.0, 99.0)
    reach = noise * max(_SPREAD / cell, _LEAST_SPREAD)
    panels = [
        _coloured(seen, low, high, sequential()),
        mask_palette()[covered.astype(np.uint8)],
        _coloured(sky, *_span(sky, 0.0, 100.0), sequential()),
        _coloured(rest, -reach, reach, diverging()),
    ]
    gap = np.full((len(seen), _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _flat(result: Subtracted) -> tuple[NDArray[np.float32], ...]:
    """Image before, model, image after and mask, each (ny, nx)."""
    arrays: list[NDArray[Any]] = [result.image + result.background, result.background, result.image]
    mask: NDArray[Any] = result.planes_mask
    if result.image.ndim == 3:
        arrays = [array.mean(axis=0) for array in arrays]
        mask = np.bitwise_or.reduce(mask, axis=0)
    return *(np.ascontiguousarray(array, np.float32) for array in arrays), mask


def _binned(
    image: NDArray[np.float32], mask: NDArray[np.int32], grid: SuperpixelGrid, least: float
) -> NDArray[np.float32]:
    mean = np.empty(grid.shape, np.float32)
    kernels.bin_mean(image, mask, np.int32(1), grid.y_edges, grid.x_edges, least, mean)
    return mean


def _span(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    ends = np.percentile(finite, [low, high])
    return float(ends[0]), float(max(ends[1], ends[0] + 1e-6 * abs(ends[0]) + 1e-12))


def _coloured(
    values: NDArray[np.float32], low: float, high: float, palette: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    places = indexed(values, low, high)
    colours = np.full((256, 3), _NOTHING, np.uint8)
    colours[: len(palette)] = palette
    return colours[places]
