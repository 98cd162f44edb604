"""Runs: the frozen plans under ``OUT/runs``, and how what they plan is found visit by visit."""

from __future__ import annotations

import functools
import json
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from skysub.campaign.records import FORMAT, RunRecord, VisitPlan, who
from skysub.campaign.store.markers import Markers
from skysub.campaign.store.seals import damage, read_sealed, sealed, unsealed
from skysub.campaign.store.storage_path import parsed, writing
from skysub.errors import CampaignNotFoundError, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from skysub.campaign.store.storage_path import StoragePath

__all__ = [
    "Columns",
    "PlanCopy",
    "Run",
    "VisitIndex",
    "existing_runs",
    "freeze",
    "holds_work",
    "next_name",
    "open_runs",
    "remove_partial",
    "remove_unplanned",
]


@dataclass(frozen=True)
class VisitIndex:
    """What a run says of its visits, as columns (in the order of visits), without their units."""

    visit: NDArray[np.int64]
    offset: NDArray[np.int64]
    """Where the visit's line begins in ``units.jsonl``, bytes."""
    length: NDArray[np.int64]
    detectors: NDArray[np.int64]
    """How many the run names."""
    exposure_time: NDArray[np.float64]
    """Seconds; NaN where unknown."""
    band: list[str]
    """Bands of the visit's detectors, with commas between."""
    own: dict[str, NDArray[np.int64]]
    """Units that the run does itself, by step."""
    holds: NDArray[np.bool_]
    """Whether it also names results of earlier runs."""

    def row(self, visit: int) -> int | None:
        """Place of a visit in the columns; None where the run does not name it."""
        row = int(np.searchsorted(self.visit, visit))
        return row if row < len(self.visit) and self.visit[row] == visit else None


@dataclass(frozen=True)
class Run:
    """One frozen plan and what has been done of it."""

    folder: StoragePath

    def __hash__(self) -> int:
        return hash(self.folder)

    @property
    def name(self) -> str:
        """Name of the run; later runs have higher numbers."""
        return self.folder.name

    @property
    def units_file(self) -> StoragePath:
        """File with what is planned of one visit per line, in the order of visits."""
        return self.folder / "units.jsonl"

    @property
    def index_file(self) -> StoragePath:
        """File that says what lines there are."""
        return self.folder / "visits.json"

    @property
    def record_file(self) -> StoragePath:
        """File with the plan but for its visits; without it there is no run."""
        return self.folder / "run.json"

    @property
    def copy_file(self) -> StoragePath:
        """Second copy of the plan, from which a damaged one is made again."""
        return self.folder / "plan.copy"

    @property
    def images(self) -> StoragePath:
        """Zarr store of pixels."""
        return self.folder / "images.zarr"

    @property
    def backgrounds(self) -> StoragePath:
        """Zarr store of backgrounds."""
        return self.folder / "backgrounds.zarr"

    @cached_property
    def record(self) -> RunRecord:
        """Content of ``run.json``: steps, mappings, products, versions."""
        return RunRecord.from_values(self._content(self.record_file))

    def markers(self, step: str) -> Markers:
        """Markers of one of its steps."""
        return Markers(self.folder / "units" / step.replace(":", "."), durable=self.record.durable)

    def other(self, name: str) -> Run:
        """Another run of the same campaign."""
        return self if name in {"", self.name} else self._others(name)

    @cached_property
    def _others(self) -> Callable[[str], Run]:
        # kept with this run, so that a campaign made anew at the same place is another one
        return functools.cache(lambda name: Run(self.folder.parent / name))

    @cached_property
    def index(self) -> VisitIndex:
        """What it says of its visits, without their units."""
        columns = self._content(self.index_file)
        return VisitIndex(
            visit=np.array(columns["visit"], np.int64),
            offset=np.array(columns["offset"], np.int64),
            length=np.array(columns["length"], np.int64),
            detectors=np.array(columns["detectors"], np.int64),
            exposure_time=np.array(
                [np.nan if each is None else each for each in columns["exposure_time"]], np.float64
            ),
            band=columns["band"],
            own={name: np.array(counts, np.int64) for name, counts in columns["own"].items()},
            holds=np.array(columns["holds"], bool),
        )

    def plan_of(self, visit: int) -> VisitPlan | None:
        """What it plans of one visit; None where it does not name it."""
        return self._planned(visit)

    @cached_property
    def _planned(self) -> Callable[[int], VisitPlan | None]:
        return functools.lru_cache(maxsize=32)(self._read_plan)

    def _read_plan(self, visit: int) -> VisitPlan | None:
        index = self.index
        row = index.row(visit)
        if row is None:
            return None
        line = self.units_file.read_part(int(index.offset[row]), int(index.length[row]))
        return VisitPlan.from_values(self._line(line, who(visit)))

    def plans(self) -> Iterator[VisitPlan]:
        """Go through its visits; they are read as they are asked for.

        Raises
        ------
        DamagedError
            When they are not as they were written.
        """
        count = 0
        try:
            for line in self.units_file.lines():
                yield VisitPlan.from_values(self._line(line.rstrip(b"\n"), f"its line {count + 1}"))
                count += 1
        except FileNotFoundError:
            raise damage(self.units_file, "is gone") from None
        if count != len(self.index.visit):
            raise damage(self.units_file, f"has {count} visits, not {len(self.index.visit)}")

    def _content(self, place: StoragePath) -> dict[str, Any]:
        values = read_sealed(place)
        if values is None:
            raise damage(place, "is gone" if place.size() is None else "is empty")
        return values

    def _line(self, line: bytes | None, of: str) -> dict[str, Any]:
        values = None if line is None else unsealed(line)
        if values is None:
            raise damage(self.units_file, "is gone" if line is None else "is damaged", of)
        return values


