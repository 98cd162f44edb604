"""From a recipe to a plan: what is to be done, what is done already, and what it will cost."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub._version import __version__
from skysub.campaign.arrays import create_backgrounds, create_images, shard_place
from skysub.campaign.inputs import Unreadable, found_inputs, ingest_maps, is_unchanged
from skysub.campaign.places import place_at, writing
from skysub.campaign.recipe import plain, short_hash
from skysub.campaign.runs import Run, Unit, freeze, next_name, open_runs
from skysub.campaign.steps import find_step
from skysub.errors import InputsError

if TYPE_CHECKING:
    import os

    from skysub.campaign.places import Place
    from skysub.campaign.recipe import Recipe
    from skysub.campaign.steps import Layout, Step
    from skysub.visit.ingest import IngestMap

__all__ = ["LIBRARIES", "Plan", "make_plan"]

LIBRARIES = 250 * 2**20
"""Bytes that a worker needs before it sees a pixel."""

_MARKER = 8000
"""Bytes of a marker, with what it says of header and world coordinates."""

_STORED = {"lz4": 0.9, "zstd": 0.88, "none": 1.0}
_MASK_STORED = 0.02
"""Stored bytes per byte of noise-like pixels and of masks, until finished units tell better."""


@dataclass(frozen=True)
class Plan:
    """What a recipe means for an output, before anything is written."""

    run: Run
    """The run that would be worked on."""
    resumes: bool
    """Whether that run is there already."""
    record: dict[str, Any]
    """What ``run.json`` will hold, where the run is new."""
    units: tuple[Unit, ...]
    """All units of the recipe, ordered by visit and detector; ``held_by`` says which are done elsewhere."""
    left: int
    """Units to do."""
    done: int
    """Units that are done already."""
    pointers: frozenset[Unit]
    """Done units that a newer run has redone otherwise: the new run must say that the older result counts."""
    changed: tuple[Unit, ...]
    """Units done before, to be redone because their input is another one."""
    outdated: int
    """Units done before, to be redone because settings, mappings or products are others."""
    unreadable: tuple[Unreadable, ...]
    """Input files whose headers cannot be read; they count as failed."""
    storage: int
    """Bytes that will be written."""
    memory: int
    """Bytes that a worker needs for the largest unit."""
    core_seconds: float
    """Expected work of all units on one core, seconds."""

    def freeze(self) -> Run:
        """Make the run's arrays at full length and write its plan; nothing for a run that resumes."""
        if self.resumes:
            return self.run
        rows = [unit for unit in self.units if not unit.held_by or unit in self.pointers]
        own = [unit for unit in rows if not unit.held_by]
        visits = sorted({unit.visit for unit in own})
        detectors = sorted({unit.detector for unit in own})
        visit_at = {visit: i for i, visit in enumerate(visits)}
        detector_at = {detector: i for i, detector in enumerate(detectors)}
        if own:
            with writing(self.run.folder):
                self._create(visits, detectors)
        freeze(
            self.run,
            {**self.record, "visits": len(visits), "detectors": detectors, "units": len(own)},
            (
                unit
                if unit.held_by
                else dataclasses.replace(
                    unit, visit_index=visit_at[unit.visit], detector_index=detector_at[unit.detector]
                )
                for unit in rows
            ),
        )
        return self.run

    def _create(self, visits: list[int], detectors: list[int]) -> None:
        step = find_step(self.record["step"])
        products = self.record["products"]
        planes = ("image", "mask", "variance") if products["pixels"] == "stored" else ("mask",)
        ny, nx = self.record["shape"]
        create_images(
            self.run.images,
            step.product,
            planes=planes,
            visits=visits,
            detectors=detectors,
            shape=(ny, nx),
            compression=products["compression"],
            unit=self.record["unit"],
        )
        gy, gx = self.record["grid"]
        create_backgrounds(
            self.run.backgrounds,
            step.background_product,
            visits=visits,
            detectors=detectors,
            layers=self.record["layers"],
            grid=(gy, gx),
            terms=self.record["terms"],
            unit=self.record["unit"],
        )


