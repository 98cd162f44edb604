"""Commit markers: a unit of work is done when, and only when, its marker is there.

``units/STEP/VISIT/DETECTOR.json`` is written last by the unit itself and never replaced. When all
detectors of a visit are done, ``units/STEP/VISIT.json`` takes their place. A unit that raised leaves
``DETECTOR.failed.json`` with its traceback, until it succeeds.
"""

from __future__ import annotations

import copy
import functools
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.place import parsed, read_json

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from skysub.campaign.store.place import Place

__all__ = ["Markers"]


@dataclass(frozen=True)
class Markers:
    """The markers of one step of one run.

    Parameters
    ----------
    folder
        ``OUT/runs/NAME/units/STEP``.
    durable
        Wait for the disk after each write.
    """

    folder: Place
    durable: bool = False

    def detector_path(self, visit: int, detector: int) -> Place:
        """File of a detector's marker."""
        return self.folder / str(visit) / f"{detector}.json"

    def visit_path(self, visit: int) -> Place:
        """File of a visit's marker, which stands for those of all its detectors."""
        return self.folder / f"{visit}.json"

    def failure_path(self, visit: int, detector: int) -> Place:
        """File that says why a detector failed."""
        return self.folder / str(visit) / f"{detector}.failed.json"

    def finish(self, visit: int, detector: int, record: Mapping[str, Any]) -> bool:
        """Mark a detector as done, unless it is; what said that it failed is removed."""
        first = self._put(self.detector_path(visit, detector), record)
        self.failure_path(visit, detector).remove()
        return first

    def fail(self, visit: int, detector: int, record: Mapping[str, Any]) -> None:
        """Record why a detector failed, in place of an earlier failure."""
        self.failure_path(visit, detector).put(_json(record), durable=self.durable)

    def finish_visit(self, visit: int, record: Mapping[str, Any]) -> None:
        """Put one marker in place of those of a visit's detectors."""
        self._put(self.visit_path(visit), record)
        # readers look for the visit's marker first, so nothing is missing at any moment
        self.clear_visit(visit)

    def clear_visit(self, visit: int) -> None:
        """Remove the markers of a visit's detectors, once the visit's own stands for them."""
        (self.folder / str(visit)).remove_tree()

    def forget(self, visit: int, detector: int) -> None:
        """Make a detector one that is not done; the rest of its visit stays done."""
        gathered = read_json(self.visit_path(visit))
        if gathered is not None:
            for key, record in gathered["detectors"].items():
                if int(key) != detector:
                    self._put(self.detector_path(visit, int(key)), record)
            self.visit_path(visit).remove()
        self.detector_path(visit, detector).remove()

    def of_visit(self, visit: int) -> dict[int, dict[str, Any]]:
        """Markers of a visit's finished detectors, by detector."""
        # the visit's marker may come between two looks: look for it again when a detector's is gone
        for _ in range(3):
            gathered = read_json(self.visit_path(visit))
            if gathered is not None:
                return {int(key): record for key, record in gathered["detectors"].items()}
            folder = self.folder / str(visit)
            names = {number: name for name in folder.names() if (number := _number(name)) is not None}
            contents = folder.read_each(names.values())
            if not self.is_gathered(visit):
                found = {number: parsed(contents[names[number]]) for number in sorted(names)}
                return {number: record for number, record in found.items() if record is not None}
        return {}

    def of_detector(self, visit: int, detector: int) -> dict[str, Any] | None:
        """Marker of one detector, None where it is not done."""
        record: dict[str, Any] | None = read_json(self.detector_path(visit, detector))
        if record is None:
            place = self.visit_path(visit)
            with suppress(FileNotFoundError):
                # what is kept stays as it was read, whatever is done to the record
                record = copy.deepcopy(_gathered(place, place.made()).get(str(detector)))
        return record

    def done(self, visit: int, detectors: Iterable[int]) -> set[int]:
        """Which of a visit's detectors are done, without reading their markers."""
        if self.is_gathered(visit):
            return set(detectors)
        sizes = (self.folder / str(visit)).sizes()
        found = {number for name, size in sizes.items() if size and (number := _number(name)) is not None}
        # the visit's marker may have come, and its detectors' gone, in between
        return set(detectors) if self.is_gathered(visit) else found & set(detectors)

    def is_gathered(self, visit: int) -> bool:
        """Whether a visit's marker stands for all of its detectors."""
        return bool(self.visit_path(visit).size())

    def gathered(self) -> set[int]:
        """Visits whose markers stand for all of their detectors, by one look at all."""
        sizes = self.folder.sizes()
        return {number for name, size in sizes.items() if size and (number := _number(name)) is not None}

    def begun(self) -> set[int]:
        """Visits with markers of single detectors, done or failed, by one look at all."""
        return {int(name) for name in self.folder.names() if name.lstrip("-").isdigit()}

    def failures(self, visit: int) -> dict[int, dict[str, Any]]:
        """Why detectors of a visit failed, by detector; finished ones are not among them."""
        if self.is_gathered(visit):
            return {}
        folder = self.folder / str(visit)
        names = folder.names()
        done = {_number(name) for name in names}
        failed = {int(name.partition(".")[0]): name for name in names if name.endswith(".failed.json")}
        contents = folder.read_each(failed[number] for number in sorted(failed) if number not in done)
        found = {number: parsed(contents.get(name)) for number, name in sorted(failed.items())}
        return {number: record for number, record in found.items() if record is not None}

    def _put(self, path: Place, record: Mapping[str, Any]) -> bool:
        if path.put_if_absent(_json(record), durable=self.durable):
            return True
        if read_json(path) is None:
            # what a power failure left of a marker is none
            path.put(_json(record), durable=self.durable)
            return True
        return False


@functools.lru_cache(maxsize=2)
def _gathered(place: Place, _made: Hashable) -> dict[str, dict[str, Any]]:
    """Markers in a visit's marker, by detector; kept, as readers ask for one after the other."""
    record = read_json(place)
    return {} if record is None else record["detectors"]


def _number(name: str) -> int | None:
    stem, _, suffix = name.partition(".")
    return int(stem) if suffix == "json" and stem.lstrip("-").isdigit() else None


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()
