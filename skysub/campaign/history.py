"""What earlier runs planned and did, looked up visit by visit, as the units of a new plan are."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from skysub.campaign.inputs import is_unchanged
from skysub.campaign.reading import entry_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from skysub.campaign.chain import Chain, Link
    from skysub.campaign.products.base import Storing
    from skysub.campaign.records import Exposure, StepPlan, VisitPlan
    from skysub.campaign.store.runs import Run

__all__ = ["History"]


class History:
    """Runs of a campaign, of which one visit is looked at at a time.

    Parameters
    ----------
    runs
        Oldest first.
    chain
        Steps of the recipe.
    storing
        What the recipe wants to be kept.
    verify
        Compare what finished units wrote with their checksums; those that differ count as not done (and
        their markers are removed).
    """

    def __init__(self, runs: list[Run], chain: Chain, storing: Storing, *, verify: bool) -> None:
        self._chain = chain
        self._storing = storing
        self._verify = verify
        self._runs = {run.name: run for run in runs}
        self.last = runs[-1].name if runs else ""
        # of equal visits the newest run's come first
        self._ahead = heapq.merge(*map(_plans, reversed(runs)), key=lambda row: row[1].visit)
        self._next = next(self._ahead, None)
        self._plans: dict[str, VisitPlan] = {}
        self._visit = 0
        self._exposures: Mapping[int, Exposure] = {}
        self._done: dict[tuple[str, str], set[int | None]] = {}
        self._finished: dict[tuple[str, str], set[int]] = {}
        self._same: dict[tuple[str, int], bool] = {}
        self._same_visit: dict[str, bool] = {}
        self._serving: dict[tuple[str, str], bool] = {}
        self._lacked: set[str] = set()
        """Steps over the visit that are redone because a detector that was missing is there now."""

    def turn_to(self, visit: int, exposures: Mapping[int, Exposure]) -> None:
        """Look at a visit as a recipe means it; visits are to be looked at in rising order."""
        self._plans, self._done, self._same, self._lacked = {}, {}, {}, set()
        self._same_visit = {}
        self._visit, self._exposures = visit, exposures
        while self._next is not None and self._next[1].visit <= visit:
            if self._next[1].visit == visit:
                self._plans[self._next[0]] = self._next[1]
            self._next = next(self._ahead, None)

    def holder(
        self, link: Link, detector: int | None, key: str, chosen: Mapping[str, Mapping[int | None, str]]
    ) -> tuple[str, bool, str]:
        """Which run holds a unit's result, whether the newest word on the unit says so, and if none why not.

        ``chosen``: who holds the results of the steps before, empty where nobody does.
        """
        why, position = "", 0
        for name, plan in self._plans.items():
            step = plan.steps.get(link.name)
            if step is None or detector not in step.holders:
                continue
            position += 1
            run = self._runs.get(step.holders[detector] or name)
            if run is None or run.name not in self._plans or not self._is_done(run, link.name, detector):
                continue
            held = self._plans[run.name]
            if held.steps[link.name].keys.get(detector) != key or not self._serves(run, link):
                why = why or "settings"
            elif not self._same_inputs(run, held, link, detector):
                why = "input"
            elif not self._same_detectors(run, held, link, detector, chosen):
                why = why or "detectors"
            elif self._verify and not self._is_sound(run, held, link.name, detector):
                run.markers(link.name).forget(self._visit, detector)
                self._done.pop((run.name, link.name), None)
                self._finished[run.name, link.name].discard(self._visit)
            else:
                return run.name, position == 1, ""
        if detector is None and why == "detectors":
            self._lacked.add(link.name)
        return "", False, why

    def planned_last(
        self, link: Link, detector: int | None, key: str, chosen: Mapping[str, Mapping[int | None, str]]
    ) -> bool:
        """Whether the last run plans this very unit, with these inputs."""
        plan = self._plans.get(self.last)
        step = None if plan is None else plan.steps.get(link.name)
        if plan is None or step is None or step.holders.get(detector) != "":
            return False
        wanted = self._exposures if detector is None else {detector: self._exposures[detector]}
        for each, exposure in wanted.items():
            planned = plan.exposures.get(each)
            if planned is None or (planned.size, planned.mtime_ns) != (exposure.size, exposure.mtime_ns):
                return False
            # the planned file may be gone while a copy is there, or its header be understood otherwise
            if (planned.path, planned.shape) != (exposure.path, exposure.shape):
                return False
        if step.keys[detector] != key or not self._serves(self._runs[self.last], link):
            return False
        return all(
            need in plan.steps
            and plan.steps[need].holders.get(each) == ("" if holder == self.last else holder)
            for need in link.needs
            for each, holder in chosen[need].items()
            if detector is None or each in {None, detector}
        )

    def failed(self, step: str, detector: int) -> bool:
        """Whether the newest run that names a detector's unit tried it and failed."""
        for name, plan in self._plans.items():
            named = plan.steps.get(step)
            if named is not None and named.holders.get(detector) == "":
                return detector in self._runs[name].markers(step).failures(self._visit)
        return False

    def unfinished(self) -> Iterator[tuple[str, str]]:
        """Runs and steps over detectors whose units of the visit are all done, but not put together."""
        for name, plan in self._plans.items():
            for step, named in plan.steps.items():
                own = named.own
                run = self._runs[name]
                if not own or None in own or self._visit in self._finished_of(run, step):
                    continue
                if run.markers(step).done(self._visit, own) == set(own):
                    yield name, step

    def _is_done(self, run: Run, step: str, detector: int | None) -> bool:
        done = self._done.get((run.name, step))
        if done is None:
            along = set(self._named(run.name, step).holders)
            finished = self._visit in self._finished_of(run, step)
            done = along if finished else run.markers(step).done(self._visit, along)
            self._done[run.name, step] = done
        return detector in done

    def _named(self, run: str, step: str) -> StepPlan:
        return self._plans[run].steps[step]

    def _finished_of(self, run: Run, step: str) -> set[int]:
        if (run.name, step) not in self._finished:
            self._finished[run.name, step] = run.markers(step).finished()
        return self._finished[run.name, step]

    def _serves(self, run: Run, link: Link) -> bool:
        place = (run.name, link.name)
        if place not in self._serving:
            self._serving[place] = all(product.serves(run, self._storing) for product in link.step.outputs)
        return self._serving[place]

    def _same_inputs(self, run: Run, held: VisitPlan, link: Link, detector: int | None) -> bool:
        if detector is not None and link.name not in self._chain.whole_visit:
            return self._same_input(run, held, link, detector)
        # asked of each detector of the visit, and the same for all
        if run.name not in self._same_visit:
            self._same_visit[run.name] = all(
                self._same_input(run, held, link, each) for each in held.exposures
            )
        return self._same_visit[run.name]

    def _same_input(self, run: Run, held: VisitPlan, link: Link, detector: int) -> bool:
        if detector not in self._exposures:
            # of another selection of the visit's detectors, as its key says
            return True
        place = (run.name, detector)
        if place not in self._same:
            wanted, planned = self._exposures[detector], held.exposures[detector]
            stamped = (planned.size, planned.mtime_ns)
            self._same[place] = planned.shape == wanted.shape and (
                stamped == (wanted.size, wanted.mtime_ns)
                or is_unchanged(wanted.path, stamped, was=self._checksum(run, held, link, detector))
            )
        return self._same[place]

    def _checksum(self, run: Run, held: VisitPlan, link: Link, detector: int) -> str | None:
        """Checksum of the file that a result was made of, as the step that read it left it."""
        for name in (link.name, *self._chain.ancestors(link.name)):
            if not self._chain[name].reads_file:
                continue
            reader = self._runs.get(held.steps[name].holders.get(detector, "") or run.name)
            marker = None if reader is None else reader.markers(name).of_unit(self._visit, detector)
            if marker is not None and marker.input is not None:
                return str(marker.input["crc32c"])
        return None

    def _same_detectors(
        self,
        run: Run,
        held: VisitPlan,
        link: Link,
        detector: int | None,
        chosen: Mapping[str, Mapping[int | None, str]],
    ) -> bool:
        """Whether a result rests on all detectors of the visit that can be had by now."""
        if detector is None and link.bears:
            for each in self._missing(run, link.name):
                if all(
                    chosen[need].get(each) for need in link.needs if self._chain[need].scope == "detector"
                ):
                    return False
        for name in self._chain.ancestors(link.name):
            above = self._chain[name]
            if above.scope != "visit":
                continue
            now, then = chosen[name].get(None, ""), held.steps[name].holders.get(None, "") or run.name
            if not now:
                # what is redone for want of a detector makes another result, what was lost the same
                if name in self._lacked:
                    return False
            elif above.bears and now != then:
                there = self._runs.get(then)
                if there is None or self._missing(self._runs[now], name) != self._missing(there, name):
                    return False
        return True

    def _missing(self, run: Run, step: str) -> tuple[int, ...]:
        header = run.markers(step).header(self._visit)
        return () if header is None else header.missing

    def _is_sound(self, run: Run, held: VisitPlan, step: str, detector: int | None) -> bool:
        """Whether the files of a finished unit are what its marker says."""
        marker = run.markers(step).of_unit(self._visit, detector, payload=True)
        if marker is None:
            return False
        for product in self._chain[step].step.outputs:
            record = marker.products.get(product.name)
            along = (
                [int(each) for each in record["each"]]
                if isinstance(record, dict) and "each" in record
                else [None]
            )
            for each in along:
                entry = entry_of(run, held, marker, product.name, each)
                if entry is not None and not product.is_sound(entry):
                    return False
        return True


def _plans(run: Run) -> Iterator[tuple[str, VisitPlan]]:
    for plan in run.plans():
        yield run.name, plan
