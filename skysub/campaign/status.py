"""What is done, what failed and why, and what is left; read from the markers, never from a cluster."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skysub.campaign.context import chain_of
from skysub.campaign.current import Current
from skysub.campaign.records import Failure, who
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import existing_runs, open_runs
from skysub.campaign.store.seals import read_sealed
from skysub.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from skysub.campaign.current import VisitView
    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.storage_path import StoragePath

__all__ = [
    "REMOVED",
    "Failure",
    "Looked",
    "Status",
    "VisitStatus",
    "lines",
    "others",
    "read_status",
    "removed_inputs",
    "states_of",
    "status_of",
    "visit_status_of",
]

REMOVED = "removed.json"
"""File beside the runs: what is not done as of the last start, and whose input was taken away."""

_STATES = ("done", "failed", "waiting", "left")

_MOST_ROWS = 200
"""Visits that are all shown; of more, those alone with something that is not done."""


@dataclass(frozen=True)
class Status:
    """Where a campaign stands."""

    output: str
    runs: tuple[str, ...]
    """Names, oldest first."""
    steps: tuple[str, ...]
    """Steps of the newest run."""
    counts: dict[str, int]
    """Units by state: "done", "failed", "waiting" (for one that failed), "left"; and "unreadable" inputs."""
    by_step: tuple[dict[str, Any], ...]
    """One row per step: step, scope, units, done, failed, waiting, left."""
    by_visit: tuple[dict[str, Any], ...]
    """One row per visit: visit, band, run, detectors, and units of all steps: done, failed, waiting, left."""
    failures: tuple[Failure, ...]

    @property
    def step(self) -> str:
        """Steps of the newest run, for people."""
        return " > ".join(self.steps)

    @property
    def exit_code(self) -> int:
        """0: all is done; 1: something failed; 2: work is left."""
        if self.counts["left"]:
            return 2
        return 1 if self.counts["failed"] or self.counts["unreadable"] else 0

    def as_json(self) -> dict[str, Any]:
        """Return the status as plain values."""
        return {
            "output": self.output,
            "runs": list(self.runs),
            "step": self.step,
            "steps": list(self.by_step),
            "counts": self.counts,
            "exit_code": self.exit_code,
            "visits": list(self.by_visit),
            "failures": [asdict(failure) for failure in self.failures],
        }


def read_status(output: str | os.PathLike[str] | StoragePath) -> Status:
    """Read how far a campaign is; safe at any time, also while it runs.

    Raises
    ------
    CampaignNotFoundError
        When there is no campaign.
    StoreVersionError
        When it was written by another version of skysub, whose layout is not known.
    DamagedError
        When a file that must be read is not as it was written.
    """
    output = place_at(output)
    return status_of(output, Current(existing_runs(output)))


class Looked:
    """What markers of runs say by one look at the folder of each step."""

    def __init__(self) -> None:
        self._finished: dict[tuple[str, str], set[int]] = {}
        self._troubled: dict[tuple[str, str], set[int]] = {}

    def finished(self, run: Run, step: str) -> set[int]:
        """Visits whose units are all done and put together."""
        place = (run.name, step)
        if place not in self._finished:
            # in this order: a visit that is finished in between is looked at once more
            self._troubled[place] = run.markers(step).troubled()
            self._finished[place] = run.markers(step).finished()
        return self._finished[place]

    def troubled(self, run: Run, step: str) -> set[int]:
        """Visits that failed as a whole."""
        self.finished(run, step)
        return self._troubled[run.name, step]


def status_of(output: StoragePath, current: Current) -> Status:
    """Read how far a campaign is whose runs are open."""
    unreadable = (read_sealed(output / "unreadable.json") or {}).get("inputs", [])
    failures = [Failure(path=each["path"], message=each["reason"]) for each in unreadable]
    looked = Looked()
    removed: dict[int, set[int]] = {}
    for visit, detector in (read_sealed(output / REMOVED) or {}).get("inputs", ()):
        removed.setdefault(visit, set()).add(detector)
    totals: dict[str, Counter[str]] = {}
    rows = []
    for visit in current.visits:
        row, counted, failed = _row(current, int(visit), looked, removed.get(int(visit), set()))
        rows.append(row)
        failures += failed
        for step, counts in counted.items():
            totals.setdefault(step, Counter()).update(counts)
    newest = current.runs[-1]
    scopes = {step.name: step.scope for run in current.runs for step in run.record.steps}
    whole: Counter[str] = Counter()
    for counts in totals.values():
        whole.update(counts)
    return Status(
        output=str(output),
        runs=tuple(run.name for run in current.runs),
        steps=tuple(step.name for step in newest.record.steps),
        counts={**{state: whole[state] for state in _STATES}, "unreadable": len(unreadable)},
        by_step=tuple(
            {
                "step": step,
                "scope": scopes[step],
                "units": totals[step]["units"],
                **{state: totals[step][state] for state in _STATES},
            }
            for step in current.steps
            if step in totals
        ),
        by_visit=tuple(rows),
        failures=tuple(failures),
    )


@dataclass(frozen=True)
class VisitStatus:
    """Where a visit stands."""

    counts: dict[str, int]
    """Units by state: "done", "failed", "waiting" (for one that failed), "left"."""
    states: dict[str, dict[int | None, str]]
    """State of each unit, by step and detector (None: the visit itself)."""
    failures: tuple[Failure, ...]


def visit_status_of(view: VisitView) -> VisitStatus:
    """Read how far one visit is."""
    states, failures = states_of(view, Looked())
    counts = Counter(state.partition(" ")[0] for units in states.values() for state in units.values())
    return VisitStatus({state: counts[state] for state in _STATES}, states, tuple(failures))


def states_of(view: VisitView, looked: Looked) -> tuple[dict[str, dict[int | None, str]], list[Failure]]:
    """State of each unit of a visit by step and detector, and why units failed.

    A unit that waits for one that failed has the state "waiting for STEP of visit V detector D: REASON".
    """
    states: dict[str, dict[int | None, str]] = {}
    failures: list[Failure] = []
    kept: dict[tuple[str, str], tuple[set[int | None], dict[int | None, Failure]]] = {}
    for step, units in view.units.items():
        states[step] = {}
        for detector, speaker in units.items():
            run = speaker.run
            place = (run.name, step)
            if place not in kept:
                if view.visit in looked.finished(run, step):
                    kept[place] = set(speaker.plan.steps[step].holders), {}
                else:
                    markers = run.markers(step)
                    done = markers.done(view.visit, units)
                    kept[place] = done, markers.failures(view.visit)
                    whole = kept[place][1].get(None)
                    if whole is not None and None not in units:
                        failures.append(whole)
            done, failed = kept[place]
            if detector in done:
                states[step][detector] = "done"
            elif detector in failed:
                states[step][detector] = "failed"
                failures.append(failed[detector])
            else:
                states[step][detector] = _waits(run, step, detector, view, states, kept) or "left"
    return states, failures


def _waits(  # noqa: PLR0917 - all of one visit
    run: Run,
    step: str,
    detector: int | None,
    view: VisitView,
    states: Mapping[str, Mapping[int | None, str]],
    kept: Mapping[tuple[str, str], tuple[set[int | None], dict[int | None, Failure]]],
) -> str:
    """For which failure a unit waits, for people; nothing where for none."""
    link = chain_of(run)[step]
    blamed: dict[int | None, str] = {}
    for need in link.needs:
        above = states.get(need, {})
        wanted = [None] if None in above else ([detector] if detector is not None else list(above))
        for each in wanted:
            state = above.get(each, "left")
            if state == "failed":
                speaker = view.units[need][each]
                failure = kept[speaker.run.name, need][1][each]
                blamed.setdefault(each, f"waiting for {need} of {who(view.visit, each)}: {failure.message}")
            elif state.startswith("waiting"):
                blamed.setdefault(each, state)
            elif state == "left":
                return ""
    if len(blamed) > (link.bears if detector is None else 0):
        return next(iter(blamed.values()))
    return ""


def removed_inputs(output: StoragePath) -> list[tuple[int, int]]:
    """Visit and detector of what is planned and not done, and whose input is no longer there."""
    current = Current(open_runs(output))
    looked = Looked()
    removed = []
    for visit in current.visits:
        row, _, _ = _row(current, int(visit), looked, set())
        if not row["failed"] + row["waiting"] + row["left"]:
            continue
        view = current.view(int(visit))
        assert view is not None
        states, _ = states_of(view, looked)
        open_ = {each for units in states.values() for each, state in units.items() if state != "done"}
        whole = None in open_
        removed += [
            (int(visit), detector)
            for detector, exposure in view.exposures.items()
            if (whole or detector in open_) and not os.path.lexists(exposure.path)
        ]
    return removed


def _row(
    current: Current, visit: int, looked: Looked, removed: set[int]
) -> tuple[dict[str, Any], dict[str, Counter[str]], list[Failure]]:
    naming = current.naming(visit)
    if len(naming) == 1:
        run, place = naming[0]
        own = {step: int(counts[place]) for step, counts in run.index.own.items() if counts[place]}
        if not run.index.holds[place] and all(visit in looked.finished(run, step) for step in own):
            index = run.index
            row = {"visit": visit, "band": index.band[place], "run": run.name}
            row |= {"detectors": int(index.detectors[place]), "done": sum(own.values())}
            row |= {"failed": 0, "waiting": 0, "left": 0}
            return row, {step: Counter(units=count, done=count) for step, count in own.items()}, []
    view = current.view(visit)
    assert view is not None
    states, failures = states_of(view, looked)
    # nobody can do what is not done of inputs that were taken away
    gone: set[int | None] = {*removed, *([None] if removed >= view.exposures.keys() else [])}
    states = {
        step: {each: state for each, state in units.items() if state == "done" or each not in gone}
        for step, units in states.items()
    }
    failures = [
        each
        for each in failures
        if each.detector in states[each.step] or (each.detector is None and None not in gone)
    ]
    counted = {
        step: Counter(units=len(units)) + Counter(state.partition(" ")[0] for state in units.values())
        for step, units in states.items()
    }
    for failure in failures:
        if failure.detector is None and None not in states[failure.step]:
            # results that could not be put together
            counted[failure.step]["failed"] += 1
    bands = ",".join(dict.fromkeys(each.band for each in view.exposures.values()))
    row = {"visit": visit, "band": bands, "run": view.run.name, "detectors": len(view.exposures)}
    row |= {state: sum(counts[state] for counts in counted.values()) for state in _STATES}
    return row, counted, failures


def others(counts: Mapping[str, int]) -> str:
    """Name what is not done, for people: ", 4 failed, 2 waiting for these, 7 left, 3 inputs unreadable"."""
    inputs = counts.get("unreadable", 0)
    what = {
        "failed": "failed",
        "waiting": "waiting for these",
        "left": "left",
        "unreadable": f"input{'s' * (inputs != 1)} unreadable",
    }
    return "".join(f", {counts[name]} {words}" for name, words in what.items() if counts.get(name))


def lines(status: Status) -> Iterator[str]:
    """Lines of a table for people."""
    counts = status.counts
    total = sum(row["units"] for row in status.by_step)
    yield f"{status.output}: {status.step}, run {status.runs[-1]} of {len(status.runs)}"
    if len(status.by_step) > 1:
        yield f"{'step':>28}  {'goes over':<10}{'done':>18}{'failed':>8}{'waiting':>8}{'left':>8}"
        for row in status.by_step:
            done = f"{row['done']} of {row['units']}"
            head = f"{row['step']:>28}  {row['scope'] + 's':<10}"
            yield f"{head}{done:>18}{row['failed']:>8}{row['waiting']:>8}{row['left']:>8}"
    shown = [row for row in status.by_visit if row["failed"] or row["waiting"] or row["left"]]
    if len(status.by_visit) <= _MOST_ROWS:
        shown = list(status.by_visit)
    elif len(shown) < len(status.by_visit):
        yield (
            f"{len(status.by_visit) - len(shown)} visits are done; the others:"
            if shown
            else "all visits are done"
        )
    if shown:
        yield f"{'visit':>16}  {'band':<6}{'run':<6}{'done':>12}{'failed':>8}{'waiting':>8}{'left':>8}"
    for row in shown[:_MOST_ROWS]:
        units = row["done"] + row["failed"] + row["waiting"] + row["left"]
        done = f"{row['done']} of {units}"
        head = f"{row['visit']:>16}  {printable(row['band']) or '-':<6}{row['run']:<6}"
        yield f"{head}{done:>12}{row['failed']:>8}{row['waiting']:>8}{row['left']:>8}"
    if len(shown) > _MOST_ROWS:
        yield f"and {len(shown) - _MOST_ROWS} visits more"
    for failure in status.failures:
        named = f"{_named(failure, status)}: {failure.path + ': ' if failure.path else ''}"
        yield printable(f"{named}{failure.message}")
    yield f"{counts['done']} of {total} units done{others(counts)}"


def _named(failure: Failure, status: Status) -> str:
    if failure.visit is None:
        return "input unreadable"
    name = who(failure.visit, failure.detector)
    scopes = {row["step"]: row["scope"] for row in status.by_step}
    if failure.detector is None and scopes.get(failure.step) == "detector":
        return f"{name}, results of {failure.step} put together"
    return name if len(status.by_step) < 2 else f"{name}, {failure.step}"
