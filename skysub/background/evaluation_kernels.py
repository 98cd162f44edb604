"""Compiled evaluation of polynomials over pixels; the bits of a pixel do not depend on the window."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.background.fma import fma

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)


@_compiled
def evaluate(y0, x0, ny, nx, monomials, out):
    """Polynomial at the pixels of a window whose first pixel is (y0, x0), into float32 ``out``.

    ``monomials`` [q, p] are the coefficients of y'^q x'^p, with x' = (2 x - nx + 1) / nx.
    """
    row = np.empty(monomials.shape[1])
    for j in range(out.shape[0]):
        _row_polynomial(monomials, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        _row_values(row, x0, nx, out[j])


@_compiled
def evaluate_deviation(y0, x0, ny, nx, monomials, out):
    """Square root of the polynomial, as `evaluate`; 0 where rounding makes it negative."""
    row = np.empty(monomials.shape[1])
    for j in range(out.shape[0]):
        _row_polynomial(monomials, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        for i in range(out.shape[1]):
            v = fma(np.float64(x0 + i), 2.0 / nx, (1.0 - nx) / nx)
            out[j, i] = math.sqrt(max(_at(row, v), 0.0))


@_compiled
def subtract(image, y0, x0, ny, nx, monomials, out):
    """``image`` minus the polynomial rounded to float32, over a window, into ``out``."""
    row = np.empty(monomials.shape[1])
    model = np.empty(out.shape[1], np.float32)
    for j in range(out.shape[0]):
        _row_polynomial(monomials, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        pixels = image[j]
        left = out[j]
        if len(row) == 7:
            # the usual order, as in _row_values, without a row of models in between
            a, b, c, d, e, f, g = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            for i in range(len(left)):
                v = fma(np.float64(np.int32(x0 + i)), 2.0 / nx, (1.0 - nx) / nx)
                left[i] = pixels[i] - np.float32(
                    fma(fma(fma(fma(fma(fma(g, v, f), v, e), v, d), v, c), v, b), v, a)
                )
        else:
            _row_values(row, x0, nx, model)
            for i in range(len(left)):
                left[i] = pixels[i] - model[i]


@_compiled
def subtract_in_place(image, y0, x0, ny, nx, monomials):
    """`subtract` with ``image`` as its own output: with two names for one array no compiler dares."""
    row = np.empty(monomials.shape[1])
    model = np.empty(image.shape[1], np.float32)
    for j in range(image.shape[0]):
        _row_polynomial(monomials, (2.0 * (y0 + j) - ny + 1.0) / ny, row)
        pixels = image[j]
        if len(row) == 7:
            a, b, c, d, e, f, g = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            for i in range(len(pixels)):
                v = fma(np.float64(np.int32(x0 + i)), 2.0 / nx, (1.0 - nx) / nx)
                pixels[i] -= np.float32(fma(fma(fma(fma(fma(fma(g, v, f), v, e), v, d), v, c), v, b), v, a))
        else:
            _row_values(row, x0, nx, model)
            for i in range(len(pixels)):
                pixels[i] -= model[i]


@_inner
def _row_polynomial(monomials, y, row):
    for p in range(len(row)):
        row[p] = _at(monomials[:, p], y)


@_inner
def _at(coefficients, v):
    total = coefficients[-1]
    for p in range(len(coefficients) - 2, -1, -1):
        total = fma(total, v, coefficients[p])
    return total


@_inner
def _row_values(row, x0, nx, out):
    if len(row) == 7:
        # the usual order, written out so that it runs in registers; the operations are those of _at
        a, b, c, d, e, f, g = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
        for i in range(len(out)):
            v = fma(np.float64(np.int32(x0 + i)), 2.0 / nx, (1.0 - nx) / nx)
            out[i] = np.float32(fma(fma(fma(fma(fma(fma(g, v, f), v, e), v, d), v, c), v, b), v, a))
    else:
        for i in range(len(out)):
            out[i] = np.float32(_at(row, fma(np.float64(np.int32(x0 + i)), 2.0 / nx, (1.0 - nx) / nx)))
