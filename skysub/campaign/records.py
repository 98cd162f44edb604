"""What a campaign writes down, as typed values: exposures, units of work, markers, failures, plans and runs.

Every record has one way to text and back. `FORMAT` is the version of all of them together.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from skysub.errors import StoreVersionError
from skysub.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "FORMAT",
    "Exposure",
    "Failure",
    "Marker",
    "Place3",
    "RunRecord",
    "StepPlan",
    "StepRecord",
    "VisitPlan",
    "WorkUnit",
    "who",
]

FORMAT = 3
"""Version of the store's layout; a store of another one is refused."""


def who(visit: int, detector: int | None = None) -> str:
    """Name a unit for people: "visit 11 detector 1", "visit 11"."""
    return f"visit {visit}" if detector is None else f"visit {visit} detector {detector}"


@dataclass(frozen=True, slots=True)
class Exposure:
    """One detector of one visit as its file has it (the main file, where there are several)."""

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

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> Exposure:
        """Return the exposure that `values` described."""
        made = list(values)
        made[8] = tuple(made[8])
        made[10] = tuple((name, value) for name, value in made[10])
        return cls(*made)

    @classmethod
    def from_json(cls, text: str | bytes) -> Exposure:
        """Return the exposure that `to_json` wrote."""
        return cls.from_values(json.loads(text))

    def values(self) -> list[Any]:
        """Return the fields in their order."""
        return [getattr(self, name) for name in _EXPOSURE]

    def to_json(self) -> str:
        """Return the exposure as one line."""
        return json.dumps(self.values(), separators=(",", ":"))

    def reason(self, message: str) -> str:
        """Return what a message about it says, without the path, visit and detector it begins with."""
        path = printable(self.path)
        return shortened(message, (f"{path}: ", f"{path} ", f"{who(self.visit, self.detector)}: "))


_EXPOSURE = tuple(each.name for each in dataclasses.fields(Exposure))


def shortened(message: str, names: tuple[str, ...]) -> str:
    """Return a message without the names it begins with."""
    rest = message
    while name := next((each for each in names if rest.startswith(each)), ""):
        rest = rest.removeprefix(name)
    return rest or message


class Place3(NamedTuple):
    """Where a result lies: its run, and its place along the first two axes of that run's arrays."""

    run: str
    visit_index: int
    detector_index: int


@dataclass(frozen=True)
class WorkUnit:
    """All that a worker must know to do one step for one detector or one visit."""

    step: str
    visit: int
    detector: int | None
    """None: the whole visit."""
    key: str
    """Hash of step, settings, mapping and of the keys of its inputs."""
    visit_index: int
    places: dict[int, int]
    """Of each detector, its place along the second axis of the run's arrays."""
    exposures: tuple[Exposure, ...]
    """Its own, or those of all detectors of the visit."""
    held: dict[str, dict[int | None, Place3]] = field(default_factory=dict)
    """Results that it may read: by step and detector."""
    missing: dict[int, str] = field(default_factory=dict)
    """Detectors of the visit whose inputs failed, and why."""
    closing: bool = False
    """Whether it puts the results of a visit's detectors together, once they are done."""

    @classmethod
    def from_json(cls, text: str | bytes) -> WorkUnit:
        """Return the unit that `to_json` wrote."""
        fields = json.loads(text)
        fields["exposures"] = tuple(Exposure.from_values(each) for each in fields["exposures"])
        fields["places"] = dict(fields["places"])
        fields["missing"] = dict(fields["missing"])
        fields["held"] = {
            step: {detector: Place3(*place) for detector, place in held}
            for step, held in fields["held"].items()
        }
        return cls(**fields)

    def to_json(self) -> str:
        """Return the unit as one line."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        fields["exposures"] = [each.values() for each in self.exposures]
        fields["places"] = list(self.places.items())
        fields["missing"] = list(self.missing.items())
        fields["held"] = {step: list(held.items()) for step, held in self.held.items()}
        return json.dumps(fields, separators=(",", ":"))

    @property
    def name(self) -> tuple[str, int, int | None]:
        """Step, visit and detector."""
        return self.step, self.visit, self.detector

    def reason(self, message: str) -> str:
        """Return what a message about this unit says, without the path, visit and detector it begins with."""
        if self.detector is not None:
            return self.exposures[0].reason(message)
        return shortened(message, (f"{who(self.visit)}: ",))


@dataclass(frozen=True)
class Marker:
    """What a finished unit leaves, last of all: without it the unit is not done."""

    step: str
    visit: int
    detector: int | None
    key: str
    input: Mapping[str, Any] | None = None
    """Path, size, mtime_ns and crc32c of the bytes that were read; None where no file was."""
    missing: tuple[int, ...] = ()
    """Detectors that a visit's unit did without."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage, in order."""
    shape: tuple[int, int] | None = None
    """(ny, nx) of the detector."""
    products: Mapping[str, Any] = field(default_factory=dict)
    """What each product says of itself: sizes, checksums, units."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What each product keeps in the marker itself, such as small arrays as text."""
    peak_memory: int = 0
    """Largest resident memory of the worker so far, bytes."""
    started: str = ""
    host: str = ""
    process: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def from_values(cls, values: Mapping[str, Any], payload: Mapping[str, Any] | None = None) -> Marker:
        """Return the marker that `as_json` wrote; ``payload`` stands in for one that was left out."""
        fields = {name: values[name] for name in _MARKER if name in values}
        fields["missing"] = tuple(values.get("missing", ()))
        if payload is not None:
            fields["payload"] = payload
        if fields.get("shape") is not None:
            fields["shape"] = tuple(fields["shape"])
        return cls(**fields)

    def as_json(self, *, payload: bool = True) -> dict[str, Any]:
        """Return the marker as plain values."""
        values = {name: getattr(self, name) for name in _MARKER if payload or name != "payload"}
        values["missing"] = list(self.missing)
        values["shape"] = None if self.shape is None else list(self.shape)
        return values

    @property
    def seconds(self) -> float:
        """Time on the worker."""
        return float(sum(self.timings.values()))


