"""How far each superpixel is believed: weights that lean away from light once the model follows the sky.

The first weights are those of a convex loss, which has one minimum wherever it starts (Huber 1964); bisquare
weights start from there, symmetric ones. Only where residuals lean upwards, as light leaves them, and the
darker side shows no more than noise, is the upper cut narrowed: asymmetric weights on a model that underfits
would drag its level down.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.robust import RobustConfig

__all__ = ["Judge", "bisquare", "centre_of", "huber"]

_HUBER = 1.345
"""Cut of the convex loss, which costs 5 % of efficiency on normal noise."""
_NORMAL = 1.4826
"""Standard deviation of normal noise over the median of its absolute values."""
_LIKE_OTHERS = 100.0
"""A detector's own scatter counts as much as the visit's once it has this many superpixels below the
model."""
_LEAN = (0.15, 0.45)
"""Share of the squares on one side between which residuals come to tell of light."""
_FOLLOWED = (1.3, 2.0)
"""Scatter on the dark side, over the noise, between which the model no longer follows the sky."""
_FEW = 5


@dataclass(frozen=True, slots=True)
class Judge:
    """The errors and cuts by which one pass weighs superpixels."""

    spread: tuple[float, ...]
    """By detector: what errors are multiplied by so that the darker side is as wide as noise."""
    above: float
    below: float

    def weights(self, pulls: NDArray[np.float64], number: int) -> NDArray[np.float64]:
        """Weights of a detector's superpixels from residuals over their errors."""
        return bisquare(pulls / self.spread[number], self.above, self.below)


def huber(pulls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of a loss that grows linearly beyond its cut."""
    weights: NDArray[np.float64] = np.minimum(1.0, _HUBER / np.maximum(np.abs(pulls), 1e-30))
    return weights


def bisquare(pulls: NDArray[np.float64], above: float, below: float) -> NDArray[np.float64]:
    """Weights that fall to zero at the cuts."""
    t = pulls / np.where(pulls > 0, above, below)
    weights: NDArray[np.float64] = np.where(np.abs(t) < 1, (1 - t * t) ** 2, 0.0)
    return weights


def spreads(pulls: Sequence[NDArray[np.float64]]) -> tuple[float, ...]:
    """By detector, how much wider than noise residuals are below the model; at least 1.

    Those of a detector are averaged with those of the visit, the more so the fewer it has.
    """
    below = [-part[part < 0] for part in pulls]
    every = np.concatenate(below) if below else np.zeros(0)
    if len(every) < _FEW:
        return (1.0,) * len(below)
    visit = (_NORMAL * float(np.median(every))) ** 2
    found = []
    for part in below:
        own = (_NORMAL * float(np.median(part))) ** 2 if len(part) >= _FEW else visit
        share = len(part) / (len(part) + _LIKE_OTHERS)
        found.append(math.sqrt(max(1.0, share * own + (1 - share) * visit)))
    return tuple(found)


def symmetric(robust: RobustConfig, spread: tuple[float, ...]) -> Judge:
    """Cuts alike on both sides."""
    wide = max(robust.cut_above, robust.cut_below)
    return Judge(spread, wide, wide)


def leaning(
    robust: RobustConfig, spread: tuple[float, ...], pulls: Sequence[NDArray[np.float64]], light: float
) -> Judge:
    """Cuts that lean as far as the residuals of a symmetric fit justify.

    Parameters
    ----------
    light
        From 0 to 1: how sure it is from the detectors' own fits that there is light as large as superpixels.
    """
    wide = max(robust.cut_above, robust.cut_below)
    if not any(len(part) for part in pulls):
        return symmetric(robust, spread)
    scaled = np.concatenate([part / s for part, s in zip(pulls, spread, strict=True)])
    squares = np.minimum(np.abs(scaled), robust.cut_below) ** 2
    total = float(np.sum(squares))
    lean = float(np.sum(np.where(scaled > 0, squares, -squares))) / total if total > 0 else 0.0
    followed = 1 - _between(float(np.median(spread)), _FOLLOWED)
    share = max(_between(lean, _LEAN), light * followed)
    return Judge(spread, wide + share * (robust.cut_above - wide), robust.cut_below)


def _between(value: float, limits: tuple[float, float]) -> float:
    """0 below the first limit, 1 above the second, a straight line in between."""
    return min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))


@functools.lru_cache(maxsize=64)
def centre_of(above: float, below: float) -> float:
    """Where bisquare weights of these cuts put the centre of normal noise of 1: z of E[w(z) z] = 0."""
    z = np.linspace(-6, 6, 1201)
    density = np.exp(-0.5 * z * z)
    centre = 0.0
    for _ in range(30):
        w = bisquare(z - centre, above, below) * density
        centre = float(np.sum(w * z) / np.sum(w))
    return centre
