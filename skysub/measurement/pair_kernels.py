"""Compiled normal equations of stars that overlap: pairs, conjugate gradients, and errors of each star.

A star has three parameters: its flux f, and f times its moves along y and x, in which the equations are
linear. Blocks between two stars are looked up in a table of the PSF's autocorrelation.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.measurement.cholesky_kernels import factored, solved

__all__ = ["conjugate_gradients", "errors_of_stars", "find_pairs", "list_neighbours"]

TABLES = 6
MOST_NEIGHBOURS = 10
"""Nearest neighbours whose covariance enters a star's errors."""

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_compiled
def find_pairs(y, x, order, starts, columns, reach, first, second):
    """Pairs of stars within ``reach``; returns how many there are, and lists as many as there is room for.

    Stars are sorted into cells of at least ``reach`` pixels: ``order`` (n,), ``starts`` (cells + 1,),
    cells in rows of ``columns``.
    """
    count = 0
    cells = len(starts) - 1
    reach2 = reach * reach
    for cell in range(cells):
        row, column = cell // columns, cell % columns
        for dr in range(2):
            for dc in range(-1 if dr else 0, 2):
                other = cell + dr * columns + dc
                if column + dc < 0 or column + dc >= columns or other >= cells or row + dr > cells // columns:
                    continue
                for a in range(starts[cell], starts[cell + 1]):
                    i = order[a]
                    for b in range(a + 1 if other == cell else starts[other], starts[other + 1]):
                        j = order[b]
                        dy, dx = y[i] - y[j], x[i] - x[j]
                        if dy * dy + dx * dx < reach2:
                            if count < len(first):
                                first[count], second[count] = i, j
                            count += 1
    return count


@_inner
def _correlation(table, per_pixel, dy, dx, out):
    """Autocorrelation and its derivatives at an offset, bilinear, to out (`TABLES`,); 0 beyond the table."""
    half = table.shape[1] // 2
    v, u = dy * per_pixel + half, dx * per_pixel + half
    j, i = math.floor(v), math.floor(u)
    if j < 0 or i < 0 or j + 1 >= table.shape[1] or i + 1 >= table.shape[2]:
        out[:] = 0.0
        return
    f, g = v - j, u - i
    for t in range(TABLES):
        a = table[t]
        low = (1 - g) * a[j, i] + g * a[j, i + 1]
        high = (1 - g) * a[j + 1, i] + g * a[j + 1, i + 1]
        out[t] = (1 - f) * low + f * high


@_inner
def _block(table, per_pixel, dy, dx, scale, c, out):
    """Normal equations between a star and one that lies (dy, dx) before it, to out (3, 3)."""
    _correlation(table, per_pixel, dy, dx, c)
    out[0, 0], out[0, 1], out[0, 2] = scale * c[0], -scale * c[1], -scale * c[2]
    out[1, 0], out[1, 1], out[1, 2] = scale * c[1], -scale * c[3], -scale * c[4]
    out[2, 0], out[2, 1], out[2, 2] = scale * c[2], -scale * c[4], -scale * c[5]


@_inner
def _times(diagonal, blocks, first, second, v, out):
    for n in range(len(v)):
        for a in range(3):
            out[n, a] = (
                diagonal[n, a, 0] * v[n, 0] + diagonal[n, a, 1] * v[n, 1] + diagonal[n, a, 2] * v[n, 2]
            )
    for k in range(len(first)):
        i, j = first[k], second[k]
        h = blocks[k]
        for a in range(3):
            out[i, a] += h[a, 0] * v[j, 0] + h[a, 1] * v[j, 1] + h[a, 2] * v[j, 2]
            out[j, a] += h[0, a] * v[i, 0] + h[1, a] * v[i, 1] + h[2, a] * v[i, 2]


@_inner
def _inverted(h, out):
    """Inverse of a symmetric positive 3 x 3 matrix; of its diagonal where it is singular."""
    c00 = h[1, 1] * h[2, 2] - h[1, 2] * h[2, 1]
    c01 = h[1, 2] * h[2, 0] - h[1, 0] * h[2, 2]
    c02 = h[1, 0] * h[2, 1] - h[1, 1] * h[2, 0]
    det = h[0, 0] * c00 + h[0, 1] * c01 + h[0, 2] * c02
    if not det > 1e-9 * h[0, 0] * h[1, 1] * h[2, 2]:
        out[:] = 0.0
        for a in range(3):
            out[a, a] = 1 / h[a, a] if h[a, a] > 0 else 0.0
        return
    out[0, 0], out[0, 1], out[0, 2] = c00 / det, c01 / det, c02 / det
    out[1, 0] = out[0, 1]
    out[1, 1] = (h[0, 0] * h[2, 2] - h[0, 2] * h[2, 0]) / det
    out[1, 2] = (h[0, 2] * h[1, 0] - h[0, 0] * h[1, 2]) / det
    out[2, 0], out[2, 1] = out[0, 2], out[1, 2]
    out[2, 2] = (h[0, 0] * h[1, 1] - h[0, 1] * h[1, 0]) / det