_MARKER = tuple(each.name for each in dataclasses.fields(Marker))


@dataclass(frozen=True)
class Failure:
    """A unit, or an input that could not even be planned, and why it failed."""

    path: str
    """Input file; empty where a unit has several."""
    message: str
    """In one line, without path, visit and detector."""
    visit: int | None = None
    """None where the header could not be read."""
    detector: int | None = None
    """None where a whole visit failed."""
    step: str = ""
    run: str = ""
    traceback: str = ""
    when: str = ""
    host: str = ""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Failure:
        """Return the failure that ``vars`` gave; keys that are not known are passed over."""
        return cls(
            **{each.name: values[each.name] for each in dataclasses.fields(cls) if each.name in values}
        )


@dataclass(frozen=True)
class StepPlan:
    """What a run plans of one step for one visit."""

    keys: dict[int | None, str]
    """By detector (None: the visit itself); of those the run names."""
    holders: dict[int | None, str]
    """Name of the earlier run whose result serves; empty where this run does the work."""

    @property
    def own(self) -> list[int | None]:
        """Detectors that this run does itself."""
        return [detector for detector, run in self.holders.items() if not run]


@dataclass(frozen=True)
class VisitPlan:
    """What a run plans of one visit: one line of its ``units.jsonl``."""

    visit: int
    exposures: dict[int, Exposure]
    """By detector, in order."""
    steps: dict[str, StepPlan]
    index: int = -1
    """Place of the visit along the first axis of the run's arrays."""
    places: dict[int, int] = field(default_factory=dict)
    """Of each detector, its place along the second axis."""

    @classmethod
    def from_json(cls, text: str | bytes) -> VisitPlan:
        """Return the plan that `to_json` wrote."""
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, fields: Mapping[str, Any]) -> VisitPlan:
        """Return the plan of what `to_json` wrote, read as JSON."""
        count = fields["count"]
        columns = [_unfolded(column, count) for column in fields["exposures"]]
        exposures = [Exposure.from_values(values) for values in zip(*columns, strict=True)]
        detectors = [each.detector for each in exposures]
        steps = {}
        for name, (whole, keys, holders) in fields["steps"].items():
            along: list[int | None] = [None] if whole else list(detectors)
            keyed = zip(along, _unfolded(keys, len(along)), _unfolded(holders, len(along)), strict=True)
            named = [(each, key, run) for each, key, run in keyed if run is not None]
            steps[name] = StepPlan(
                {each: key for each, key, _ in named}, {each: run for each, _, run in named}
            )
        return cls(
            visit=fields["visit"],
            exposures=dict(zip(detectors, exposures, strict=True)),
            steps=steps,
            index=fields["index"],
            places=dict(zip(detectors, _unfolded(fields["places"], count), strict=True)),
        )

    def to_json(self) -> str:
        """Return the plan as one line; what is the same for all detectors stands there once."""
        rows = [each.values() for each in self.exposures.values()]
        steps = {}
        for name, plan in self.steps.items():
            whole = None in plan.holders
            along: list[int | None] = [None] if whole else list(self.exposures)
            keys = [plan.keys.get(each, "") for each in along]
            steps[name] = [whole, _folded(keys), _folded([plan.holders.get(each) for each in along])]
        fields = {
            "visit": self.visit,
            "index": self.index,
            "count": len(rows),
            "exposures": [_folded([row[i] for row in rows]) for i in range(len(_EXPOSURE))],
            "places": _folded([self.places.get(each, -1) for each in self.exposures]),
            "steps": steps,
        }
        return json.dumps(fields, separators=(",", ":"))

    @property
    def band(self) -> str:
        """Bands of its detectors, in order, with commas between."""
        return ",".join(dict.fromkeys(each.band for each in self.exposures.values()))

    def own(self) -> Iterator[tuple[str, int | None]]:
        """Go through step and detector of what the run does itself."""
        for name, plan in self.steps.items():
            for detector in plan.own:
                yield name, detector


