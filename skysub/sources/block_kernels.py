"""Compiled sums over blocks of pixels, for light that only shows after averaging, and plain smoothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.background.fma import fma
from skysub.sources.detection_kernels import FEW, TAPS, model_row, room_for_coefficients, row_coefficients

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)


@_compiled
def bin_residual(image, flags, monomials, ignored, size, start, stop, first, total, count):
    """Sum of image - model and number of its good pixels in blocks of ``size``, for block rows start to stop.

    Pixels with a bit of ``ignored`` in their flags, and such as are not finite, are left out. ``total``
    (by, bx) float32 and ``count`` (by, bx) float32 are written whole in those rows, ``first`` being the row
    of blocks that is their first.
    """
    ny, nx = image.shape
    c = room_for_coefficients(monomials)
    model = np.empty(nx, np.float32)
    sums = np.empty(nx, np.float32)
    counts = np.empty(nx, np.uint16)
    ignored = np.uint8(ignored)
    for j in range(start, stop):
        sums[:] = 0
        counts[:] = 0
        for y in range(j * size, min(ny, (j + 1) * size)):
            row_coefficients(monomials, y, ny, c)
            _add_row(image[y], flags[y], ignored, c, model, sums, counts)
        _sum_blocks(sums, size, total[j - first])
        _sum_blocks(counts, size, count[j - first])


@_inner
def _add_row(pixels, flag, ignored, c, model, sums, counts):
    n = len(sums)
    zero, most, one, none = np.float32(0), np.float32(1e30), np.uint16(1), np.uint16(0)
    if len(c) == FEW:
        # the usual order, without a row of models in between: what is in the first cache at a time counts
        step, first = np.float32(2.0 / n), np.float32((1.0 - n) / n)
        c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
        for x in range(n):
            u = fma(np.float32(np.int32(x)), step, first)
            r = pixels[x] - fma(fma(fma(fma(fma(fma(c6, u, c5), u, c4), u, c3), u, c2), u, c1), u, c0)
            good = ((flag[x] & ignored) == 0) & (abs(r) <= most)
            sums[x] += r if good else zero
            counts[x] += one if good else none
        return
    model_row(c, model)
    for x in range(n):
        r = pixels[x] - model[x]
        good = ((flag[x] & ignored) == 0) & (abs(r) <= most)
        sums[x] += r if good else zero
        counts[x] += one if good else none


@_inner
def _sum_blocks(values, size, out):
    """Sums of ``size`` values next to each other, the last of what is left."""
    whole = len(values) // size
    if size == 8:
        # the usual size, so that the compiler sees eight values that lie together
        for i in range(whole):
            v = values[8 * i : 8 * i + 8]
            out[i] = np.float32(v[0]) + v[1] + v[2] + v[3] + v[4] + v[5] + v[6] + v[7]
    else:
        for i in range(whole):
            s = np.float32(0)
            for x in range(i * size, (i + 1) * size):
                s += values[x]
            out[i] = s
    if whole < len(out):
        s = np.float32(0)
        for x in range(whole * size, len(values)):
            s += values[x]
        out[whole] = s


@_compiled
def coarsen(blocks, factor, out):
    """Sums of ``blocks``, (by, bx) float32, over factor x factor of them."""
    rows = np.empty(blocks.shape[1], np.float32)
    for j in range(out.shape[0]):
        rows[:] = 0
        for y in range(j * factor, min(blocks.shape[0], (j + 1) * factor)):
            for x in range(len(rows)):
                rows[x] += blocks[y, x]
        _sum_blocks(rows, factor, out[j])


@_compiled
def convolve(image, k, start, stop, out):
    """Rows start to stop of an image convolved with a symmetric separable kernel, zero outside it.

    ``k`` float32 is its centre and one side. Row ``start`` of the image becomes the first of ``out``.
    """
    ny, nx = image.shape
    half = len(k) - 1
    size = 2 * half + 1
    padded = np.zeros(nx + 2 * half, np.float32)
    ring = np.zeros((size, nx), np.float32)
    for y in range(start - half, stop + half):
        smoothed = ring[y % size]
        if 0 <= y < ny:
            _copy(image[y], padded[half : half + nx])
            if half == TAPS:
                _smooth_six(padded, k, smoothed)
            else:
                _weigh(padded[half : half + nx], k[0], smoothed)
                for t in range(1, half + 1):
                    before, after = padded[half - t : half - t + nx], padded[half + t : half + t + nx]
                    _add_pair(before, after, k[t], smoothed)
        else:
            smoothed[:] = 0
        at = y - half
        if at >= start:
            into = out[at - start]
            _weigh(ring[at % size], k[0], into)
            for t in range(1, half + 1):
                _add_pair(ring[(at - t) % size], ring[(at + t) % size], k[t], into)


@_inner
def _copy(values, out):
    for x in range(len(out)):
        out[x] = values[x]


@_inner
def _smooth_six(r, k, out):
    """Smooth a row by the usual width of kernel; ``r`` starts six pixels before it."""
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(len(out)):
        a = fma(k2, r[x + 4] + r[x + 8], fma(k1, r[x + 5] + r[x + 7], k0 * r[x + 6]))
        a = fma(k4, r[x + 2] + r[x + 10], fma(k3, r[x + 3] + r[x + 9], a))
        out[x] = fma(k6, r[x] + r[x + 12], fma(k5, r[x + 1] + r[x + 11], a))


@_inner
def _weigh(values, weight, out):
    for x in range(len(out)):
        out[x] = weight * values[x]


@_inner
def _add_pair(a, b, weight, out):
    for x in range(len(out)):
        out[x] = fma(weight, a[x] + b[x], out[x])
