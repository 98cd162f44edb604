"""From a recipe to a plan: what is to be done, what is done already, and what it will cost."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from array import array
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from skysub._version import __version__
from skysub.campaign.block_cuts import memory_in_blocks
from skysub.campaign.chain import chained, step_files, user_tables
from skysub.campaign.compare import Comparison
from skysub.campaign.described import description_of
from skysub.campaign.history import History
from skysub.campaign.input_index import opened_index
from skysub.campaign.inputs import Unreadable, found_inputs, ingest_maps
from skysub.campaign.products.base import Storing
from skysub.campaign.recipe import as_json, short_hash
from skysub.campaign.records import RunRecord, StepRecord
from skysub.campaign.selection import Selection
from skysub.campaign.sorting import SortedExposures
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import Run, freeze, next_name, open_runs
from skysub.campaign.store.storage_path import writing
from skysub.errors import InputsError, RecipeError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from skysub.campaign.chain import Chain, Link
    from skysub.campaign.recipe import Recipe
    from skysub.campaign.records import Exposure, VisitPlan
    from skysub.campaign.sorting import Spool
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["LIBRARIES", "Plan", "StepEstimate", "make_plan"]

LIBRARIES = 250 * 2**20
"""Bytes that a worker needs before it sees a pixel."""

_MARKER = 8000
"""Bytes of a marker, with what it says of header and world coordinates."""


@dataclass(frozen=True)
class StepEstimate:
    """What is to be done of one step, and what that will cost."""

    name: str
    scope: str
    left: int
    done: int
    blocked: int
    """Units that cannot be done, as what they need is neither done nor chosen."""
    storage: int
    """Bytes that will be written."""
    memory: int
    """Bytes that a worker needs for the largest unit,"""
    memory_in_blocks: int
    """and where detectors are cut into blocks."""
    core_seconds: float
    """Expected work of all units on one core, seconds."""


@dataclass(frozen=True)
class Plan:
    """What a recipe means for an output, before anything is written."""

    run: Run
    """The run that would be worked on."""
    resumes: bool
    """Whether that run is there already."""
    chain: Chain
    """Steps of the recipe."""
    record: RunRecord
    """What ``run.json`` will hold, where the run is new."""
    rows: Spool
    """Visits with something to be done or said: units to do are a run's own, of the others it says who holds
    their results."""
    closings: tuple[tuple[str, int, str], ...]
    """Run, visit and step whose units are done, but not yet put together."""
    steps: tuple[StepEstimate, ...]
    visits: int
    """Visits of all units of the recipe."""
    detectors: int
    """Detectors of these visits."""
    bands: tuple[str, ...]
    """Their bands; empty where unknown."""
    shapes: tuple[tuple[int, int], ...]
    """Their shapes (ny, nx), the smallest first."""
    changed: tuple[Exposure, ...]
    """Detectors done before, to be redone because their input is another one."""
    outdated: int
    """Units done before, to be redone because settings, mappings, products or detectors are others."""
    unreadable: tuple[Unreadable, ...]
    """Input files whose headers cannot be read; they count as failed."""

    @property
    def left(self) -> int:
        """Units to do."""
        return sum(step.left for step in self.steps)

    @property
    def done(self) -> int:
        """Units that are done already."""
        return sum(step.done for step in self.steps)

    @property
    def storage(self) -> int:
        """Bytes that will be written."""
        return sum(step.storage for step in self.steps)

    @property
    def memory(self) -> int:
        """Bytes that a worker needs for the largest unit."""
        return self.memory_of(())

    def memory_of(self, in_blocks: Collection[str]) -> int:
        """Bytes that a worker needs where units of some steps are done in blocks."""
        return max(
            (each.memory_in_blocks if each.name in in_blocks else each.memory for each in self.steps),
            default=0,
        )

    @property
    def core_seconds(self) -> float:
        """Expected work of all units on one core, seconds."""
        return sum(step.core_seconds for step in self.steps)

    def freeze(self) -> Run:
        """Make the run's arrays at full length and write its plan; nothing for a run that resumes."""
        if self.resumes:
            return self.run
        visits = array("q")
        detectors: set[int] = set()
        for plan in self.rows:
            own = {step for step, _ in plan.own()}
            if own:
                visits.append(plan.visit)
                detectors.update(plan.exposures)
        along = sorted(detectors)
        if visits:
            with writing(self.run.folder):
                storing = Storing(**self.record.products)
                for step in self.record.steps:
                    outputs = {each.name: each for each in self.chain[step.name].step.outputs}
                    for name, room in step.rooms.items() if step.units else ():
                        outputs[name].create(self.run, room, storing, visits=visits, detectors=along)
        record = dataclasses.replace(self.record, visits=len(visits), detectors=tuple(along))
        freeze(self.run, record, self._placed({detector: i for i, detector in enumerate(along)}))
        return self.run

    def _placed(self, detector_at: Mapping[int, int]) -> Iterator[VisitPlan]:
        """Visits with their places in the arrays of the run."""
        index = -1
        for plan in self.rows:
            if next(plan.own(), None) is None:
                yield plan
                continue
            index += 1
            yield dataclasses.replace(
                plan, index=index, places={detector: detector_at[detector] for detector in plan.exposures}
            )


