"""What figures usually are, as campaigns before this one have them: who is unusual, and what has changed."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.campaign.campaign import open_campaign
from skysub.campaign.store.address import place_at
from skysub.report.outliers import DEVIATIONS, FEWEST, Outlier, least_scatter, robust_scatter
from skysub.report.rows import NOT_COMPARED, rows_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.campaign import Campaign
    from skysub.report.rows import Row

__all__ = ["MOST", "Change", "Reference", "reference_of"]

MOST = 20_000
"""Detectors of an earlier campaign that are looked at, those of its latest visits."""


@dataclass(frozen=True)
class Change:
    """A figure over this campaign beside the ones before, of one band."""

    name: str
    band: str
    unit: str
    """Of the pixels."""
    now: float
    """Median over this campaign's detectors."""
    before: float
    """Median over those of the campaigns before."""
    deviations: float
    """Difference of the two, in robust standard deviations of single detectors before."""
    same: int
    """Detectors of visits that both have."""
    same_change: float
    """Median difference of these, now minus before; NaN where there are none."""


class _Usual:
    """One figure of one band in the campaigns before."""

    def __init__(self, values: Sequence[tuple[int, int, float]]) -> None:
        self.of_unit = {(visit, detector): value for visit, detector, value in values}
        detectors = np.array([detector for _, detector, _ in values])
        known = np.array([value for _, _, value in values])
        self.median = float(np.median(known))
        least = least_scatter(known)
        self.scatter = max(robust_scatter(known), least)
        # a detector that was seen often enough is compared with itself: cameras' detectors differ
        self._own: dict[int, tuple[float, float]] = {}
        order = np.argsort(detectors, kind="stable")
        numbers, starts = np.unique(detectors[order], return_index=True)
        groups = dict(zip(numbers.tolist(), np.split(known[order], starts[1:]), strict=True))
        often = {number: own for number, own in groups.items() if own.size >= FEWEST}
        if not often:
            return
        # few values tell a scatter badly: all detectors about their own medians tell it together
        pooled = max(robust_scatter(np.concatenate([own - np.median(own) for own in often.values()])), least)
        for number, own in often.items():
            self._own[number] = float(np.median(own)), max(pooled, robust_scatter(own))

    def expected(self, detectors: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Medians and scatters, (n,) each."""
        usual = (self.median, self.scatter)
        found = np.array([self._own.get(number, usual) for number in detectors.tolist()], float)
        return found[:, 0], found[:, 1]


class Reference:
    """Figures of campaigns before, by band and unit of the pixels.

    Parameters
    ----------
    name
        What these campaigns are called in pages.
    rows
        Their finished detectors.
    """

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        self.name = name
        gathered: dict[tuple[str, str, str], list[tuple[int, int, float]]] = defaultdict(list)
        for row in rows:
            for figure, value in row.figures.items():
                if figure not in NOT_COMPARED and not isinstance(value, str) and math.isfinite(value):
                    gathered[row.band, row.unit, figure].append((row.visit, row.detector, float(value)))
        self._usual = {key: _Usual(values) for key, values in gathered.items() if len(values) >= FEWEST}

    def deviations(
        self, band: str, unit: str, name: str, detectors: NDArray[np.int64], values: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compare values of one figure with what is usual.

        A detector that was seen eight times or more is compared with itself, others with the band.

        Returns
        -------
        usual, deviations
            (n,) medians, and signed distances from them in robust standard deviations; NaN where nothing is
            known, and where a value is not finite.
        """
        known = self._usual.get((band, unit, name))
        if known is None:
            nothing = np.full(len(values), np.nan)
            return nothing, nothing
        median, scatter = known.expected(detectors)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.where(scatter > 0, (values - median) / scatter, np.nan)
        return median, away

    def outliers(self, rows: Sequence[Row]) -> list[Outlier]:
        """Detectors of this campaign that are unusual in some figure, farthest first."""
        found = []
        for (band, unit, name), group in _by_figure(rows).items():
            detectors = np.array([row.detector for row in group])
            values = np.array([float(row.figures[name]) for row in group])
            usual, away = self.deviations(band, unit, name, detectors, values)
            found += [
                Outlier(group[i], name, float(values[i]), float(usual[i]), float(away[i]))
                for i in np.nonzero(np.abs(away) > DEVIATIONS)[0]
            ]
        return sorted(found, key=lambda outlier: -abs(outlier.deviations))

    def changes(self, rows: Sequence[Row]) -> list[Change]:
        """How each figure of this campaign lies beside those before, the most changed first."""
        found = []
        for (band, unit, name), group in _by_figure(rows).items():
            known = self._usual.get((band, unit, name))
            if known is None:
                continue
            now = float(np.median([float(row.figures[name]) for row in group]))
            alike = [
                float(row.figures[name]) - known.of_unit[row.visit, row.detector]
                for row in group
                if (row.visit, row.detector) in known.of_unit
            ]
            found.append(
                Change(
                    name=name,
                    band=band,
                    unit=unit,
                    now=now,
                    before=known.median,
                    deviations=(now - known.median) / known.scatter if known.scatter else 0.0,
                    same=len(alike),
                    same_change=float(np.median(alike)) if alike else math.nan,
                )
            )
        return sorted(found, key=lambda change: -abs(change.deviations))


def reference_of(outputs: Iterable[str | os.PathLike[str]]) -> Reference | None:
    """Gather the figures of campaigns before, None where none is named.

    Of each the detectors of the latest visits are looked at, 20,000 at most.

    Raises
    ------
    CampaignNotFoundError
        When one of them is no campaign.
    """
    rows: list[Row] = []
    names = []
    for output in outputs:
        campaign = open_campaign(output)
        names.append(place_at(output).absolute().name)
        rows += rows_of(campaign, _latest_visits(campaign))
    return Reference(" and ".join(names), rows) if names else None


def _latest_visits(campaign: Campaign) -> list[int]:
    room = MOST
    chosen: list[int] = []
    table = campaign.visits
    for visit, detectors in zip(
        reversed(table["visit"].tolist()), reversed(table["detectors"].tolist()), strict=True
    ):
        room -= detectors
        if room < 0 and chosen:
            break
        chosen.append(visit)
    return chosen


def _by_figure(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for name, value in row.figures.items():
            if name not in NOT_COMPARED and not isinstance(value, str) and math.isfinite(value):
                groups[row.band, row.unit, name].append(row)
    return groups
