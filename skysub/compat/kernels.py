"""Compiled statistics of the originals: sigma-clipped moments (photutils), histograms (SExtractor)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.background.kernels import BLOCK, sums_within
from skysub.background.quartile_kernels import LANES

__all__ = ["clipped_moments", "filtered", "histogram_modes"]

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)

_LEVELS = 4096
_LEVELS_PER_PIXEL = math.sqrt(2.0 / math.pi) * 5.0 / 4.0
_HALF_WIDTH = 5.0
_CUT = 2.0
_GOOD = 0.5
"""SExtractor's constants: most levels of a histogram and how many a pixel makes, half-width of the histogram
and of the first cut in standard deviations, and share of good pixels that a cell needs."""


@_compiled
def clipped_moments(tiles, lower, upper, most, by_mean, count, mean, median, deviation):
    """Number, mean, median and standard deviation of each row of ``tiles`` after iterative clipping.

    Rows are sorted with NaN last. A pass leaves out what lies more than ``lower`` or ``upper`` standard
    deviations from the median (or mean) of what is left, until nothing changes or after ``most`` passes.
    """
    for t in range(len(tiles)):
        row = tiles[t]
        stop = len(row)
        while stop > 0 and math.isnan(row[stop - 1]):
            stop -= 1
        start = 0
        if stop == 0:
            count[t], mean[t], median[t], deviation[t] = 0, np.nan, np.nan, np.nan
            continue
        # about a value within, for the sake of the variance's digits
        about = np.float64(row[stop // 2])
        total, squares = _sums(row, 0, stop, about)
        for _ in range(most):
            n = stop - start
            shift = total / n
            sigma = math.sqrt(max(0.0, squares / n - shift * shift))
            centre = about + shift if by_mean else _median(row, start, stop)
            low, high = centre - lower * sigma, centre + upper * sigma
            first, last = start, stop
            while first < last and np.float64(row[first]) < low:
                first += 1
            while last > first and np.float64(row[last - 1]) > high:
                last -= 1
            if first == start and last == stop:
                break
            below, above = _sums(row, start, first, about), _sums(row, last, stop, about)
            total -= below[0] + above[0]
            squares -= below[1] + above[1]
            start, stop = first, last
            if start == stop:
                break
        n = stop - start
        count[t] = n
        if n == 0:
            mean[t], median[t], deviation[t] = np.nan, np.nan, np.nan
            continue
        # afresh: differences of sums have lost digits where bright pixels were among them
        total, squares = _sums(row, start, stop, about)
        shift = total / n
        mean[t], median[t] = about + shift, _median(row, start, stop)
        deviation[t] = math.sqrt(max(0.0, squares / n - shift * shift))


@_compiled
def histogram_modes(tiles, sizes, mode, deviation):
    """Mode and standard deviation of each row of ``tiles`` as SExtractor has them; NaN for too few.

    The first ``sizes`` values of a row are pixels, NaN where they are masked; NaN follows to a whole block.
    """
    counts = np.zeros(_LEVELS + 1, np.int32)
    places = np.empty(tiles.shape[1], np.int32)
    running = np.empty((3, _LEVELS + 1), np.int64)
    sums = np.empty((2, LANES))
    for t in range(len(tiles)):
        row = tiles[t, : (sizes[t] + BLOCK - 1) // BLOCK * BLOCK]
        n, m, s = _moments(row, tiles.dtype.type(-np.inf), tiles.dtype.type(np.inf), sums)
        if n == 0 or n < sizes[t] * _GOOD:
            mode[t], deviation[t] = np.nan, np.nan
            continue
        n, m, s = _moments(row, m - _CUT * s, m + _CUT * s, sums)
        levels = min(int(_LEVELS_PER_PIXEL * n + 1), _LEVELS)
        scale = 2.0 * _HALF_WIDTH * s / levels if s > 0.0 else 1.0
        zero = m - _HALF_WIDTH * s
        _levels_of(row, 1.0 / scale, 0.499999 - zero / scale, levels, places)
        counts[: levels + 1] = 0
        for k in range(len(row)):
            counts[places[k]] += 1
        mode[t], deviation[t] = _mode(counts[:levels], running, zero, scale, m)


@_inner
def _levels_of(row, per_level, offset, levels, places):
    """Level of each value, and ``levels`` for NaN and what lies beyond: without a branch, in vectors."""
    beyond = np.float64(levels)
    for k in range(len(row)):
        at = np.float64(row[k]) * per_level + offset
        # NaN fails the comparison
        places[k] = np.int32(at if 0.0 <= at < beyond else beyond)


@_compiled
def filtered(level, noise, aside, up, threshold):
    """Medians over windows that shrink towards the borders, of cells that differ from them by ``threshold``.

    Windows reach ``aside`` and ``up`` cells from the middle one; returns new levels and noise.
    """
    gy, gx = level.shape
    new_level, new_noise = level.copy(), noise.copy()
    window = np.empty((2, (2 * aside + 1) * (2 * up + 1)))
    for j in range(gy):
        dy = min(up, j, gy - 1 - j)
        for i in range(gx):
            dx = min(aside, i, gx - 1 - i)
            n = 0
            for y in range(j - dy, j + dy + 1):
                for x in range(i - dx, i + dx + 1):
                    window[0, n], window[1, n] = level[y, x], noise[y, x]
                    n += 1
            # windows have a middle one: their numbers are odd
            median = np.sort(window[0, :n])[n // 2]
            if math.fabs(median - level[j, i]) >= threshold:
                new_level[j, i] = median
                new_noise[j, i] = np.sort(window[1, :n])[n // 2]
    return new_level, new_noise


@_inner
def _sums(row, start, stop, about):
    total = 0.0
    squares = 0.0
    for k in range(start, stop):
        d = np.float64(row[k]) - about
        total += d
        squares += d * d
    return total, squares


@_inner
def _median(row, start, stop):
    middle = (start + stop) // 2
    if (stop - start) % 2:
        return np.float64(row[middle])
    return 0.5 * (np.float64(row[middle - 1]) + np.float64(row[middle]))


@_inner
def _moments(row, low, high, sums):
    """Number, mean and standard deviation of the values from ``low`` to ``high``."""
    about = 0.0
    for k in range(len(row)):
        if row[k] == row[k]:
            about = np.float64(row[k])
            break
    n, total, squares = sums_within(row, low, high, about, sums)
    if n == 0:
        return n, np.nan, 0.0
    shift = total / n
    return n, about + shift, math.sqrt(max(0.0, squares / n - shift * shift))


@_inner
def _mode(histogram, sums, zero, scale, first_mean):
    """Mode and deviation from a histogram, clipped at three deviations about its median until it stands.

    ``sums`` (3, levels + 1) int64 is overwritten: by sums up to each level a clip costs the same wherever it
    lies. They are whole numbers, which add up to the same in any order.
    """
    top = len(histogram) - 1
    count, weighted, squared = sums[0], sums[1], sums[2]
    count[0] = weighted[0] = squared[0] = 0
    for i in range(top + 1):
        here = np.int64(histogram[i])
        count[i + 1] = count[i] + here
        weighted[i + 1] = weighted[i] + here * i
        squared[i + 1] = squared[i] + here * i * i
    low, high = 0, top
    sigma, before = 10.0 * top, 1.0
    mean = median = first_mean
    for _ in range(100):
        if not (sigma >= 0.1 and math.fabs(sigma / before - 1.0) > 1e-4):
            break
        before = sigma
        total = max(count[high + 1] - count[low], 0) if high >= low else np.int64(0)
        median = _middle(histogram, count, low, high, total)
        mean = np.float64(weighted[high + 1] - weighted[low]) if high >= low else 0.0
        sigma = np.float64(squared[high + 1] - squared[low]) if high >= low else 0.0
        if total > 0:
            mean = mean / total
            sigma = sigma / total - mean * mean
        sigma = math.sqrt(sigma) if sigma > 0.0 else 0.0
        low = int(median - 3.0 * sigma + 0.5) if median - 3.0 * sigma > 0.0 else 0
        high = min(int(median + 3.0 * sigma + 0.5), top)
    if sigma <= 0.0:
        return zero + mean * scale, 0.0
    level = 2.5 * median - 1.5 * mean if math.fabs((mean - median) / sigma) < 0.3 else median
    return zero + level * scale, sigma * scale


@_inner
def _middle(histogram, count, low, high, total):
    """Place of the median: where sums that grow from both ends, the smaller one always next, meet."""
    # the first level at which twice the sum below it, and its own count, reach the total; or the last level
    i, beyond = low, high
    while i < beyond:
        half = (i + beyond) // 2
        if count[half] + count[half + 1] - 2 * count[low] < total:
            i = half + 1
        else:
            beyond = half
    below = count[i] - count[low]
    if i == 0:
        return 0.0
    larger = max(histogram[i], histogram[i - 1])
    if larger == 0:
        return i - 0.5
    return i - 0.5 + (total - 2 * below) / (2.0 * larger)