def open_runs(output: StoragePath) -> list[Run]:
    """Return the runs of a campaign, oldest first.

    Raises
    ------
    StoreVersionError
        When one was written by a newer skysub, or by one whose layout is no longer known.
    DamagedError
        When the plan of one is not as it was written.
    """
    runs = []
    folder = output / "runs"
    for name in sorted(folder.names()):
        run = Run(folder / name)
        data = run.record_file.read()
        if not data and not holds_work(run):
            # never whole: the plan is made again under another name
            continue
        if not data:
            raise damage(run.record_file, "is gone" if data is None else "is empty")
        record, seal = parsed(data), unsealed(data)
        if not isinstance(record, dict) and not holds_work(run):
            continue
        if not isinstance(record, dict) or (seal is None and "crc32c" in record):
            raise damage(run.record_file, "is damaged")
        version = record.get("format")
        if version != FORMAT or seal is None:
            writer = record.get("versions", {}).get("skysub", "of another version")
            older = isinstance(version, int) and version < FORMAT
            cure = (
                f"read it with skysub {writer}, or run the recipe again into another output"
                if older
                else f"install skysub {writer} or later, or choose another output"
            )
            raise StoreVersionError(
                f"{run.folder} has layout {version}, written by skysub {writer}; this skysub knows layout "
                f"{FORMAT}: {cure}"
            )
        runs.append(run)
    return runs


def existing_runs(output: StoragePath) -> list[Run]:
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


def next_name(output: StoragePath) -> str:
    """Name for a new run: a number above all folders there are, finished or not."""
    taken = [int(name) for name in (output / "runs").names() if name.isdigit()]
    return f"{max(taken, default=0) + 1:04d}"


def holds_work(run: Run) -> bool:
    """Whether a run was planned to the end, even if its ``run.json`` is gone."""
    return bool(run.copy_file.size()) or bool((run.folder / "units").names())


def remove_unplanned(output: StoragePath) -> None:
    """Remove what a coordinator left that was killed before its plan was whole; only under the lock."""
    folder = output / "runs"
    for name in folder.names():
        run = Run(folder / name)
        if name.isdigit() and not run.record_file.exists() and not holds_work(run):
            run.folder.remove_tree()


