"""Which value has which colour: one scale for all pictures that are to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.report.colour import css_gradient, diverging, mask_palette, sequential
from skysub.report.png import data_url, indexed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from skysub.report.views import View

__all__ = [
    "Scale",
    "centred_scale",
    "image_scale",
    "map_scale",
    "mask_url",
    "residual_scale",
    "share_scale",
    "sky_scale",
]

SAMPLE = 4000
"""Values of a picture that help to choose a scale."""


@dataclass(frozen=True)
class Scale:
    """Colours of values from ``low`` to ``high``; what lies beyond has the colour of the end."""

    low: float
    high: float
    unit: str
    zero_centred: bool = False

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(255, 3) uint8 sRGB."""
        return diverging() if self.zero_centred else sequential()

    @property
    def gradient(self) -> str:
        """CSS background of the colour bar."""
        return css_gradient(self.palette)

    @property
    def ticks(self) -> tuple[str, str, str]:
        """Words at the start, middle and end of the colour bar."""
        middle = (self.low + self.high) / 2
        digits = _digits(self.high - self.low)
        low, middle_word, high = (
            f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}") for value in (self.low, middle, self.high)
        )
        if self.zero_centred:
            return low, "0", f"+{high}"
        return low, middle_word, high

    def url(self, values: NDArray[np.floating]) -> str:
        """Picture (ny, nx) of values as a ``data:`` URL, row 0 at the bottom; NaN is transparent."""
        return data_url(indexed(values, self.low, self.high), self.palette)


def image_scale(views: Iterable[View], unit: str) -> Scale:
    """Scale of the images of one visit: all but the brightest and darkest hundredths of their cells."""
    lows, highs = [], []
    for view in views:
        known = _sample(view.pictures["image"])
        if known.size:
            lows.append(np.percentile(known, 1))
            highs.append(np.percentile(known, 98))
    if not lows:
        return Scale(0.0, 1.0, unit)
    return _widened(float(np.min(lows)), float(np.median(highs)), unit)


def sky_scale(views: Sequence[View], unit: str) -> Scale:
    """Scale of the models of one visit and of the superpixels they were fit to.

    It holds 49 of 50 detectors' models, and 96 of 100 of their superpixels.
    """
    lows, highs = [], []
    for view in views:
        model, means = (_sample(view.pictures[name]) for name in ("model", "superpixels"))
        if model.size and means.size:
            low, high = np.percentile(means, [2, 98])
            lows.append(min(model.min(), low))
            highs.append(max(model.max(), high))
    if not lows:
        return Scale(0.0, 1.0, unit)
    # a value that is one of them: the very ends where there are few
    low, high = np.percentile(lows, 2, method="lower"), np.percentile(highs, 98, method="higher")
    return _widened(float(low), float(high), unit)


def residual_scale(views: Sequence[View], unit: str) -> Scale:
    """Scale of all residuals of a campaign in one unit: as far as 99 of 100 cells reach from zero."""
    return centred_scale([view.pictures["residual"] for view in views], unit)


def centred_scale(arrays: Iterable[NDArray[np.floating]], unit: str) -> Scale:
    """Scale with zero in its middle: as far as 99 of 100 values reach, in the median of the arrays."""
    reach = [np.percentile(np.abs(known), 99) for array in arrays if (known := _sample(array)).size]
    most = float(np.median(reach)) if reach else 1.0
    return Scale(-most or -1.0, most or 1.0, unit, zero_centred=True)


def map_scale(arrays: Iterable[NDArray[np.floating]], unit: str) -> Scale:
    """Scale of one map of all detectors of a campaign: 98 of 100 values."""
    samples = [known for array in arrays if (known := _sample(array)).size]
    if not samples:
        return Scale(0.0, 1.0, unit)
    low, high = np.percentile(np.concatenate(samples), [1, 99])
    return _widened(float(low), float(high), unit)


def share_scale() -> Scale:
    """Scale of shares, given in percent."""
    return Scale(0.0, 100.0, "%")


def mask_url(sources: NDArray[np.floating], defects: NDArray[np.floating]) -> str:
    """Picture of what covers each cell, from two shares."""
    places = [np.ceil(15 * np.nan_to_num(share)).astype(np.uint8) for share in (defects, sources)]
    return data_url(16 * places[0] + places[1], mask_palette())


def _sample(values: NDArray[np.floating]) -> NDArray[np.floating]:
    known = values[np.isfinite(values)]
    sample: NDArray[np.floating] = known[:: max(1, known.size // SAMPLE)]
    return sample


def _widened(low: float, high: float, unit: str) -> Scale:
    """A scale whose ends are round numbers."""
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        room = 1e-3 * max(abs(low), abs(high)) or 1.0
        low, high = low - room, high + room
    width = high - low
    step = 10.0 ** np.floor(np.log10(width) - 1)
    return Scale(float(np.floor(low / step) * step), float(np.ceil(high / step) * step), unit)


def _digits(width: float) -> int:
    return int(np.clip(np.ceil(1 - np.log10(max(width, 1e-9))), 0, 6))
