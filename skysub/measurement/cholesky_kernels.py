"""Compiled Cholesky factors and solutions of small normal equations."""

from __future__ import annotations

import math

from numba import njit

__all__ = ["factored", "solved"]

_inner = njit(nogil=True, error_model="numpy")


@_inner
def factored(h, n, damping, least):
    """Cholesky factor in the lower triangle, of h with 1 + ``damping`` times its diagonal.

    False where the matrix is not positive: where a pivot is below ``least`` of its diagonal.
    """
    for a in range(n):
        for b in range(a + 1):
            s = h[a, b]
            if a == b:
                s *= 1 + damping
            for m in range(b):
                s -= h[a, m] * h[b, m]
            if a == b:
                if not s > least * abs(h[a, a]):
                    return False
                h[a, a] = math.sqrt(s)
            else:
                h[a, b] = s / h[b, b]
    return True


@_inner
def solved(h, n, v):
    """Put the solution in place of ``v``; h is what `factored` left."""
    for a in range(n):
        s = v[a]
        for m in range(a):
            s -= h[a, m] * v[m]
        v[a] = s / h[a, a]
    for a in range(n - 1, -1, -1):
        s = v[a]
        for m in range(a + 1, n):
            s -= h[m, a] * v[m]
        v[a] = s / h[a, a]
