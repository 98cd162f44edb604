"""Compiled loops that make cells of pixels; each reads the image once."""

import numba
import numpy as np

__all__ = ["bin_mean", "bin_share"]


@numba.njit(nogil=True, cache=True)
def bin_mean(image, mask, excluded, y_edges, x_edges, least, mean):
    """Mean of the good pixels of each cell into ``mean`` (gy, gx) float32.

    Cell (j, i) holds rows y_edges[j] to y_edges[j + 1] - 1, and columns likewise. A pixel is good when it
    is finite and has no bit of ``excluded``; a cell with fewer good pixels than the share ``least`` of its
    own is NaN.
    """
    gy, gx = mean.shape
    total = np.empty(gx, np.float64)
    count = np.empty(gx, np.int64)
    for j in range(gy):
        total[:] = 0.0
        count[:] = 0
        for y in range(y_edges[j], y_edges[j + 1]):
            for i in range(gx):
                for x in range(x_edges[i], x_edges[i + 1]):
                    value = image[y, x]
                    if mask[y, x] & excluded == 0 and np.isfinite(value):
                        total[i] += value
                        count[i] += 1
        for i in range(gx):
            pixels = (y_edges[j + 1] - y_edges[j]) * (x_edges[i + 1] - x_edges[i])
            if count[i] > 0 and count[i] >= least * pixels:
                mean[j, i] = total[i] / count[i]
            else:
                mean[j, i] = np.nan


@numba.njit(nogil=True, cache=True)
def bin_share(mask, bits, y_edges, x_edges, share):
    """Share of the pixels of each cell that have any of ``bits``, into ``share`` (gy, gx) float32."""
    gy, gx = share.shape
    count = np.empty(gx, np.int64)
    for j in range(gy):
        count[:] = 0
        for y in range(y_edges[j], y_edges[j + 1]):
            for i in range(gx):
                for x in range(x_edges[i], x_edges[i + 1]):
                    if mask[y, x] & bits != 0:
                        count[i] += 1
        for i in range(gx):
            share[j, i] = count[i] / ((y_edges[j + 1] - y_edges[j]) * (x_edges[i + 1] - x_edges[i]))
