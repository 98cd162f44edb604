"""Large sources, taken before noise and knots on their light pass for sources of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.crowding import DENSE, crowding
from skysub.measurement.detect import find_peaks
from skysub.measurement.extended import Templates, fit_candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame
    from skysub.measurement.solve import StarModel

__all__ = ["coarse_significance", "is_sharp", "take_large"]

BLOCK = 4
"""Edge of the blocks that the image is averaged in, pixel."""
_SIGMA, _TAPS = 1.5, 4
"""Gaussian filter of the blocks: its sigma, and its half-width, blocks."""
_THRESHOLD = 9.0
"""Filtered signal over noise of a large source."""
_SHARP = 0.9
"""A peak is no star's where the coarse filter sees this share of the fine one's signal."""
_GAIN = 60.0
"""Least gain in chi2 of a large source's template."""
_WINDOW = 48
"""Half-width of the window that moments of large sources are measured in, pixel."""


def coarse_significance(image: NDArray[np.float32], frame: Frame, *, threads: int = 1) -> NDArray[np.float32]:
    """Signal over noise of blocks under a Gaussian of 6 pixels, (ny // 4, nx // 4) float32."""
    from skysub.sources.detect import smoothed

    ny, nx = (n // BLOCK * BLOCK for n in frame.shape)
    blocks = image[:ny, :nx].reshape(ny // BLOCK, BLOCK, nx // BLOCK, BLOCK).sum((1, 3), dtype=np.float32)
    y, x = (np.arange(n // BLOCK) * BLOCK + 1.5 for n in (ny, nx))
    rows = np.searchsorted(frame.grid.y_edges, y, side="right") - 1
    columns = np.searchsorted(frame.grid.x_edges, x, side="right") - 1
    with np.errstate(divide="ignore"):
        weight = np.nan_to_num(1 / frame.noise, nan=0.0, posinf=0.0).astype(np.float32)
    blocks *= weight[rows][:, columns]
    side = np.exp(-0.5 * (np.arange(_TAPS + 1) / _SIGMA) ** 2)
    spread = side[0] ** 2 + 2 * np.sum(side[1:] ** 2)
    kernel = (side / np.sqrt(spread * BLOCK)).astype(np.float32)
    return smoothed(np.ascontiguousarray(blocks), kernel, threads=threads)


def is_sharp(
    coarse: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64], peak: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether peaks (n,) of the fine filter stand out of the light around them as stars do."""
    if not coarse.size:
        return np.ones(len(y), np.bool_)
    row = np.clip(y // BLOCK, 0, coarse.shape[0] - 1).astype(int)
    column = np.clip(x // BLOCK, 0, coarse.shape[1] - 1).astype(int)
    sharp: NDArray[np.bool_] = peak * _SHARP > coarse[row, column]
    return sharp


def take_large(model: StarModel) -> Templates:
    """Templates of large sources in what the stars leave; their light is taken off the residual.

    Where stars are dense there are none: groups of stars that were not yet told apart look like them.
    """
    from skysub.measurement import child_kernels as kernels

    frame = model.frame
    coarse = coarse_significance(model.residual, frame, threads=model.threads)
    if min(coarse.shape) < 3:
        return Templates.none()
    row, column, _ = find_peaks(coarse, _THRESHOLD)
    y, x = row * BLOCK + 1.5, column * BLOCK + 1.5
    shapes = np.empty((len(y), kernels.SHAPE))
    kernels.moments_of_large(model.residual, y, x, _WINDOW, (_SIGMA * BLOCK) ** 2, shapes)
    good = shapes[:, 7] > 0
    y, x = shapes[good, 0].copy(), shapes[good, 1].copy()
    # of peaks that came to the same place, one
    _, first = np.unique(np.round(np.column_stack([y, x]) / BLOCK), axis=0, return_index=True)
    first.sort()
    first = first[crowding(frame, model.psf, model.y, model.x, y[first], x[first]) < DENSE]
    moments = np.ascontiguousarray(shapes[good, 2:5][first])
    y, x = y[first], x[first]
    fit = fit_candidates(model, y, x, np.zeros(len(y)), moments)
    taken = fit.chi2[:, 2] < fit.chi2[:, 0] - _GAIN
    found = fit.templates.of(taken).widened(frame)
    light = found.painted(frame.shape)
    if light is not None:
        model.residual -= light
    return found
