"""Pixels that image + background, both float32, does not give back."""

from __future__ import annotations

import math

from numba import njit

__all__ = ["count_differences", "differences"]

_compiled = njit(nogil=True, cache=True)


@_compiled
def count_differences(pixels, background, left):
    """Count the places where ``left + background`` is not ``pixels``; NaN is NaN, whatever its bits."""
    count = 0
    for i in range(pixels.size):
        v = pixels[i]
        count += (left[i] + background[i] != v) & (not math.isnan(v))
    return count


@_compiled
def differences(pixels, background, left, places, values):
    """List those places, and what ``pixels`` has there."""
    count = 0
    for i in range(pixels.size):
        v = pixels[i]
        if left[i] + background[i] != v and not math.isnan(v):
            places[count] = i
            values[count] = v
            count += 1
    return count
