"""Previews as text, for markers: a byte for each number, finer near the sky's level than far from it.

What is kept of a number is the inverse hyperbolic sine of its distance from the median, as asinh magnitudes
have it (Lupton et al. 1999, AJ 118, 1406): even steps of a fraction of the scatter near the median, even
ratios far from it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.store.backgrounds import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["packed_preview", "unpacked_preview"]

_SHARES = ("sources", "defects")
_SHARE_STEPS = 63
_STEPS = 8
"""Steps to the scatter of a picture's numbers."""
_MOST, _NOTHING = 127, -128
"""Largest number of steps to either side, and what stands for NaN."""
_TO_SIGMA = 1.4826


def packed_preview(preview: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Return a preview as text: its numbers to a sixteenth of their scatter or 10 %, its shares to 1 %."""
    kept: dict[str, Any] = {}
    for name, values in preview.items():
        if name in _SHARES:
            kept[name] = packed(np.rint(_SHARE_STEPS * values).astype(np.uint8))
            continue
        known = np.isfinite(values)
        numbers = values[known].astype(np.float64)
        level = float(np.median(numbers)) if numbers.size else 0.0
        unit, bend = _bend(np.abs(numbers - level))
        codes = np.full(values.shape, _NOTHING, np.int8)
        codes[known] = np.rint(np.arcsinh((numbers - level) / unit) / bend)
        kept[name] = {**packed(codes), "level": level, "unit": unit, "bend": bend}
    return kept


def unpacked_preview(kept: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return the preview that `packed_preview` wrote, arrays (gy, gx) float32."""
    found = {}
    for name, text in kept.items():
        codes = unpacked(text)
        if name in _SHARES:
            found[name] = (codes / _SHARE_STEPS).astype(np.float32)
            continue
        values = text["level"] + text["unit"] * np.sinh(text["bend"] * codes.astype(np.float64))
        found[name] = np.where(codes == _NOTHING, np.nan, values).astype(np.float32)
    return found


def _bend(off: NDArray[np.float64]) -> tuple[float, float]:
    """Unit and bend so that a code of 1 is a step of the scatter, and one of `_MOST` the largest distance.

    A code c stands for unit sinh(bend c).
    """
    most = float(off.max(initial=0))
    scatter = _TO_SIGMA * float(np.median(off)) if off.size else 0.0
    if not most > 0:
        return 1.0, 1.0 / _MOST
    step = min(max(scatter / _STEPS, 1e-9 * most), most / _MOST)
    low, high = 1e-6, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if math.sinh(_MOST * middle) > most / step * math.sinh(middle):
            high = middle
        else:
            low = middle
    return step / math.sinh(low), low
