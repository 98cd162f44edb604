"""Compiled look-up of the mask around sources."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["collect_bits"]


@njit(nogil=True, cache=True, error_model="numpy")
def collect_bits(mask, unusable, y, x, radius, core, around, centre, lost):
    """All bits within a circle about each place, those within ``core`` pixels, and if any is unusable."""
    ny, nx = mask.shape
    for k in range(len(y)):
        cy, cx, r = int(np.rint(y[k])), int(np.rint(x[k])), radius[k]
        every, middle, some = np.int64(0), np.int64(0), False
        for j in range(max(0, cy - r), min(ny, cy + r + 1)):
            for i in range(max(0, cx - r), min(nx, cx + r + 1)):
                if (j - cy) ** 2 + (i - cx) ** 2 <= r * r:
                    every |= np.int64(mask[j, i])
                    some |= unusable[j, i] != 0
                if abs(j - cy) <= core and abs(i - cx) <= core:
                    middle |= np.int64(mask[j, i])
        around[k], centre[k], lost[k] = every, middle, some
