"""Compiled footprints: runs of set bits, which of them touch, and sums over their pixels.

A plane of bits is uint64 (ny, words), pixel 64 i + j being bit j of word i; bits past the image are 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.sources.bits import count_ones, trailing_zeros
from skysub.sources.detection_kernels import residual_row, room_for_coefficients, row_coefficients

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)

_ONE = np.uint64(1)
_LAST = np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@_compiled
def mark_above(values, low, high, low_bits, high_bits):
    """Set the bits of values, (ny, nx) float32, of at least ``low`` and of at least ``high``."""
    low, high = np.float32(low), np.float32(high)
    nx = values.shape[1]
    for y in range(values.shape[0]):
        row = values[y]
        for w in range(low_bits.shape[1]):
            some, most = np.uint64(0), np.uint64(0)
            for x in range(64 * w, min(nx, 64 * w + 64)):
                at = np.uint64(x - 64 * w)
                some |= np.uint64(row[x] >= low) << at
                most |= np.uint64(row[x] >= high) << at
            low_bits[y, w], high_bits[y, w] = some, most


@_compiled
def count_runs(bits):
    """Runs of set bits along rows."""
    n = np.int64(0)
    for y in range(bits.shape[0]):
        before = np.uint64(0)
        for w in range(bits.shape[1]):
            word = bits[y, w]
            n += count_ones(word & ~((word << _ONE) | before))
            before = word >> _LAST
    return n


@_compiled
def list_runs(bits, run_y, run_a, run_b):
    """Row, first column and one past the last of each run of set bits, by row, then column."""
    width = 64 * bits.shape[1]
    starts = ends = 0
    for y in range(bits.shape[0]):
        before = np.uint64(0)
        for w in range(bits.shape[1]):
            word = bits[y, w]
            shifted = (word << _ONE) | before
            before = word >> _LAST
            first, past = word & ~shifted, shifted & ~word
            while first:
                run_y[starts], run_a[starts] = y, 64 * w + trailing_zeros(first)
                first &= first - _ONE
                starts += 1
            while past:
                run_b[ends] = 64 * w + trailing_zeros(past)
                past &= past - _ONE
                ends += 1
        if before:
            run_b[ends] = width
            ends += 1


@_compiled
def any_bits(bits, run_y, run_a, run_b, found):
    """Whether any bit is set in each run."""
    for i in range(len(run_y)):
        first, last = run_a[i] >> 6, (run_b[i] - 1) >> 6
        y = run_y[i]
        head = _ALL << (np.uint64(run_a[i]) & _LAST)
        tail = _ALL >> (_LAST - (np.uint64(run_b[i] - 1) & _LAST))
        if first == last:
            found[i] = (bits[y, first] & head & tail) != 0
        else:
            seen = (bits[y, first] & head) | (bits[y, last] & tail)
            for w in range(first + 1, last):
                seen |= bits[y, w]
            found[i] = seen != 0


@_inner
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@_compiled
def label_runs(run_y, run_a, run_b, kept, labels):
    """Label each run, 0 to n - 1 by first appearance; runs that touch, also by corners, share one.

    Only what has a run that is ``kept`` is counted; all else has label -1. Returns n; ``kept`` is used up.
    """
    n = len(run_y)
    parent = np.empty(n, np.int32)
    above = 0
    for i in range(n):
        y, a, b = run_y[i], run_a[i], run_b[i]
        while run_y[above] < y - 1 or (run_y[above] == y - 1 and run_b[above] < a):
            above += 1
        j = above
        mine = i
        if run_y[j] == y - 1 and run_a[j] <= b:
            # mostly there is one run above, which needs no search among this one's
            mine = _root(parent, j)
            kept[mine] |= kept[i]
            j += 1
            while run_y[j] == y - 1 and run_a[j] <= b:
                other = _root(parent, j)
                if other != mine:
                    low, high = min(mine, other), max(mine, other)
                    parent[high] = low
                    kept[low] |= kept[high]
                    mine = low
                j += 1
        parent[i] = mine
    count = 0
    for i in range(n):
        # a parent comes first, and of a set the first run is the root
        if parent[i] == i:
            labels[i] = -1
            if kept[i]:
                labels[i] = count
                count += 1
        else:
            labels[i] = labels[parent[i]]
    return count


@_compiled
def keep_runs(labels, run_y, run_a, run_b):
    """Move runs that have a label to the front; returns how many there are."""
    n = 0
    for i in range(len(labels)):
        run_y[n], run_a[n], run_b[n], labels[n] = run_y[i], run_a[i], run_b[i], labels[i]
        n += labels[i] >= 0
    return n


@_compiled
def measure_runs(image, flags, monomials, run_y, run_a, run_b, flux, peak, saturated):
    """Sum and largest value of image - model over the pixels of each run, and its saturated pixels.

    ``monomials`` are the model's coefficients; ignored pixels and NaN are 0. ``flux`` and ``peak`` are
    (r,) float32, ``saturated`` (r,) int32.
    """
    ny, nx = image.shape
    c = room_for_coefficients(monomials)
    residual = np.empty(nx, np.float32)
    flag = flags[0]
    some = np.uint8(0)
    row = -1
    for i in range(len(run_y)):
        y, a, b = run_y[i], run_a[i], run_b[i]
        if y != row:
            row = y
            # the whole row: reading along is quicker than skipping from run to run
            row_coefficients(monomials, y, ny, c)
            residual_row(image[y], flags[y], np.uint8(1), c, residual)
            flag = flags[y]
            some = np.uint8(0)
            for x in range(nx):
                some |= flag[x] & np.uint8(2)
        light, most, full = np.float32(0), np.float32(-np.inf), 0
        for x in range(a, b):
            light += residual[x]
            most = max(most, residual[x])
        if some:
            for x in range(a, b):
                full += flag[x] >> 1 & 1
        flux[i], peak[i], saturated[i] = light, most, full


@_compiled
def measure_footprints(run_y, run_a, run_b, labels, flux, peak, saturated, table, start, longest):
    """Sums over the pixels of each footprint, into ``table`` (n, 9) float64.

    Columns: area; sum, largest value and number of what `measure_runs` found of its runs; and sums of x, y,
    x^2, x y, y^2 over the pixels from ``start`` (n, 2), the x and y of the first one. ``longest`` (n,)
    becomes the index of the longest run.
    """
    table[:] = 0
    table[:, 2] = -np.inf
    longest[:] = -1
    for i in range(len(run_y)):
        k = labels[i]
        y, a, b = run_y[i], run_a[i], run_b[i]
        n = b - a
        if longest[k] < 0:
            start[k, 0], start[k, 1] = a, y
            longest[k] = i
        elif n > run_b[longest[k]] - run_a[longest[k]]:
            longest[k] = i
        da, dy = float(a - start[k, 0]), float(y - start[k, 1])
        last = da + n - 1
        sx = n * (da + last) / 2
        table[k, 0] += n
        table[k, 1] += flux[i]
        table[k, 2] = max(table[k, 2], peak[i])
        table[k, 3] += saturated[i]
        table[k, 4] += sx
        table[k, 5] += n * dy
        table[k, 6] += _squares(last) - _squares(da - 1)
        table[k, 7] += sx * dy
        table[k, 8] += n * dy * dy


@_inner
def _squares(n):
    """Sum of squares from 0 to n, a polynomial that also serves negative n."""
    return n * (n + 1) * (2 * n + 1) / 6
