"""Compiled templates of extended sources: elliptical profiles, fit, corrected by rings, and painted.

A profile is A (1 + q)^-power, q = a dx^2 + 2 b dx dy + c dy^2, with [[a, b], [b, c]] = exp(-s)
[[1 + g1, g2], [g2, 1 - g1]], times a factor that depends on q alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.measurement.cholesky_kernels import factored, solved
from skysub.measurement.psf_kernels import blend, profile, profile_and_slopes

__all__ = ["compare_models", "evaluate_template", "paint_extended", "refit_extended"]

SHAPE = 7
"""Numbers of a template: amplitude, y, x, s, g1, g2, power."""
RINGS = 28
"""Rings of the factor."""
NARROW, PER_RING, GROWTH = 12, 4.0, 1.25
"""The first rings lie at sqrt(q) = k / 4, up to 3; each of the others is a factor further out."""
_LOG_GROWTH = math.log(GROWTH)
MOST_OF_LAST = 2.0
"""The factor grows by no more than this from one ring to the next."""
PARAMETERS = 6
PRODUCTS = PARAMETERS + PARAMETERS * (PARAMETERS + 1) // 2
ROUNDEST = 0.95
POWERS = (2, 3, 5, 10)
CLOSEST = 0.8
"""Stars of a pair lie at least this far apart, pixel."""

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_inner
def _power(t, power):
    """t^-power for the powers there are."""
    v = 1.0 / t
    v2 = v * v
    if power == 2:
        return v2
    if power == 3:
        return v2 * v
    v4 = v2 * v2
    if power == 5:
        return v4 * v
    return v4 * v4 * v2


@_inner
def _ring(q):
    """Fractional ring of a squared elliptical radius."""
    r = math.sqrt(q) * PER_RING
    return r if r < NARROW else NARROW + math.log(r / NARROW) / _LOG_GROWTH


@_inner
def evaluate_template(shape, factor, cy, cx, half, out):
    """Template over the window of 2 half + 1 pixels about pixel (cy, cx)."""
    amplitude, y, x, s, g1, g2 = shape[0], shape[1] - cy, shape[2] - cx, shape[3], shape[4], shape[5]
    power = int(shape[6])
    inverse = math.exp(-s)
    a, b, c = inverse * (1 + g1), inverse * g2, inverse * (1 - g1)
    flat = factor[0] == 1.0 and factor[RINGS - 1] == 1.0 and factor[RINGS // 2] == 1.0
    for j in range(2 * half + 1):
        dy = j - half - y
        for i in range(2 * half + 1):
            dx = i - half - x
            q = max(a * dx * dx + 2 * b * dx * dy + c * dy * dy, 0.0)
            v = amplitude * _power(1.0 + q, power)
            if not flat:
                r = _ring(q)
                k = int(r)
                if k >= RINGS - 1:
                    v *= factor[RINGS - 1]
                else:
                    v *= factor[k] + (r - k) * (factor[k + 1] - factor[k])
            out[j, i] = v


@_inner
def _chi2(child, weight, model, half, inner):
    total = 0.0
    for j in range(half - inner, half + inner + 1):
        for i in range(half - inner, half + inner + 1):
            d = child[j, i] - model[j, i]
            total += weight[j, i] * d * d
    return total


@_inner
def _cut(residual, variance, state, cy, cx, half, child, good, weight):
    """Window of the residual: pixels, 1 where they are good, and 1 over their variance there."""
    ny, nx = residual.shape
    for j in range(2 * half + 1):
        jj = cy - half + j
        for i in range(2 * half + 1):
            ii = cx - half + i
            if 0 <= jj < ny and 0 <= ii < nx and state[jj, ii] == 0:
                child[j, i] = residual[jj, ii]
                good[j, i] = 1.0
                weight[j, i] = 1.0 / variance[jj, ii]
            else:
                child[j, i], good[j, i], weight[j, i] = 0.0, 0.0, 0.0


@_inner
def _solve(normal, right, n, damping):
    """Cholesky solution in ``right`` of normal equations with damped diagonal; false if there is none."""
    if not factored(normal, n, damping, 1e-12):
        return False
    solved(normal, n, right)
    return True


@_inner
def _add_products(rows, count, sums):
    """Add to sums (27, w) the products of six rows of derivatives with each other, and with the row after."""
    at = 0
    for m in range(PARAMETERS):
        u, r, total = rows[m], rows[PARAMETERS], sums[at]
        for i in range(count):
            total[i] += u[i] * r[i]
        at += 1
        for k in range(m + 1):
            v, total = rows[k], sums[at]
            for i in range(count):
                total[i] += u[i] * v[i]
            at += 1


@_inner
def _summed(sums, count, normal, right):
    at = 0
    for m in range(PARAMETERS):
        right[m] = sums[at, :count].sum()
        at += 1
        for k in range(m + 1):
            normal[m, k] = sums[at, :count].sum()
            at += 1


@_inner
def _fit_profile(child, good, cy, cx, half, shape, smallest, steps, rows, sums, normal, right):
    """Gauss-Newton fit of a profile to a window, its factor being 1; false where it breaks down."""
    power = int(shape[6])
    start_y, start_x = shape[1], shape[2]
    edge = 2 * half + 1
    d0, d1, d2, d3, d4, d5, d6 = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    for step in range(steps):
        amplitude, y, x, s, g1, g2 = shape[0], shape[1] - cy, shape[2] - cx, shape[3], shape[4], shape[5]
        inverse = math.exp(-s)
        a, b, c = inverse * (1 + g1), inverse * g2, inverse * (1 - g1)
        sums[:, :edge] = 0.0
        for j in range(edge):
            dy = j - half - y
            data, known = child[j], good[j]
            for i in range(edge):
                dx = i - half - x
                w = known[i]
                q = max(a * dx * dx + 2 * b * dx * dy + c * dy * dy, 0.0)
                t = 1.0 / (1.0 + q)
                t2 = t * t
                v = t2
                if power == 3:
                    v = t2 * t
                elif power == 5:
                    v = t2 * t2 * t
                elif power == 10:
                    v = t2 * t2 * t2 * t2 * t2
                slope = -power * amplitude * w * v * t
                d0[i] = w * v
                d1[i] = -2 * slope * (b * dx + c * dy)
                d2[i] = -2 * slope * (a * dx + b * dy)
                d3[i] = -slope * q
                d4[i] = slope * inverse * (dx * dx - dy * dy)
                d5[i] = slope * inverse * 2 * dx * dy
                d6[i] = data[i] * w - amplitude * w * v
            _add_products(rows, edge, sums)
        _summed(sums, edge, normal, right)
        if not _solve(normal, right, PARAMETERS, 1e-3 if step > 2 else 0.03):
            return False
        change = max(abs(right[1]), abs(right[2]), abs(right[3]), abs(right[4]), abs(right[5]))
        scale = min(1.0, 0.5 / max(change, 1e-30))
        shape[0] += right[0] * (scale if amplitude > 0 else 1.0)
        for m in range(1, PARAMETERS):
            shape[m] += scale * right[m]
        shape[3] = min(max(shape[3], smallest), smallest + 12.0)
        size = math.sqrt(shape[4] * shape[4] + shape[5] * shape[5])
        if size > ROUNDEST:
            shape[4] *= ROUNDEST / size
            shape[5] *= ROUNDEST / size
        if not (shape[0] > 0 and abs(shape[1] - start_y) < 6 and abs(shape[2] - start_x) < 6):
            return False
        if change < 0.01:
            break
    return True


@_inner
def _fit_rings(child, weight, cy, cx, half, shape, factor, model, sums):
    """Factor of each ring: data over profile, as far as the noise lets it be known, never rising light."""
    for k in range(RINGS):
        factor[k] = 1.0
    evaluate_template(shape, factor, cy, cx, half, model)
    y, x, s, g1, g2 = shape[1] - cy, shape[2] - cx, shape[3], shape[4], shape[5]
    inverse = math.exp(-s)
    a, b, c = inverse * (1 + g1), inverse * g2, inverse * (1 - g1)
    sums[:] = 0.0
    for j in range(2 * half + 1):
        dy = j - half - y
        for i in range(2 * half + 1):
            w = weight[j, i]
            if w == 0:
                continue
            dx = i - half - x
            q = max(a * dx * dx + 2 * b * dx * dy + c * dy * dy, 0.0)
            k = int(_ring(q) + 0.5)
            if k < RINGS:
                sums[k, 0] += w * model[j, i] * child[j, i]
                sums[k, 1] += w * model[j, i] * model[j, i]
    before, last = np.inf, 1.0
    for k in range(RINGS):
        # a prior of 1 +- 0.25 times the ring within stands against the noise of a ring
        signal = sums[k, 1] * last * last
        factor[k] = last
        if signal > 0:
            ratio = min(max(sums[k, 0] / sums[k, 1], 0.0), MOST_OF_LAST * last)
            factor[k] = last + signal / (signal + 16.0) * (ratio - last)
        r = k / PER_RING if k < NARROW else NARROW / PER_RING * GROWTH ** (k - NARROW)
        light = factor[k] * _power(1.0 + r * r, int(shape[6]))
        if light > before:
            factor[k] *= before / light
            light = before
        before = light
        last = max(factor[k], 1e-3)


@_inner
def _fit_pair(child, good, stamps, cy, cx, half, pair, steps, work, rows, sums, spare, normal, right, model):
    """Gauss-Newton fit of two stars (flux, y, x each in ``pair``) to a window; false where it breaks down."""
    size = stamps.shape[2]
    middle = size // 2
    edge = 2 * half + 1
    for step in range(steps + 1):
        for n in range(2):
            py, px = int(np.rint(pair[3 * n + 1])), int(np.rint(pair[3 * n + 2]))
            profile_and_slopes(
                stamps,
                pair[3 * n + 1] - py,
                pair[3 * n + 2] - px,
                middle,
                spare,
                work[3 * n],
                work[3 * n + 1],
                work[3 * n + 2],
            )
        sums[:, :edge] = 0.0
        for j in range(edge):
            total, data, known, left = model[j], child[j], good[j], rows[PARAMETERS]
            for i in range(edge):
                total[i] = 0.0
            for n in range(2):
                flux = pair[3 * n]
                jj = j - half + cy - int(np.rint(pair[3 * n + 1])) + middle
                shift = -half + cx - int(np.rint(pair[3 * n + 2])) + middle
                low, high = max(0, -shift), min(edge, size - shift)
                p, py, px = rows[3 * n], rows[3 * n + 1], rows[3 * n + 2]
                for i in range(edge):
                    p[i], py[i], px[i] = 0.0, 0.0, 0.0
                if jj < 0 or jj >= size or high <= low:
                    continue
                w0, w1, w2 = work[3 * n, jj], work[3 * n + 1, jj], work[3 * n + 2, jj]
                for i in range(low, high):
                    total[i] += flux * w0[i + shift]
                    p[i] = known[i] * w0[i + shift]
                    py[i] = known[i] * flux * w1[i + shift]
                    px[i] = known[i] * flux * w2[i + shift]
            for i in range(edge):
                left[i] = known[i] * (data[i] - total[i])
            _add_products(rows, edge, sums)
        if step == steps:
            return True
        _summed(sums, edge, normal, right)
        if not _solve(normal, right, PARAMETERS, 0.01):
            return False
        for n in range(2):
            pair[3 * n] += right[3 * n]
            for m in range(1, 3):
                pair[3 * n + m] += min(max(right[3 * n + m], -0.5), 0.5)
            if not pair[3 * n] > 0:
                return False
            if abs(pair[3 * n + 1] - cy) > half or abs(pair[3 * n + 2] - cx) > half:
                return False
        if (pair[1] - pair[4]) ** 2 + (pair[2] - pair[5]) ** 2 < CLOSEST * CLOSEST:
            return False
    return True


@_compiled
def compare_models(
    table,
    nodes_y,
    nodes_x,
    starts,
    order,
    rows,
    y,
    x,
    flux,
    moments,
    halves,
    smallest,
    residual,
    variance,
    state,
    chi2,
    shapes,
    factors,
    pairs,
):
    """Fit each candidate by one star, two stars and a template, on the residual with its star put back.

    Parameters
    ----------
    moments
        (n, 3): xx, xy, yy of each candidate, pixel squared.
    halves
        (n,) half-width of each window, pixel.
    smallest
        (powers,): s of a template as wide as the PSF.
    chi2
        (n, 4), written: of one star, of two, of the template, over the core that all share; and the pixels in
        it. Infinite where a fit broke down.
    shapes, factors
        (n, `SHAPE`) and (n, `RINGS`), written: the best template.
    pairs
        (n, 6), written: flux, y, x of two stars.
    """
    size, width = table.shape[4:]
    middle = size // 2
    stamps = np.empty(table.shape[2:], np.float32)
    out = np.empty((size, width), np.float32)
    work = np.empty((6, size, width), np.float32)
    spare = np.empty((2, 8))
    most = 2 * np.max(halves) + 1
    child, good, weight, model = (
        np.empty((most, most)),
        np.empty((most, most)),
        np.empty((most, most)),
        np.empty((most, most)),
    )
    normal, right = np.empty((PARAMETERS, PARAMETERS)), np.empty(PARAMETERS)
    derivatives, products = np.empty((PARAMETERS + 1, most)), np.empty((PRODUCTS, most))
    shape, factor, sums = np.empty(SHAPE), np.ones(RINGS), np.empty((RINGS, 2))
    columns = len(nodes_x)
    for ty in rows:
        for tx in range(columns):
            k = ty * columns + tx
            if starts[k] == starts[k + 1]:
                continue
            blend(table, nodes_y[ty], nodes_x[tx], stamps)
            for m in range(starts[k], starts[k + 1]):
                n = order[m]
                half = halves[n]
                inner = int(0.65 * half + 0.5)
                if flux[n] > 0:
                    inner = min(inner, middle)
                cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
                _cut(residual, variance, state, cy, cx, half, child, good, weight)
                profile(stamps, y[n] - cy, x[n] - cx, middle, spare, out)
                model[: 2 * half + 1, : 2 * half + 1] = 0.0
                reach = min(half, middle)
                for j in range(-reach, reach + 1):
                    for i in range(-reach, reach + 1):
                        model[half + j, half + i] = flux[n] * out[middle + j, middle + i]
                pixels = 0.0
                for j in range(2 * half + 1):
                    for i in range(2 * half + 1):
                        child[j, i] += model[j, i] * good[j, i]
                        if abs(j - half) <= inner and abs(i - half) <= inner:
                            pixels += good[j, i]
                chi2[n, 0] = _chi2(child, weight, model, half, inner)
                chi2[n, 1], chi2[n, 2], chi2[n, 3] = np.inf, np.inf, pixels
                xx, xy, yy = moments[n, 0], moments[n, 1], moments[n, 2]
                # two stars along the longer axis
                angle = 0.5 * math.atan2(2 * xy, xx - yy)
                long = 0.5 * (xx + yy) + math.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
                short = max(xx + yy - long, 0.0)
                apart = math.sqrt(max(long - short, 0.3))
                pairs[n, 0], pairs[n, 3] = 0.5 * flux[n], 0.5 * flux[n]
                pairs[n, 1], pairs[n, 4] = y[n] + apart * math.sin(angle), y[n] - apart * math.sin(angle)
                pairs[n, 2], pairs[n, 5] = x[n] + apart * math.cos(angle), x[n] - apart * math.cos(angle)
                if flux[n] > 0 and _fit_pair(
                    child[half - inner : half + inner + 1, half - inner : half + inner + 1],
                    good[half - inner : half + inner + 1, half - inner : half + inner + 1],
                    stamps,
                    cy,
                    cx,
                    inner,
                    pairs[n],
                    6,
                    work,
                    derivatives,
                    products,
                    spare,
                    normal,
                    right,
                    model[half - inner : half + inner + 1, half - inner : half + inner + 1],
                ):
                    chi2[n, 1] = _chi2(child, weight, model, half, inner)
                trace = xx + yy
                # outward from the power of a star to either side, as long as it becomes better
                p, tried = 1, 0
                while 0 <= p < len(POWERS):
                    power = POWERS[p]
                    if tried == 0:
                        shape[0] = max(child[half - 1 : half + 2, half - 1 : half + 2].mean(), flux[n] * 0.01)
                        if not shape[0] > 0:
                            break
                        shape[1], shape[2] = y[n], x[n]
                        # a profile of this power and its moments under a Gaussian weight, roughly
                        shape[3] = math.log(max(0.5 * trace, 0.3) * 1.4 * power)
                        shape[4], shape[5] = -(xx - yy) / trace, -2 * xy / trace
                    else:
                        # the same width at half its height
                        shape[:] = shapes[n]
                        last = 2.0 ** (1.0 / shape[6]) - 1.0
                        shape[3] += math.log(last / (2.0 ** (1.0 / power) - 1.0))
                    shape[6] = power
                    fine = _fit_profile(
                        child,
                        good,
                        cy,
                        cx,
                        half,
                        shape,
                        smallest[p],
                        12 if tried == 0 else 6,
                        derivatives,
                        products,
                        normal,
                        right,
                    )
                    better = False
                    if fine:
                        _fit_rings(child, weight, cy, cx, half, shape, factor, model, sums)
                        evaluate_template(shape, factor, cy, cx, half, model)
                        found = _chi2(child, weight, model, half, inner)
                        better = found < chi2[n, 2]
                        if better:
                            chi2[n, 2] = found
                            shapes[n] = shape
                            factors[n] = factor
                    tried += 1
                    if tried == 1:
                        if not fine:
                            break
                        p = 2
                    elif p == 2:
                        p = 3 if better else 0
                    else:
                        break


@_compiled
def paint_extended(shapes, factors, halves, share, image):
    """Add templates times a share of each to an image."""
    ny, nx = image.shape
    most = 2 * np.max(halves) + 1
    model = np.empty((most, most))
    for n in range(len(halves)):
        half = halves[n]
        cy, cx = int(np.rint(shapes[n, 1])), int(np.rint(shapes[n, 2]))
        evaluate_template(shapes[n], factors[n], cy, cx, half, model)
        for j in range(max(0, cy - half), min(ny, cy + half + 1)):
            for i in range(max(0, cx - half), min(nx, cx + half + 1)):
                image[j, i] += np.float32(share[n] * model[j - cy + half, i - cx + half])


@_compiled
def refit_extended(
    starts, order, columns, rows, shapes, factors, halves, smallest, residual, variance, state
):
    """Fit templates again, each on the residual with its own light put back, which it is then taken off."""
    ny, nx = residual.shape
    most = 2 * np.max(halves) + 1
    child, good, weight, model = (
        np.empty((most, most)),
        np.empty((most, most)),
        np.empty((most, most)),
        np.empty((most, most)),
    )
    normal, right = np.empty((PARAMETERS, PARAMETERS)), np.empty(PARAMETERS)
    derivatives, products = np.empty((PARAMETERS + 1, most)), np.empty((PRODUCTS, most))
    shape, factor, sums = np.empty(SHAPE), np.ones(RINGS), np.empty((RINGS, 2))
    for ty in rows:
        for m in range(starts[ty * columns], starts[(ty + 1) * columns]):
            n = order[m]
            half = halves[n]
            cy, cx = int(np.rint(shapes[n, 1])), int(np.rint(shapes[n, 2]))
            _cut(residual, variance, state, cy, cx, half, child, good, weight)
            evaluate_template(shapes[n], factors[n], cy, cx, half, model)
            for j in range(max(0, cy - half), min(ny, cy + half + 1)):
                for i in range(max(0, cx - half), min(nx, cx + half + 1)):
                    own = model[j - cy + half, i - cx + half]
                    residual[j, i] += np.float32(own) if state[j, i] & 1 == 0 else np.float32(0)
                    child[j - cy + half, i - cx + half] += own * good[j - cy + half, i - cx + half]
            shape[:] = shapes[n]
            p = 0
            while p < len(POWERS) - 1 and POWERS[p] != int(shape[6]):
                p += 1
            if _fit_profile(
                child, good, cy, cx, half, shape, smallest[p], 2, derivatives, products, normal, right
            ):
                _fit_rings(child, weight, cy, cx, half, shape, factor, model, sums)
                shapes[n] = shape
                factors[n] = factor
            evaluate_template(shapes[n], factors[n], cy, cx, half, model)
            for j in range(max(0, cy - half), min(ny, cy + half + 1)):
                for i in range(max(0, cx - half), min(nx, cx + half + 1)):
                    if state[j, i] & 1 == 0:
                        residual[j, i] -= np.float32(model[j - cy + half, i - cx + half])
