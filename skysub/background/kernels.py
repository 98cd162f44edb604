"""Compiled kernels of the background; they release the GIL and allocate little."""

from __future__ import annotations

import numpy as np
from numba import njit

IQR_TO_SIGMA = 0.741301109252802


@njit(nogil=True, cache=True)
def superpixel_statistics(image, mask, bits, y_edges, x_edges, code, sigma, passes, mean, error, count):
    has_mask = mask.size > 0
    buffer = np.empty(np.max(np.diff(y_edges)) * np.max(np.diff(x_edges)), image.dtype)
    for j in range(len(y_edges) - 1):
        for i in range(len(x_edges) - 1):
            n = 0
            for y in range(y_edges[j], y_edges[j + 1]):
                for x in range(x_edges[i], x_edges[i + 1]):
                    v = image[y, x]
                    if np.isfinite(v) and not (has_mask and mask[y, x] & bits):
                        buffer[n] = v
                        n += 1
            good = buffer[:n]
            good.sort()
            mean[j, i], error[j, i] = one_superpixel(good, code, sigma, passes)
            count[j, i] = n


@njit(nogil=True, cache=True)
def quantile(good, f):
    at = f * (len(good) - 1)
    k = int(at)
    if k + 1 >= len(good):
        return np.float64(good[-1])
    w = at - k
    return (1 - w) * np.float64(good[k]) + w * np.float64(good[k + 1])


@njit(nogil=True, cache=True)
def clipped(good, centre, half):
    n = 0
    s = 0.0
    q = 0.0
    for v in good:
        d = np.float64(v) - centre
        if abs(d) <= half:
            n += 1
            s += d
            q += d * d
    if n == 0:
        return 0, np.nan, np.nan
    s /= n
    var = q / n - s * s
    if n == 1:
        return 1, centre + s, np.nan
    return n, centre + s, max(0.0, var) * n / (n - 1)


@njit(nogil=True, cache=True)
def one_superpixel(good, code, sigma, passes):
    n = len(good)
    if n == 0:
        return np.nan, np.nan
    median = quantile(good, 0.5)
    if code != 0:
        crude = clipped(good, median, np.inf)
        _, m, var = clipped(good, crude[1], np.inf)
        if code == 1:
            return m, np.sqrt(var / n)
        return median, np.sqrt(np.pi / 2 * var / n)
    iqr = quantile(good, 0.75) - quantile(good, 0.25)
    centre = median
    half = sigma * IQR_TO_SIGMA * iqr
    kept = 0
    var = np.nan
    for k in range(passes):
        if k > 0 and n > 1:
            half = sigma * np.sqrt(max(0.0, var))
        kept, centre, var = clipped(good, centre, half)
    return centre, (np.sqrt(var / kept) if kept else np.nan)


@njit(nogil=True, cache=True)
def subtract_model(image, y0, x0, ny, nx, power, out):
    order = power.shape[0] - 1
    row = np.empty(order + 1)
    for y in range(image.shape[0]):
        v = (2.0 * (y + y0) - ny + 1) / ny
        for p in range(order + 1):
            t = power[order, p]
            for q in range(order - 1, -1, -1):
                t = t * v + power[q, p]
            row[p] = t
        for x in range(image.shape[1]):
            u = (2.0 * (x + x0) - nx + 1) / nx
            t = row[order]
            for p in range(order - 1, -1, -1):
                t = t * u + row[p]
            out[y, x] = image[y, x] - np.float32(t)


@njit(nogil=True, cache=True)
def evaluate_model(y0, x0, ny, nx, power, out):
    order = power.shape[0] - 1
    row = np.empty(order + 1)
    for y in range(out.shape[0]):
        v = (2.0 * (y + y0) - ny + 1) / ny
        for p in range(order + 1):
            t = power[order, p]
            for q in range(order - 1, -1, -1):
                t = t * v + power[q, p]
            row[p] = t
        for x in range(out.shape[1]):
            u = (2.0 * (x + x0) - nx + 1) / nx
            t = row[order]
            for p in range(order - 1, -1, -1):
                t = t * u + row[p]
            out[y, x] = np.float32(t)


@njit(nogil=True, cache=True)
def evaluate_deviation(y0, x0, ny, nx, power, out):
    order = power.shape[0] - 1
    row = np.empty(order + 1)
    for y in range(out.shape[0]):
        v = (2.0 * (y + y0) - ny + 1) / ny
        for p in range(order + 1):
            t = power[order, p]
            for q in range(order - 1, -1, -1):
                t = t * v + power[q, p]
            row[p] = t
        for x in range(out.shape[1]):
            u = (2.0 * (x + x0) - nx + 1) / nx
            t = row[order]
            for p in range(order - 1, -1, -1):
                t = t * u + row[p]
            out[y, x] = np.sqrt(max(t, 0.0))