def make_plan(recipe: Recipe, output: str | os.PathLike[str] | Place, *, verify: bool = False) -> Plan:
    """Find the inputs of a recipe by their headers, and what an output already has of them.

    Parameters
    ----------
    output
        Folder or address of the campaign; it need not exist, and nothing is written.
    verify
        Also compare what finished units wrote with their checksums; those that differ count as not done
        (and their markers are removed).

    Raises
    ------
    InputsError
        When the inputs match no file, or two files claim to be the same detector of one visit.
    RecipeError
        When the step is unknown, or a setting of it.
    StoreVersionError
        When the output was written by a newer skysub.
    """
    output = place_at(output)
    step = find_step(recipe.step)
    config = step.configured(recipe.settings)
    ingests = ingest_maps(recipe.inputs)
    runs = open_runs(output)
    wanted, unreadable = _wanted(recipe, step, config, ingests)
    history = _History(runs, recipe.products.pixels, verify=verify)
    units, changed, outdated, pointers = [], [], 0, set()
    for unit in wanted:
        holder, newest, why = history.holder(unit)
        held = dataclasses.replace(unit, held_by=holder.run.name) if holder is not None else unit
        if holder is not None:
            held = dataclasses.replace(
                held, visit_index=holder.visit_index, detector_index=holder.detector_index
            )
            if not newest:
                pointers.add(held)
        elif why == "input":
            changed.append(unit)
        elif why == "settings":
            outdated += 1
        units.append(held)
    left = [unit for unit in units if not unit.held_by]
    resumes = bool(runs) and not pointers and all(history.planned_last(unit) for unit in left)
    layouts = [step.layout(unit.shape, config) for unit in left]
    return Plan(
        run=runs[-1] if resumes else Run(output / "runs" / next_name(output)),
        resumes=resumes,
        record=_record(recipe, step, config, ingests=ingests, left=left, layouts=layouts),
        units=tuple(units),
        left=len(left),
        done=len(units) - len(left),
        changed=tuple(changed),
        outdated=outdated,
        unreadable=tuple(unreadable),
        storage=_storage(left, layouts, recipe),
        memory=max((_memory(step, unit) for unit in left), default=0),
        core_seconds=_seconds_per_megapixel(runs, step) * sum(_megapixels(unit) for unit in left),
        pointers=frozenset(pointers),
    )


@dataclass(frozen=True, slots=True)
class _Holder:
    run: Run
    visit_index: int
    detector_index: int


class _History:
    """What earlier runs planned and did, looked up by visit and detector."""

    def __init__(self, runs: list[Run], pixels: str, *, verify: bool) -> None:
        self._pixels = pixels
        self._verify = verify
        self._runs = {run.name: run for run in runs}
        self._last = runs[-1].name if runs else ""
        self._planned: dict[tuple[int, int], list[tuple[str, Unit]]] = {}
        for run in reversed(runs):
            for unit in run.units():
                self._planned.setdefault((unit.visit, unit.detector), []).append((run.name, unit))
        self._detectors: dict[int, list[int]] = {}
        for visit, detector in self._planned:
            self._detectors.setdefault(visit, []).append(detector)
        self._done: dict[tuple[str, int], set[int]] = {}

    def holder(self, wanted: Unit) -> tuple[_Holder | None, bool, str]:
        """Run that holds a unit's result, whether the newest word on the unit says so, and if not why not."""
        why = ""
        for position, (name, unit) in enumerate(self._planned.get((wanted.visit, wanted.detector), [])):
            run = self._runs.get(unit.held_by or name)
            if run is None or not self._is_done(run, unit):
                continue
            if unit.key != wanted.key or not self._has_pixels(run):
                why = why or "settings"
            elif not self._same_input(run, unit, wanted):
                why = "input"
            elif self._verify and not _is_sound(run, unit):
                run.markers.forget(unit.visit, unit.detector)
                self._done.pop((run.name, unit.visit), None)
            else:
                return _Holder(run, unit.visit_index, unit.detector_index), position == 0, ""
        return None, False, why

    def planned_last(self, wanted: Unit) -> bool:
        """Whether the last run plans this very unit, with this input."""
        planned = self._planned.get((wanted.visit, wanted.detector), [])
        if not planned or planned[0][0] != self._last:
            return False
        unit = planned[0][1]
        same = (unit.key, unit.size, unit.mtime_ns) == (wanted.key, wanted.size, wanted.mtime_ns)
        return same and not unit.held_by and self._has_pixels(self._runs[self._last])

    def _is_done(self, run: Run, unit: Unit) -> bool:
        place = (run.name, unit.visit)
        if place not in self._done:
            self._done[place] = run.markers.done(unit.visit, self._detectors[unit.visit])
        return unit.detector in self._done[place]

    def _has_pixels(self, run: Run) -> bool:
        return self._pixels == "on_demand" or run.record["products"]["pixels"] == "stored"

    def _same_input(self, run: Run, unit: Unit, wanted: Unit) -> bool:
        planned = (unit.size, unit.mtime_ns)
        if planned == (wanted.size, wanted.mtime_ns):
            return True
        marker = run.markers.of_detector(unit.visit, unit.detector)
        was = None if marker is None else marker["input"]["crc32c"]
        return is_unchanged(wanted.path, planned, was=was)


