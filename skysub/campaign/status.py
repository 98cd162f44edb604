"""What is done, what failed and why, and what is left; read from the markers, never from a cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.address import place_at
from skysub.campaign.store.place import read_json
from skysub.campaign.store.runs import existing_runs
from skysub.text import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from skysub.campaign.store.place import Place
    from skysub.campaign.store.runs import Run, Unit

__all__ = ["Failure", "Status", "current_units", "lines", "others", "read_status"]


@dataclass(frozen=True)
class Failure:
    """A unit, or an input that could not even be planned, and why it failed."""

    path: str
    """Input file."""
    message: str
    """In one line, without path, visit and detector."""
    visit: int | None = None
    """None where the header could not be read."""
    detector: int | None = None
    run: str = ""
    traceback: str = ""
    when: str = ""


@dataclass(frozen=True)
class Status:
    """Where a campaign stands."""

    output: str
    runs: tuple[str, ...]
    """Names, oldest first."""
    step: str
    """Step of the newest run."""
    counts: dict[str, int]
    """Units by state: "done", "failed", "left"; and "unreadable" inputs."""
    by_visit: tuple[dict[str, Any], ...]
    """One row per visit: visit, band, run, detectors, done, failed, left."""
    failures: tuple[Failure, ...]

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
            "counts": self.counts,
            "exit_code": self.exit_code,
            "visits": list(self.by_visit),
            "failures": [vars(failure) for failure in self.failures],
        }


def read_status(output: str | os.PathLike[str] | Place) -> Status:
    """Read how far a campaign is; safe at any time, also while it runs.

    Raises
    ------
    CampaignNotFoundError
        When there is no campaign.
    StoreVersionError
        When it was written by a newer skysub.
    """
    output = place_at(output)
    runs = existing_runs(output)
    unreadable = read_json(output / "unreadable.json") or []
    failures = [Failure(path=each["path"], message=each["reason"]) for each in unreadable]
    rows: dict[int, dict[str, Any]] = {}
    counts: Counter[str] = Counter(done=0, failed=0, left=0, unreadable=len(unreadable))
    looked: dict[tuple[str, int], tuple[set[int], dict[int, dict[str, Any]]]] = {}
    planned = current_units(runs)
    detectors: dict[tuple[str, int], list[int]] = {}
    for unit, run in planned.values():
        detectors.setdefault((run.name, unit.visit), []).append(unit.detector)
    gathered = {run.name: run.markers.gathered() for run in runs}
    for _, (unit, run) in sorted(planned.items()):
        place = (run.name, unit.visit)
        if place not in looked and unit.visit in gathered[run.name]:
            looked[place] = set(detectors[place]), {}
        elif place not in looked:
            looked[place] = (
                run.markers.done(unit.visit, detectors[place]),
                run.markers.failures(unit.visit),
            )
        done, failed = looked[place]
        row = rows.setdefault(
            unit.visit,
            {
                "visit": unit.visit,
                "band": unit.band,
                "run": run.name,
                "detectors": 0,
                "done": 0,
                "failed": 0,
                "left": 0,
            },
        )
        row["run"] = max(row["run"], run.name)
        row["detectors"] += 1
        if unit.detector in done:
            state = "done"
        elif unit.detector in failed:
            state = "failed"
            failures.append(_failure(failed[unit.detector], unit, run))
        else:
            state = "left"
        row[state] += 1
        counts[state] += 1
    return Status(
        output=str(output),
        runs=tuple(run.name for run in runs),
        step=runs[-1].record["step"],
        counts=dict(counts),
        by_visit=tuple(rows[visit] for visit in sorted(rows)),
        failures=tuple(failures),
    )


def current_units(runs: list[Run]) -> dict[tuple[int, int], tuple[Unit, Run]]:
    """Each detector of each visit with the run that speaks for it: the newest that names it."""
    by_name = {run.name: run for run in runs}
    current: dict[tuple[int, int], tuple[Unit, Run]] = {}
    for run in runs:
        for unit in run.units():
            current[unit.visit, unit.detector] = (unit, by_name.get(unit.held_by, run))
    return current


def others(counts: Mapping[str, int]) -> str:
    """Name what is not done, for people: ", 4 failed, 7 left, 3 inputs unreadable"."""
    inputs = counts.get("unreadable", 0)
    what = {"failed": "failed", "left": "left", "unreadable": f"input{'s' * (inputs != 1)} unreadable"}
    return "".join(f", {counts[name]} {words}" for name, words in what.items() if counts.get(name))


def lines(status: Status) -> Iterator[str]:
    """Lines of a table for people."""
    counts = status.counts
    total = counts["done"] + counts["failed"] + counts["left"]
    yield f"{status.output}: {status.step}, run {status.runs[-1]} of {len(status.runs)}"
    yield f"{'visit':>16}  {'band':<6}{'run':<6}{'done':>12}{'failed':>8}{'left':>8}"
    for row in status.by_visit:
        done = f"{row['done']} of {row['detectors']}"
        head = f"{row['visit']:>16}  {printable(row['band']) or '-':<6}{row['run']:<6}"
        yield f"{head}{done:>12}{row['failed']:>8}{row['left']:>8}"
    for failure in status.failures:
        who = (
            "input unreadable"
            if failure.visit is None
            else f"visit {failure.visit} detector {failure.detector}"
        )
        yield printable(f"{who}: {failure.path}: {failure.message}")
    yield f"{counts['done']} of {total} units done{others(counts)}"


def _failure(record: dict[str, Any], unit: Unit, run: Run) -> Failure:
    return Failure(
        path=unit.path,
        message=unit.reason(record["message"]),
        visit=unit.visit,
        detector=unit.detector,
        run=run.name,
        traceback=record["traceback"],
        when=record["when"],
    )
