"""Loops over the words of a file: byte order and checksum in one pass, and what planes must not hold."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["count_bad_variance", "sum_words", "swap_and_sum", "union_of_bits"]

PIECE = 1 << 14
"""Pixels that are counted together."""


@numba.njit(nogil=True, cache=True)
def swap_and_sum(words, out):
    """Reverse the bytes of uint32 ``words`` into ``out`` (may be the same) and return their FITS sum."""
    total = np.uint64(0)
    for i in range(words.size):
        word = words[i]
        swapped = np.uint32(
            ((word & np.uint32(0xFF)) << np.uint32(24))
            | ((word & np.uint32(0xFF00)) << np.uint32(8))
            | ((word >> np.uint32(8)) & np.uint32(0xFF00))
            | (word >> np.uint32(24))
        )
        out[i] = swapped
        total += np.uint64(swapped)
    return total


@numba.njit(nogil=True, cache=True)
def sum_words(words):
    """Return the sum of big-endian uint32 words that were read on a little-endian machine."""
    total = np.uint64(0)
    for i in range(words.size):
        word = words[i]
        total += np.uint64(
            ((word & np.uint32(0xFF)) << np.uint32(24))
            | ((word & np.uint32(0xFF00)) << np.uint32(8))
            | ((word >> np.uint32(8)) & np.uint32(0xFF00))
            | (word >> np.uint32(24))
        )
    return total


@numba.njit(nogil=True, cache=True)
def union_of_bits(mask):
    """All bits that are set in any pixel of a flat integer mask."""
    union = mask[0] & 0
    for i in range(mask.size):
        union |= mask[i]
    return union


@numba.njit(nogil=True, cache=True)
def count_bad_variance(variance, mask):
    """Count unmasked pixels, and those of them without a positive finite variance; the first of these."""
    unmasked, bad, first = 0, 0, -1
    zero, infinite = np.float32(0), np.float32(np.inf)
    for start in range(0, variance.size, PIECE):
        values, planes = variance[start : start + PIECE], mask[start : start + PIECE]
        # narrow counts and no branch: vector code
        some, wrong = np.int32(0), np.int32(0)
        for i in range(values.size):
            looked_at = planes[i] == 0
            good = (values[i] > zero) & (values[i] < infinite)
            some = np.int32(some + np.int32(looked_at))
            wrong = np.int32(wrong + np.int32(looked_at & (not good)))
        if bad == 0 and wrong:
            for i in range(values.size):
                if planes[i] == 0 and not (values[i] > zero and values[i] < infinite):
                    first = start + i
                    break
        unmasked += some
        bad += wrong
    return unmasked, bad, first