def _wanted(
    recipe: Recipe, step: Step, config: Any, ingests: list[IngestMap]
) -> tuple[list[Unit], list[Unreadable]]:
    keys = [short_hash([step.name, step.version, config, ingest]) for ingest in ingests]
    unreadable: list[Unreadable] = []
    units: dict[tuple[int, int], Unit] = {}
    for each in found_inputs(recipe.inputs):
        if isinstance(each, Unreadable):
            unreadable.append(each)
            continue
        unit = Unit(
            **{field.name: getattr(each, field.name) for field in dataclasses.fields(each)},
            key=keys[each.source],
        )
        other = units.setdefault((unit.visit, unit.detector), unit)
        if other.path != unit.path:
            raise InputsError(
                f"{other.path} and {unit.path} both claim to be visit {unit.visit} detector {unit.detector}: "
                "leave one out, or say by ingest or pattern how their names tell them apart"
            )
    return [units[place] for place in sorted(units)], unreadable


def _record(
    recipe: Recipe,
    step: Step,
    config: Any,
    *,
    ingests: list[IngestMap],
    left: list[Unit],
    layouts: list[Layout],
) -> dict[str, Any]:
    pixel_units = {unit.unit for unit in left}
    return {
        "step": step.name,
        "step_version": step.version,
        "settings": plain(config),
        "settings_hash": short_hash([step.name, step.version, config]),
        "ingests": [plain(ingest) for ingest in ingests],
        "products": recipe.products.model_dump(),
        "unit": next(iter(pixel_units)) if len(pixel_units) == 1 else "",
        "shape": [max((unit.shape[axis] for unit in left), default=0) for axis in (0, 1)],
        "layers": max((layout.layers for layout in layouts), default=0),
        "grid": [max((layout.grid[axis] for layout in layouts), default=0) for axis in (0, 1)],
        "terms": max((layout.terms for layout in layouts), default=0),
        "recipe": recipe.model_dump(mode="json"),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"skysub": __version__, "python": platform.python_version()},
    }


def _storage(left: list[Unit], layouts: list[Layout], recipe: Recipe) -> int:
    stored = recipe.products.pixels == "stored"
    per_pixel = 4 * _MASK_STORED + (8 * _STORED[recipe.products.compression] if stored else 0)
    total = 0.0
    for unit, layout in zip(left, layouts, strict=True):
        gy, gx = layout.grid
        total += per_pixel * unit.shape[0] * unit.shape[1] + _MARKER
        total += layout.layers * (13 * gy * gx + 8 * layout.terms * (layout.terms + 1))
    return int(total)


def _memory(step: Step, unit: Unit) -> int:
    return int(step.memory_images * 4 * unit.shape[0] * unit.shape[1]) + LIBRARIES


def _megapixels(unit: Unit) -> float:
    return unit.shape[0] * unit.shape[1] / 1e6


def _seconds_per_megapixel(runs: list[Run], step: Step) -> float:
    """Median of up to 30 finished units of the last run of this step that has any; else the step's guess."""
    for run in reversed(runs):
        if run.record["step"] != step.name:
            continue
        rates: list[float] = []
        for visit, units in run.visits():
            markers = run.markers.of_visit(visit)
            rates += [
                sum(markers[unit.detector]["timings"].values()) / _megapixels(unit)
                for unit in units
                if unit.detector in markers
            ]
            if len(rates) >= 30:
                break
        if rates:
            return statistics.median(rates)
    return step.seconds_per_megapixel


def _is_sound(run: Run, unit: Unit) -> bool:
    """Whether the files of a finished unit are what its marker says."""
    marker = run.markers.of_detector(unit.visit, unit.detector)
    if marker is None:
        return False
    index = (unit.visit_index, unit.detector_index)
    for name, written in marker["shards"].items():
        shard = shard_place(run.images, find_step(run.record["step"]).product, name, index)
        there = shard.exists()
        if there != bool(written["bytes"]) or (there and shard.checksum() != written["crc32c"]):
            return False
    return True
