"""Compiled matched filter, cell by cell with the local PSF, and the peaks of what it gives."""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.background.fma import fma

__all__ = ["count_peaks", "filter_cell", "highest_saddles", "list_peaks"]

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_inner
def _add_four(a, b, c, d, w, out):
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for i in range(len(out)):
        out[i] = fma(w3, d[i], fma(w2, c[i], fma(w1, b[i], fma(w0, a[i], out[i]))))


@_compiled
def filter_cell(image, across, along, scale, y0, y1, x0, x1, out):
    """Correlate rows y0 to y1 and columns x0 to x1 of an image with a sum of separable kernels.

    ``across`` and ``along``, (terms, taps) float32, are the factors along y and x, filled up with zeros from
    2 half + 1 to whole fours; the result times ``scale``, float32 by column, is written to the same pixels of
    ``out``. Beyond the image there is nothing.
    """
    ny, nx = image.shape
    terms, taps = across.shape
    half = (taps - 1) // 2
    # filled up at the end, an odd kernel keeps its middle
    while half > 0 and not _any(across, along, 2 * half):
        half -= 1
    width = x1 - x0
    padded = np.zeros(width + 2 * taps, np.float32)
    rows = np.zeros((taps, terms, width), np.float32)
    a, b = max(0, x0 - half), min(nx, x1 + half)
    start = a - (x0 - half)
    zero = np.float32(0)
    total = np.empty(width, np.float32)
    for y in range(y0 - half, y1 + half):
        ring = rows[y % taps]
        ring[:] = zero
        if 0 <= y < ny:
            padded[start : start + b - a] = image[y, a:b]
            for k in range(terms):
                for t in range(0, taps, 4):
                    _add_four(
                        padded[t : t + width],
                        padded[t + 1 : t + 1 + width],
                        padded[t + 2 : t + 2 + width],
                        padded[t + 3 : t + 3 + width],
                        along[k, t : t + 4],
                        ring[k],
                    )
        at = y - half
        if at >= y0:
            total[:] = zero
            low = at - half
            for k in range(terms):
                for t in range(0, taps, 4):
                    _add_four(
                        rows[(low + t) % taps, k],
                        rows[(low + t + 1) % taps, k],
                        rows[(low + t + 2) % taps, k],
                        rows[(low + t + 3) % taps, k],
                        across[k, t : t + 4],
                        total,
                    )
            o = out[at, x0:x1]
            for i in range(width):
                o[i] = total[i] * scale[i]


@_inner
def _any(across, along, tap):
    for k in range(across.shape[0]):
        if across[k, tap] != 0 or along[k, tap] != 0:
            return True
    return False


@_inner
def _is_peak(values, y, x, v):
    """Whether a pixel is not below its eight neighbours; of equal ones the last is the peak."""
    ny, nx = values.shape
    for j in range(max(0, y - 1), min(ny, y + 2)):
        for i in range(max(0, x - 1), min(nx, x + 2)):
            if values[j, i] > v or (values[j, i] == v and (j > y or (j == y and i > x))):
                return False
    return True


@_compiled
def count_peaks(values, threshold, start, stop):
    """Number of local maxima above the threshold in rows start to stop."""
    n = 0
    for y in range(start, stop):
        for x in range(values.shape[1]):
            v = values[y, x]
            if v > threshold and _is_peak(values, y, x, v):
                n += 1
    return n


@_compiled
def list_peaks(values, threshold, start, stop, at_y, at_x):
    """Local maxima above the threshold, by row and column; places between pixels by parabolas."""
    ny, nx = values.shape
    n = 0
    for y in range(start, stop):
        for x in range(nx):
            v = values[y, x]
            if v > threshold and _is_peak(values, y, x, v):
                dy, dx = 0.0, 0.0
                if 0 < y < ny - 1:
                    dy = _vertex(values[y - 1, x], v, values[y + 1, x])
                if 0 < x < nx - 1:
                    dx = _vertex(values[y, x - 1], v, values[y, x + 1])
                at_y[n], at_x[n] = y + dy, x + dx
                n += 1
    return n


@_inner
def _vertex(before, middle, after):
    curvature = 2.0 * middle - before - after
    return min(max(0.5 * (after - before) / curvature, -0.5), 0.5) if curvature > 0 else 0.0


@_compiled
def highest_saddles(values, y, x, peak, first, second, saddle):
    """Least value on the straight line from each peak to each brighter partner; the largest of these."""
    for k in range(len(first)):
        a, b = first[k], second[k]
        # of equal peaks the first one is the brighter
        low, high = (a, b) if peak[a] < peak[b] or (peak[a] == peak[b] and a > b) else (b, a)
        dy, dx = y[high] - y[low], x[high] - x[low]
        steps = int(np.ceil(np.sqrt(dy * dy + dx * dx)))
        least = peak[low]
        for t in range(1, steps):
            v = values[int(np.rint(y[low] + dy * t / steps)), int(np.rint(x[low] + dx * t / steps))]
            least = min(least, v)
        saddle[low] = max(saddle[low], least)
