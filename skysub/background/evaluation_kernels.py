"""Compiled evaluation of polynomials over pixels; the bits of a pixel do not depend on the window."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True)


@_compiled
def evaluate(y0, x0, ny, nx, power, out):
    """Polynomial at the pixels of a window whose first pixel is (y0, x0), into float32 ``out``.

    ``power`` [q, p] are the coefficients of y'^q x'^p, with x' = (2 x - nx + 1) / nx.
    """
    row = np.empty(power.shape[1])
    x = _scaled(x0, out.shape[1], nx)
    for j in range(out.shape[0]):
        _row_polynomial(power, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        _horner(row, x, out[j])


@_compiled
def evaluate_deviation(y0, x0, ny, nx, power, out):
    """Square root of the polynomial, as `evaluate`; 0 where rounding makes it negative."""
    row = np.empty(power.shape[1])
    x = _scaled(x0, out.shape[1], nx)
    for j in range(out.shape[0]):
        _row_polynomial(power, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        for i in range(out.shape[1]):
            total = row[-1]
            for p in range(len(row) - 2, -1, -1):
                total = total * x[i] + row[p]
            out[j, i] = math.sqrt(max(total, 0.0))


@_compiled
def subtract(image, y0, x0, ny, nx, power, out):
    """``image`` minus the polynomial rounded to float32, over a window, into ``out``."""
    row = np.empty(power.shape[1])
    x = _scaled(x0, out.shape[1], nx)
    model = np.empty(out.shape[1], np.float32)
    for j in range(out.shape[0]):
        _row_polynomial(power, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        _horner(row, x, model)
        for i in range(out.shape[1]):
            out[j, i] = image[j, i] - model[i]


@_compiled
def _scaled(first, count, length):
    values = np.empty(count)
    for i in range(count):
        values[i] = (2.0 * (first + i) - length + 1.0) / length
    return values


@_compiled
def _row_polynomial(power, y, row):
    for p in range(len(row)):
        total = power[-1, p]
        for q in range(power.shape[0] - 2, -1, -1):
            total = total * y + power[q, p]
        row[p] = total


@_compiled
def _horner(row, x, out):
    if len(row) == 7:
        # the usual order, written out so that it runs in registers; the operations are those below
        a, b, c, d, e, f, g = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
        for i in range(len(out)):
            v = x[i]
            out[i] = np.float32((((((g * v + f) * v + e) * v + d) * v + c) * v + b) * v + a)
        return
    for i in range(len(out)):
        total = row[-1]
        for p in range(len(row) - 2, -1, -1):
            total = total * x[i] + row[p]
        out[i] = np.float32(total)
