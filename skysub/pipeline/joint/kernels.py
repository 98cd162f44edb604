"""Compiled sums and factors of the joint fit; every sum has one fixed order, whoever runs it."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True)


@_compiled
def add_normal(
    index_y, index_x, basis_y, basis_x, local, columns, weights, values, ab, b, right_a, right_b, a
):
    """Add one detector's weighted products to its normal equations, superpixel by superpixel.

    A superpixel has 4 x 4 values of the spline's basis, the first of which is the coefficient (index_y,
    index_x) of the detector's own rectangle of ``columns`` coefficients along x, and ``local`` terms.
    """
    terms = local.shape[1]
    place = np.empty(16, np.int64)
    value = np.empty(16)
    used = np.empty(terms, np.int64)
    for k in range(len(weights)):
        w = weights[k]
        if w == 0.0:
            continue
        wv = w * values[k]
        for q in range(4):
            for p in range(4):
                place[4 * q + p] = (index_y[k] + q) * columns + index_x[k] + p
                value[4 * q + p] = basis_y[k, q] * basis_x[k, p]
        n = 0
        for t in range(terms):
            if local[k, t] != 0.0:
                used[n] = t
                n += 1
        for s in range(16):
            weighted = w * value[s]
            right_a[place[s]] += wv * value[s]
            for r in range(s + 1):
                a[place[s], place[r]] += weighted * value[r]
            for u in range(n):
                ab[place[s], used[u]] += weighted * local[k, used[u]]
        for u in range(n):
            t = used[u]
            right_b[t] += wv * local[k, t]
            for v in range(n):
                b[t, used[v]] += w * local[k, t] * local[k, used[v]]


@_compiled
def spline_values(index_y, index_x, basis_y, basis_x, columns, coefficients, out):
    """The spline at superpixels, from the coefficients of the detector's own rectangle."""
    for k in range(len(out)):
        total = 0.0
        for q in range(4):
            row = (index_y[k] + q) * columns + index_x[k]
            part = 0.0
            for p in range(4):
                part += basis_x[k, p] * coefficients[row + p]
            total += basis_y[k, q] * part
        out[k] = total


@_compiled
def factor(matrix, first):
    """Cholesky factor of a symmetric matrix in place, within its envelope.

    ``first[i]`` is the first column of row i that is not zero; only the lower half is read and written.
    Returns whether the matrix is positive definite.
    """
    for i in range(len(first)):
        for j in range(first[i], i + 1):
            total = matrix[i, j]
            for m in range(max(first[i], first[j]), j):
                total -= matrix[i, m] * matrix[j, m]
            if i == j:
                if not total > 0.0:
                    return False
                matrix[i, i] = math.sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    return True


@_compiled
def solve(lower, first, vector):
    """Solve with the factor of `factor`, in place."""
    n = len(first)
    for i in range(n):
        total = vector[i]
        for m in range(first[i], i):
            total -= lower[i, m] * vector[m]
        vector[i] = total / lower[i, i]
    for i in range(n - 1, -1, -1):
        value = vector[i] / lower[i, i]
        vector[i] = value
        for m in range(first[i], i):
            vector[m] -= lower[i, m] * value


@_compiled
def selected_inverse(lower, first, out):
    """Entries of the inverse within the envelope, symmetric (Takahashi, Fagan & Chen 1973)."""
    n = len(first)
    rows = np.empty(n, np.int64)
    column = np.empty(n)
    found = np.empty(n)
    for j in range(n - 1, -1, -1):
        count = 0
        for k in range(j + 1, n):
            if first[k] <= j:
                rows[count] = k
                column[count] = lower[k, j]
                count += 1
        pivot = 1.0 / lower[j, j]
        own = 0.0
        for s in range(count):
            k = rows[s]
            total = 0.0
            for t in range(count):
                total += out[k, rows[t]] * column[t]
            found[s] = -pivot * total
            own += column[s] * found[s]
        for s in range(count):
            out[rows[s], j] = found[s]
            out[j, rows[s]] = found[s]
        out[j, j] = pivot * pivot - pivot * own


@_compiled
def eliminate(shared, cross, own, right, own_right, templates, mean, precision, place, matrix, total):
    """Take one detector's own terms out of its equations, and add what is left to those of the visit.

    ``shared``, ``cross``, ``own`` and the right sides are as `add_normal` made them: ``cross`` and ``own``
    hold ``templates`` shared columns first. ``place`` are the rows of the coefficients and templates in
    ``matrix``. Returns the covariance of the own terms when the shared ones are known, their right side, and
    the cross terms times that covariance.
    """
    m, k = shared.shape[0], templates
    q = own.shape[0] - k
    lower = np.zeros((q, q))
    first = np.zeros(q, np.int64)
    side = np.empty(q)
    for i in range(q):
        for j in range(i + 1):
            lower[i, j] = own[k + i, k + j]
        lower[i, i] += precision[i]
        side[i] = own_right[k + i] + precision[i] * mean[i]
    factor(lower, first)
    inverse = np.zeros((q, q))
    for i in range(q):
        inverse[i, i] = 1.0
        solve(lower, first, inverse[i])
    gain = np.zeros((m + k, q))
    for i in range(m + k):
        for j in range(q):
            value = cross[i, k + j] if i < m else own[i - m, k + j]
            if value != 0.0:
                for t in range(q):
                    gain[i, t] += value * inverse[j, t]
    for i in range(m + k):
        for j in range(i + 1):
            if i < m:
                value = shared[i, j]
            elif j < m:
                value = cross[j, i - m]
            else:
                value = own[i - m, j - m]
            for t in range(q):
                value -= gain[i, t] * (cross[j, k + t] if j < m else own[j - m, k + t])
            matrix[place[i], place[j]] += value
        value = right[i] if i < m else own_right[i - m]
        for t in range(q):
            value -= gain[i, t] * side[t]
        total[place[i]] += value
    return inverse, side, gain


@_compiled
def product(a, b, out):
    """``a @ b`` with sums in order."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = 0.0
        for k in range(a.shape[1]):
            value = a[i, k]
            if value != 0.0:
                for j in range(b.shape[1]):
                    out[i, j] += value * b[k, j]


@_compiled
def quadratic(rows, covariance, out):
    """Row by row, ``row @ covariance @ row``."""
    n = rows.shape[1]
    for k in range(rows.shape[0]):
        total = 0.0
        for i in range(n):
            if rows[k, i] != 0.0:
                part = 0.0
                for j in range(n):
                    part += covariance[i, j] * rows[k, j]
                total += rows[k, i] * part
        out[k] = total
