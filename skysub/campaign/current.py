"""The current run of each unit: the newest that names it, for the steps that count today."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from skysub.campaign.records import Exposure, VisitPlan
    from skysub.campaign.store.runs import Run

__all__ = ["Current", "Speaker", "VisitView", "chain_names"]


@dataclass(frozen=True)
class Speaker:
    """The run that holds a unit's result, or is to make it, and what it planned of the visit."""

    run: Run
    plan: VisitPlan


@dataclass(frozen=True)
class VisitView:
    """All that counts of one visit."""

    visit: int
    exposures: dict[int, Exposure]
    """By detector, in order, as the newest run that names it has it."""
    newest: dict[int, Run]
    """The newest run that names a detector."""
    units: dict[str, dict[int | None, Speaker]]
    """By step and detector (None: the visit itself)."""

    @property
    def run(self) -> Run:
        """The newest run that holds a result of it, or is to make one."""
        runs = {speaker.run.name: speaker.run for units in self.units.values() for speaker in units.values()}
        return runs[max(runs)]


class Current:
    """Visits of all runs: of each a few numbers are held, the rest is read when it is asked for.

    A step counts for a detector when the newest run that names the detector has it among its steps, so that a
    campaign with another step replaces one of the past.

    Parameters
    ----------
    runs
        Oldest first.
    """

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.visits: NDArray[np.int64] = (
            np.unique(np.concatenate([run.index.visit for run in runs])) if runs else np.empty(0, np.int64)
        )
        self.view = functools.lru_cache(maxsize=8)(self._view)

    @property
    def steps(self) -> list[str]:
        """Steps of the newest run, in order, and then those of older ones that it does not have."""
        return list(dict.fromkeys(name for run in reversed(self.runs) for name in chain_names(run)))

    def naming(self, visit: int) -> list[tuple[Run, int]]:
        """Runs that name a visit, oldest first, and its place in their indexes."""
        found = []
        for run in self.runs:
            row = run.index.row(visit)
            if row is not None:
                found.append((run, row))
        return found

    def views(self, visits: Collection[int] | None = None) -> Iterator[VisitView]:
        """Go through all visits, or some."""
        for visit in self.visits if visits is None else sorted(visits):
            view = self.view(int(visit))
            if view is not None:
                yield view

    def _view(self, visit: int) -> VisitView | None:
        """One visit; None where no run names it."""
        plans = [(run, plan) for run, _ in self.naming(visit) if (plan := run.plan_of(visit)) is not None]
        if not plans:
            return None
        newest: dict[int, Run] = {}
        exposures: dict[int, Exposure] = {}
        units: dict[str, dict[int | None, Speaker]] = {}
        for run, plan in plans:
            for detector, exposure in plan.exposures.items():
                newest[detector], exposures[detector] = run, exposure
            for step, named in plan.steps.items():
                for each, holder in named.holders.items():
                    speaker = Speaker(run, plan)
                    if holder:
                        there = run.other(holder)
                        held = there.plan_of(visit)
                        if held is None:
                            continue
                        speaker = Speaker(there, held)
                    units.setdefault(step, {})[each] = speaker
        last = plans[-1][0]
        order = [name for name in self.steps if name in units]
        kept = {
            step: {
                detector: units[step][detector]
                for detector in sorted(units[step], key=lambda each: -1 if each is None else each)
                if step in chain_names(last if detector is None else newest[detector])
            }
            for step in order
        }
        return VisitView(
            visit=visit,
            exposures=dict(sorted(exposures.items())),
            newest=newest,
            units={step: named for step, named in kept.items() if named},
        )


def chain_names(run: Run) -> list[str]:
    """Names of a run's steps."""
    return [step.name for step in run.record.steps]
