"""A campaign from start to end: plan, workers, units, and what it came to."""

from __future__ import annotations

import json
import signal
import threading
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from skysub._version import __version__
from skysub.campaign.coordinator import Coordinator
from skysub.campaign.mend import mend_store
from skysub.campaign.plan import make_plan
from skysub.campaign.progress import LOG, Progress, logged
from skysub.campaign.recipe import Recipe, load_recipe
from skysub.campaign.records import who
from skysub.campaign.status import REMOVED, removed_inputs
from skysub.campaign.store.address import place_at
from skysub.campaign.store.reach import reachable
from skysub.campaign.store.runs import remove_partial, remove_unplanned
from skysub.campaign.store.seals import sealed
from skysub.campaign.store.stop import StopRequest
from skysub.campaign.store.storage_path import writing
from skysub.cluster import ALL_CORES, Demand, Workers, connected, expected_slots, load_profile
from skysub.cluster.address import borrowed
from skysub.errors import NotEnoughMemoryError, OutputError, RecipeError
from skysub.text import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from distributed import Client

    from skysub.campaign.inputs import Unreadable
    from skysub.campaign.metrics import Snapshot
    from skysub.campaign.plan import Plan
    from skysub.campaign.selection import Selection
    from skysub.campaign.store.storage_path import Hold, StoragePath
    from skysub.cluster import Profile

__all__ = ["Outcome", "job_name", "run_campaign"]

_ROUNDS = 3
"""How often a plan is made: what did without a detector wants it once it is there."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    run: str
    """Name of the run that was worked on; empty where nothing was to do."""
    done: int
    """Units done now."""
    earlier: int
    """Units that were done before."""
    failed: int
    left: int
    """Units not begun, after an interruption."""
    unreadable: int
    """Inputs whose headers cannot be read."""
    interrupted: bool
    seconds: float
    """From the moment that workers were there."""
    stages: str = ""
    """Which stages cost most, for people."""
    log: str = ""
    """Path of the log file."""
    waiting: int = 0
    """Units that wait for one that failed."""


def run_campaign(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str] | StoragePath,
    *,
    inputs: Collection[str] = (),
    settings: Collection[str] = (),
    steps: Collection[str] | None = None,
    visits: Collection[int] | Selection | None = None,
    client: Client | None = None,
    verify: bool = False,
    stream: TextIO | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Outcome:
    """Do what is left of a campaign; a killed or interrupted one is continued by calling this again.

    Parameters
    ----------
    recipe
        Name or path of a recipe, or one that was loaded.
    output
        Folder of the campaign, or ``s3://BUCKET/PREFIX``.
    inputs
        Globs in place of the recipe's inputs; for a recipe by name or path.
    settings
        ``key=value`` changes of the recipe, as ``--set`` has them; for a recipe by name or path.
    steps, visits
        Do these alone; all by default. What they need of other steps must be done already.
    client
        A Dask client whose workers do the work, and which stays open; by default workers are started, or
        connected to, as the recipe's ``cluster`` says.
    verify
        Compare all files of the store with their checksums first; what is damaged is made again.
    stream
        Where progress is shown, such as ``sys.stderr``; None shows none.

    watch
        Is told every few seconds, and at the end, where the run stands.

    Returns
    -------
    outcome
        How many units were done now and before, failed, wait for one that failed, and are left.

    Raises
    ------
    OutputError
        When the output cannot be written, or fills up on the way; finished units stay.
    OutputInUseError
        When another process works on this output.
    NotEnoughMemoryError, ClusterError, InputsError, RecipeError, StoreVersionError
        Before anything is written.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe), inputs=inputs, settings=settings)
    elif inputs or settings:
        raise RecipeError("inputs and settings are for a recipe by name or path; this one is loaded already")
    profile = load_profile(recipe.cluster)
    # workers may stand elsewhere
    output = place_at(output).absolute()
    with output.locked() as hold:
        remove_unplanned(output)
        remove_partial(output)
        for mended in mend_store(output) if verify else ():
            if stream is not None:
                print(printable(f"mended: {mended}"), file=stream)
        StopRequest(output).clear()
        outcomes: list[Outcome] = []
        for _ in range(_ROUNDS):
            plan = make_plan(recipe, output, verify=verify, steps=steps, visits=visits, keep_index=True)
            verify = False
            _note_unreadable(output, plan.unreadable)
            _note_removed(output)
            if not outcomes:
                _announce(plan, stream)
            counts = _Counts.of(plan)
            if not plan.left and not plan.closings:
                if plan.rows:
                    plan.freeze()
                outcomes.append(
                    Outcome("", 0, counts.earlier, 0, 0, counts.unreadable, interrupted=False, seconds=0)
                )
                break
            work = _Work(output, recipe, profile, hold, stream, client, watch)
            outcome, widened = work.done(plan, counts)
            del plan
            outcomes.append(outcome)
            if not widened or outcome.interrupted:
                break
            if stream is not None:
                print(
                    "detectors that were missing are there now: what did without them is redone", file=stream
                )
        return _added(outcomes)


