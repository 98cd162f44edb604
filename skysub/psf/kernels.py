"""Compiled loops over the stamps of stars: profiles, their fits, moments, and shifts by part of a pixel.

Exponentials and logarithms are polynomials of our own, so that loops over pixels become vector code and the
bits depend neither on the processor nor on its mathematical library. Rows are filled up to whole vectors;
sums are taken column by column and then over the columns, in an order that the stamp alone decides.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.background.fma import fma

__all__ = ["adaptive_moments", "fit_moffats", "moffats", "padded", "shift"]

LANES = 8
"""Rows are filled up to a multiple of this many pixels."""
PARAMETERS = 6
"""Of one star: flux, place (2), log of the squared radius, shape (2)."""
ROUNDEST = 0.9
"""Largest element of a shape; 1 would be a line."""

_LOG2E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUNDING = 6755399441055744.0
"""1.5 x 2^52: adding it rounds to a whole number, which then stands in the last bits."""
_ROUNDING_BITS = np.int64(np.float64(_ROUNDING).view(np.int64))
_BIAS = np.int64(1023)
_SQRT_HALF = np.float64(0.7071067811865476).view(np.int64)
_CONVERGED = 1e-6
_SAME = 1e-8
# division as NumPy does it: a test for zero would keep loops from becoming vector code
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")
_inlined = njit(nogil=True, inline="always", error_model="numpy")


def padded(size: int) -> int:
    """Length of a row of ``size`` pixels with its filling."""
    return -(-size // LANES) * LANES


@_inlined
def _exp(x):
    """Exponential to 2e-16 of itself, of x from -700 to 700; what lies beyond is taken for these."""
    x = min(max(x, -700.0), 700.0)
    whole = x * _LOG2E + _ROUNDING
    n = whole - _ROUNDING
    r = fma(-n, _LN2_LOW, fma(-n, _LN2_HIGH, x))
    p = fma(r, 1 / 479001600, 1 / 39916800)
    p = fma(r, p, 1 / 3628800)
    p = fma(r, p, 1 / 362880)
    p = fma(r, p, 1 / 40320)
    p = fma(r, p, 1 / 5040)
    p = fma(r, p, 1 / 720)
    p = fma(r, p, 1 / 120)
    p = fma(r, p, 1 / 24)
    p = fma(r, p, 1 / 6)
    p = fma(r, p, 0.5)
    p = fma(r, p, 1.0)
    p = fma(r, p, 1.0)
    scale = (np.float64(whole).view(np.int64) - _ROUNDING_BITS + _BIAS) << np.int64(52)
    return p * np.int64(scale).view(np.float64)


@_inlined
def _log(x):
    """Logarithm to 3e-16 of x >= 1."""
    bits = np.float64(x).view(np.int64)
    # x = m 2^e with m from sqrt(1/2) to sqrt(2)
    e = np.int64(np.uint64(bits - _SQRT_HALF) >> np.uint64(52))
    m = np.int64(bits - (e << np.int64(52))).view(np.float64)
    e = np.int64(e + _ROUNDING_BITS).view(np.float64) - _ROUNDING
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = fma(z, 1 / 19, 1 / 17)
    p = fma(z, p, 1 / 15)
    p = fma(z, p, 1 / 13)
    p = fma(z, p, 1 / 11)
    p = fma(z, p, 1 / 9)
    p = fma(z, p, 1 / 7)
    p = fma(z, p, 1 / 5)
    p = fma(z, p, 1 / 3)
    p = 2.0 * fma(z * s, p, s)
    return fma(e, _LN2_HIGH, fma(e, _LN2_LOW, p))


@_inner
def _moffat(free, beta, x, y, u, slope):
    """Write (1 + d^T Q d)^-beta and its derivative by d^T Q d over a stamp, rows of both filled up.

    ``free``: log of the squared radius, and two elements of the shape, |shape| < 1.
    """
    size, width = u.shape
    inverse = _exp(-free[0])
    a, b, c = inverse * (1 + free[1]), inverse * free[2], inverse * (1 - free[1])
    for j in range(size):
        dy = j - y
        row, by = u[j], slope[j]
        first, second = c * dy * dy, 2 * b * dy
        for i in range(width):
            dx = np.float64(i) - x
            # a sum of squares but for rounding
            t = 1.0 + max(fma(fma(a, dx, second), dx, first), 0.0)
            v = _exp(-beta * _log(t))
            row[i] = v
            by[i] = -beta * v / t


@_compiled
def moffats(free, beta, x, y, out):
    """Profiles of sum 1, out (n, s, s), of shapes ``free`` (n, 3) centred on x, y (n,) of the stamps."""
    n, size, _ = out.shape
    width = (size + LANES - 1) // LANES * LANES
    u, slope = np.empty((size, width)), np.empty((size, width))
    shape = np.empty(3)
    for k in range(n):
        shape[0] = free[k, 0]
        for i in range(1, 3):
            shape[i] = min(max(free[k, i], -ROUNDEST), ROUNDEST)
        _moffat(shape, beta, x[k], y[k], u, slope)
        total = 0.0
        for j in range(size):
            for i in range(size):
                total += u[j, i]
        for j in range(size):
            for i in range(size):
                out[k, j, i] = u[j, i] / total


@_inner
def _dot(a, b, sums):
    """Sum of products of rows of equal length, a multiple of LANES, added up by columns of LANES."""
    sums[:] = 0.0
    for j in range(a.shape[0]):
        p, q = a[j], b[j]
        for start in range(0, len(p), LANES):
            for i in range(LANES):
                sums[i] = fma(p[start + i], q[start + i], sums[i])
    total = 0.0
    for i in range(LANES):
        total += sums[i]
    return total


@_compiled
def fit_moffats(data, weights, beta, steps, free, x, y, chi2):
    """Gauss-Newton fits of flux, place and shape, star by star, from where ``free``, ``x`` and ``y`` start.

    Parameters
    ----------
    data, weights
        (n, s, width) float64, rows filled up: pixels, and one over their noise, zero where not known.
    beta
        Exponent of the profiles.
    steps
        At most; a star whose parameters move by less than 1e-6 is done.
    free
        (n, 3) float64, changed in place: log of the squared radius, and the shape. NaN where a fit wanders
        off the stamp, becomes a line or has no light.
    x, y
        (n,) float64, changed in place: centres, pixel of the stamp.
    chi2
        (n,) float64, written: mean squared residual in units of the noise; NaN where the fit broke down.
    """
    n, size, width = data.shape
    columns = np.empty((PARAMETERS + 1, size, width))
    u, slope = np.empty((size, width)), np.empty((size, width))
    normal, right = np.empty((PARAMETERS, PARAMETERS)), np.empty(PARAMETERS)
    sums, place = np.empty(LANES), np.empty(2)
    for k in range(n):
        shape, w, light = free[k], weights[k], columns[PARAMETERS]
        place[0], place[1] = x[k], y[k]
        known = 0
        for j in range(size):
            for i in range(width):
                light[j, i] = data[k, j, i] * w[j, i]
                known += w[j, i] > 0
        flux, moved, step = np.nan, np.inf, 0
        while True:
            if not _is_profile(shape):
                flux = np.nan
                break
            _moffat(shape, beta, place[0], place[1], u, slope)
            for j in range(size):
                for i in range(width):
                    columns[0, j, i] = u[j, i] * w[j, i]
            normal[0, 0] = _dot(columns[0], columns[0], sums)
            flux = _dot(columns[0], light, sums) / normal[0, 0] if normal[0, 0] > 0 else np.nan
            if moved < _CONVERGED or step == steps or not abs(flux) > 0:
                break
            _derivatives(shape, place, slope, w, columns)
            moved = _step(columns, flux, normal, right, sums)
            place += right[1:3]
            shape += right[3:]
            step += 1
        chi2[k] = np.nan
        if not np.isnan(flux):
            for j in range(size):
                for i in range(width):
                    light[j, i] -= flux * columns[0, j, i]
            chi2[k] = _dot(light, light, sums) / max(1, known - PARAMETERS)
        x[k], y[k] = place[0], place[1]
        dx, dy = x[k] - size // 2, y[k] - size // 2
        if not (flux > 0 and math.sqrt(dx * dx + dy * dy) <= size / 4):
            shape[:] = np.nan


@_inner
def _is_profile(shape):
    small = abs(shape[1]) <= ROUNDEST and abs(shape[2]) <= ROUNDEST
    return small and shape[1] * shape[1] + shape[2] * shape[2] < 1 and abs(shape[0]) < 100


@_inner
def _derivatives(shape, place, slope, w, columns):
    """Weighted derivatives of a profile of flux 1 by place, log of the squared radius and shape."""
    size, width = slope.shape
    inverse = _exp(-shape[0])
    a, b, c = inverse * (1 + shape[1]), inverse * shape[2], inverse * (1 - shape[1])
    for j in range(size):
        dy = j - place[1]
        for i in range(width):
            dx = np.float64(i) - place[0]
            s = slope[j, i] * w[j, i]
            columns[1, j, i] = -2 * s * (a * dx + b * dy)
            columns[2, j, i] = -2 * s * (b * dx + c * dy)
            columns[3, j, i] = -s * ((a * dx + 2 * b * dy) * dx + c * dy * dy)
        for i in range(width):
            dx = np.float64(i) - place[0]
            s = slope[j, i] * w[j, i] * inverse
            columns[4, j, i] = s * (dx * dx - dy * dy)
            columns[5, j, i] = 2 * s * dx * dy


@_inner
def _step(columns, flux, normal, right, sums):
    """Solve the normal equations for the step, at most 0.5 in each; returns the largest part of it."""
    for a in range(PARAMETERS):
        for b in range(a + 1):
            normal[a, b] = _dot(columns[a], columns[b], sums)
        right[a] = _dot(columns[a], columns[PARAMETERS], sums) - flux * normal[a, 0]
    # Cholesky, with a trace of ridge for directions that the pixels do not determine
    for a in range(PARAMETERS):
        diagonal = normal[a, a] * (1 + 1e-9)
        for b in range(a):
            s = normal[a, b]
            for m in range(b):
                s -= normal[a, m] * normal[b, m]
            normal[a, b] = s / normal[b, b]
            diagonal -= normal[a, b] * normal[a, b]
        if not diagonal > 0:
            right[:] = 0.0
            return 0.0
        normal[a, a] = math.sqrt(diagonal)
        for m in range(a):
            right[a] -= normal[a, m] * right[m]
        right[a] /= normal[a, a]
    largest = 0.0
    for a in range(PARAMETERS - 1, -1, -1):
        for m in range(a + 1, PARAMETERS):
            right[a] -= normal[m, a] * right[m]
        right[a] /= normal[a, a]
    for a in range(1, PARAMETERS):
        right[a] = min(max(right[a] / flux, -0.5), 0.5)
        largest = max(largest, abs(right[a]))
    return largest


@_compiled
def adaptive_moments(stamps, iterations, x, y, xx, xy, yy):
    """Moments of stamps (n, s, s) under a Gaussian weight of their own size and shape, written to (n,) each.

    Centre and weight are moved by twice what plain iteration asks for, which is right for a Gaussian, as long
    as a weight stays one; NaN where there is no such weight, or it lies off the stamp.
    """
    n, size, _ = stamps.shape
    width = (size + LANES - 1) // LANES * LANES
    stamp, sums = np.zeros((size, width)), np.empty((3, width))
    for k in range(n):
        for j in range(size):
            for i in range(size):
                stamp[j, i] = stamps[k, j, i]
        cx, cy, vxx, vxy, vyy = size // 2 + 0.0, size // 2 + 0.0, 4.0, 0.0, 4.0
        total = np.nan
        for _ in range(iterations):
            det = vxx * vyy - vxy * vxy
            if not (vxx > 0 and vyy > 0 and det > 0):
                total = np.nan
                break
            _weighted_sums(stamp, cx, cy, vyy / det, -vxy / det, vxx / det, sums)
            total, sx, sy, mxx, mxy, myy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(size):
                dx = i - cx
                total += sums[0, i]
                sx += sums[0, i] * dx
                sy += sums[1, i]
                mxx += sums[0, i] * dx * dx
                mxy += sums[1, i] * dx
                myy += sums[2, i]
            sx, sy = sx / total, sy / total
            # the weight halves the covariance of a Gaussian of its own shape
            mxx, mxy, myy = (
                2 * (mxx / total - sx * sx),
                2 * (mxy / total - sx * sy),
                2 * (myy / total - sy * sy),
            )
            change = max(abs(mxx - vxx), abs(mxy - vxy), abs(myy - vyy)) / (mxx + myy)
            change = max(change, abs(sx), abs(sy))
            cx, cy = cx + 2 * sx, cy + 2 * sy
            fxx, fxy, fyy = 2 * mxx - vxx, 2 * mxy - vxy, 2 * myy - vyy
            far = (
                fxx > 0.5 * mxx and fyy > 0.5 * myy and fxx * fyy - fxy * fxy > 0.25 * (mxx * myy - mxy * mxy)
            )
            vxx, vxy, vyy = (fxx, fxy, fyy) if far else (mxx, mxy, myy)
            if change < _SAME:
                break
        dx, dy = cx - size // 2, cy - size // 2
        good = vxx > 0 and vyy > 0 and vxx * vyy > vxy * vxy and total > 0
        x[k], y[k] = cx, cy
        if not (good and math.sqrt(dx * dx + dy * dy) <= size / 4):
            vxx, vxy, vyy = np.nan, np.nan, np.nan
        xx[k], xy[k], yy[k] = vxx, vxy, vyy


@_inner
def _weighted_sums(stamp, x, y, a, b, c, sums):
    """Sums over each column of the stamp under a Gaussian weight, times dy to the power 0, 1 and 2."""
    size, width = stamp.shape
    sums[:] = 0.0
    plain, first, second = sums[0], sums[1], sums[2]
    for j in range(size):
        dy = j - y
        row = stamp[j]
        for i in range(width):
            dx = np.float64(i) - x
            p = row[i] * _exp(-0.5 * fma(fma(a, dx, 2 * b * dy), dx, c * dy * dy))
            plain[i] += p
            first[i] += p * dy
            second[i] += p * (dy * dy)


@_compiled
def shift(images, dx, dy, out):
    """Images (n or 1, s, s), s odd, moved by parts of a pixel dx, dy (n,), written to (n, s, s).

    What a phase in Fourier space does: each row and column is folded with the periodic sinc of s samples.
    """
    n, size, _ = out.shape
    along, across = np.empty(2 * size - 1), np.empty(2 * size - 1)
    rows = np.empty((size, size))
    for k in range(n):
        image = images[k if len(images) > 1 else 0]
        _sinc(size, dx[k], along)
        _sinc(size, dy[k], across)
        rows[:] = 0.0
        for j in range(size):
            for m in range(size):
                f = across[j - m + size - 1]
                for i in range(size):
                    rows[j, i] += f * image[m, i]
        out[k] = 0.0
        for j in range(size):
            for m in range(size):
                v = rows[j, m]
                for i in range(size):
                    out[k, j, i] += v * along[i - m + size - 1]


@_inner
def _sinc(size, offset, out):
    """Periodic sinc of ``size`` samples at distances 1 - size to size - 1, less the offset."""
    for m in range(1 - size, size):
        angle = math.pi * (m - offset) / size
        below = size * math.sin(angle)
        out[m + size - 1] = math.sin(math.pi * (m - offset)) / below if abs(below) > 1e-9 else 1.0
