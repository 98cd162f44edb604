"""What earlier runs planned and did, looked up visit by visit, as the units of a new plan are."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from skysub.campaign.inputs import is_unchanged
from skysub.campaign.steps import product_names
from skysub.campaign.store.arrays import shard_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.campaign.store.runs import Run, Unit

__all__ = ["History"]


class History:
    """Runs of a campaign, of which one visit is looked at at a time.

    Parameters
    ----------
    runs
        Oldest first.
    pixels
        What the recipe wants of pixels, "stored" or "on_demand".
    verify
        Compare what finished units wrote with their checksums; those that differ count as not done (and
        their markers are removed).
    """

    def __init__(self, runs: list[Run], pixels: str, *, verify: bool) -> None:
        self._pixels = pixels
        self._verify = verify
        self._runs = {run.name: run for run in runs}
        self._last = runs[-1].name if runs else ""
        # of equal visits the newest run's come first
        self._ahead = heapq.merge(*map(_rows, reversed(runs)), key=lambda row: row[1].visit)
        self._next = next(self._ahead, None)
        self._planned: dict[int, list[tuple[str, Unit]]] = {}
        self._done: dict[str, set[int]] = {}
        self._gathered: dict[str, set[int]] = {}

    def turn_to(self, visit: int) -> None:
        """Look at a visit; they are to be looked at in rising order."""
        self._planned, self._done = {}, {}
        while self._next is not None and self._next[1].visit <= visit:
            if self._next[1].visit == visit:
                self._planned.setdefault(self._next[1].detector, []).append(self._next)
            self._next = next(self._ahead, None)

    def holder(self, wanted: Unit) -> tuple[dict[str, Any] | None, bool, str]:
        """Who holds a unit's result, whether the newest word on the unit says so, and if nobody why not.

        The holder is given as the fields of a unit: run, and places in its arrays.
        """
        why = ""
        for position, (name, unit) in enumerate(self._planned.get(wanted.detector, [])):
            run = self._runs.get(unit.held_by or name)
            if run is None or not self._is_done(run, unit):
                continue
            if unit.key != wanted.key or not self._has_pixels(run):
                why = why or "settings"
            elif not _same_input(run, unit, wanted):
                why = "input"
            elif self._verify and not _is_sound(run, unit):
                run.markers.forget(unit.visit, unit.detector)
                self._done.pop(run.name, None)
                self._gathered[run.name].discard(unit.visit)
            else:
                holder = {
                    "held_by": run.name,
                    "visit_index": unit.visit_index,
                    "detector_index": unit.detector_index,
                }
                return holder, position == 0, ""
        return None, False, why

    def planned_last(self, wanted: Unit) -> bool:
        """Whether the last run plans this very unit, with this input."""
        planned = self._planned.get(wanted.detector, [])
        if not planned or planned[0][0] != self._last:
            return False
        unit = planned[0][1]
        same = (unit.key, unit.size, unit.mtime_ns) == (wanted.key, wanted.size, wanted.mtime_ns)
        return same and not unit.held_by and self._has_pixels(self._runs[self._last])

    def _is_done(self, run: Run, unit: Unit) -> bool:
        if run.name not in self._gathered:
            self._gathered[run.name] = run.markers.gathered()
        if run.name not in self._done:
            gathered = unit.visit in self._gathered[run.name]
            self._done[run.name] = (
                set(self._planned) if gathered else run.markers.done(unit.visit, self._planned)
            )
        return unit.detector in self._done[run.name]

    def _has_pixels(self, run: Run) -> bool:
        return self._pixels == "on_demand" or run.record["products"]["pixels"] == "stored"


def _rows(run: Run) -> Iterator[tuple[str, Unit]]:
    for unit in run.units():
        yield run.name, unit


def _same_input(run: Run, unit: Unit, wanted: Unit) -> bool:
    planned = (unit.size, unit.mtime_ns)
    if planned == (wanted.size, wanted.mtime_ns):
        return True
    marker = run.markers.of_detector(unit.visit, unit.detector)
    was = None if marker is None else marker["input"]["crc32c"]
    return is_unchanged(wanted.path, planned, was=was)


def _is_sound(run: Run, unit: Unit) -> bool:
    """Whether the files of a finished unit are what its marker says."""
    marker = run.markers.of_detector(unit.visit, unit.detector)
    if marker is None:
        return False
    index = (unit.visit_index, unit.detector_index)
    for name, written in marker["shards"].items():
        shard = shard_place(run.images, product_names(run.record)[0], name, index)
        there = shard.exists()
        if there != bool(written["bytes"]) or (there and shard.checksum() != written["crc32c"]):
            return False
    return True
