"""Compiled sums of an image's residual over small cells that lie within amplifiers."""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.background.fma import fma

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)


@_compiled
def cell_sums(image, flags, ignored, monomials, limit, y_edges, x_edges, step, total, count):
    """Sums and numbers of image - model in cells, of every ``step``-th row of each.

    Pixels with a bit of ``ignored`` in their flags, or whose residual is beyond ``limit`` or not finite, are
    left out. ``monomials`` [q, p] are the model's coefficients, as in `evaluation_kernels`; ``total`` and
    ``count`` are (cells in y, cells in x) float32.
    """
    ny, nx = image.shape
    order = monomials.shape[1]
    row = np.empty(order, np.float32)
    residual = np.empty(nx, np.float32)
    good = np.empty(nx, np.float32)
    ignored = np.uint8(ignored)
    limit = np.float32(limit)
    zero = np.float32(0)
    for j in range(len(y_edges) - 1):
        residual[:] = 0
        good[:] = 0
        for y in range(y_edges[j], y_edges[j + 1], step):
            v = (2.0 * y - ny + 1.0) / ny
            for p in range(order):
                value = monomials[-1, p]
                for q in range(monomials.shape[0] - 2, -1, -1):
                    value = fma(value, v, monomials[q, p])
                row[p] = value
            if order == 7:
                _usual_row(image[y], flags[y], ignored, row, limit, residual, good)
            else:
                _any_row(image[y], flags[y], ignored, row, limit, residual, good)
        for i in range(len(x_edges) - 1):
            r, n = zero, zero
            for x in range(x_edges[i], x_edges[i + 1]):
                r += residual[x]
                n += good[x]
            total[j, i] = r
            count[j, i] = n


@_inner
def _usual_row(pixels, flag, ignored, row, limit, residual, good):
    """Add a row's residuals, and ones where they count, for a polynomial of the usual order, in registers."""
    n = len(residual)
    zero, one = np.float32(0), np.float32(1)
    scale, first = np.float32(2.0 / n), np.float32((1.0 - n) / n)
    a, b, c, d, e, f, g = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
    for x in range(n):
        u = fma(np.float32(np.int32(x)), scale, first)
        r = pixels[x] - fma(fma(fma(fma(fma(fma(g, u, f), u, e), u, d), u, c), u, b), u, a)
        taken = ((flag[x] & ignored) == 0) & (abs(r) <= limit)
        residual[x] += r if taken else zero
        good[x] += one if taken else zero


@_inner
def _any_row(pixels, flag, ignored, row, limit, residual, good):
    n, order = len(residual), len(row)
    zero, one = np.float32(0), np.float32(1)
    scale, first = np.float32(2.0 / n), np.float32((1.0 - n) / n)
    for x in range(n):
        u = fma(np.float32(np.int32(x)), scale, first)
        value = row[order - 1]
        for p in range(order - 2, -1, -1):
            value = fma(value, u, row[p])
        r = pixels[x] - value
        taken = ((flag[x] & ignored) == 0) & (abs(r) <= limit)
        residual[x] += r if taken else zero
        good[x] += one if taken else zero


@_compiled
def drift_system(precision, weights, values, matrix, solved, diagonal, scaled):
    """Eliminate a drift that is a first-order Markov process from one amplifier's linear equations.

    With W the ``weights`` (bins,) of the bins, K^-1 the process's tridiagonal precision (``precision``: its
    inner diagonal, end diagonal and off-diagonal), ``values`` (bins,) and ``matrix`` (bins, columns) both
    times W: ``solved`` (bins, columns + 1) becomes (K^-1 + W)^-1 of matrix and values.

    Returns
    -------
    logarithm
        log det (K^-1 + W).
    """
    n, columns = matrix.shape
    inner, end, off = precision
    logarithm = 0.0
    for i in range(n):
        own = (end if i in (0, n - 1) else inner) + weights[i]
        if i:
            scaled[i] = off / diagonal[i - 1]
            own -= off * scaled[i]
            for c in range(columns):
                solved[i, c] = matrix[i, c] - scaled[i] * solved[i - 1, c]
            solved[i, columns] = values[i] - scaled[i] * solved[i - 1, columns]
        else:
            for c in range(columns):
                solved[i, c] = matrix[i, c]
            solved[i, columns] = values[i]
        diagonal[i] = own
        logarithm += np.log(own)
    for i in range(n - 1, -1, -1):
        for c in range(columns + 1):
            if i < n - 1:
                solved[i, c] -= off * solved[i + 1, c]
            solved[i, c] /= diagonal[i]
    return logarithm


@_compiled
def drift_variances(precision, weights, out):
    """Diagonal of (K^-1 + W)^-1 for the tridiagonal K^-1 of `drift_system`, into ``out`` (bins,)."""
    n = len(weights)
    inner, end, off = precision
    forward, backward = np.empty(n), np.empty(n)
    for i in range(n):
        own = (end if i in (0, n - 1) else inner) + weights[i]
        forward[i] = own - (off * off / forward[i - 1] if i else 0.0)
    for i in range(n - 1, -1, -1):
        own = (end if i in (0, n - 1) else inner) + weights[i]
        backward[i] = own - (off * off / backward[i + 1] if i < n - 1 else 0.0)
    for i in range(n):
        own = (end if i in (0, n - 1) else inner) + weights[i]
        out[i] = 1.0 / (forward[i] + backward[i] - own)
