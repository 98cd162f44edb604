"""Saturated stars: one for each saturated region, where its core is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.frame import SATURATED
from skysub.sources.detect import grown, runs_above

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame

__all__ = ["find_saturated"]

_LIKE_LONGEST = 0.9
"""Runs of a region that are nearly as long as its longest lie across the core, not along a bleed."""
_FEWEST = 3
"""Pixels of a saturated star at least; fewer are defects."""


def find_saturated(
    frame: Frame, margin: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_] | None]:
    """Cores of saturated regions.

    Returns
    -------
    y, x
        (n,) middle of each core, pixel.
    near
        (ny, nx) pixels within ``margin`` of a saturated one; None where there is none.
    """
    saturated = (frame.state & SATURATED) != 0
    if not saturated.any():
        return np.empty(0), np.empty(0), None
    runs = runs_above(saturated.astype(np.float32), 0.5, 0.5)
    n = runs.footprints
    length = (runs.stop - runs.start).astype(np.float64)
    longest, pixels = np.zeros(n), np.bincount(runs.label, weights=length, minlength=n)
    np.maximum.at(longest, runs.label, length)
    across = length >= _LIKE_LONGEST * longest[runs.label]
    weight = np.where(across, length, 0.0)
    total = np.bincount(runs.label, weights=weight, minlength=n)
    y = np.bincount(runs.label, weights=weight * runs.y, minlength=n) / total
    x = np.bincount(runs.label, weights=weight * (runs.start + runs.stop - 1) / 2, minlength=n) / total
    star = pixels >= _FEWEST
    near = grown(runs, np.full(n, margin), frame.shape)
    return y[star], x[star], near
