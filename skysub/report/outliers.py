"""Which detectors stand apart from the others of their band."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.report.rows import NOT_COMPARED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from skysub.report.rows import Row

__all__ = [
    "DEVIATIONS",
    "FEWEST",
    "Outlier",
    "find_outliers",
    "least_scatter",
    "numeric_figures",
    "robust_scatter",
]

DEVIATIONS = 5.0
"""Distance from the median, in robust standard deviations, from which a detector is named."""
FEWEST = 8
"""Detectors of a band that it takes to say what is usual."""
LEAST = 1e-3
"""Deviations are taken as this fraction of the median at least, as all values may be nearly one."""


@dataclass(frozen=True)
class Outlier:
    """A figure of a detector that is far from those of the others."""

    row: Row
    name: str
    value: float
    median: float
    """Of the same figure over those it is compared with, in the same unit."""
    deviations: float
    """Signed distance, in robust standard deviations (1.4826 times the median absolute deviation)."""


def numeric_figures(rows: Iterable[Row]) -> list[str]:
    """Names of all figures that are numbers of some row, in the order they are met."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.figures.items():
            if not isinstance(value, str) and math.isfinite(value):
                names[name] = None
    return list(names)


def find_outliers(rows: Sequence[Row]) -> list[Outlier]:
    """Detectors that stand apart in some figure, farthest first."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.band, row.unit].append(row)
    found = []
    for group in groups.values():
        for name in numeric_figures(group):
            if name in NOT_COMPARED:
                continue
            found += _of_figure(group, name)
    return sorted(found, key=lambda outlier: -abs(outlier.deviations))


def robust_scatter(values: NDArray[np.float64]) -> float:
    """1.4826 times the median absolute deviation: the standard deviation of normal values."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def least_scatter(values: NDArray[np.float64]) -> float:
    """Least by which a figure is taken as uncertain: counts by one, others by a thousandth."""
    return 1.0 if (values == np.rint(values)).all() else LEAST * abs(float(np.median(values)))


def _of_figure(group: list[Row], name: str) -> list[Outlier]:
    values = np.array([_number(row.figures.get(name)) for row in group])
    known = values[np.isfinite(values)]
    if known.size < FEWEST:
        return []
    median = float(np.median(known))
    scatter = max(robust_scatter(known), least_scatter(known))
    if scatter == 0:
        return []
    away = (values - median) / scatter
    return [
        Outlier(group[i], name, float(values[i]), median, float(away[i]))
        for i in np.nonzero(np.abs(away) > DEVIATIONS)[0]
    ]


def _number(value: float | str | None) -> float:
    return math.nan if value is None or isinstance(value, str) else float(value)
