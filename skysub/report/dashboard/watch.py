"""What the pages say of a whole campaign: read again and again in the background, so that no click waits."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.campaign import open_campaign
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import open_runs
from skysub.errors import SkysubError
from skysub.report.outliers import DEVIATIONS
from skysub.report.rows import row_of
from skysub.report.verdict import Flag, counted_flags
from skysub.text import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.campaign import Campaign
    from skysub.campaign.status import Status
    from skysub.report.reference import Reference

__all__ = ["SHOWN", "Snapshot", "Unusual", "VisitSummary", "Watch"]

SHOWN = ("sky", "skyNoise", "psfSigma", "zeroPoint", "chi2_per_freedom")
"""Figures of which a visit's median is shown."""


@dataclass(frozen=True)
class Unusual:
    """A figure of a detector that is far from what campaigns before have."""

    detector: int
    name: str
    value: float
    usual: float
    deviations: float
    """Signed distance, in robust standard deviations of those campaigns."""


@dataclass(frozen=True)
class VisitSummary:
    """Flags and medians of the finished detectors of a visit."""

    flags: Mapping[str, tuple[int, ...]]
    """Detectors by flag."""
    medians: Mapping[str, float]
    unusual: tuple[Unusual, ...] = ()
    """The farthest first."""


@dataclass(frozen=True)
class Snapshot:
    """A campaign at one moment."""

    number: int
    """Rises with each change."""
    campaign: Campaign
    status: Status
    visits: Mapping[int, VisitSummary] = field(default_factory=dict)
    """Those that have been looked at so far."""
    against: str = ""
    """Names of the campaigns before that it is compared with; empty: none."""
    trouble: str = ""
    """Why it is not newer; empty where it is up to date."""

    def flags(self, visit: int | None = None) -> list[Flag]:
        """Flags of all detectors, or of those of a visit, the most frequent first."""
        wanted = sorted(self.visits, reverse=True) if visit is None else [visit]
        return counted_flags(
            (name, number, detectors)
            for number in wanted
            if number in self.visits
            for name, detectors in self.visits[number].flags.items()
        )


class Watch:
    """Looks at a campaign in a thread of its own.

    Parameters
    ----------
    output
        Folder or address of the campaign.
    every
        Seconds between two looks; a look that takes long is followed by as long a pause at least.
    reference
        What figures usually are; None where there is no campaign before.

    Raises
    ------
    SkysubError
        When there is no campaign, or its layout is not known.
    """

    def __init__(
        self, output: str | os.PathLike[str], *, every: float = 2.0, reference: Reference | None = None
    ) -> None:
        self._output = output
        self._place = place_at(output)
        self._every = every
        self._stop = threading.Event()
        campaign = open_campaign(output)
        self._reference = reference
        name = "" if reference is None else reference.name
        self.latest = Snapshot(0, campaign, campaign.status(), against=name)
        """The newest snapshot."""
        self._thread = threading.Thread(target=self._watch, name="skysub-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                self._look()
            except (SkysubError, OSError) as error:
                self._publish(trouble=printable(error))
            pause = max(self._every, time.monotonic() - began)

    def _look(self) -> None:
        last = self.latest
        campaign = last.campaign
        if campaign.runs != tuple(run.name for run in open_runs(self._place)):
            campaign = open_campaign(self._output)
        status = campaign.status() if last.number else last.status
        before = {row["visit"]: row for row in last.status.by_visit} if last.visits else {}
        changed = [row["visit"] for row in status.by_visit if row["done"] and row != before.get(row["visit"])]
        visits = {**last.visits}
        if changed:
            # the counts first: figures of many visits take a while
            if not last.number:
                self._publish(campaign=campaign, status=status)
            whole = len(changed) == len(status.by_visit)
            visits |= _summaries(campaign, None if whole else changed, self._reference)
        if changed or status != self.latest.status or self.latest.trouble or not self.latest.number:
            self._publish(campaign=campaign, status=status, visits=visits)

    def _publish(self, **changes: Any) -> None:
        last = self.latest
        self.latest = replace(last, **{"number": last.number + 1, "trouble": "", **changes})


def _summaries(
    campaign: Campaign, visits: Collection[int] | None, reference: Reference | None
) -> dict[int, VisitSummary]:
    """Look at the markers of visits; of all at once where none are named, which is faster."""
    figures = campaign.figures(only=SHOWN, visits=visits)
    if not len(figures):
        return {}
    order = np.asarray(figures["visit"])
    starts = np.flatnonzero(np.diff(order, prepend=order[0] - 1))
    found = {}
    numbers = [name for name in SHOWN if name in figures.colnames and figures[name].dtype.kind in "fiu"]
    columns = {name: np.asarray(figures[name], np.float64) for name in numbers}
    # all detectors of a camera have it; looking for it in each marker would take long
    unit = ""
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        flags: dict[str, list[int]] = {}
        for detector, text in zip(
            figures["detector"][start:stop].tolist(), figures["flags"][start:stop].tolist(), strict=True
        ):
            for name in text.split(",") if text else ():
                flags.setdefault(name.strip(), []).append(int(detector))
        medians = {}
        for name, values in columns.items():
            known = values[start:stop]
            known = known[np.isfinite(known)]
            if known.size:
                medians[name] = float(np.median(known))
        visit = int(order[start])
        unusual: tuple[Unusual, ...] = ()
        if reference is not None:
            detectors = np.asarray(figures["detector"][start:stop])
            unit = unit or row_of(campaign, visit, int(detectors[0])).unit
            bands = figures["band"][start:stop].tolist()
            own = {name: values[start:stop] for name, values in columns.items()}
            unusual = _unusual(reference, unit, bands, detectors, own)
        flagged = {name: tuple(each) for name, each in flags.items()}
        found[visit] = VisitSummary(flagged, medians, unusual)
    return found


def _unusual(
    reference: Reference,
    unit: str,
    bands: Sequence[str],
    detectors: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float64]],
) -> tuple[Unusual, ...]:
    found = []
    for band in dict.fromkeys(bands):
        own = np.array([each == band for each in bands])
        for name, values in columns.items():
            usual, away = reference.deviations(band, unit, name, detectors[own], values[own])
            found += [
                Unusual(int(detectors[own][i]), name, float(values[own][i]), float(usual[i]), float(away[i]))
                for i in np.flatnonzero(np.abs(away) > DEVIATIONS)
            ]
    return tuple(sorted(found, key=lambda each: -abs(each.deviations)))
