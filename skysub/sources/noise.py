"""The noise of an image, measured on its pixels: gains and variances of files may be wrong or missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.rows import over_rows, rows_between
from skysub.sources.detect import smoothed, smoothed_noise
from skysub.sources.flags import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["correlated_noise", "pixel_noise"]

_QUANTILE = 0.4
"""Quantile of neighbour differences that measures noise: below the median, so that sources do little."""
_QUANTILE_OF_NORMAL = 0.5244005127080407
"""|z| below which 40 % of a normal distribution lies."""
_BANDS, _BAND = 10, 8
"""Bands of rows in which the smoothed noise is measured, and rows of each."""
_LOW_QUANTILE, _LOW_OF_NORMAL = 0.25, 0.31863936
"""Quantile of differences that measures it, lower than for neighbours because sources do more; and |z| below
which so much of a normal distribution lies."""
_EVERY = 3
"""Every so many columns of them are looked at."""
_LEAST_PAIRS = 2000
_ALIKE, _FADED = 0.05, 0.6
"""Correlation of neighbours from which pixels share noise, and the share left two pixels apart at most."""
_SAMPLE = (12, 24)
"""Rows, and pairs of pixels in each, that measure the noise of a superpixel."""


def pixel_noise(
    image: NDArray[np.float32], flags: NDArray[np.uint8], grid: SuperpixelGrid
) -> NDArray[np.float64]:
    """Noise per pixel in each superpixel, from differences of neighbouring pixels.

    Sources and gradients hardly change it, so it needs no background and no mask.

    Parameters
    ----------
    image, flags
        (ny, nx) float32, and the flags of `skysub.sources.flags`; flagged pixels are left out.

    Returns
    -------
    noise
        (gy, gx) float64, unit of the image, smoothed by a median over 3 x 3 superpixels; NaN where
        neither a superpixel nor its neighbours have pixels, and everywhere if the image is constant.
    """
    raw = np.concatenate(over_rows(_differences, (image, flags), spans=rows_between(grid.y_edges), grid=grid))
    raw /= np.sqrt(2) * _QUANTILE_OF_NORMAL
    raw[raw <= 0] = np.nan
    padded = np.pad(raw, 1, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*grid.shape, 9)
    filled = np.full(grid.shape, np.nan)
    seen = np.isfinite(windows).any(axis=-1)
    filled[seen] = np.nanmedian(windows[seen], axis=-1)
    if seen.any():
        filled[~seen] = np.median(filled[seen])
    return filled


def correlated_noise(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    *,
    kernel: NDArray[np.float32],
) -> tuple[float, float]:
    """How far the noise exceeds what differences of neighbouring pixels tell, per pixel and after smoothing.

    Pixels of resampled images share noise with their neighbours, whose differences then are too small. It is
    measured on a few bands of rows, from differences of pixels too far apart to share any, which sources and
    gradients hardly change. Light of unresolved sources makes pixels alike over the width of the PSF,
    resampling over one or two pixels: only what fades by the second pixel is taken for noise.

    Parameters
    ----------
    image, flags, monomials
        As for `find_footprints`.
    noise
        (gy, gx) per pixel in each superpixel, from `pixel_noise`.

    Returns
    -------
    per_pixel, smoothed
        Factors to multiply the noise per pixel, and that of the image smoothed by ``kernel``, by; 1 where
        pixels are independent, or where too little is seen to tell.
    """
    reach = len(kernel) - 1
    ny, nx = image.shape
    apart = 2 * reach + 2
    if ny < 2 * reach + 1 or nx < 2 * apart:
        return 1.0, 1.0
    high = min(ny, 2 * reach + _BAND)
    scale = _noise_by_column(noise, grid)
    inside = slice(reach, high - reach)
    first = np.unique(np.linspace(0, ny - high, _BANDS).astype(int))
    row = np.searchsorted(grid.y_edges, first + high // 2, side="right") - 1
    scale = scale[np.clip(row, 0, grid.shape[0] - 1)]
    spans = np.stack([first, first + high], axis=1)
    parts = over_rows(_residuals, (image, flags), spans=spans, monomials=monomials, scale=scale, bands=spans)
    bands = [band for part in parts for band in part]
    own = [(residual[inside], good[inside]) for residual, good in bands]
    near, second, far = (_scatter(own, lag) for lag in (1, 2, apart))
    if not far > 0:
        return 1.0, 1.0
    alike = 1 - (near / far) ** 2
    if not (alike > _ALIKE and 1 - (second / far) ** 2 < _FADED * alike):
        return 1.0, 1.0
    light = _scatter([(smoothed(residual, kernel)[inside], good[inside]) for residual, good in bands], apart)
    return max(1.0, far / near), max(1.0, light / smoothed_noise(kernel))


def _differences(
    units: range, image: NDArray[np.float32], flags: NDArray[np.uint8], *, grid: SuperpixelGrid, threads: int
) -> NDArray[np.float64]:
    from skysub.sources import kernels

    del threads
    raw = np.empty((len(units), grid.shape[1]))
    y_edges = grid.y_edges[units.start : units.stop + 1]
    kernels.pixel_noise(for_kernels(image), flags, 15, y_edges, grid.x_edges, *_SAMPLE, _QUANTILE, raw)
    return raw


def _residuals(
    units: range,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    monomials: NDArray[np.float64],
    scale: NDArray[np.float32],
    bands: NDArray[np.int64],
    threads: int,
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Residuals of bands of rows in units of the noise ``scale`` (bands, nx), and which of them are good."""
    from skysub.background import evaluation_kernels

    del threads
    found = []
    for unit in units:
        rows = slice(*bands[unit].tolist())
        residual = np.empty((rows.stop - rows.start, image.shape[1]), np.float32)
        ny, nx = image.shape
        evaluation_kernels.subtract(for_kernels(image[rows]), rows.start, 0, ny, nx, monomials, residual)
        good = ((flags[rows] & IGNORED) == 0) & np.isfinite(residual)
        residual[~good] = 0
        residual /= scale[unit]
        found.append((residual, good))
    return found


def _scatter(bands: list[tuple[NDArray[np.float32], NDArray[np.bool_]]], lag: int) -> float:
    """Scatter of values from their differences over ``lag`` columns; NaN where too few are good."""
    parts = []
    for values, good in bands:
        both = good[:, lag::_EVERY] & good[:, :-lag:_EVERY]
        parts.append(np.abs(values[:, lag::_EVERY] - values[:, :-lag:_EVERY])[both])
    apart = np.concatenate(parts)
    if apart.size < _LEAST_PAIRS:
        return math.nan
    at = int(_LOW_QUANTILE * apart.size)
    return float(np.partition(apart, at)[at]) / (math.sqrt(2) * _LOW_OF_NORMAL)


def _noise_by_column(noise: NDArray[np.float64], grid: SuperpixelGrid) -> NDArray[np.float32]:
    """(gy, nx) noise of the superpixels above and below each column; infinite where it is not known."""
    known = np.where(np.isfinite(noise) & (noise > 0), noise, np.inf).astype(np.float32)
    columns: NDArray[np.float32] = np.repeat(known, np.diff(grid.x_edges), axis=1)
    return columns