def remove_partial(output: StoragePath) -> None:
    """Remove what killed writers left behind that nothing else clears away; only under the lock."""
    output.remove_partial()
    folder = output / "runs"
    for name in folder.names():
        run = folder / name
        run.remove_partial()
        for step in (run / "units").names():
            (run / "units" / step).remove_partial()


def freeze(run: Run, record: RunRecord, plans: Iterable[VisitPlan]) -> None:
    """Write a plan: its visits first, then ``run.json``, without which there is no run, and a copy of all."""
    columns = Columns([step.name for step in record.steps])
    text = sealed(json.dumps(record.as_json(), indent=1).encode())
    copy = PlanCopy(text)
    with writing(run.folder):
        run.units_file.put_lines(copy.kept(columns.line(plan) for plan in plans))
        run.index_file.put(columns.to_json(), durable=True)
        # a plan and its arrays must outlive a power failure if a result does
        if record.durable:
            run.images.sync_tree()
            run.backgrounds.sync_tree()
        run.record_file.put(text, durable=True)
        # last: a run with a copy alone has lost its plan, one without is whole
        run.copy_file.put(copy.data(), durable=True)


class PlanCopy:
    """The bytes of a plan's copy: a checksum, and ``run.json`` and ``units.jsonl`` compressed."""

    def __init__(self, record: bytes) -> None:
        self._packer = zlib.compressobj(6)
        self._parts = [self._packer.compress(b"%d\n%b\n" % (len(record), record))]

    def kept(self, lines: Iterable[str]) -> Iterator[str]:
        """Go through lines, which are taken into the copy."""
        for line in lines:
            self._parts.append(self._packer.compress(line.encode() + b"\n"))
            yield line

    def data(self) -> bytes:
        """Return the bytes, once all lines are in."""
        packed = b"".join([*self._parts, self._packer.flush()])
        return b"%08x%b" % (google_crc32c.value(packed), packed)

    @staticmethod
    def read(place: StoragePath) -> tuple[bytes, list[bytes]] | None:
        """Return ``run.json`` and lines of a copy; None where it is gone or damaged itself."""
        data = place.read() or b""
        try:
            if int(data[:8], 16) != google_crc32c.value(data[8:]):
                return None
            length, _, rest = zlib.decompress(data[8:]).partition(b"\n")
        except (ValueError, zlib.error):
            return None
        return rest[: int(length)], rest[int(length) + 1 :].splitlines()


@dataclass
class Columns:
    """Columns of `VisitIndex`, as lines are written."""

    steps: list[str]
    visit: array[int] = field(default_factory=lambda: array("q"))
    offset: array[int] = field(default_factory=lambda: array("q"))
    length: array[int] = field(default_factory=lambda: array("q"))
    detectors: array[int] = field(default_factory=lambda: array("q"))
    exposure_time: list[float | None] = field(default_factory=list)
    band: list[str] = field(default_factory=list)
    holds: list[bool] = field(default_factory=list)
    own: dict[str, array[int]] = field(default_factory=dict)
    position: int = 0

    def line(self, plan: VisitPlan) -> str:
        """Return the line of a visit, and take note of it."""
        text = sealed(plan.to_json().encode()).decode()
        self.visit.append(plan.visit)
        self.offset.append(self.position)
        self.length.append(len(text))
        self.detectors.append(len(plan.exposures))
        self.exposure_time.append(next(iter(plan.exposures.values())).exposure_time)
        self.band.append(plan.band)
        counts = Counter(step for step, _ in plan.own())
        for step in self.steps:
            self.own.setdefault(step, array("q")).append(counts[step])
        self.holds.append(any(holder for step in plan.steps.values() for holder in step.holders.values()))
        self.position += len(text) + 1
        return text

    def to_json(self) -> bytes:
        """Return the content of ``visits.json``."""
        names = ("visit", "offset", "length", "detectors")
        columns: dict[str, Any] = {name: list(getattr(self, name)) for name in names}
        own = {step: list(self.own.get(step, ())) for step in self.steps}
        columns |= {
            "exposure_time": self.exposure_time,
            "band": self.band,
            "holds": self.holds,
            "own": own,
        }
        return sealed(json.dumps(columns, separators=(",", ":")).encode())
