"""Compiled kernels that paint planes of the simulation; serial, so that the bits are always the same."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

QUANTUM = np.float32(1024.0)


@njit(nogil=True, cache=True)
def rounded(plane):
    """Round to multiples of 1/1024 in place: sums are then exact, and planes compress."""
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            plane[y, x] = np.rint(plane[y, x] * QUANTUM) / QUANTUM


@njit(nogil=True, cache=True)
def polynomial_and_wave(x0, y0, scale, terms, wave_x, wave_y, phase, amplitude, out):
    """Fill with a quadratic polynomial of focal-plane position plus one plane wave."""
    ny, nx = out.shape
    cos_x = np.empty(nx)
    sin_x = np.empty(nx)
    for x in range(nx):
        cos_x[x] = amplitude * math.cos((x0 + x) * wave_x + phase)
        sin_x[x] = amplitude * math.sin((x0 + x) * wave_x + phase)
    for y in range(ny):
        v = (y0 + y) / scale
        cos_y = math.cos((y0 + y) * wave_y)
        sin_y = math.sin((y0 + y) * wave_y)
        constant = terms[0] + terms[2] * v + terms[5] * v * v
        linear = terms[1] + terms[4] * v
        for x in range(nx):
            u = (x0 + x) / scale
            value = constant + u * (linear + terms[3] * u) + sin_x[x] * cos_y + cos_x[x] * sin_y
            out[y, x] = np.rint(np.float32(value) * QUANTUM) / QUANTUM


@njit(nogil=True, cache=True)
def fringe_pattern(terms, amplitude, out):
    """Fill with the interference of two lines in silicon of a cubic thickness."""
    # two lines of airglow beat against each other, as the OH bands do
    ny, nx = out.shape
    for y in range(ny):
        v = y / 4000.0
        for x in range(nx):
            u = x / 4000.0
            thickness = (
                terms[0] * u
                + terms[1] * v
                + terms[2] * u * u
                + terms[3] * u * v
                + terms[4] * v * v
                + terms[5] * u * u * u
                + terms[6] * v * v * v
            )
            value = amplitude * (0.7 * math.sin(thickness) + 0.3 * math.sin(1.13 * thickness + 1.0))
            out[y, x] = np.rint(np.float32(value) * QUANTUM) / QUANTUM


@njit(nogil=True, cache=True)
def smooth_step(distance, edge):
    """Rise from 0 to 1 over ``edge`` about 0."""
    t = min(max(distance / edge + 0.5, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(nogil=True, cache=True)
def add_ghost(x, y, outer, inner, level, edge, out):
    """Add an annulus of constant light."""
    ny, nx = out.shape
    for j in range(max(0, int(y - outer - edge)), min(ny, int(y + outer + edge) + 2)):
        for i in range(max(0, int(x - outer - edge)), min(nx, int(x + outer + edge) + 2)):
            r = math.sqrt((i - x) ** 2 + (j - y) ** 2)
            if r < outer + edge:
                out[j, i] += level * smooth_step(outer - r, edge) * smooth_step(r - inner, edge)


@njit(nogil=True, cache=True)
def add_wedge(x, y, reach, angle, half_opening, level, edge, out):
    """Add a wedge that fades along its length."""
    ny, nx = out.shape
    c, s = math.cos(angle), math.sin(angle)
    tangent = math.tan(half_opening)
    for j in range(max(0, int(y - reach)), min(ny, int(y + reach) + 1)):
        for i in range(max(0, int(x - reach)), min(nx, int(x + reach) + 1)):
            along = (i - x) * c + (j - y) * s
            if 0.0 < along < reach:
                across = abs((j - y) * c - (i - x) * s)
                light = smooth_step(along * tangent - across, edge) * smooth_step(along, edge)
                out[j, i] += level * light * (1.0 - along / reach)


@njit(nogil=True, cache=True)
def transmission(x0, y0, start, end, depth, out):
    """Fill with the light that vignetting leaves: quadratic loss beyond ``start``."""
    ny, nx = out.shape
    for y in range(ny):
        for x in range(nx):
            r = math.sqrt((x0 + x) ** 2 + (y0 + y) ** 2)
            t = max(0.0, (r - start) / (end - start))
            out[y, x] = max(0.0, 1.0 - depth * t * t)


@njit(nogil=True, cache=True)
def spline_weights(f):
    """Weights of four cubic B-splines at the fraction ``f`` of a cell."""
    return (
        (1.0 - f) ** 3 / 6.0,
        (3.0 * f**3 - 6.0 * f**2 + 4.0) / 6.0,
        (-3.0 * f**3 + 3.0 * f**2 + 3.0 * f + 1.0) / 6.0,
        f**3 / 6.0,
    )


@njit(nogil=True, cache=True)
def spline_surface(coefficients, u0, v0, du_x, dv_x, du_y, dv_y, level, out):
    """Fill with a periodic B-spline surface, seen rotated and shifted."""
    # cubic B-spline on a periodic grid, so the field is smooth across cells and detectors
    ny, nx = out.shape
    size = coefficients.shape[0]
    for y in range(ny):
        for x in range(nx):
            u = u0 + x * du_x + y * du_y
            v = v0 + x * dv_x + y * dv_y
            i = math.floor(u)
            j = math.floor(v)
            a0, a1, a2, a3 = spline_weights(u - i)
            b0, b1, b2, b3 = spline_weights(v - j)
            i0, i1, i2, i3 = (i - 1) % size, i % size, (i + 1) % size, (i + 2) % size
            total = 0.0
            row = coefficients[(j - 1) % size]
            total += b0 * (a0 * row[i0] + a1 * row[i1] + a2 * row[i2] + a3 * row[i3])
            row = coefficients[j % size]
            total += b1 * (a0 * row[i0] + a1 * row[i1] + a2 * row[i2] + a3 * row[i3])
            row = coefficients[(j + 1) % size]
            total += b2 * (a0 * row[i0] + a1 * row[i1] + a2 * row[i2] + a3 * row[i3])
            row = coefficients[(j + 2) % size]
            total += b3 * (a0 * row[i0] + a1 * row[i1] + a2 * row[i2] + a3 * row[i3])
            out[y, x] = np.rint(np.float32(level * total) * QUANTUM) / QUANTUM


@njit(nogil=True, cache=True)
def add_upsampled(coarse, cell, offset_x, offset_y, out):
    """Add a plane given in cells."""
    # cubic B-spline through cell means: at most a few per cent smoother than they are
    ny, nx = out.shape
    for y in range(ny):
        v = (y + offset_y + 0.5) / cell - 0.5
        j = math.floor(v)
        b0, b1, b2, b3 = spline_weights(v - j)
        for x in range(nx):
            u = (x + offset_x + 0.5) / cell - 0.5
            i = math.floor(u)
            a0, a1, a2, a3 = spline_weights(u - i)
            total = 0.0
            row = coarse[j - 1]
            total += b0 * (a0 * row[i - 1] + a1 * row[i] + a2 * row[i + 1] + a3 * row[i + 2])
            row = coarse[j]
            total += b1 * (a0 * row[i - 1] + a1 * row[i] + a2 * row[i + 1] + a3 * row[i + 2])
            row = coarse[j + 1]
            total += b2 * (a0 * row[i - 1] + a1 * row[i] + a2 * row[i + 1] + a3 * row[i + 2])
            row = coarse[j + 2]
            total += b3 * (a0 * row[i - 1] + a1 * row[i] + a2 * row[i + 1] + a3 * row[i + 2])
            out[y, x] += np.float32(total)


@njit(nogil=True, cache=True)
def add_moffats(xs, ys, fluxes, scale, floor, out):
    """Add point sources."""
    # beta 3, whose integral is pi a^2 / 2; cut off where it falls below ``floor``
    ny, nx = out.shape
    inverse = np.float32(1.0 / (scale * scale))
    one = np.float32(1.0)
    for n in range(len(xs)):
        peak = np.float32(2.0 * fluxes[n] / (math.pi * scale * scale))
        radius = scale * math.sqrt(max((peak / floor) ** (1.0 / 3.0) - 1.0, 0.0))
        x, y = xs[n], ys[n]
        x_start, x_stop = max(0, math.ceil(x - radius)), min(nx, math.floor(x + radius) + 1)
        for j in range(max(0, math.ceil(y - radius)), min(ny, math.floor(y + radius) + 1)):
            dy2 = np.float32((j - y) ** 2)
            for i in range(x_start, x_stop):
                dx = np.float32(i) - np.float32(x)
                u = one + (dx * dx + dy2) * inverse
                out[j, i] += peak / (u * u * u)


@njit(nogil=True, cache=True)
def add_aureoles(xs, ys, fluxes, core, reach, norm, out):
    """Add aureoles of single stars."""
    ny, nx = out.shape
    core2, reach2 = np.float32(core * core), np.float32(reach * reach)
    one = np.float32(1.0)
    for n in range(len(xs)):
        level = np.float32(fluxes[n] * norm)
        x, y = xs[n], ys[n]
        x_start, x_stop = max(0, math.ceil(x - reach)), min(nx, math.floor(x + reach) + 1)
        for j in range(max(0, math.ceil(y - reach)), min(ny, math.floor(y + reach) + 1)):
            dy2 = np.float32((j - y) ** 2)
            for i in range(x_start, x_stop):
                dx = np.float32(i) - np.float32(x)
                r2 = min(dx * dx + dy2, reach2)
                taper = one - r2 / reach2
                out[j, i] += level * taper * taper / (r2 + core2)


@njit(nogil=True, cache=True)
def add_profiles(xs, ys, fluxes, sizes, m00, m01, m11, tables, steps, floor, out):
    """Add elliptical sources of tabulated profiles."""
    # an elliptical profile of unit determinant: r2 = m00 dx2 + 2 m01 dx dy + m11 dy2
    ny, nx = out.shape
    last = tables.shape[1] - 1
    for n in range(len(xs)):
        table = tables[sizes[n]]
        end = last
        while end > 1 and fluxes[n] * table[end - 1] < floor:
            end -= 1
        radius = end * steps[sizes[n]]
        per_pixel = 1.0 / steps[sizes[n]]
        x, y = xs[n], ys[n]
        reach_x, reach_y = radius * math.sqrt(m11[n]), radius * math.sqrt(m00[n])
        x_start, x_stop = max(0, math.ceil(x - reach_x)), min(nx, math.floor(x + reach_x) + 1)
        for j in range(max(0, math.ceil(y - reach_y)), min(ny, math.floor(y + reach_y) + 1)):
            dy = j - y
            for i in range(x_start, x_stop):
                dx = i - x
                r2 = m00[n] * dx * dx + 2.0 * m01[n] * dx * dy + m11[n] * dy * dy
                at = math.sqrt(max(r2, 0.0)) * per_pixel
                k = int(at)
                if k < end:
                    f = at - k
                    out[j, i] += np.float32(fluxes[n] * ((1.0 - f) * table[k] + f * table[k + 1]))


@njit(nogil=True, cache=True)
def add_track(x, y, dx, dy, length, charge, out):
    """Add the track of a cosmic ray."""
    # a cosmic ray: charge laid down along a straight line, shared between neighbouring pixels
    ny, nx = out.shape
    steps = max(1, int(length * 4))
    for k in range(steps):
        px = x + dx * length * k / steps
        py = y + dy * length * k / steps
        i, j = math.floor(px), math.floor(py)
        fx, fy = px - i, py - j
        for b in range(2):
            for a in range(2):
                if 0 <= j + b < ny and 0 <= i + a < nx:
                    weight = (fx if a else 1.0 - fx) * (fy if b else 1.0 - fy)
                    out[j + b, i + a] += np.float32(charge / steps * weight)


@njit(nogil=True, cache=True)
def add_noise(expected, z, read, out):
    """Fill with ``expected``, its photon noise from normal numbers ``z``, and ``read``."""
    # Cornish-Fisher expansion of Poisson noise about a normal: right to the fourth cumulant
    for y in range(expected.shape[0]):
        for x in range(expected.shape[1]):
            mu = max(expected[y, x], np.float32(1.0))
            root = math.sqrt(mu)
            n = np.float64(z[y, x])
            skew = (n * n - 1.0) / 6.0
            tail = n * (1.0 - n * n) / (72.0 * root)
            out[y, x] = expected[y, x] + np.float32(root * n + skew + tail + read[y, x])


@njit(nogil=True, cache=True)
def bleed(image, saturation, middle, saturated):
    """Clip at saturation and let the excess run along columns."""
    # charge beyond saturation runs along the column, up and down, and stops where the halves are read apart
    ny, nx = image.shape
    for x in range(nx):
        for half in range(2):
            start, stop = (0, middle) if half == 0 else (middle, ny)
            y = start
            while y < stop:
                if image[y, x] <= saturation:
                    y += 1
                    continue
                excess = 0.0
                low = y
                while y < stop and image[y, x] > saturation:
                    excess += image[y, x] - saturation
                    image[y, x] = saturation
                    saturated[y, x] = True
                    y += 1
                low, high = low - 1, y
                while excess > 0.0 and (low >= start or high < stop):
                    if low >= start:
                        excess = fill(image, low, x, saturation, excess, saturated)
                        low -= 1
                    if high < stop and excess > 0.0:
                        excess = fill(image, high, x, saturation, excess, saturated)
                        high += 1


@njit(nogil=True, cache=True)
def fill(image, y, x, saturation, excess, saturated):
    """Fill one pixel up to saturation; returns the charge that is left."""
    room = saturation - image[y, x]
    if room <= 0.0:
        # a second saturated run on the way: its own excess joins this one
        excess -= room
        image[y, x] = saturation
        saturated[y, x] = True
        return excess
    if excess < room:
        image[y, x] += np.float32(excess)
        return 0.0
    image[y, x] = saturation
    saturated[y, x] = True
    return excess - room
