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

__all__ = ["coarse_significance", "is_sharp", "take_giants", "take_large"]

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
_GIANT_SIGNAL, _WIDER, _GIANT, _SMOOTH = 60.0, 1.4, 48, 0.1
"""Filtered signal of a giant, size of its core over the PSF's, half-width of its window at least, and the
share of its chi2 that its template may leave."""
_WIDENED = 3
"""How often a giant's window is widened and its template fit again."""
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


def take_giants(model: StarModel, coarse: NDArray[np.float32], near: NDArray[np.bool_] | None) -> Templates:
    """Templates of the largest and smoothest sources, before any star: noise on their light has peaks.

    A group of stars that are not told apart is as bright and as large, but a profile leaves much of it.
    What lies ``near`` (ny, nx) a saturated pixel is none.
    """
    frame, psf = model.frame, model.psf
    y, x, moments = _candidates(model, coarse, _GIANT_SIGNAL)
    size = (moments[:, 0] * moments[:, 2] - moments[:, 1] ** 2) ** 0.25
    wide = size > _WIDER * psf.sigma
    if near is not None:
        wide &= ~near[np.rint(y).astype(int), np.rint(x).astype(int)]
    y, x, moments = y[wide], x[wide], np.ascontiguousarray(moments[wide])
    fit = fit_candidates(model, y, x, np.zeros(len(y)), moments)
    excess = fit.chi2 - fit.chi2[:, 3:]
    with np.errstate(invalid="ignore"):
        found = fit.templates.of((excess[:, 2] < _SMOOTH * excess[:, 0]) & (excess[:, 0] > 0))
    found = found.widened(frame)
    found = found.of(found.halves >= _GIANT)
    found = Templates.none().repainted(found, model.residual)
    for _ in range(_WIDENED if len(found) else 0):
        found.refit(model.residual, frame, psf, threads=model.threads)
        found = found.repainted(found.widened(frame), model.residual)
    return found


def take_large(model: StarModel) -> Templates:
    """Templates of large sources in what the stars leave; their light is taken off the residual.

    Where stars are dense there are none: groups of stars that were not yet told apart look like them.
    """
    coarse = coarse_significance(model.residual, model.frame, threads=model.threads)
    y, x, moments = _candidates(model, coarse, _THRESHOLD)
    apart = crowding(model.frame, model.psf, model.y, model.x, y, x) < DENSE
    y, x, moments = y[apart], x[apart], np.ascontiguousarray(moments[apart])
    fit = fit_candidates(model, y, x, np.zeros(len(y)), moments)
    return _taken(model, fit.templates.of(fit.chi2[:, 2] < fit.chi2[:, 0] - _GAIN))


def _candidates(
    model: StarModel, coarse: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Places y, x (n,) of peaks of blocks on which a Gaussian weight settles, and moments there (n, 3)."""
    from skysub.measurement import child_kernels as kernels

    if min(coarse.shape) < 3:
        return np.empty(0), np.empty(0), np.empty((0, 3))
    row, column, _ = find_peaks(coarse, threshold)
    y, x = row * BLOCK + 1.5, column * BLOCK + 1.5
    shapes = np.empty((len(y), kernels.SHAPE))
    kernels.moments_of_large(model.residual, y, x, _WINDOW, (_SIGMA * BLOCK) ** 2, shapes)
    shapes = shapes[shapes[:, 7] > 0]
    # of peaks that came to the same place, one
    _, first = np.unique(np.round(shapes[:, :2] / BLOCK), axis=0, return_index=True)
    first.sort()
    shapes = shapes[first]
    return shapes[:, 0].copy(), shapes[:, 1].copy(), np.ascontiguousarray(shapes[:, 2:5])


def _taken(model: StarModel, found: Templates) -> Templates:
    return Templates.none().repainted(found.widened(model.frame), model.residual)
