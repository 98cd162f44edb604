"""Compiled sums over blocks of pixels, for light that only shows after averaging, and plain smoothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.sources.detection_kernels import model_row, room_for_coefficients, row_coefficients

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)


@_compiled
def bin_residual(image, flags, power, ignored, size, start, stop, total, count):
    """Sum of image - model and number of its good pixels in blocks of ``size``, for block rows start to stop.

    Pixels with a bit of ``ignored`` in their flags, and such as are not finite, are left out. ``total``
    (by, bx) float32 and ``count`` (by, bx) float32 are written whole in those rows.
    """
    ny, nx = image.shape
    c = room_for_coefficients(power)
    model = np.empty(nx, np.float32)
    sums = np.empty(nx, np.float32)
    counts = np.empty(nx, np.float32)
    ignored = np.uint8(ignored)
    for j in range(start, stop):
        sums[:] = 0
        counts[:] = 0
        for y in range(j * size, min(ny, (j + 1) * size)):
            row_coefficients(power, y, ny, c)
            model_row(c, model)
            _add_row(image[y], flags[y], ignored, model, sums, counts)
        _sum_blocks(sums, size, total[j])
        _sum_blocks(counts, size, count[j])


@_inner
def _add_row(pixels, flag, ignored, model, sums, counts):
    zero, one, most = np.float32(0), np.float32(1), np.float32(1e30)
    for x in range(len(sums)):
        r = pixels[x] - model[x]
        good = ((flag[x] & ignored) == 0) & (abs(r) <= most)
        sums[x] += r if good else zero
        counts[x] += one if good else zero


@_inner
def _sum_blocks(values, size, out):
    """Sums of ``size`` values next to each other, the last of what is left."""
    for i in range(len(out)):
        s = np.float32(0)
        for x in range(i * size, min(len(values), (i + 1) * size)):
            s += values[x]
        out[i] = s


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
            padded[half : half + nx] = image[y]
            _weigh(padded[half : half + nx], k[0], smoothed)
            for t in range(1, half + 1):
                _add_pair(padded[half - t : half - t + nx], padded[half + t : half + t + nx], k[t], smoothed)
        else:
            smoothed[:] = 0
        at = y - half
        if at >= start:
            into = out[at - start]
            _weigh(ring[at % size], k[0], into)
            for t in range(1, half + 1):
                _add_pair(ring[(at - t) % size], ring[(at + t) % size], k[t], into)


@_inner
def _weigh(values, weight, out):
    for x in range(len(out)):
        out[x] = weight * values[x]


@_inner
def _add_pair(a, b, weight, out):
    for x in range(len(out)):
        out[x] += weight * (a[x] + b[x])
