"""Loops over the words of a file: byte order and checksum in one pass, and what planes must not hold."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["count_bad_variance", "sum_words", "swap_and_sum", "union_of_bits"]


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
    for i in range(variance.size):
        if mask[i] == 0:
            unmasked += 1
            if not (variance[i] > 0 and variance[i] < np.inf):
                if bad == 0:
                    first = i
                bad += 1
    return unmasked, bad, first