def make_plan(
    recipe: Recipe,
    output: str | os.PathLike[str] | StoragePath,
    *,
    verify: bool = False,
    steps: Collection[str] | None = None,
    visits: Collection[int] | Selection | None = None,
    keep_index: bool = False,
) -> Plan:
    """Find the inputs of a recipe by their headers, and what an output already has of them.

    Parameters
    ----------
    output
        Folder or address of the campaign; it need not exist, and nothing is written.
    verify
        Also compare what finished units wrote with their checksums; those that differ count as not done
        (and their markers are removed).
    steps, visits
        Do these alone; all by default. Visits are named by numbers, or chosen by a condition.
    keep_index
        Keep what headers said beside the campaign, for the next start; only under the output's lock.

    Raises
    ------
    OutputError
        When the output is a file.
    InputsError
        When the inputs match no file, two files claim to be the same detector of one visit, or no visit is
        chosen.
    RecipeError
        When a step is unknown, or a setting of it, or steps do not fit together.
    StoreVersionError
        When the output was written by another version of skysub, whose layout is not known.
    """
    output = place_at(output)
    output.check_folder()
    tables = user_tables(recipe.tables) | step_files(recipe.steps)
    chain = chained(recipe.steps, tables)
    selected = _selected(chain, steps)
    ingests = ingest_maps(recipe.inputs)
    runs = open_runs(output)
    storing = Storing(**recipe.products.model_dump())
    numbers = None if visits is None or isinstance(visits, Selection) else frozenset(visits)
    chosen = visits if isinstance(visits, Selection) else Selection(numbers)
    is_meant = chosen.chooser()
    wanted, unreadable = _wanted(recipe, output, chosen.visits, keep_index=keep_index)
    history = History(runs, chain, storing, verify=verify)
    found = Comparison(chain, history, [as_json(ingest) for ingest in ingests], selected)
    totals = _Totals()
    for visit, exposures in groupby(_one_each(wanted), key=lambda exposure: exposure.visit):
        along = {exposure.detector: exposure for exposure in exposures}
        if not is_meant(visit, along):
            continue
        totals.add(along)
        found.look_at(visit, along)
    if chosen.visits is not None and not totals.visits:
        raise InputsError(f"the inputs have none of the visits that are asked for: {chosen}")
    # a store from elsewhere must not choose which steps workers import
    resumes = bool(runs) and found.resumes and runs[-1].record.step_names == chain.names
    record = RunRecord(
        steps=tuple(_step_record(link, found) for link in chain),
        ingests=tuple(as_json(ingest) for ingest in ingests),
        tables=tables,
        products=dataclasses.asdict(storing),
        visits=0,
        detectors=(),
        recipe=recipe.model_dump(mode="json"),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={"skysub": __version__, "python": platform.python_version()},
    )
    return Plan(
        run=runs[-1] if resumes else Run(output / "runs" / next_name(output)),
        resumes=resumes,
        chain=chain,
        record=record,
        rows=found.rows,
        closings=tuple(found.closings),
        steps=tuple(_estimate(link, found, storing, runs) for link in chain),
        visits=totals.visits,
        detectors=totals.detectors,
        bands=tuple(sorted(totals.bands)),
        shapes=tuple(sorted(totals.shapes)),
        changed=tuple(found.changed),
        outdated=found.outdated,
        unreadable=tuple(unreadable),
    )


