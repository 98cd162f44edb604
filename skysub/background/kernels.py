"""Compiled statistics of superpixels: gathering, exact quartiles, clipped sums.

One band of superpixels at a time is gathered into tiles: the pixels of a superpixel one after the
other in row order, those left out as NaN, filled up with NaN to whole blocks. Every later loop runs
over a tile that is in cache, in a form that compilers turn into vector code. Nothing here depends on
what lies beside a superpixel but the first guess of its quartiles, which changes the time taken and
not the result: sums are taken in an order that the tile alone decides.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.background.fma import fma

IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian in units of its interquartile range, as in afw's Statistics.cc."""

MEANCLIP, MEAN, MEDIAN = 0, 1, 2
"""Codes of the statistics."""

LANES = 64
"""Sums are held in this many columns, which are added up at the end in their order."""
BLOCK = 4 * LANES
"""Tiles are filled up to a multiple of this many pixels."""

CORE, RIM = 0.92, 1.12
"""A tile's core, within CORE half-widths of the first clip, is summed once; a clip that ends between
there and RIM half-widths only adds the pixels in between, one that ends elsewhere sums afresh."""

COUNTING_FROM = 512
"""With fewer good pixels than this a sort is quicker than counting."""
ROUNDS = 8
"""Rounds of counting before a sort is taken instead."""
CLOSE = 24
"""A guess is good enough when this few pixels lie between it and the quartile."""
MARGIN = 6
"""Pixels of margin on either side of the windows round the quartiles."""
SAMPLE = 255
"""Pixels sorted for a first guess where there is no neighbour to take one from."""
ROOM = 4096
"""Room for the pixels inside the windows; a tile with more in them is sorted."""

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
def band_statistics(tiles, sizes, code, sigma, passes, mean, error, count):
    """Statistics of each tile of a band; ``sizes`` are the pixel counts without the filling."""
    marks = np.empty(tiles.shape[1], np.uint8)
    words = np.empty(tiles.shape[1] // 8 + 1, np.int32)
    marked = np.empty(ROOM, tiles.dtype)
    windows = np.empty((3, ROOM), tiles.dtype)
    sums = np.empty((2, LANES))
    guess = np.full(3, np.nan)
    for i in range(len(sizes)):
        tile = tiles[i, : (sizes[i] + BLOCK - 1) // BLOCK * BLOCK]
        n = _count_good(tile)
        count[i] = n
        if n == 0:
            mean[i], error[i] = np.nan, np.nan
        elif code == MEANCLIP:
            mean[i], error[i] = _clipped_mean(
                tile, n, sigma, passes, guess, marks, words, marked, windows, sums
            )
        else:
            mean[i], error[i] = _plain_mean(tile, n, sums)
            if code == MEDIAN:
                _quartiles_by_sorting(tile, n, guess)
                mean[i], error[i] = guess[1], math.sqrt(math.pi / 2) * np.float64(error[i])


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
    crude = _sums_within(tile, everything[0], everything[1], 0.0, sums)[1] / n
    kept, total, squares = _sums_within(tile, everything[0], everything[1], crude, sums)
    centre, variance = _moments(kept, total, squares, crude)
    return centre, math.sqrt(variance / kept)


@_inner
def _clipped_mean(tile, n, sigma, passes, guess, marks, words, marked, windows, sums):
    """Mean and standard error after ``passes`` clips, each of all good pixels."""
    n_marked = -1
    middle = distance = reach = tile.dtype.type(np.nan)
    if n >= COUNTING_FROM:
        n_marked, middle, distance, reach = _quartiles_by_counting(
            tile, n, sigma, guess, marks, words, marked, windows
        )
    if n_marked < 0:
        _quartiles_by_sorting(tile, n, guess)
    median = guess[1]
    half = sigma * IQR_TO_SIGMA * (guess[2] - guess[0])
    core = _bounds(tile, median, CORE * half)
    rim = _bounds(tile, median, RIM * half)
    if n_marked < 0 or not _holds_rim(core, rim, middle, distance, reach):
        n_marked = _mark_rim(tile, core, rim, marks, words, marked)
    n_rim = _keep_rim(marked, n_marked, core, rim, windows[0])
    core_n, core_total, core_squares = _sums_within(tile, core[0], core[1], median, sums)
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
            kept, total, squares = _sums_within(tile, clip[0], clip[1], centre, sums)
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
def _sums_within(tile, low, high, centre, sums):
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


@_inner
def _quartiles_by_sorting(tile, n, found):
    """Quartiles of the good pixels into ``found``, interpolated linearly at f (n - 1)."""
    good = np.empty(n, tile.dtype)
    k = 0
    for v in tile:
        if not math.isnan(v):
            good[k] = v
            k += 1
    good.sort()
    for q in range(3):
        at = 0.25 * (q + 1) * (n - 1)
        k = int(at)
        found[q] = _between(good[k], good[min(k + 1, n - 1)], at - k)


@_inner
def _between(low, high, fraction):
    return (1.0 - fraction) * np.float64(low) + fraction * np.float64(high)


@_inner
def _quartiles_by_counting(tile, n, sigma, guess, marks, words, marked, windows):
    """Exact quartiles from a guess of them, without a sort.

    Pixels below each guess are counted, and the guesses moved, until few pixels can lie between guess
    and quartile; the pixels in windows that hold both are picked out, and the quartiles found among
    them by their ranks. The pixels near the ends of the first clip are picked out in the same pass.

    Returns the number of pixels picked out, -1 where it did not work out, and of those near the ends of
    the first clip the middle, their distance from it, and the reach about that distance.
    """
    margin = MARGIN
    for turn in range(2 * ROUNDS):
        # from the neighbour's quartiles, or where those led nowhere from a sample
        if turn == ROUNDS or not guess[0] < guess[1] < guess[2]:
            _guess_from_sample(tile, guess)
        low, mid, high = tile.dtype.type(guess[0]), tile.dtype.type(guess[1]), tile.dtype.type(guess[2])
        if not low < mid < high:
            break
        below = _ranks(tile, low, mid, high)
        miss_low = 0.25 * (n - 1) - below[0]
        miss_mid = 0.50 * (n - 1) - below[1]
        miss_high = 0.75 * (n - 1) - below[2]
        # difference of two pixels next in rank, as in a Gaussian, at the median and at the quartiles
        at_mid = IQR_TO_SIGMA * (np.float64(high) - np.float64(low)) / n / 0.399
        at_outer = at_mid * 0.399 / 0.318
        miss_outer = max(abs(miss_low), abs(miss_high))
        if max(miss_outer, abs(miss_mid)) <= CLOSE:
            found = _pick_out(
                tile,
                n,
                sigma,
                guess,
                marks,
                words,
                marked,
                windows,
                (low, mid, high),
                below,
                (1.3 * miss_outer + margin) * at_outer,
                (1.3 * abs(miss_mid) + margin) * at_mid,
            )
            if found[0] >= 0:
                return found
            margin *= 3
        guess[0] += miss_low * at_outer
        guess[1] += miss_mid * at_mid
        guess[2] += miss_high * at_outer
    nan = tile.dtype.type(np.nan)
    return -1, nan, nan, nan


@_inner
def _guess_from_sample(tile, guess):
    sample = np.empty(SAMPLE, tile.dtype)
    n = 0
    for k in range(SAMPLE):
        v = tile[k * len(tile) // SAMPLE]
        if not math.isnan(v):
            sample[n] = v
            n += 1
    guess[:] = np.nan
    if n > 0:
        sample[:n].sort()
        for q in range(3):
            guess[q] = sample[(q + 1) * (n - 1) // 4]


@_inner
def _ranks(tile, low, mid, high):
    below_low = np.int32(0)
    below_mid = np.int32(0)
    below_high = np.int32(0)
    for k in range(len(tile)):
        v = tile[k]
        below_low = np.int32(below_low + np.int32(v < low))
        below_mid = np.int32(below_mid + np.int32(v < mid))
        below_high = np.int32(below_high + np.int32(v < high))
    return np.int64(below_low), np.int64(below_mid), np.int64(below_high)


@_inner
def _pick_out(tile, n, sigma, guess, marks, words, marked, windows, pivots, below, reach_outer, reach_mid):
    kind = tile.dtype.type
    low, mid, high = pivots
    middle = kind(0.5 * (np.float64(low) + np.float64(high)))
    arm = kind(0.5 * (np.float64(high) - np.float64(low)))
    reach_outer, reach_mid = kind(reach_outer), kind(reach_mid)
    half = sigma * IQR_TO_SIGMA * 2.0 * np.float64(arm)
    distance = kind(0.5 * (CORE + RIM) * half)
    # the clip is about the median, not the middle of the quartiles, and its width is not known yet
    slack = abs(np.float64(mid) - np.float64(middle)) + 0.02 * half
    reach = kind(0.5 * (RIM - CORE) * half + slack)
    for k in range(len(tile)):
        off = abs(tile[k] - middle)
        marks[k] = np.uint8(
            (abs(off - arm) <= reach_outer)
            | (abs(tile[k] - mid) <= reach_mid)
            | (abs(off - distance) <= reach)
        )
    n_marked = _collect(tile, marks, marked, words)
    pivots_inside = (
        abs(abs(low - middle) - arm) <= reach_outer and abs(abs(high - middle) - arm) <= reach_outer
    )
    if n_marked < 0 or not pivots_inside:
        return -1, middle, distance, reach
    held_low = held_mid = held_high = 0
    for i in range(n_marked):
        v = marked[i]
        outer = abs(abs(v - middle) - arm) <= reach_outer
        windows[0, held_low] = v
        held_low += outer & (v < middle)
        windows[1, held_mid] = v
        held_mid += abs(v - mid) <= reach_mid
        windows[2, held_high] = v
        held_high += outer & (v >= middle)
    exact = (
        _in_window(windows[0], held_low, low, below[0], 0.25 * (n - 1)),
        _in_window(windows[1], held_mid, mid, below[1], 0.50 * (n - 1)),
        _in_window(windows[2], held_high, high, below[2], 0.75 * (n - 1)),
    )
    if not exact[0] <= exact[1] <= exact[2]:
        return -1, middle, distance, reach
    guess[0], guess[1], guess[2] = exact
    return n_marked, middle, distance, reach


@_inner
def _in_window(window, held, pivot, below, at):
    """Value at rank ``at`` of the tile, from the ``held`` pixels of a window; NaN where it lies outside.

    The window is an interval that holds all pixels in it; ``below`` counts the tile's pixels under
    ``pivot``, which lies in the window.
    """
    # filled up to whole vectors; NaN counts as neither less nor more
    filled = (held + LANES - 1) // LANES * LANES
    window[held:filled] = np.nan
    less = np.int32(0)
    for i in range(filled):
        less = np.int32(less + np.int32(window[i] < pivot))
    k = int(at) - (below - less)
    if k < 0 or k + 1 >= held:
        return np.nan
    first, second = _neighbours(window[:filled], held, k)
    return _between(first, second, at - int(at))


@_inner
def _collect(tile, marks, marked, words):
    """Copy the marked pixels of a tile in their order; -1 where there are too many.

    Without branches, which no processor could predict: first the words of eight marks that are not
    all zero, then the pixels of those.
    """
    eights = marks[: len(tile)].view(np.uint64)
    n_words = 0
    for w in range(len(eights)):
        words[n_words] = w
        n_words += eights[w] != 0
    n = 0
    for i in range(n_words):
        if n + 8 > ROOM:
            return -1
        for k in range(8 * words[i], 8 * words[i] + 8):
            marked[n] = tile[k]
            n += marks[k]
    return n


@_inner
def _neighbours(values, held, k):
    """The k-th and the (k+1)-th smallest of the first ``held`` values; the rest are NaN."""
    down = values.dtype.type(-np.inf)
    up = values.dtype.type(np.inf)
    for j in range(held):
        candidate = values[j]
        if down < candidate < up:
            less = np.int32(0)
            up_to = np.int32(0)
            for i in range(len(values)):
                less = np.int32(less + np.int32(values[i] < candidate))
                up_to = np.int32(up_to + np.int32(values[i] <= candidate))
            if up_to <= k:
                down = candidate
            elif less > k:
                up = candidate
            elif k + 1 < up_to:
                return candidate, candidate
            else:
                following = values.dtype.type(np.inf)
                for i in range(len(values)):
                    if candidate < values[i] < following:
                        following = values[i]
                return candidate, following
    return values[0], values[0]


@_inner
def _holds_rim(core, rim, middle, distance, reach):
    """Whether all pixels between core and rim were picked out: the marked values form two intervals."""
    for v in (rim[0], core[0]):
        if not (v < middle and abs(abs(v - middle) - distance) <= reach):
            return False
    for v in (core[1], rim[1]):
        if not (v > middle and abs(abs(v - middle) - distance) <= reach):
            return False
    return True


@_inner
def _mark_rim(tile, core, rim, marks, words, marked):
    for k in range(len(tile)):
        v = tile[k]
        marks[k] = np.uint8(((v >= rim[0]) & (v < core[0])) | ((v > core[1]) & (v <= rim[1])))
    return _collect(tile, marks, marked, words)


@_inner
def _keep_rim(marked, n_marked, core, rim, kept):
    """Of the marked pixels those between core and rim; -1 where there are too many to be worth it."""
    if n_marked < 0:
        return -1
    n = 0
    for v in marked[:n_marked]:
        kept[n] = v
        n += ((v >= rim[0]) & (v < core[0])) | ((v > core[1]) & (v <= rim[1]))
    # the limit lies below where collecting gives up, so that it does not matter who collected
    return n if n <= ROOM // 2 else -1
