"""From a recipe to a plan: what is to be done, what is done already, and what it will cost."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from skysub._version import __version__
from skysub.campaign.history import History
from skysub.campaign.inputs import Unreadable, found_inputs, ingest_maps
from skysub.campaign.recipe import plain, short_hash
from skysub.campaign.sorting import SortedUnits
from skysub.campaign.steps import find_step
from skysub.campaign.store.address import place_at
from skysub.campaign.store.arrays import create_backgrounds, create_images
from skysub.campaign.store.place import writing
from skysub.campaign.store.runs import Run, freeze, next_name, open_runs
from skysub.errors import InputsError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from skysub.campaign.recipe import Recipe
    from skysub.campaign.steps import Layout, Step
    from skysub.campaign.store.place import Place
    from skysub.campaign.store.runs import Unit
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
    rows: SortedUnits
    """Units that a new run will list: those it does, and those of which it says that an older result counts
    (``held_by``), as a newer run has redone them otherwise."""
    left: int
    """Units to do."""
    done: int
    """Units that are done already."""
    visits: int
    """Visits of all units of the recipe."""
    bands: tuple[str, ...]
    """Their bands; empty where unknown."""
    shapes: tuple[tuple[int, int], ...]
    """Their shapes (ny, nx), the smallest first."""
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
        visits, detectors = array("q"), set()
        for unit in self.rows:
            if not unit.held_by:
                detectors.add(unit.detector)
                if not visits or visits[-1] != unit.visit:
                    visits.append(unit.visit)
        along = sorted(detectors)
        if visits:
            with writing(self.run.folder):
                self._create(visits, along)
        record = {**self.record, "visits": len(visits), "detectors": along, "units": self.left}
        freeze(self.run, record, self._placed({detector: i for i, detector in enumerate(along)}))
        return self.run

    def _placed(self, detector_at: Mapping[int, int]) -> Iterator[Unit]:
        """Rows with their places in the arrays of the run."""
        visit, visit_index = None, -1
        for unit in self.rows:
            if unit.held_by:
                yield unit
                continue
            visit_index += unit.visit != visit
            visit = unit.visit
            yield dataclasses.replace(
                unit, visit_index=visit_index, detector_index=detector_at[unit.detector]
            )

    def _create(self, visits: Sequence[int], detectors: Sequence[int]) -> None:
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
    OutputError
        When the output is a file.
    InputsError
        When the inputs match no file, or two files claim to be the same detector of one visit.
    RecipeError
        When the step is unknown, or a setting of it.
    StoreVersionError
        When the output was written by a newer skysub.
    """
    output = place_at(output)
    output.check_folder()
    step = find_step(recipe.step)
    config = step.configured(recipe.settings)
    ingests = ingest_maps(recipe.inputs)
    runs = open_runs(output)
    wanted, unreadable = _wanted(recipe, step, config, ingests)
    found = _compared(wanted, History(runs, recipe.products.pixels, verify=verify))
    # a store from elsewhere must not choose which step workers import
    resumes = bool(runs) and found.resumes and runs[-1].record["step"] == step.name
    layouts = {shape: step.layout(shape, config) for shape in found.left}
    megapixels = sum(number * _pixels(shape) for shape, number in found.left.items()) / 1e6
    return Plan(
        run=runs[-1] if resumes else Run(output / "runs" / next_name(output)),
        resumes=resumes,
        record=_record(recipe, step, config, ingests=ingests, layouts=layouts, units=found.units),
        rows=found.rows,
        left=found.left.total(),
        done=found.done,
        visits=found.visits,
        bands=tuple(sorted(found.bands)),
        shapes=tuple(sorted(found.shapes)),
        changed=tuple(found.changed),
        outdated=found.outdated,
        unreadable=tuple(unreadable),
        storage=_storage(found.left, layouts, recipe),
        memory=max((_memory(step, shape) for shape in found.left), default=0),
        core_seconds=_seconds_per_megapixel(runs, step) * megapixels,
    )