@dataclass(frozen=True)
class _Counts:
    left: int
    earlier: int
    unreadable: int
    memory: int
    seconds: float = 0.0
    """Expected time of the longest unit."""

    @classmethod
    def of(cls, plan: Plan) -> _Counts:
        longest = max((step.core_seconds / step.left for step in plan.steps if step.left), default=0.0)
        return cls(plan.left, plan.done, len(plan.unreadable), plan.memory, longest)


@dataclass(frozen=True)
class _Work:
    output: StoragePath
    recipe: Recipe
    profile: Profile
    hold: Hold
    stream: TextIO | None
    client: Client | None
    watch: Callable[[Snapshot], None] | None

    def done(self, plan: Plan, counts: _Counts) -> tuple[Outcome, bool]:
        """Do what a plan says; also whether units are done now that others did without."""
        run, stream = plan.freeze(), self.stream
        kept_log = run.folder / "run.log"
        with (
            writing(run.folder),
            kept_log.appended() as log,
            logged(log),
            _interruptible(stream) as stop,
            reachable(self.output) as store_check,
        ):
            LOG.info("skysub %s starts: %d units to do in run %s", __version__, counts.left, run.name)
            in_blocks = _in_blocks(self.recipe, plan, self.profile)
            memory = plan.memory_of(in_blocks)
            for each in plan.unreadable:
                LOG.warning("input unreadable, left out: %s: %s", each.path, each.reason)
            # a detector in blocks keeps all workers busy, however few detectors there are
            at_once = ALL_CORES if in_blocks else counts.left
            demand = Demand(memory, max(1, at_once), counts.seconds, log, job_name(self.output), store_check)
            opened: AbstractContextManager[Workers] = (
                connected(self.profile, demand) if self.client is None else borrowed(self.client, demand)
            )
            with opened as workers:
                progress = Progress(" > ".join(plan.chain.names), counts.left, stream)
                how = ", detectors cut into blocks" if in_blocks else ""
                progress.say(f"run {run.name} on {workers.described}{how}; log: {kept_log}")
                coordinator = Coordinator(
                    run,
                    plan,
                    progress,
                    stop,
                    self.hold,
                    asked_to_stop=StopRequest(self.output),
                    in_blocks=in_blocks,
                    watch=self.watch,
                )
                coordinator.work(workers)
                progress.end()
            LOG.info("ends: %d done, %d failed, %d waiting", progress.done, progress.failed, progress.waiting)
            if coordinator.halted:
                raise OutputError(coordinator.halted)
        outcome = Outcome(
            run=run.name,
            done=progress.done,
            earlier=counts.earlier,
            failed=progress.failed,
            # a unit that was done elsewhere meanwhile is nobody's of these
            left=max(0, counts.left - progress.done - progress.failed_units - progress.waiting),
            unreadable=counts.unreadable,
            interrupted=stop.is_set(),
            seconds=progress.elapsed,
            stages=progress.stages(),
            log=str(kept_log),
            waiting=progress.waiting,
        )
        return outcome, coordinator.widened


def job_name(output: StoragePath) -> str:
    """Name of this campaign among others in a queue."""
    return f"skysub-{zlib.crc32(str(output).encode()):08x}"


