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
from skysub.report.verdict import Flag, counted_flags
from skysub.text import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping

    from skysub.campaign.campaign import Campaign
    from skysub.campaign.status import Status

__all__ = ["SHOWN", "Snapshot", "VisitSummary", "Watch"]

SHOWN = ("sky", "skyNoise", "psfSigma", "zeroPoint", "chi2_per_freedom")
"""Figures of which a visit's median is shown."""


@dataclass(frozen=True)
class VisitSummary:
    """Flags and medians of the finished detectors of a visit."""

    flags: Mapping[str, tuple[int, ...]]
    """Detectors by flag."""
    medians: Mapping[str, float]


@dataclass(frozen=True)
class Snapshot:
    """A campaign at one moment."""

    number: int
    """Rises with each change."""
    campaign: Campaign
    status: Status
    visits: Mapping[int, VisitSummary] = field(default_factory=dict)
    """Those that have been looked at so far."""
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

    Raises
    ------
    SkysubError
        When there is no campaign, or its layout is not known.
    """

    def __init__(self, output: str | os.PathLike[str], *, every: float = 2.0) -> None:
        self._output = output
        self._place = place_at(output)
        self._every = every
        self._stop = threading.Event()
        campaign = open_campaign(output)
        self.latest = Snapshot(0, campaign, campaign.status())
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
            visits |= _summaries(campaign, None if whole else changed)
        if changed or status != self.latest.status or self.latest.trouble or not self.latest.number:
            self._publish(campaign=campaign, status=status, visits=visits)

    def _publish(self, **changes: Any) -> None:
        last = self.latest
        self.latest = replace(last, **{"number": last.number + 1, "trouble": "", **changes})


def _summaries(campaign: Campaign, visits: Collection[int] | None) -> dict[int, VisitSummary]:
    """Look at the markers of visits; of all at once where none are named, which is faster."""
    figures = campaign.figures(only=SHOWN, visits=visits)
    if not len(figures):
        return {}
    order = np.asarray(figures["visit"])
    starts = np.flatnonzero(np.diff(order, prepend=order[0] - 1))
    found = {}
    numbers = [name for name in SHOWN if name in figures.colnames and figures[name].dtype.kind in "fiu"]
    columns = {name: np.asarray(figures[name], np.float64) for name in numbers}
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
        found[int(order[start])] = VisitSummary({name: tuple(each) for name, each in flags.items()}, medians)
    return found
