"""Compiled loops over tabulated stamps of a PSF: blended between nodes, and moved by parts of a pixel."""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.background.fma import fma

__all__ = ["blend", "phase_weights", "profile", "profile_and_slopes", "render_many"]

PHASES = 7
"""Places of the centre, along each axis, at which stamps are tabulated: -3/4 to 3/4 pixel in steps of 1/4."""
PER_PIXEL = 4

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_compiled
def blend(table, row, column, out):
    """Stamps (7, 7, s, w) at fractional node (row, column) of ``table`` (my, mx, 7, 7, s, w), bilinear."""
    my, mx = table.shape[:2]
    a, b = min(int(row), max(my - 2, 0)), min(int(column), max(mx - 2, 0))
    a2, b2 = min(a + 1, my - 1), min(b + 1, mx - 1)
    f, g = row - a, column - b
    w00, w01 = np.float32((1 - f) * (1 - g)), np.float32((1 - f) * g)
    w10, w11 = np.float32(f * (1 - g)), np.float32(f * g)
    for p in range(PHASES):
        for q in range(PHASES):
            t00, t01 = table[a, b, p, q], table[a, b2, p, q]
            t10, t11 = table[a2, b, p, q], table[a2, b2, p, q]
            o = out[p, q]
            for j in range(o.shape[0]):
                for i in range(o.shape[1]):
                    o[j, i] = fma(w11, t11[j, i], fma(w10, t10[j, i], fma(w01, t01[j, i], w00 * t00[j, i])))


@_inner
def phase_weights(offset, weights, slopes):
    """Cubic interpolation between phases at an offset from -1/2 to 1/2 pixel; returns the first phase."""
    t = min(max(offset, -0.5), 0.5) * PER_PIXEL + (PHASES - 1) / 2
    k = min(max(int(t), 1), PHASES - 3)
    u = t - k
    weights[0] = -u * (u - 1) * (u - 2) / 6
    weights[1] = (u + 1) * (u - 1) * (u - 2) / 2
    weights[2] = -(u + 1) * u * (u - 2) / 2
    weights[3] = (u + 1) * u * (u - 1) / 6
    slopes[0] = -(3 * u * u - 6 * u + 2) / 6 * PER_PIXEL
    slopes[1] = (3 * u * u - 4 * u - 1) / 2 * PER_PIXEL
    slopes[2] = -(3 * u * u - 2 * u - 2) / 2 * PER_PIXEL
    slopes[3] = (3 * u * u - 1) / 6 * PER_PIXEL
    return k - 1


@_inner
def profile(stamps, dy, dx, radius, spare, out):
    """PSF centred (dy, dx) off the middle pixel, as far as ``radius`` from it, to out (2 radius + 1, w).

    Columns of ``out`` are those of the stamps; beyond ``radius`` they keep what they held. ``spare`` (2, 8)
    float64.
    """
    wy, wx, ny, nx = spare[0, :4], spare[1, :4], spare[0, 4:], spare[1, 4:]
    a, b = phase_weights(dy, wy, ny), phase_weights(dx, wx, nx)
    first = stamps.shape[2] // 2 - radius
    last = first + 2 * radius + 1
    for j in range(2 * radius + 1):
        o = out[j, first:last]
        for p in range(4):
            c0, c1 = np.float32(wy[p] * wx[0]), np.float32(wy[p] * wx[1])
            c2, c3 = np.float32(wy[p] * wx[2]), np.float32(wy[p] * wx[3])
            rows = stamps[a + p, b : b + 4, first + j, first:last]
            t0, t1, t2, t3 = rows[0], rows[1], rows[2], rows[3]
            if p == 0:
                for i in range(len(o)):
                    o[i] = fma(c3, t3[i], fma(c2, t2[i], fma(c1, t1[i], c0 * t0[i])))
            else:
                for i in range(len(o)):
                    o[i] = fma(c3, t3[i], fma(c2, t2[i], fma(c1, t1[i], fma(c0, t0[i], o[i]))))


@_inner
def profile_and_slopes(stamps, dy, dx, radius, spare, out, by_y, by_x):
    """As `profile`, and its derivatives by the centre's y and x."""
    wy, wx, ny, nx = spare[0, :4], spare[1, :4], spare[0, 4:], spare[1, 4:]
    a, b = phase_weights(dy, wy, ny), phase_weights(dx, wx, nx)
    first = stamps.shape[2] // 2 - radius
    last = first + 2 * radius + 1
    c0, c1, c2, c3 = np.float32(wx[0]), np.float32(wx[1]), np.float32(wx[2]), np.float32(wx[3])
    n0, n1, n2, n3 = np.float32(nx[0]), np.float32(nx[1]), np.float32(nx[2]), np.float32(nx[3])
    zero = np.float32(0)
    for j in range(2 * radius + 1):
        o, y, x = out[j, first:last], by_y[j, first:last], by_x[j, first:last]
        o[:], y[:], x[:] = zero, zero, zero
        for p in range(4):
            v, n = np.float32(wy[p]), np.float32(ny[p])
            rows = stamps[a + p, b : b + 4, first + j, first:last]
            t0, t1, t2, t3 = rows[0], rows[1], rows[2], rows[3]
            for i in range(len(o)):
                r = fma(c3, t3[i], fma(c2, t2[i], fma(c1, t1[i], c0 * t0[i])))
                d = fma(n3, t3[i], fma(n2, t2[i], fma(n1, t1[i], n0 * t0[i])))
                o[i] = fma(v, r, o[i])
                y[i] = fma(n, r, y[i])
                x[i] = fma(v, d, x[i])


@_compiled
def render_many(stamps, dy, dx, out):
    """Profiles of one place at offsets dy, dx (n,), to out (n, s, w) float32."""
    spare = np.empty((2, 8))
    out[:] = np.float32(0)
    for k in range(len(dy)):
        profile(stamps, dy[k], dx[k], stamps.shape[2] // 2, spare, out[k])
