"""Compiled loops that make cells of pixels; each reads the image once."""

import numba
import numpy as np

__all__ = ["bin_mean", "bin_share"]


@numba.njit(nogil=True, cache=True)
def bin_mean(image, mask, excluded, cell, least, mean):
    """Mean of the good pixels of each cell (cell x cell pixels) into ``mean`` (gy, gx) float32.

    A pixel is good when it is finite and has no bit of ``excluded``; a cell with fewer good pixels than
    the share ``least`` of its own is NaN.
    """
    ny, nx = image.shape
    gy, gx = mean.shape
    total = np.empty(gx, np.float64)
    count = np.empty(gx, np.int64)
    for j in range(gy):
        total[:] = 0.0
        count[:] = 0
        y0, y1 = j * cell, min((j + 1) * cell, ny)
        for y in range(y0, y1):
            for i in range(gx):
                for x in range(i * cell, min((i + 1) * cell, nx)):
                    value = image[y, x]
                    if mask[y, x] & excluded == 0 and np.isfinite(value):
                        total[i] += value
                        count[i] += 1
        for i in range(gx):
            pixels = (y1 - y0) * (min((i + 1) * cell, nx) - i * cell)
            if count[i] > 0 and count[i] >= least * pixels:
                mean[j, i] = total[i] / count[i]
            else:
                mean[j, i] = np.nan


@numba.njit(nogil=True, cache=True)
def bin_share(mask, bits, cell, share):
    """Share of the pixels of each cell that have any of ``bits``, into ``share`` (gy, gx) float32."""
    ny, nx = mask.shape
    gy, gx = share.shape
    count = np.empty(gx, np.int64)
    for j in range(gy):
        count[:] = 0
        y0, y1 = j * cell, min((j + 1) * cell, ny)
        for y in range(y0, y1):
            for i in range(gx):
                for x in range(i * cell, min((i + 1) * cell, nx)):
                    if mask[y, x] & bits != 0:
                        count[i] += 1
        for i in range(gx):
            share[j, i] = count[i] / ((y1 - y0) * (min((i + 1) * cell, nx) - i * cell))
