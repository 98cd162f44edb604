"""Commit markers: a unit of work is done when, and only when, its marker is there.

``units/STEP/VISIT/DETECTOR.json`` is written last by the unit itself and never replaced. When all
detectors of a visit are done, ``units/STEP/VISIT.visit`` takes their place; a step over visits writes that
one alone. A unit that raised leaves ``DETECTOR.failed.json`` or ``VISIT.failed.json`` with its traceback,
until it succeeds.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skysub.campaign.records import Failure, Marker, who
from skysub.campaign.store.container import column, packed_visit, read_header, read_marker, read_payload
from skysub.campaign.store.seals import damage, read_sealed, sealed, unsealed
from skysub.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from skysub.campaign.store.container import Header
    from skysub.campaign.store.storage_path import StoragePath

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

    folder: StoragePath
    durable: bool = False

    def visit_folder(self, visit: int) -> StoragePath:
        """Folder of what is kept of a visit until it is finished."""
        return self.folder / str(visit)

    def detector_path(self, visit: int, detector: int) -> StoragePath:
        """File of a detector's marker."""
        return self.visit_folder(visit) / f"{detector}.json"

    def visit_path(self, visit: int) -> StoragePath:
        """File of a visit's marker, which stands for those of all its detectors."""
        return self.folder / f"{visit}.visit"

    def failure_path(self, visit: int, detector: int | None) -> StoragePath:
        """File that says why a unit failed."""
        if detector is None:
            return self.folder / f"{visit}.failed.json"
        return self.visit_folder(visit) / f"{detector}.failed.json"

    def finish(self, marker: Marker) -> bool:
        """Mark a unit as done, unless it is; what said that it failed is removed."""
        if marker.detector is None:
            return self.finish_visit(marker.visit, [marker])
        first = self._put(self.detector_path(marker.visit, marker.detector), _json(marker.as_json()))
        self.failure_path(marker.visit, marker.detector).remove()
        return first

    def fail(self, failure: Failure) -> None:
        """Record why a unit failed, in place of an earlier failure."""
        assert failure.visit is not None
        place = self.failure_path(failure.visit, failure.detector)
        place.put(_json(dataclasses.asdict(failure)), durable=self.durable)

    def finish_visit(self, visit: int, markers: Sequence[Marker]) -> bool:
        """Put one marker in place of those of a visit's detectors, or that of a visit's own unit."""
        path = self.visit_path(visit)
        first = path.put_if_absent(data := packed_visit(markers), durable=self.durable)
        if not first and not path.size():
            # what a power failure left of a marker is none
            path.put(data, durable=self.durable)
        # readers look for the visit's marker first, so nothing is missing at any moment
        self.clear_visit(visit)
        self.failure_path(visit, None).remove()
        return first

    def clear_visit(self, visit: int) -> None:
        """Remove the markers of a visit's detectors, once the visit's own stands for them."""
        self.visit_folder(visit).remove_tree()

    def forget(self, visit: int, detector: int | None) -> None:
        """Make a unit one that is not done; the rest of its visit stays done."""
        if detector is None:
            self.visit_path(visit).remove()
            return
        if self.is_finished(visit):
            for each, marker in self.of_visit(visit, payload=True).items():
                if each is not None and each != detector:
                    self._put(self.detector_path(visit, each), _json(marker.as_json()))
            self.visit_path(visit).remove()
        self.detector_path(visit, detector).remove()

    def header(self, visit: int) -> Header | None:
        """What a finished visit's marker says of its parts; None where the visit is not finished."""
        with suppress(FileNotFoundError):
            return read_header(self.visit_path(visit))
        return None

    def of_visit(self, visit: int, *, payload: bool = False) -> dict[int | None, Marker]:
        """Markers of a visit's finished units, by detector; ``payload``: with what is heavy in them."""
        # the visit's marker may come between two looks: look for it again when a detector's is gone
        for _ in range(3):
            header = self.header(visit)
            if header is not None:
                place = self.visit_path(visit)
                return {
                    detector: read_marker(place, number, payload=payload)
                    for number, detector in enumerate(header.detectors)
                }
            folder = self.visit_folder(visit)
            names = {number: name for name in folder.names() if (number := _number(name)) is not None}
            contents = folder.read_each(names.values())
            if not self.is_finished(visit):
                found: dict[int | None, Marker] = {}
                for number in sorted(names):
                    data = contents[names[number]]
                    if not data:
                        continue
                    values = unsealed(data)
                    if values is None:
                        raise damage(folder / names[number], "is damaged", who(visit, number))
                    found[number] = Marker.from_values(values)
                return found
        return {}

    def of_unit(self, visit: int, detector: int | None, *, payload: bool = False) -> Marker | None:
        """Marker of one unit, None where it is not done; ``payload``: with what is heavy in it."""
        values = None
        if detector is not None:
            values = read_sealed(self.detector_path(visit, detector), who(visit, detector))
        if values is not None:
            return Marker.from_values(values)
        header = self.header(visit)
        if header is None or detector not in header.detectors:
            return None
        return read_marker(self.visit_path(visit), header.detectors.index(detector), payload=payload)

    def with_payload(self, marker: Marker) -> Marker:
        """Return a marker with what is heavy in it."""
        if marker.payload:
            return marker
        header = self.header(marker.visit)
        if header is None or marker.detector not in header.detectors:
            return marker
        number = header.detectors.index(marker.detector)
        return dataclasses.replace(marker, payload=read_payload(self.visit_path(marker.visit), number))

    def done(self, visit: int, detectors: Iterable[int | None]) -> set[int | None]:
        """Which of a visit's units are done, without reading their markers."""
        wanted: set[int | None] = set(detectors)
        if self.is_finished(visit):
            return wanted
        sizes = self.visit_folder(visit).sizes()
        found = {_number(name) for name, size in sizes.items() if size}
        # the visit's marker may have come, and its detectors' gone, in between
        return wanted if self.is_finished(visit) else (found - {None}) & wanted

    def is_finished(self, visit: int) -> bool:
        """Whether a visit's marker stands for all of its units."""
        return bool(self.visit_path(visit).size())

    def finished(self) -> set[int]:
        """Visits whose markers stand for all of their units, by one look at all."""
        sizes = self.folder.sizes()
        return {
            int(name.removesuffix(".visit"))
            for name, size in sizes.items()
            if size and name.endswith(".visit")
        }

    def begun(self) -> set[int]:
        """Visits with markers of single detectors, done or failed, by one look at all."""
        return {int(name) for name in self.folder.names() if name.lstrip("-").isdigit()}

    def troubled(self) -> set[int]:
        """Visits that failed as a whole, by one look at all."""
        names = (name for name in self.folder.names() if name.endswith(".failed.json"))
        return {int(name.partition(".")[0]) for name in names}

    def failures(self, visit: int) -> dict[int | None, Failure]:
        """Why units of a visit failed, by detector (None: the visit itself); finished ones are left out."""
        if self.is_finished(visit):
            return {}
        folder = self.visit_folder(visit)
        names = folder.names()
        done = {_number(name) for name in names}
        failed = {int(name.partition(".")[0]): name for name in names if name.endswith(".failed.json")}
        contents = folder.read_each(failed[number] for number in sorted(failed) if number not in done)
        found: dict[int | None, Failure] = {}
        for number, name in sorted(failed.items()):
            if data := contents.get(name):
                found[number] = self._failure(data, visit, number)
        if data := self.failure_path(visit, None).read():
            found[None] = self._failure(data, visit, None)
        return found

    def mend(self, visit: int) -> list[str]:
        """Take away what is damaged of a visit's markers, so that those units are not done; say what was.

        What is sound of a finished visit stays: its units are put together again.
        """
        mended = []
        place = self.visit_path(visit)
        if place.size():
            try:
                header = read_header(place)
                for name in header.columns:
                    column(place, name)
                for number in range(len(header.detectors)):
                    read_marker(place, number, payload=True)
            except DamagedError:
                mended.append(f"{place} was damaged")
                for marker in self._salvaged(visit):
                    assert marker.detector is not None
                    self._put(self.detector_path(visit, marker.detector), _json(marker.as_json()))
                place.remove()
        folder = self.visit_folder(visit)
        for name in folder.names():
            data = (folder / name).read() if name.endswith(".json") else None
            if data and unsealed(data) is None:
                (folder / name).remove()
                mended.append(f"{folder / name} was damaged")
        return mended

    def _salvaged(self, visit: int) -> Iterator[Marker]:
        place = self.visit_path(visit)
        with suppress(DamagedError):
            for number, detector in enumerate(read_header(place).detectors):
                with suppress(DamagedError):
                    if detector is not None:
                        yield read_marker(place, number, payload=True)

    def _failure(self, data: bytes, visit: int, detector: int | None) -> Failure:
        values = unsealed(data)
        if values is None:
            message = f"the file that says why is damaged: {self.failure_path(visit, detector)}"
            return Failure(path="", message=message, visit=visit, detector=detector)
        return Failure.from_values(values)

    def _put(self, path: StoragePath, data: bytes) -> bool:
        if path.put_if_absent(data, durable=self.durable):
            return True
        if not path.size():
            # what a power failure left of a marker is none
            path.put(data, durable=self.durable)
            return True
        return False


def _number(name: str) -> int | None:
    stem, _, suffix = name.partition(".")
    return int(stem) if suffix == "json" and stem.lstrip("-").isdigit() else None


def _json(values: object) -> bytes:
    return sealed(json.dumps(values, separators=(",", ":")).encode())