def _added(outcomes: list[Outcome]) -> Outcome:
    """What several rounds came to."""
    first, last = outcomes[0], outcomes[-1]
    if len(outcomes) == 1:
        return first
    return Outcome(
        run=last.run or first.run,
        done=sum(each.done for each in outcomes),
        earlier=first.earlier,
        failed=last.failed if last.run else first.failed,
        left=last.left,
        unreadable=last.unreadable,
        interrupted=last.interrupted,
        seconds=sum(each.seconds for each in outcomes),
        stages=first.stages,
        log=last.log or first.log,
        waiting=last.waiting if last.run else first.waiting,
    )


_LED, _SHARED, _MEETINGS = 0.25, 1.3, 4e6
"""Time of a unit in blocks, in units of what it takes whole: what one task does, what is shared among
workers, and what rounds of tasks cost a detector of one pixel; measured (`docs/blocks.md`)."""


def _in_blocks(recipe: Recipe, plan: Plan, profile: Profile) -> frozenset[str]:
    """Steps whose detectors are cut into blocks, as `docs/blocks.md` says.

    Raises
    ------
    RecipeError
        When blocks are asked for steps that need the whole detector at once.
    """
    able = frozenset(
        link.name
        for link in plan.chain
        if link.step.blocks is not None
        and all(link.step.blocks(shape, link.config) is not None for shape in plan.shapes)
    )
    whole = [link.name for link in plan.chain if link.name not in able and link.step.scope == "detector"]
    if recipe.mode == "block" and not able:
        raise RecipeError(
            f"mode: block is not for {', '.join(whole)}, which needs whole detectors: use auto or detector"
        )
    if recipe.mode == "block" or not able or recipe.mode == "detector":
        return able if recipe.mode == "block" else frozenset()
    try:
        slots = expected_slots(profile, need=plan.memory, units=ALL_CORES)
    except NotEnoughMemoryError:
        if whole:
            raise
        # no worker holds a detector
        return able
    pixels = max((ny * nx for ny, nx in plan.shapes), default=1)
    share = _LED + _SHARED / max(1, slots) + _MEETINGS / pixels
    return able if plan.left * share < 1 else frozenset()


def _note_unreadable(output: StoragePath, unreadable: tuple[Unreadable, ...]) -> None:
    """Keep the inputs that could not even be planned beside the runs, as of the last start."""
    noted = output / "unreadable.json"
    if not unreadable:
        noted.remove()
        return
    rows = [{"path": each.path, "reason": each.reason} for each in unreadable]
    with writing(output):
        noted.put(sealed(json.dumps({"inputs": rows}, indent=1).encode()))


def _note_removed(output: StoragePath) -> None:
    """Keep what cannot be done any more, as its input was taken away, beside the runs."""
    noted, removed = output / REMOVED, removed_inputs(output)
    if not removed:
        noted.remove()
        return
    with writing(output):
        noted.put(sealed(json.dumps({"inputs": removed}).encode()))


def _announce(plan: Plan, stream: TextIO | None) -> None:
    if stream is None:
        return
    for file in plan.unreadable:
        print(printable(f"input unreadable, left out: {file.path}: {file.reason}"), file=stream)
    for each in plan.changed:
        named = who(each.visit, each.detector)
        print(printable(f"the input of {named} changed, it will be redone: {each.path}"), file=stream)
    if plan.outdated:
        print(f"{plan.outdated} units will be redone with the new settings", file=stream)
    for step in plan.steps:
        if step.blocked:
            print(
                f"{step.blocked} units of {step.name} are left out: "
                "what they need is neither done nor chosen",
                file=stream,
            )


@contextmanager
def _interruptible(stream: TextIO | None) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM) into a wish to stop; the second is an ordinary interrupt."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, _frame: Any) -> None:
        if stop.is_set():
            # the workers are sent away in peace
            for each in before:
                signal.signal(each, signal.SIG_IGN)
            raise KeyboardInterrupt
        stop.set()
        if stream is not None:
            name = signal.Signals(number).name
            print(
                f"\n{name}: finishing the units in flight; once more stops at once", file=stream, flush=True
            )

    before = {each: signal.signal(each, asked) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