@_compiled
def conjugate_gradients(table, per_pixel, norm, y, x, free, diagonal, first, second, right, steps, out):
    """Solve the normal equations of all stars for ``right`` (n, 3), to out (n, 3).

    Parameters
    ----------
    norm
        (n,): scale of each star's blocks, the square root of its own sum of squares over the table's.
    free
        (n,) bool: whether a star may move; of the others only the flux is solved for.
    diagonal
        (n, 3, 3): blocks of the stars themselves, changed in place where they may not move.
    steps
        Iterations at most.
    """
    n, pairs = len(y), len(first)
    blocks = np.empty((pairs, 3, 3))
    c = np.empty(TABLES)
    for k in range(pairs):
        i, j = first[k], second[k]
        _block(table, per_pixel, y[i] - y[j], x[i] - x[j], norm[i] * norm[j], c, blocks[k])
        if not free[i]:
            blocks[k, 1:] = 0.0
        if not free[j]:
            blocks[k, :, 1:] = 0.0
    inverse = np.empty((n, 3, 3))
    r = np.empty((n, 3))
    for m in range(n):
        if not free[m]:
            for a in range(1, 3):
                diagonal[m, a, :] = 0.0
                diagonal[m, :, a] = 0.0
                diagonal[m, a, a] = 1.0
        _inverted(diagonal[m], inverse[m])
        for a in range(3):
            r[m, a] = right[m, a] if a == 0 or free[m] else 0.0
    out[:] = 0.0
    z, p, q = np.empty((n, 3)), np.zeros((n, 3)), np.empty((n, 3))
    before, start = 0.0, 0.0
    for step in range(steps):
        now = 0.0
        for m in range(n):
            for a in range(3):
                z[m, a] = inverse[m, a, 0] * r[m, 0] + inverse[m, a, 1] * r[m, 1] + inverse[m, a, 2] * r[m, 2]
                now += z[m, a] * r[m, a]
        if step == 0:
            start = now
        if not now > 1e-10 * start:
            break
        ratio = now / before if step else 0.0
        for m in range(n):
            for a in range(3):
                p[m, a] = z[m, a] + ratio * p[m, a]
        _times(diagonal, blocks, first, second, p, q)
        along = 0.0
        for m in range(n):
            for a in range(3):
                along += p[m, a] * q[m, a]
        if not along > 0:
            # stars on top of each other: the equations say no more
            break
        length = now / along
        for m in range(n):
            for a in range(3):
                out[m, a] += length * p[m, a]
                r[m, a] -= length * q[m, a]
        before = now


@_compiled
def list_neighbours(n, first, second, starts, neighbours):
    """Each star's partners in pairs: neighbours[starts[i] : starts[i + 1]]."""
    starts[:] = 0
    for k in range(len(first)):
        starts[first[k] + 1] += 1
        starts[second[k] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    filled = starts[:-1].copy()
    for k in range(len(first)):
        i, j = first[k], second[k]
        neighbours[filled[i]] = j
        filled[i] += 1
        neighbours[filled[j]] = i
        filled[j] += 1


@_compiled
def errors_of_stars(table, per_pixel, norm, y, x, flux, diagonal, variance, starts, neighbours, out):
    """Covariance of each star's flux and place, its nearest neighbours' parameters being free as well.

    ``variance`` (n,) is that of a pixel under each star's profile. Written to out (n, 4): variance of the
    flux, of y and of x, and the covariance of y and x; NaN where a star cannot be told from its neighbours.
    """
    size = 3 * (MOST_NEIGHBOURS + 1)
    h = np.zeros((size, size))
    nearest = np.empty(MOST_NEIGHBOURS + 1, np.int64)
    distance = np.empty(MOST_NEIGHBOURS + 1)
    c, block = np.empty(TABLES), np.empty((3, 3))
    columns = np.zeros((3, size))
    for i in range(len(y)):
        nearest[0] = i
        count = 1
        for k in range(starts[i], starts[i + 1]):
            j = neighbours[k]
            d = (y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2
            at = count
            while at > 1 and distance[at - 1] > d:
                at -= 1
            if at > MOST_NEIGHBOURS:
                continue
            for m in range(min(count, MOST_NEIGHBOURS), at, -1):
                nearest[m], distance[m] = nearest[m - 1], distance[m - 1]
            nearest[at], distance[at] = j, d
            count = min(count + 1, MOST_NEIGHBOURS + 1)
        total = 3 * count
        for a in range(count):
            ia = nearest[a]
            h[3 * a : 3 * a + 3, 3 * a : 3 * a + 3] = diagonal[ia]
            for b in range(a):
                ib = nearest[b]
                _block(table, per_pixel, y[ia] - y[ib], x[ia] - x[ib], norm[ia] * norm[ib], c, block)
                h[3 * a : 3 * a + 3, 3 * b : 3 * b + 3] = block
        out[i] = np.nan
        if not factored(h, total, 0.0, 1e-8):
            continue
        columns[:] = 0.0
        for a in range(3):
            columns[a, a] = 1.0
            solved(h, total, columns[a])
        f2 = flux[i] * flux[i]
        out[i, 0] = columns[0, 0] * variance[i]
        out[i, 1] = columns[1, 1] * variance[i] / f2
        out[i, 2] = columns[2, 2] * variance[i] / f2
        out[i, 3] = columns[1, 2] * variance[i] / f2
