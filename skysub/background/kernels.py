"""Compiled statistics of superpixels: gathering, clipped sums, mean and error.

One band of superpixels at a time is gathered into tiles: the pixels of a superpixel one after the
other in row order, those left out as NaN, filled up with NaN to whole blocks. Every later loop runs
over a tile that is in cache, in a form that compilers turn into vector code. Nothing here depends on
what lies beside a superpixel but the first guess of its quartiles, which changes the time taken and
not the result: sums are taken in an order that the tile alone decides.

A tile's core, well within the first clip, is summed once; a later clip that ends in the rim about the
first one's ends adds only the rim's pixels, one that ends elsewhere sums afresh.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.background.fma import fma
from skysub.background.quartile_kernels import (
    CORE,
    IQR_TO_SIGMA,
    LANES,
    RIM,
    ROOM,
    holds_rim,
    keep_rim,
    mark_rim,
    quartiles_by_counting,
    quartiles_by_sorting,
)

MEANCLIP, MEAN, MEDIAN = 0, 1, 2
"""Codes of the statistics."""

BLOCK = 4 * LANES
"""Tiles are filled up to a multiple of this many pixels."""

COUNTING_FROM = 512
"""With fewer good pixels than this a sort is quicker than counting."""
_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)


@_compiled
def gather(image, mask, bits, has_mask, x_edges, nan, row, tiles):
    """Copy a band of rows of ``image`` into ``tiles`` (superpixel, pixel); ``row`` is scratch."""
    zero = bits ^ bits
    left, right = x_edges[0], x_edges[-1]
    height = image.shape[0]
    for y in range(height):
        pixels = image[y, left:right]
        # v + (v - v) is v where v is finite, and NaN where it is not
        if has_mask:
            planes = mask[y, left:right]
            for x in range(right - left):
                v = pixels[x] + (pixels[x] - pixels[x])
                row[x] = v if (planes[x] & bits) == zero else nan
        else:
            for x in range(right - left):
                row[x] = pixels[x] + (pixels[x] - pixels[x])
        for i in range(len(x_edges) - 1):
            width = x_edges[i + 1] - x_edges[i]
            source = row[x_edges[i] - left :]
            target = tiles[i, y * width :]
            # whole vectors: what is too much is overwritten by the next row, or below
            for x in range((width + LANES - 1) // LANES * LANES):
                target[x] = source[x]
    for i in range(len(x_edges) - 1):
        tiles[i, height * (x_edges[i + 1] - x_edges[i]) :] = nan


@_compiled
def band_statistics(tiles, sizes, code, sigma, passes, above, mean, error, count):
    """Statistics of each tile of a band; ``sizes`` are the pixel counts without the filling.

    ``above`` (superpixel, 3) holds the quartiles of the band before, NaN where there is none, and is given
    those of this one.
    """
    marks = np.empty(tiles.shape[1], np.uint8)
    words = np.empty(tiles.shape[1] // 8 + 1, np.int32)
    marked = np.empty(ROOM, tiles.dtype)
    windows = np.empty((3, ROOM), tiles.dtype)
    sums = np.empty((2, LANES))
    guess, above_left, left = np.empty(3), np.empty(3), np.empty(3)
    above_left[:] = np.nan
    left[:] = np.nan
    for i in range(len(sizes)):
        tile = tiles[i, : (sizes[i] + BLOCK - 1) // BLOCK * BLOCK]
        n = _count_good(tile)
        count[i] = n
        # as far from the left neighbour as their neighbours above are from each other
        for q in range(3):
            guess[q] = left[q] + (above[i, q] - above_left[q]) if i > 0 else above[i, q]
        orderly = guess[0] < guess[1] < guess[2]
        for q in range(3):
            guess[q] = guess[q] if orderly else left[q]
            above_left[q] = above[i, q]
        if n == 0:
            mean[i], error[i] = np.nan, np.nan
        elif code == MEANCLIP:
            mean[i], error[i] = _clipped_mean(
                tile, n, sigma, passes, guess, marks, words, marked, windows, sums
            )
        else:
            mean[i], error[i] = _plain_mean(tile, n, sums)
            if code == MEDIAN:
                quartiles_by_sorting(tile, n, guess)
                mean[i], error[i] = guess[1], math.sqrt(math.pi / 2) * np.float64(error[i])
        for q in range(3):
            above[i, q] = left[q] = guess[q]


@_inner
def _count_good(tile):
    n = np.int32(0)
    # by index: numba's iterators stand in the way of vector code
    for k in range(len(tile)):
        n = np.int32(n + np.int32(tile[k] == tile[k]))
    return np.int64(n)


@_inner
def _plain_mean(tile, n, sums):
    everything = _bounds(tile, 0.0, np.inf)
    # about a crude mean, for the variance's sake
    crude = sums_within(tile, everything[0], everything[1], 0.0, sums)[1] / n
    kept, total, squares = sums_within(tile, everything[0], everything[1], crude, sums)
    centre, variance = _moments(kept, total, squares, crude)
    return centre, math.sqrt(variance / kept)


@_inner
def _clipped_mean(tile, n, sigma, passes, guess, marks, words, marked, windows, sums):
    """Mean and standard error after ``passes`` clips, each of all good pixels."""
    n_marked = -1
    middle = distance = reach = tile.dtype.type(np.nan)
    if n >= COUNTING_FROM:
        n_marked, middle, distance, reach = quartiles_by_counting(
            tile, n, sigma, guess, marks, words, marked, windows
        )
    if n_marked < 0:
        quartiles_by_sorting(tile, n, guess)
    median = guess[1]
    half = sigma * IQR_TO_SIGMA * (guess[2] - guess[0])
    core = _bounds(tile, median, CORE * half)
    rim = _bounds(tile, median, RIM * half)
    if n_marked < 0 or not holds_rim(core, rim, middle, distance, reach):
        n_marked = mark_rim(tile, core, rim, marks, words, marked)
    n_rim = keep_rim(marked, n_marked, core, rim, windows[0])
    core_n, core_total, core_squares = sums_within(tile, core[0], core[1], median, sums)
    centre = median
    kept = 0
    variance = np.nan
    for k in range(passes):
        if k > 0 and n > 1:
            half = sigma * math.sqrt(max(0.0, variance)) if not math.isnan(variance) else np.nan
        if math.isnan(half) or math.isnan(centre):
            return np.nan, np.nan
        clip = _bounds(tile, centre, half)
        if (
            n_rim >= 0
            and clip[0] <= core[0]
            and clip[1] >= core[1]
            and clip[0] >= rim[0]
            and clip[1] <= rim[1]
        ):
            kept, total, squares = core_n, core_total, core_squares
            for i in range(n_rim):
                v = windows[0, i]
                inside = (v >= clip[0]) & (v <= clip[1])
                d = np.float64(v) - median if inside else 0.0
                kept += inside
                total += d
                squares += d * d
            centre, variance = _moments(kept, total, squares, median)
        else:
            kept, total, squares = sums_within(tile, clip[0], clip[1], centre, sums)
            centre, variance = _moments(kept, total, squares, centre)
    return centre, math.sqrt(variance / kept) if kept else np.nan


@_inner
def _moments(n, total, squares, centre):
    """Mean and unbiased variance from sums of v - centre and its square."""
    if n == 0:
        return np.nan, np.nan
    shift = total / n
    if n == 1:
        return centre + shift, np.nan
    return centre + shift, max(0.0, squares / n - shift * shift) * n / (n - 1)


@_inner
def _bounds(tile, centre, half):
    """Least and greatest value of the tile's type with abs(value - centre) <= half in float64."""
    down, up = tile.dtype.type(-np.inf), tile.dtype.type(np.inf)
    if not math.isfinite(half):
        return down, up
    low = tile.dtype.type(centre - half)
    while low < centre and centre - np.float64(low) > half:
        low = np.nextafter(low, up)
    below = np.nextafter(low, down)
    while centre - np.float64(below) <= half:
        low = below
        below = np.nextafter(low, down)
    high = tile.dtype.type(centre + half)
    while high > centre and np.float64(high) - centre > half:
        high = np.nextafter(high, down)
    above = np.nextafter(high, up)
    while np.float64(above) - centre <= half:
        high = above
        above = np.nextafter(high, up)
    return low, high


