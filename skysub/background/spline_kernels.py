"""Compiled splines through superpixels: along y for each column of them, then along x for each row of pixels.

A spline in one dimension is a table (interval, 5): where it begins, and the coefficients of a cubic in the
distance from there. The first and last intervals reach beyond the outermost nodes. Nothing depends on the
window that is asked for, so that the bits of a pixel do not either.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "AKIMA",
    "BICUBIC",
    "CONSTANT",
    "LINEAR",
    "NATURAL",
    "REFLECT",
    "SEXTRACTOR",
    "columns",
    "deviation",
    "rows",
    "subtract",
]

CONSTANT, LINEAR, NATURAL, BICUBIC, AKIMA, REFLECT, SEXTRACTOR = 0, 1, 2, 3, 4, 5, 6
"""Codes of the kinds of spline."""

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)


@_compiled
def columns(nodes, values, known, code, y0, out):
    """Values of each column's spline at rows ``y0`` and on, into ``out`` (row, column); NaN if it has none.

    ``values`` and ``known`` are (gy, gx); ``code`` (gx,) is the kind of spline of each column.
    """
    gy, gx = values.shape
    at = np.empty(gy)
    through = np.empty(gy)
    table = np.empty((gy + 1, 5))
    for i in range(gx):
        n = 0
        for j in range(gy):
            if known[j, i]:
                at[n] = nodes[j]
                through[n] = values[j, i]
                n += 1
        if n == 0:
            out[:, i] = np.nan
            continue
        pieces = _spline(at[:n], through[:n], code[i], table)
        k = 0
        for row in range(out.shape[0]):
            y = np.float64(y0 + row)
            while k + 1 < pieces and y >= table[k + 1, 0]:
                k += 1
            out[row, i] = _cubic(table, k, y)


@_compiled
def rows(nodes, at_rows, code, x0, out):
    """Values of the splines along x through ``at_rows`` (row, node), at columns ``x0`` and on, as float32."""
    table = np.empty((len(nodes) + 1, 5))
    for row in range(out.shape[0]):
        pieces = _spline(nodes, at_rows[row], code, table)
        _row(table, pieces, x0, out[row])


@_compiled
def subtract(image, nodes, at_rows, code, x0, out):
    """``image`` minus what `rows` gives, into ``out``, which may be ``image``."""
    table = np.empty((len(nodes) + 1, 5))
    model = np.empty(out.shape[1], np.float32)
    for row in range(out.shape[0]):
        pieces = _spline(nodes, at_rows[row], code, table)
        _row(table, pieces, x0, model)
        for i in range(out.shape[1]):
            out[row, i] = image[row, i] - model[i]


@_compiled
def deviation(along_y, along_x, variance, out):
    """Standard deviation of a weighted sum of nodes, into ``out`` (row, pixel) float32.

    Squares of the weights are ``along_y`` (column, node, row) and ``along_x`` (node, pixel); ``variance`` is
    that of the nodes, (gy, gx).
    """
    gy, gx = variance.shape
    total = np.empty(out.shape[1])
    for row in range(out.shape[0]):
        total[:] = 0.0
        for i in range(gx):
            of_column = 0.0
            for j in range(gy):
                of_column += along_y[i, j, row] * variance[j, i]
            for x in range(out.shape[1]):
                total[x] += along_x[i, x] * of_column
        for x in range(out.shape[1]):
            out[row, x] = math.sqrt(total[x])


@_inner
def _row(table, pieces, x0, out):
    start = 0
    for k in range(pieces):
        stop = len(out)
        if k + 1 < pieces:
            stop = min(stop, max(start, np.int64(math.ceil(table[k + 1, 0])) - x0))
        begin, a, b, c, d = table[k, 0], table[k, 1], table[k, 2], table[k, 3], table[k, 4]
        for i in range(start, stop):
            t = np.float64(np.int32(x0 + i)) - begin
            out[i] = np.float32(a + t * (b + t * (c + t * d)))
        start = stop


@_inner
def _cubic(table, k, at):
    t = at - table[k, 0]
    return table[k, 1] + t * (table[k, 2] + t * (table[k, 3] + t * table[k, 4]))


@_inner
def _spline(x, y, code, table):
    """Fill the table of the spline through (x, y), and return its number of intervals."""
    n = len(x)
    if n == 1 or code == CONSTANT:
        table[0, :] = 0.0
        table[0, 0], table[0, 1] = x[0], y[0]
        return 1
    if code == AKIMA and n >= 5:
        _akima(x, y, table[1:])
    elif code == LINEAR or (n == 2 and code != REFLECT):
        _linear(x, y, table[1:])
    else:
        _cubics(x, y, code, table[1:])
    # table[1 : n] are the intervals between nodes; what lies before and after follows
    first, last = table[0], table[n]
    if code in (BICUBIC, SEXTRACTOR):
        first[:] = table[1]
        last[:] = table[n - 1]
        # the same cubics go on: interval 0 begins at node 0 and no last one is needed
        for k in range(n - 1):
            table[k] = table[k + 1]
        return n - 1
    h = x[n - 1] - x[n - 2]
    b, c, d = table[n - 1, 2], table[n - 1, 3], table[n - 1, 4]
    first[0], last[0] = x[0], x[n - 1]
    first[1], last[1] = y[0], y[n - 1]
    if code == REFLECT:
        # the mirrored neighbour has the same value and the same second derivative: a parabola between them
        m0, m1 = 2.0 * table[1, 3], 2.0 * c + 6.0 * d * h
        first[2], first[3], first[4] = 0.5 * m0 * (x[1] - x[0]), 0.5 * m0, 0.0
        last[2], last[3], last[4] = -0.5 * m1 * h, 0.5 * m1, 0.0
        return n + 1
    # as a Taylor series of second order (LSST afw's Interpolate.cc)
    first[2], first[3], first[4] = table[1, 2], table[1, 3], 0.0
    last[2], last[3], last[4] = b + h * (2.0 * c + 3.0 * d * h), c + 3.0 * d * h, 0.0
    return n + 1


@_inner
def _linear(x, y, table):
    for k in range(len(x) - 1):
        table[k, 0], table[k, 1] = x[k], y[k]
        table[k, 2], table[k, 3], table[k, 4] = (y[k + 1] - y[k]) / (x[k + 1] - x[k]), 0.0, 0.0


@_inner
def _cubics(x, y, code, table):
    """Cubic spline with continuous second derivatives, those at the ends zero or mirrored (REFLECT)."""
    n = len(x)
    second = np.zeros(n)
    if code == SEXTRACTOR:
        _sextractor_seconds(y, second)
        for k in range(n):
            h = x[1] - x[0]
            second[k] *= 6.0 / (h * h)
        _from_seconds(x, y, second, table)
        return
    diagonal = np.zeros(n)
    right = np.zeros(n)
    mirrored = code == REFLECT
    first, last = (0, n - 1) if mirrored else (1, n - 2)
    for k in range(first, last + 1):
        below = x[k] - x[k - 1] if k > 0 else x[1] - x[0]
        above = x[k + 1] - x[k] if k < n - 1 else x[n - 1] - x[n - 2]
        slope = (y[k + 1] - y[k]) / above if k < n - 1 else 0.0
        slope -= (y[k] - y[k - 1]) / below if k > 0 else 0.0
        diagonal[k] = 2.0 * (below + above)
        right[k] = 6.0 * slope
        if mirrored and k == 0:
            diagonal[k] += below
        if mirrored and k == n - 1:
            diagonal[k] += above
        if k > first:
            factor = below / diagonal[k - 1]
            diagonal[k] -= factor * below
            right[k] -= factor * right[k - 1]
    for k in range(last, first - 1, -1):
        above = x[k + 1] - x[k] if k < n - 1 else 0.0
        following = second[k + 1] if k < last else 0.0
        second[k] = (right[k] - above * following) / diagonal[k]
    _from_seconds(x, y, second, table)


@_inner
def _sextractor_seconds(y, sixths):
    """Sixths of the second differences at evenly spaced nodes, as SExtractor's back.c finds them.

    Its elimination is that of a natural spline, but what comes back from the next node is a sixth already and
    is divided by six again: the surface passes through all nodes and its slope jumps a little at each.
    """
    n = len(y)
    factor = np.zeros(n)
    right = np.zeros(n)
    for k in range(1, n - 1):
        factor[k] = -1.0 / (factor[k - 1] + 4.0)
        right[k] = factor[k] * (right[k - 1] - 6.0 * (y[k + 1] + y[k - 1] - 2.0 * y[k]))
    for k in range(n - 2, 0, -1):
        sixths[k] = (factor[k] * sixths[k + 1] + right[k]) / 6.0


@_inner
def _from_seconds(x, y, second, table):
    for k in range(len(x) - 1):
        h = x[k + 1] - x[k]
        table[k, 0], table[k, 1] = x[k], y[k]
        table[k, 2] = (y[k + 1] - y[k]) / h - h * (2.0 * second[k] + second[k + 1]) / 6.0
        table[k, 3] = second[k] / 2.0
        table[k, 4] = (second[k + 1] - second[k]) / (6.0 * h)


@_inner
def _akima(x, y, table):
    """Akima's cubics (1970, J. ACM 17, 589).

    Slopes at nodes are means of the neighbouring chords, weighted by how much those beyond the other turn.
    """
    n = len(x)
    chord = np.empty(n + 3)
    for k in range(n - 1):
        chord[k + 2] = (y[k + 1] - y[k]) / (x[k + 1] - x[k])
    chord[1] = 2.0 * chord[2] - chord[3]
    chord[0] = 3.0 * chord[2] - 2.0 * chord[3]
    chord[n + 1] = 2.0 * chord[n] - chord[n - 1]
    chord[n + 2] = 3.0 * chord[n] - 2.0 * chord[n - 1]
    for k in range(n - 1):
        h = x[k + 1] - x[k]
        middle = chord[k + 2]
        left, right = _akima_slope(chord, k, middle), _akima_slope(chord, k + 1, middle)
        turn = math.fabs(chord[k + 3] - chord[k + 2]) + math.fabs(chord[k + 1] - chord[k])
        table[k, 0], table[k, 1] = x[k], y[k]
        if turn == 0.0:
            table[k, 2], table[k, 3], table[k, 4] = middle, 0.0, 0.0
        else:
            table[k, 2] = left
            table[k, 3] = (3.0 * middle - 2.0 * left - right) / h
            table[k, 4] = (left + right - 2.0 * middle) / (h * h)


@_inner
def _akima_slope(chord, k, straight):
    """Slope at node k; ``straight`` where the chords on neither side turn."""
    before = math.fabs(chord[k + 1] - chord[k])
    after = math.fabs(chord[k + 3] - chord[k + 2])
    if before + after == 0.0:
        return straight
    share = before / (before + after)
    return (1.0 - share) * chord[k + 1] + share * chord[k + 2]
