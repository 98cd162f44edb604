"""Compiled painting: shapes as runs of bits, and planes of bits into planes of flags and masks.

A plane of bits is uint64 (ny, words), pixel 64 i + j being bit j of word i.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)

_LAST = np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_EACH_BYTE = np.uint64(0x0101010101010101)
_DIAGONAL = np.uint64(0x8040201008040201)
_ALL_BUT_TOP = np.uint64(0x7F7F7F7F7F7F7F7F)
_SEVEN = np.uint64(7)


@_inner
def _paint(bits, y, a, b):
    """Set the bits of columns a to b - 1 of a row; nothing where b <= a."""
    if b <= a:
        return
    first, last = a >> 6, (b - 1) >> 6
    head = _ALL << (np.uint64(a) & _LAST)
    tail = _ALL >> (_LAST - (np.uint64(b - 1) & _LAST))
    if first == last:
        bits[y, first] |= head & tail
        return
    bits[y, first] |= head
    for w in range(first + 1, last):
        bits[y, w] = _ALL
    bits[y, last] |= tail


@_compiled
def paint_runs(run_y, run_a, run_b, labels, radius, nx, bits):
    """Set the bits within ``radius[label]`` pixels of each run; a negative radius or label paints nothing."""
    ny = bits.shape[0]
    for i in range(len(run_y)):
        if labels[i] < 0:
            continue
        r = radius[labels[i]]
        if r < 0:
            continue
        for dy in range(-int(r), int(r) + 1):
            y = run_y[i] + dy
            if 0 <= y < ny:
                w = int(np.sqrt(r * r - dy * dy))
                _paint(bits, y, max(0, run_a[i] - w), min(nx, run_b[i] + w))


@_compiled
def paint_ellipses(centre_x, centre_y, xx, xy, yy, nx, bits):
    """Set the bits inside d^T M^-1 d <= 1 about each centre, M = [[xx, xy], [xy, yy]] pixel^2."""
    ny = bits.shape[0]
    for i in range(len(centre_x)):
        det = xx[i] * yy[i] - xy[i] * xy[i]
        if not det > 0:
            continue
        height = np.sqrt(yy[i])
        low = max(0, int(np.ceil(centre_y[i] - height)))
        for y in range(low, min(ny - 1, int(centre_y[i] + height)) + 1):
            t = (y - centre_y[i]) / yy[i]
            middle = centre_x[i] + xy[i] * t
            inside = det / yy[i] * (1 - t * t * yy[i])
            if inside < 0:
                continue
            w = np.sqrt(inside)
            _paint(bits, y, max(0, int(np.ceil(middle - w))), min(nx - 1, int(np.floor(middle + w))) + 1)


@_inner
def _unpack(bits, value, out):
    """Bytes of ``value`` where a bit of a row is set, of 0 elsewhere; eight bytes to a word of ``out``."""
    value = np.uint64(value)
    for i in range(len(bits)):
        spread = (np.uint64(bits[i]) * _EACH_BYTE) & _DIAGONAL
        ones = ((spread + _ALL_BUT_TOP) >> _SEVEN) & _EACH_BYTE
        out[i] = ones * value


@_compiled
def flag_painted(bits, kept, value, flags):
    """Flags of which the bits ``kept`` stay, and ``value`` is set where a bit of ``bits`` is.

    ``bits`` is a plane of bits seen as bytes, uint8 (ny, bytes).
    """
    ny, nx = flags.shape
    words = np.empty(bits.shape[1], np.uint64)
    painted = words.view(np.uint8)
    kept = np.uint8(kept)
    for y in range(ny):
        _unpack(bits[y], value, words)
        row = flags[y]
        for x in range(nx):
            row[x] = (row[x] & kept) | painted[x]


@_compiled
def paint_blocks(blocks, size, value, flags):
    """Set bits ``value`` in all pixels of the blocks, (by, bx) bool, of ``size`` pixels."""
    ny, nx = flags.shape
    value = np.uint8(value)
    row_bits = np.zeros(blocks.shape[1] * size, np.uint8)
    for j in range(blocks.shape[0]):
        chosen = blocks[j]
        some = False
        for i in range(blocks.shape[1]):
            some |= chosen[i]
            row_bits[i * size : (i + 1) * size] = value if chosen[i] else np.uint8(0)
        if some:
            for y in range(j * size, min(ny, (j + 1) * size)):
                row = flags[y]
                for x in range(nx):
                    row[x] |= row_bits[x]


@_compiled
def set_bits(flags, flag, bits, kept, mask):
    """Keep the bits ``kept`` of the mask, and set ``bits`` wherever any of ``flag`` is in the flags."""
    flag = np.uint8(flag)
    none = bits ^ bits
    for y in range(mask.shape[0]):
        row, marks = mask[y], flags[y]
        for x in range(mask.shape[1]):
            row[x] = (row[x] & kept) | (bits if (marks[x] & flag) != 0 else none)