@dataclass
class _Compared:
    """What earlier runs have of the units that a recipe means."""

    rows: SortedUnits = field(default_factory=SortedUnits)
    resumes: bool = True
    left: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Units to do, by shape."""
    units: set[str] = field(default_factory=set)
    """Units of their pixels."""
    done: int = 0
    visits: int = 0
    bands: set[str] = field(default_factory=set)
    shapes: set[tuple[int, int]] = field(default_factory=set)
    changed: list[Unit] = field(default_factory=list)
    outdated: int = 0


def _compared(wanted: SortedUnits, history: History) -> _Compared:
    found = _Compared()
    for visit, units in groupby(_one_each(wanted), key=lambda unit: unit.visit):
        found.visits += 1
        history.turn_to(visit)
        for unit in units:
            found.bands.add(unit.band)
            found.shapes.add(unit.shape)
            holder, newest, why = history.holder(unit)
            if holder is None:
                found.rows.add(unit)
                found.left[unit.shape] += 1
                found.units.add(unit.unit)
                found.resumes = found.resumes and history.planned_last(unit)
                found.outdated += why == "settings"
                if why == "input":
                    found.changed.append(unit)
                continue
            found.done += 1
            if not newest:
                # a newer run has redone it otherwise: the new run must say that the older result counts
                found.resumes = False
                found.rows.add(dataclasses.replace(unit, **holder))
    return found


def _wanted(
    recipe: Recipe, step: Step, config: Any, ingests: list[IngestMap]
) -> tuple[SortedUnits, list[Unreadable]]:
    keys = [short_hash([step.name, step.version, config, ingest]) for ingest in ingests]
    unreadable: list[Unreadable] = []
    units = SortedUnits()
    for each in found_inputs(recipe.inputs):
        if isinstance(each, Unreadable):
            unreadable.append(each)
        else:
            units.add(dataclasses.replace(each, key=keys[each.source]))
    return units, unreadable


def _one_each(units: Iterable[Unit]) -> Iterator[Unit]:
    """Leave out what two sources name alike."""
    for (visit, detector), same in groupby(units, key=lambda unit: (unit.visit, unit.detector)):
        first, *others = same
        for other in others:
            if other.path != first.path:
                raise InputsError(
                    f"{first.path} and {other.path} both claim to be visit {visit} detector {detector}: "
                    "leave one out, or say by ingest or pattern how their names tell them apart"
                )
        yield first


def _record(
    recipe: Recipe,
    step: Step,
    config: Any,
    *,
    ingests: list[IngestMap],
    layouts: Mapping[tuple[int, int], Layout],
    units: set[str],
) -> dict[str, Any]:
    return {
        "step": step.name,
        "step_version": step.version,
        "product": step.product,
        "settings": plain(config),
        "settings_hash": short_hash([step.name, step.version, config]),
        "ingests": [plain(ingest) for ingest in ingests],
        "products": recipe.products.model_dump(),
        "unit": next(iter(units)) if len(units) == 1 else "",
        "shape": [max((shape[axis] for shape in layouts), default=0) for axis in (0, 1)],
        "layers": max((layout.layers for layout in layouts.values()), default=0),
        "grid": [max((layout.grid[axis] for layout in layouts.values()), default=0) for axis in (0, 1)],
        "terms": max((layout.terms for layout in layouts.values()), default=0),
        "recipe": recipe.model_dump(mode="json"),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"skysub": __version__, "python": platform.python_version()},
    }


def _storage(
    left: Mapping[tuple[int, int], int], layouts: Mapping[tuple[int, int], Layout], recipe: Recipe
) -> int:
    stored = recipe.products.pixels == "stored"
    per_pixel = 4 * _MASK_STORED + (8 * _STORED[recipe.products.compression] if stored else 0)
    total = 0.0
    for shape, number in left.items():
        layout = layouts[shape]
        gy, gx = layout.grid
        background = layout.layers * (13 * gy * gx + 8 * layout.terms * (layout.terms + 1))
        total += number * (per_pixel * _pixels(shape) + _MARKER + background)
    return int(total)


def _memory(step: Step, shape: tuple[int, int]) -> int:
    return int(step.memory_images * 4 * _pixels(shape)) + LIBRARIES


def _pixels(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _seconds_per_megapixel(runs: list[Run], step: Step) -> float:
    """Median of up to 30 finished units of the last run of this step that has any; else the step's guess."""
    for run in reversed(runs):
        if run.record["step"] != step.name:
            continue
        rates: list[float] = []
        for visit, units in run.visits():
            markers = run.markers.of_visit(visit)
            rates += [
                1e6 * sum(markers[unit.detector]["timings"].values()) / _pixels(unit.shape)
                for unit in units
                if unit.detector in markers
            ]
            if len(rates) >= 30:
                break
        if rates:
            return statistics.median(rates)
    return step.seconds_per_megapixel