@_inner
def sums_within(tile, low, high, centre, sums):
    """Number of, sum of and sum of squares of v - centre over low <= v <= high."""
    n = np.int32(0)
    first = sums[0]
    second = sums[1]
    first[:] = 0.0
    second[:] = 0.0
    for start in range(0, len(tile), BLOCK):
        a = tile[start : start + LANES]
        b = tile[start + LANES : start + 2 * LANES]
        c = tile[start + 2 * LANES : start + 3 * LANES]
        d = tile[start + 3 * LANES : start + 4 * LANES]
        for j in range(LANES):
            in_a = (a[j] >= low) & (a[j] <= high)
            in_b = (b[j] >= low) & (b[j] <= high)
            in_c = (c[j] >= low) & (c[j] <= high)
            in_d = (d[j] >= low) & (d[j] <= high)
            da = np.float64(a[j]) - centre if in_a else 0.0
            db = np.float64(b[j]) - centre if in_b else 0.0
            dc = np.float64(c[j]) - centre if in_c else 0.0
            dd = np.float64(d[j]) - centre if in_d else 0.0
            first[j] += (da + db) + (dc + dd)
            second[j] = fma(da, da, fma(db, db, fma(dc, dc, fma(dd, dd, second[j]))))
            n = np.int32(n + np.int32(in_a) + np.int32(in_b) + np.int32(in_c) + np.int32(in_d))
    total = 0.0
    squares = 0.0
    for j in range(LANES):
        total += first[j]
        squares += second[j]
    return np.int64(n), total, squares
