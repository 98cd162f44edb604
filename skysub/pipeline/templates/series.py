"""What a detector or amplifier adds in every visit: a constant and a share of the sky.

A hierarchical normal model: each detector's constant and share come from one population, whose widths the
data set, and what a visit adds to them is normal as well. The answers are posterior means, so that few data
give little (James & Stein 1961; the widths by expectation and maximisation, Dempster, Laird & Rubin 1977).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Series", "regressed"]

_STEPS = 60
_CUT = 5.0
"""Pull at which a visit's value counts no more: an object that lay there, or a night that went wrong."""
_OWN = 6.0
"""Visits that the scatter of all detectors counts for beside a detector's own."""
_FEWEST_FOR_SHARE = 4
"""Visits from which a share of the sky is told from a constant."""
_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Series:
    """Constant and proportional part of n series of values, and how well they are known."""

    terms: NDArray[np.float64]
    """(n, 2): constant, unit of the values; share of the sky, no unit."""
    covariance: NDArray[np.float64]
    """(n, 2, 2) of the terms."""
    deviation: NDArray[np.float64]
    """(n,) standard deviation of a visit's value about them, unit of the values."""
    visits: NDArray[np.int64]
    """(n,) number of visits that had a value."""
    widths: NDArray[np.float64]
    """(2,) standard deviations of the terms in the population; the share's at the median level."""


def regressed(
    values: NDArray[np.float64], errors: NDArray[np.float64], levels: NDArray[np.float64]
) -> Series:
    """Fit every series robustly.

    Parameters
    ----------
    values, errors
        (V, n) a visit's value of each series and its standard deviation; NaN where there is none.
    levels
        (V,) of the sky in each visit, unit of the values.
    """
    seen = np.isfinite(values) & np.isfinite(errors)
    count = np.sum(seen, axis=0)
    reference = float(np.median(levels))
    reference = reference if abs(reference) > _SMALLEST else 1.0
    x = np.stack([np.ones(len(levels)), levels / reference], axis=1)
    with_share = int(np.sum(np.any(seen, axis=1))) >= _FEWEST_FOR_SHARE
    if not with_share:
        x[:, 1] = 0.0
    value, variance = np.where(seen, values, 0.0), np.where(seen, errors, 1.0) ** 2
    start = float(np.sqrt(np.mean(value[seen] ** 2))) if seen.any() else 0.0
    width = np.maximum(np.array([start, start if with_share else 0.0]), _SMALLEST)
    scatter = np.full(values.shape[1], max(_robust_scatter(value, seen) ** 2, _SMALLEST**2))
    believed = seen.astype(np.float64)
    terms, covariance = np.zeros((values.shape[1], 2)), np.zeros((values.shape[1], 2, 2))
    for step in range(_STEPS):
        w = believed / (variance + scatter)
        terms, covariance = _solved(x, value, w, width)
        off = value - np.einsum("vj,nj->vn", x, terms)
        unsure = np.einsum("vj,njk,vk->vn", x, covariance, x)
        pull = np.abs(off) / np.sqrt(variance + scatter)
        if step >= 5:
            believed = np.where(seen & (pull < _CUT), (1 - (pull / _CUT) ** 2) ** 2, 0.0)
        # what a visit adds of its own: expectation given its value, and what that leaves open
        share = scatter / (variance + scatter)
        added = (share * off) ** 2 + scatter * (1 - share) + share**2 * unsure
        total, number = np.sum(believed * added, axis=0), np.sum(believed, axis=0)
        common = float(np.sum(total)) / max(float(np.sum(number)), 1.0)
        scatter = np.maximum((total + _OWN * common) / (number + _OWN), _SMALLEST**2)
        known = count > 0
        if known.any():
            power = terms[known] ** 2 + np.stack([covariance[known, 0, 0], covariance[known, 1, 1]], axis=1)
            width = np.maximum(np.sqrt(np.mean(power, axis=0)), _SMALLEST)
            if not with_share:
                width[1] = _SMALLEST
    per_unit = np.array([1.0, 1.0 / reference])
    return Series(
        terms=terms * per_unit,
        covariance=covariance * per_unit[:, None] * per_unit,
        deviation=np.sqrt(scatter),
        visits=count,
        widths=width,
    )


def _solved(
    x: NDArray[np.float64], value: NDArray[np.float64], w: NDArray[np.float64], width: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior means (n, 2) and covariances (n, 2, 2)."""
    normal = np.einsum("vn,vj,vk->njk", w, x, x)
    normal[:, 0, 0] += 1 / width[0] ** 2
    normal[:, 1, 1] += 1 / width[1] ** 2
    right = np.einsum("vn,vj->nj", w * value, x)
    a, b, c = normal[:, 0, 0], normal[:, 0, 1], normal[:, 1, 1]
    determinant = np.maximum(a * c - b * b, 1e-300)
    covariance = np.empty_like(normal)
    covariance[:, 0, 0], covariance[:, 1, 1] = c / determinant, a / determinant
    covariance[:, 0, 1] = covariance[:, 1, 0] = -b / determinant
    return np.einsum("njk,nk->nj", covariance, right), covariance


def _robust_scatter(value: NDArray[np.float64], seen: NDArray[np.bool_]) -> float:
    """Scatter about each series' median, over all of them."""
    spread = []
    for column, there in zip(value.T, seen.T, strict=True):
        if there.sum() > 1:
            spread.append(column[there] - np.median(column[there]))
    return 1.4826 * float(np.median(np.abs(np.concatenate(spread)))) if spread else 0.0
