"""Runs: the frozen plans under ``OUT/runs``, and which of them speaks for a detector of a visit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.markers import Markers
from skysub.campaign.store.place import read_json, writing
from skysub.errors import CampaignNotFoundError, StoreVersionError
from skysub.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from skysub.campaign.store.place import Place

__all__ = ["FORMAT", "Run", "Unit", "existing_runs", "freeze", "next_name", "open_runs", "remove_unplanned"]

FORMAT = 1
"""Version of the store's layout; a store of a later one is refused."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One detector of one visit: its input (the main file, where there are several), and what is planned."""

    visit: int
    detector: int
    band: str
    exposure_time: float | None
    """Seconds; None where unknown."""
    unit: str
    """Unit of the input's pixels."""
    path: str
    size: int
    """Bytes of the input file (of all of them, where a detector has several)."""
    mtime_ns: int
    """When the input last changed, nanoseconds (the latest, where there are several files)."""
    shape: tuple[int, int]
    """(ny, nx), pixel."""
    source: int
    """Which mapping of ``run.json`` reads the file."""
    known: tuple[tuple[str, Any], ...] = ()
    """What a pattern or a table says in place of the header."""
    key: str = ""
    """Hash of step, settings and mapping: results of an equal key and input are equal."""
    visit_index: int = -1
    """Place along the first axis of the run's arrays."""
    detector_index: int = -1
    """Place along the second axis."""
    held_by: str = ""
    """Name of the earlier run whose result serves; empty where this run does the work."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Unit:
        """Return the unit that `to_json` wrote."""
        fields = json.loads(text)
        fields["shape"] = tuple(fields["shape"])
        fields["known"] = tuple((name, value) for name, value in fields["known"])
        return cls(**fields)

    def reason(self, message: str) -> str:
        """Return what a message about this unit says, without the path, visit and detector it begins with."""
        rest = message
        path = printable(self.path)
        names = (f"{path}: ", f"{path} ", f"visit {self.visit} detector {self.detector}: ")
        while name := next((each for each in names if rest.startswith(each)), ""):
            rest = rest.removeprefix(name)
        return rest or message

    def to_json(self) -> str:
        """Return the unit as one line."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True)
class Run:
    """One frozen plan and what has been done of it."""

    folder: Place

    @property
    def name(self) -> str:
        """Name of the run; later runs have higher numbers."""
        return self.folder.name

    @property
    def units_file(self) -> Place:
        """File with one planned unit per line, ordered by visit and detector."""
        return self.folder / "units.jsonl"

    @property
    def images(self) -> Place:
        """Zarr store of pixels."""
        return self.folder / "images.zarr"

    @property
    def backgrounds(self) -> Place:
        """Zarr store of backgrounds."""
        return self.folder / "backgrounds.zarr"

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of ``run.json``: step, settings, mappings, products, shapes, counts, versions."""
        record: dict[str, Any] = read_json(self.folder / "run.json")
        return record

    @cached_property
    def markers(self) -> Markers:
        """Markers of this run's step."""
        durable = bool(self.record["products"].get("durable", False))
        return Markers(self.folder / "units" / self.record["step"].replace(":", "."), durable=durable)

    def units(self) -> Iterator[Unit]:
        """Planned units, ordered by visit and detector; read as they are asked for."""
        for line in self.units_file.lines():
            yield Unit.from_json(line)

    def visits(self) -> Iterator[tuple[int, list[Unit]]]:
        """Units of one visit after the other that this run does itself."""
        own = (unit for unit in self.units() if not unit.held_by)
        for visit, units in groupby(own, key=lambda unit: unit.visit):
            yield visit, list(units)


def open_runs(output: Place) -> list[Run]:
    """Return the runs of a campaign, oldest first.

    Raises
    ------
    StoreVersionError
        When one was written by a newer skysub.
    """
    runs = []
    folder = output / "runs"
    for name in sorted(folder.names()):
        run = Run(folder / name)
        if not run.record:
            # never whole: the plan is made again under another name
            continue
        version = run.record.get("format")
        if version != FORMAT:
            writer = run.record.get("versions", {}).get("skysub", "a newer version")
            raise StoreVersionError(
                f"{run.folder} has layout {version}, written by skysub {writer}; this skysub knows layout "
                f"{FORMAT}: install skysub {writer} or later, or choose another output"
            )
        runs.append(run)
    return runs


def existing_runs(output: Place) -> list[Run]:
    """Return the runs of a campaign that must be there.

    Raises
    ------
    CampaignNotFoundError
        When there is none.
    """
    runs = open_runs(output)
    if not runs:
        raise CampaignNotFoundError(
            f"there is no campaign at {output}: its folder would hold runs/; `skysub run` makes one"
        )
    return runs


def next_name(output: Place) -> str:
    """Name for a new run: a number above all folders there are, finished or not."""
    taken = [int(name) for name in (output / "runs").names() if name.isdigit()]
    return f"{max(taken, default=0) + 1:04d}"


def remove_unplanned(output: Place) -> None:
    """Remove what a coordinator left that was killed before its plan was whole; only under the lock."""
    folder = output / "runs"
    for name in folder.names():
        if name.isdigit() and not (folder / name / "run.json").exists():
            (folder / name).remove_tree()


def freeze(run: Run, record: dict[str, Any], units: Iterable[Unit]) -> None:
    """Write a plan: the units first, ``run.json`` last. Without it there is no run."""
    with writing(run.folder):
        run.units_file.put_lines(unit.to_json() for unit in units)
        # a plan and its arrays must outlive a power failure if a result does
        if record["products"]["durable"]:
            run.images.sync_tree()
            run.backgrounds.sync_tree()
        text = json.dumps({"format": FORMAT, **record}, indent=1)
        (run.folder / "run.json").put(text.encode(), durable=True)