def _is_folder_name(name: str) -> bool:
    """Whether a name stays within the folder that it is put into."""
    return bool(name) and not name.startswith(".") and not {"/", "\\", "\0"}.intersection(name)


def _folded(column: list[Any]) -> Any:
    """One value where all are equal, else the list."""
    if column and all(value == column[0] for value in column):
        return {"all": column[0]}
    return column


def _unfolded(column: Any, count: int) -> list[Any]:
    return [column["all"]] * count if isinstance(column, dict) else column


@dataclass(frozen=True)
class StepRecord:
    """One step of a run."""

    name: str
    version: int
    scope: str
    settings: Any
    settings_hash: str
    units: int = 0
    """Units that the run does itself."""
    rooms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the arrays of its products were made for, by product."""
    description: dict[str, Any] = field(default_factory=dict)
    """What a reader must know of it, so that its module need not be imported."""


@dataclass(frozen=True)
class RunRecord:
    """The frozen plan of a run, but for its units: ``run.json``."""

    steps: tuple[StepRecord, ...]
    ingests: tuple[Any, ...]
    """Mappings of the sources."""
    tables: dict[str, Any]
    """Tables given by the user: path and crc32c."""
    products: dict[str, Any]
    """What is kept of pixels, and how."""
    visits: int
    detectors: tuple[int, ...]
    """Along the second axis of the arrays."""
    recipe: dict[str, Any]
    created: str
    versions: dict[str, str]
    format: int = FORMAT

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> RunRecord:
        """Return the record that `as_json` wrote."""
        fields = dict(values)
        fields["steps"] = tuple(StepRecord(**each) for each in values["steps"])
        for step in fields["steps"]:
            products = [str(each["name"]) for each in step.description.get("outputs", ())]
            for name in (step.name, *products):
                if not _is_folder_name(name):
                    raise StoreVersionError(
                        f"a run names a step or product {name!r}, which is no name of a folder: "
                        "skysub did not write it"
                    )
        fields["ingests"] = tuple(values["ingests"])
        fields["detectors"] = tuple(values["detectors"])
        return cls(**fields)

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain values, its version first."""
        values = dataclasses.asdict(self)
        return {"format": values.pop("format"), **values}

    @cached_property
    def chain(self) -> str:
        """Steps with their settings and tables, as one text."""
        steps = [
            [each.name, each.version, each.scope, each.settings, each.description] for each in self.steps
        ]
        return json.dumps([steps, self.tables])

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(step.name for step in self.steps)

    def step(self, name: str) -> StepRecord | None:
        """Return the step of a name; None where the run has none."""
        return next((each for each in self.steps if each.name == name), None)

    @property
    def durable(self) -> bool:
        """Whether results are on the disk before they count."""
        return bool(self.products.get("durable", False))

    @property
    def pixels(self) -> str:
        """Whether pixels are "stored", or made "on_demand"."""
        return str(self.products["pixels"])
