"""Compiled quartiles of a superpixel, exact and without a sort; part of `skysub.background.kernels`.

Pixels below a guess of each quartile are counted, and the guesses moved, until few pixels lie between;
the pixels in narrow windows there are picked out and ranked. In the same pass the pixels near the ends
of the first clip, its rim, are picked out, as the clips to come differ in those alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian in units of its interquartile range, as in afw's Statistics.cc."""

CORE, RIM = 0.92, 1.12
"""Inner and outer end of the rim, in half-widths of the first clip."""
LANES = 64
"""Loops over a few values run over multiples of this many."""

ROUNDS = 8
"""Rounds of counting before another guess is taken, or a sort."""
CLOSE = 24
"""A guess is good enough when this few pixels lie between it and the quartile."""
MARGIN = 6
"""Pixels of margin on either side of the windows round the quartiles."""
SAMPLE = 255
"""Pixels sorted for a first guess where there is no neighbour to take one from."""
ROOM = 4096
"""Room for the pixels inside the windows; a tile with more in them is sorted."""

_inner = njit(nogil=True)


@_inner
def quartiles_by_sorting(tile, n, found):
    """Quartiles of the good pixels into ``found``, interpolated linearly at f (n - 1)."""
    good = np.empty(n, tile.dtype)
    k = 0
    for v in tile:
        if not math.isnan(v):
            good[k] = v
            k += 1
    _sort(good)
    for q in range(3):
        at = 0.25 * (q + 1) * (n - 1)
        k = int(at)
        found[q] = _between(good[k], good[min(k + 1, n - 1)], at - k)


@_inner
def _sort(values):
    """Sort values that are numbers in place (Shell); NumPy's sort takes a second to compile."""
    gap = 1
    while gap < len(values) // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for k in range(gap, len(values)):
            v = values[k]
            i = k
            while i >= gap and values[i - gap] > v:
                values[i] = values[i - gap]
                i -= gap
            values[i] = v
        gap //= 3


@_inner
def _between(low, high, fraction):
    return (1.0 - fraction) * np.float64(low) + fraction * np.float64(high)


@_inner
def quartiles_by_counting(tile, n, sigma, guess, marks, words, marked, windows):
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
        _sort(sample[:n])
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
def holds_rim(core, rim, middle, distance, reach):
    """Whether all pixels between core and rim were picked out: the marked values form two intervals."""
    for v in (rim[0], core[0]):
        if not (v < middle and abs(abs(v - middle) - distance) <= reach):
            return False
    for v in (core[1], rim[1]):
        if not (v > middle and abs(abs(v - middle) - distance) <= reach):
            return False
    return True


@_inner
def mark_rim(tile, core, rim, marks, words, marked):
    """Pick out the pixels between core and rim; -1 where there are too many."""
    for k in range(len(tile)):
        v = tile[k]
        marks[k] = np.uint8(((v >= rim[0]) & (v < core[0])) | ((v > core[1]) & (v <= rim[1])))
    return _collect(tile, marks, marked, words)


@_inner
def keep_rim(marked, n_marked, core, rim, kept):
    """Of the marked pixels those between core and rim; -1 where there are too many to be worth it."""
    if n_marked < 0:
        return -1
    n = 0
    for v in marked[:n_marked]:
        kept[n] = v
        n += ((v >= rim[0]) & (v < core[0])) | ((v > core[1]) & (v <= rim[1]))
    # the limit lies below where collecting gives up, so that it does not matter who collected
    return n if n <= ROOM // 2 else -1