@dataclass
class _Totals:
    """What all inputs are, done or not."""

    visits: int = 0
    detectors: int = 0
    bands: set[str] = field(default_factory=set)
    shapes: set[tuple[int, int]] = field(default_factory=set)

    def add(self, exposures: Mapping[int, Exposure]) -> None:
        self.visits += 1
        self.detectors += len(exposures)
        for exposure in exposures.values():
            self.bands.add(exposure.band)
            self.shapes.add(exposure.shape)


def _selected(chain: Chain, steps: Collection[str] | None) -> set[str]:
    for name in steps or ():
        if name not in chain.links:
            raise RecipeError(f"the recipe has no step {name!r}; its steps are {', '.join(chain.names)}")
    return set(chain.names if steps is None else steps)


def _wanted(
    recipe: Recipe, output: StoragePath, visits: frozenset[int] | None, *, keep_index: bool
) -> tuple[SortedExposures, list[Unreadable]]:
    unreadable: list[Unreadable] = []
    exposures = SortedExposures()
    with opened_index(output, keep=keep_index) as index:
        for each in found_inputs(recipe.inputs, index):
            if isinstance(each, Unreadable):
                unreadable.append(each)
            elif visits is None or each.visit in visits:
                exposures.add(each)
    return exposures, unreadable


def _one_each(exposures: Iterable[Exposure]) -> Iterator[Exposure]:
    """Leave out what two sources name alike."""
    for (visit, detector), same in groupby(exposures, key=lambda each: (each.visit, each.detector)):
        first, *others = same
        for other in others:
            if other.path != first.path:
                raise InputsError(
                    f"{first.path} and {other.path} both claim to be visit {visit} detector {detector}: "
                    "leave one out, or say by ingest or pattern how their names tell them apart"
                )
        yield first


def _step_record(link: Link, found: Comparison) -> StepRecord:
    left = found.left[link.name]
    shapes = found.shapes[link.name]
    return StepRecord(
        name=link.name,
        version=link.step.version,
        scope=link.scope,
        settings=as_json(link.config),
        settings_hash=short_hash([link.name, link.step.version, link.config]),
        units=left.total(),
        rooms={
            product.name: product.room(shapes, link.config, found.units[link.name])
            for product in link.step.outputs
        }
        if left
        else {},
        description=description_of(link.step, link.config),
    )


def _estimate(link: Link, found: Comparison, storing: Storing, runs: list[Run]) -> StepEstimate:
    left = found.left[link.name]
    storage = 0.0
    for shape, number in left.items():
        storage += number * (
            _MARKER + sum(each.weight(shape, link.config, storing) for each in link.step.outputs)
        )
    largest = max((_pixels(shape) for shape in found.shapes[link.name]), default=0)
    megapixels = sum(number * _pixels(shape) for shape, number in left.items()) / 1e6
    return StepEstimate(
        name=link.name,
        scope=link.scope,
        left=left.total(),
        done=found.done[link.name],
        blocked=found.blocked[link.name],
        storage=int(storage),
        memory=int(link.step.memory_images * 4 * largest) + LIBRARIES if left else 0,
        memory_in_blocks=memory_in_blocks(link.step.memory_images, largest) + LIBRARIES if left else 0,
        core_seconds=_seconds_per_megapixel(runs, link) * megapixels if left else 0.0,
    )


def _pixels(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _seconds_per_megapixel(runs: list[Run], link: Link) -> float:
    """Median of up to 30 finished units of the last run of this step that has any; else the step's guess."""
    for run in reversed(runs):
        if run.record.step(link.name) is None:
            continue
        rates: list[float] = []
        markers = run.markers(link.name)
        finished = markers.finished() | markers.begun()
        for visit in sorted(finished)[:30]:
            plan = run.plan_of(visit)
            if plan is None:
                continue
            largest = max(_pixels(each.shape) for each in plan.exposures.values())
            rates += [
                1e6 * marker.seconds / (_pixels(marker.shape) if marker.shape else largest)
                for marker in markers.of_visit(visit).values()
            ]
            if len(rates) >= 30:
                break
        if rates:
            return statistics.median(rates)
    return link.step.seconds_per_megapixel
