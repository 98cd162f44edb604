"""Find peaks: a matched filter with the local PSF, in units of its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads
from skysub.measurement.overlap import Pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["Filters", "find_peaks", "prominent", "significance"]

_ENERGY = 0.995
"""Share of a filter's squared sum that its separable terms, and its radius, must keep."""
_TERMS = 3
_CELLS = 4
"""Cells next to each other that share a filter."""
_PROMINENCE = 2.5
"""How far a peak must rise above the saddle to a brighter one, in units of the noise."""


@dataclass(frozen=True, eq=False)
class Filters:
    """Matched filters of the cells of a frame, as sums of separable terms."""

    across: NDArray[np.float32]
    along: NDArray[np.float32]
    """(gy, gx, terms, taps): factors along y and x, filled up with zeros to whole fours."""
    norm: NDArray[np.float64]
    """(gy, gx): what makes white noise of 1 a filtered noise of 1."""
    gain: NDArray[np.float64]
    """(gy, gx): filtered value, in units of its noise, of a star of flux 1 on white noise of 1."""

    @classmethod
    def of(cls, psf: PsfTable, frame: Frame) -> Filters:
        """Filters of the PSF in the middle of each cell."""
        node_filters = {}
        grid = frame.grid
        rows, columns = (
            psf.node_of(grid.y_centers, grid.y_centers)[0],
            psf.node_of(grid.x_centers, grid.x_centers)[1],
        )
        half, terms = _extent(psf)
        gy, gx = grid.shape
        size = 4 * -(-(2 * half + 1) // 4)
        across, along = np.zeros((2, gy, gx, terms, size), np.float32)
        norm, gain = np.empty((2, gy, gx))
        for a in range(gy):
            for b in range(gx):
                # a filter a little off does no harm: the nearest node serves
                key = round(rows[a]), round(columns[b])
                if key not in node_filters:
                    node_filters[key] = _separated(psf, *key, half, terms)
                u, v, norm[a, b], gain[a, b] = node_filters[key]
                across[a, b, :, : 2 * half + 1], along[a, b, :, : 2 * half + 1] = u, v
        return cls(across=across, along=along, norm=norm, gain=gain)


def significance(
    image: NDArray[np.float32],
    filters: Filters,
    frame: Frame,
    *,
    only: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Matched-filter signal over noise, (ny, nx) float32, of an image with the noise of the frame.

    Where none of the cells next to each other is chosen by ``only``, (gy, gx), it is left at 0.
    """
    from skysub.measurement import detection_kernels as kernels

    out = np.zeros(frame.shape, np.float32)
    grid = frame.grid
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.nan_to_num(filters.norm / frame.noise, nan=0.0, posinf=0.0)

    widths = np.diff(grid.x_edges)

    def band(rows: range) -> None:
        for a in rows:
            by_column = np.repeat(scale[a], widths).astype(np.float32)
            for b in range(0, grid.shape[1], _CELLS):
                last = min(b + _CELLS, grid.shape[1])
                x0, x1 = grid.x_edges[b], grid.x_edges[last]
                if only is not None and not only[a, b:last].any():
                    continue
                # one filter serves some cells next to each other
                middle = (b + last) // 2
                kernels.filter_cell(
                    image,
                    filters.across[a, middle],
                    filters.along[a, middle],
                    by_column[x0:x1],
                    grid.y_edges[a],
                    grid.y_edges[a + 1],
                    x0,
                    x1,
                    out,
                )

    in_threads(band, grid.shape[0], threads)
    return out


def find_peaks(
    values: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Local maxima above a threshold: y, x (n,) between pixels, and the value, by row and column."""
    from skysub.measurement import detection_kernels as kernels

    ny = values.shape[0]
    n = kernels.count_peaks(values, threshold, 0, ny)
    y, x = np.empty((2, n))
    kernels.list_peaks(values, threshold, 0, ny, y, x)
    # a parabola's vertex lies within half a pixel of the peak
    return y, x, values[np.rint(y).astype(int), np.rint(x).astype(int)].astype(np.float64)


def prominent(
    values: NDArray[np.float32],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    peak: NDArray[np.float64],
    config: MeasurementConfig,
    *,
    reach: float,
) -> NDArray[np.bool_]:
    """Which peaks (n,) rise above the light of brighter ones within ``reach``, and not by noise alone."""
    from skysub.measurement import detection_kernels as kernels

    pairs = Pairs.within(y, x, reach, (values.shape[0], values.shape[1]))
    saddle = np.zeros(len(y))
    kernels.highest_saddles(values, y, x, peak, pairs.first, pairs.second, saddle)
    # photons make the noise of bright light larger than that of the sky
    noise = np.sqrt(1 + (config.template_imperfection * 0.5 * peak) ** 2)
    out: NDArray[np.bool_] = peak - saddle > _PROMINENCE * noise
    return out


def _extent(psf: PsfTable) -> tuple[int, int]:
    """Half-width, and number of terms, that serve every node."""
    middle = psf.table[:, :, 3, 3, :, : psf.size].astype(np.float64)
    power = (middle**2).mean((0, 1))
    half = psf.half
    total = power.sum()
    for r in range(2, psf.half + 1):
        if power[half - r : half + r + 1, half - r : half + r + 1].sum() > _ENERGY * total:
            half = r
            break
    cut = middle[:, :, psf.half - half : psf.half + half + 1, psf.half - half : psf.half + half + 1]
    s = np.linalg.svd(cut.reshape(-1, *cut.shape[2:]), compute_uv=False) ** 2
    kept = np.cumsum(s, axis=1) / s.sum(axis=1, keepdims=True)
    return half, min(_TERMS, int(np.max(np.argmax(kept > _ENERGY, axis=1))) + 1)


def _separated(
    psf: PsfTable, row: int, column: int, half: int, terms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    cut = slice(psf.half - half, psf.half + half + 1)
    stamp = psf.table[row, column, 3, 3, cut, cut].astype(np.float64)
    u, s, v = np.linalg.svd(stamp)
    across = (u[:, :terms] * s[:terms]).T
    along = v[:terms]
    kernel = across.T @ along
    norm = float(1 / np.sqrt(np.sum(kernel**2)))
    return across, along, norm, float(np.sum(kernel * stamp)) * norm
