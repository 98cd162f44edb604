"""Compiled measurements of sources one by one, on the residual with a source's own model put back.

Aperture sums integrate the image, constant over each pixel, over discs: exactly along x, from running sums
along rows, and by Gauss-Legendre nodes along y.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["aperture_sums", "disc_integral", "running_sums", "shape_of_child"]

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")

_NARROW = 14.0
"""Radius, pixel, up to which eight nodes a row are taken, and three beyond."""
_G3 = (0.5 - 0.3872983346207417, 0.5, 0.5 + 0.3872983346207417)
_W3 = (5 / 18, 8 / 18, 5 / 18)
_G8 = (
    0.019855071751231884,
    0.10166676129318664,
    0.2372337950418355,
    0.4082826787521751,
    0.5917173212478249,
    0.7627662049581645,
    0.8983332387068134,
    0.9801449282487681,
)
_W8 = (
    0.05061426814518813,
    0.11119051722668724,
    0.15685332293894363,
    0.18134189168918100,
    0.18134189168918100,
    0.15685332293894363,
    0.11119051722668724,
    0.05061426814518813,
)
_REACH2 = 16.0
"""A Gaussian weight ends where its exponent is half of this."""


@_compiled
def running_sums(image, first, out):
    """Sums along rows from ``first`` on, into out (rows, nx + 1) float64; not finite counts as 0."""
    nx = image.shape[1]
    for j in range(out.shape[0]):
        total = 0.0
        row = image[first + j]
        out[j, 0] = 0.0
        for i in range(nx):
            total += row[i]
            out[j, i + 1] = total


@_inner
def _up_to(sums, t):
    """Integral of a row from its start to ``t`` pixels from its first pixel's left edge."""
    n = len(sums) - 1
    if t <= 0:
        return 0.0
    if t >= n:
        return sums[n]
    k = int(t)
    return sums[k] + (t - k) * (sums[k + 1] - sums[k])


@_inner
def disc_integral(sums, y, x, radius):
    """Integral over the disc about (y, x), pixels of ``sums``; what lies off them is 0."""
    rows = sums.shape[0]
    total = 0.0
    few = radius > _NARROW
    r2 = radius * radius
    for j in range(max(0, math.ceil(y - radius - 0.5)), min(rows - 1, math.floor(y + radius + 0.5)) + 1):
        low, high = max(j - 0.5 - y, -radius), min(j + 0.5 - y, radius)
        if high <= low:
            continue
        row, span = sums[j], high - low
        if few:
            for k in range(3):
                v = low + span * _G3[k]
                w = math.sqrt(max(r2 - v * v, 0.0))
                total += span * _W3[k] * (_up_to(row, x + 0.5 + w) - _up_to(row, x + 0.5 - w))
        else:
            for k in range(8):
                v = low + span * _G8[k]
                w = math.sqrt(max(r2 - v * v, 0.0))
                total += span * _W8[k] * (_up_to(row, x + 0.5 + w) - _up_to(row, x + 0.5 - w))
    return total


@_compiled
def aperture_sums(sums, first, y, x, radii, out):
    """Add to out (n, radii) the sums over discs about places (n,); row 0 of ``sums`` is row ``first``."""
    for k in range(len(y)):
        for r in range(len(radii)):
            out[k, r] += disc_integral(sums, y[k] - first, x[k], radii[r])


@_inner
def _weighted(child, cy, cx, a, b, c, out):
    """Sums of I, I dx, I dy, I dx2, I dx dy, I dy2 under a Gaussian weight w, and of w2.

    The weight is exp(-(a dx2 + 2 b dx dy + c dy2) / 2).
    """
    size_y, size_x = child.shape
    det = a * c - b * b
    reach_y, reach_x = math.sqrt(_REACH2 * a / det), math.sqrt(_REACH2 * c / det)
    out[:] = 0.0
    x_low, x_high = max(0, math.ceil(cx - reach_x)), min(size_x - 1, math.floor(cx + reach_x))
    for j in range(max(0, math.ceil(cy - reach_y)), min(size_y - 1, math.floor(cy + reach_y)) + 1):
        dy = j - cy
        s0, s1, s2, ww = 0.0, 0.0, 0.0, 0.0
        # the weight along a row by its ratios, which shrink by one factor
        dx = x_low - cx
        w = math.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
        ratio = math.exp(-0.5 * (a * (2 * dx + 1) + 2 * b * dy))
        shrink = math.exp(-a)
        for i in range(x_low, x_high + 1):
            v = w * child[j, i]
            d = i - cx
            s0 += v
            s1 += v * d
            s2 += v * d * d
            ww += w * w
            w *= ratio
            ratio *= shrink
        out[0] += s0
        out[1] += s1
        out[2] += s0 * dy
        out[3] += s2
        out[4] += s1 * dy
        out[5] += s0 * dy * dy
        out[6] += ww


@_compiled
def shape_of_child(child, y, x, start, iterations, limit, out):
    """Adaptive moments of a cut-out about (y, x), and the flux under their Gaussian.

    The weight's centre and shape follow the source (Bernstein & Jarvis 2002); ``start`` is the variance it
    begins with, pixel squared, and ``limit`` how far the centre may move, pixel. Written to out (8,): y, x,
    xx, xy, yy; flux of a Gaussian fit; its variance where pixels have variance 1; and whether the moments
    converged.
    """
    cy, cx, xx, xy, yy = y, x, start, 0.0, start
    s = np.empty(7)
    good = False
    size = min(child.shape) / 2
    for _ in range(iterations):
        det = xx * yy - xy * xy
        if not (det > 0 and xx > 0 and yy > 0 and xx + yy < size * size):
            break
        _weighted(child, cy, cx, yy / det, -xy / det, xx / det, s)
        if not s[0] > 0:
            break
        my, mx = s[2] / s[0], s[1] / s[0]
        nxx, nxy = 2 * (s[3] / s[0] - mx * mx), 2 * (s[4] / s[0] - mx * my)
        nyy = 2 * (s[5] / s[0] - my * my)
        if not (nxx > 0 and nyy > 0 and nxx * nyy > nxy * nxy):
            break
        change = max(abs(nxx - xx), abs(nxy - xy), abs(nyy - yy)) / (nxx + nyy)
        change = max(change, abs(mx), abs(my))
        cy, cx = cy + 2 * my, cx + 2 * mx
        if not (abs(cy - y) <= limit and abs(cx - x) <= limit):
            break
        fxx, fxy, fyy = 2 * nxx - xx, 2 * nxy - xy, 2 * nyy - yy
        far = fxx > 0.5 * nxx and fyy > 0.5 * nyy
        far = far and fxx * fyy - fxy * fxy > 0.25 * (nxx * nyy - nxy * nxy)
        xx, xy, yy = (fxx, fxy, fyy) if far else (nxx, nxy, nyy)
        if change < 1e-4:
            good = True
            break
    det = xx * yy - xy * xy
    good = good and det > 0 and xx > 0 and yy > 0
    out[0], out[1], out[2], out[3], out[4] = cy, cx, xx, xy, yy
    if good:
        _weighted(child, cy, cx, yy / det, -xy / det, xx / det, s)
        # a Gaussian g of sum 1: flux = sum(g I) / sum(g^2), and g = w / (2 pi sqrt(det))
        area = 2 * math.pi * math.sqrt(det)
        out[5] = area * s[0] / s[6]
        out[6] = area * area / s[6]
        out[7] = 1.0
    else:
        out[5], out[6], out[7] = np.nan, np.nan, 0.0
