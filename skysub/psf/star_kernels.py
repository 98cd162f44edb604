"""Compiled loops over stars: which of them stand alone, and the share of each pixel inside a circle."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["disc_shares", "stand_alone"]

_compiled = njit(nogil=True, cache=True)
_AT_ONCE = 256
"""Footprints that are looked at before it is asked whether one of them disturbs."""


@_compiled
def stand_alone(candidates, x, y, flux, reach, share, distance, alone):
    """Whether no footprint with more than ``share`` of a candidate's flux lies close to it.

    Close is within ``distance`` and the other's ``reach``; ``candidates`` (n,) are indices of the footprints
    with ``x``, ``y``, ``flux`` and ``reach`` (m,) float64; ``alone`` (n,) bool is written.
    """
    for k in range(len(candidates)):
        own = candidates[k]
        least = share * flux[own]
        disturbed = False
        for start in range(0, len(x), _AT_ONCE):
            count = np.int32(0)
            for i in range(start, min(start + _AT_ONCE, len(x))):
                dx, dy, far = x[i] - x[own], y[i] - y[own], distance + reach[i]
                count += np.int32((flux[i] > least) & (dx * dx + dy * dy < far * far) & (i != own))
            if count:
                disturbed = True
                break
        alone[k] = not disturbed


@_compiled
def disc_shares(x, y, radius, shares):
    """Share of each pixel inside a circle about x, y (n,), by 5 x 5 points; written to shares (n, s, s)."""
    n, size, _ = shares.shape
    for k in range(n):
        for j in range(size):
            for i in range(size):
                dx, dy = i - x[k], j - y[k]
                middle = math.sqrt(dx * dx + dy * dy)
                if middle < radius - 1:
                    shares[k, j, i] = 1.0
                elif middle > radius + 1:
                    shares[k, j, i] = 0.0
                else:
                    inside = 0
                    for b in range(-2, 3):
                        py = j + b / 5 - y[k]
                        for a in range(-2, 3):
                            px = i + a / 5 - x[k]
                            inside += py * py + px * px <= radius * radius
                    shares[k, j, i] = inside / 25
