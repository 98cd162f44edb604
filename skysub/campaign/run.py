"""The coordinator: hands units to workers, records what fails, gathers visits, survives being killed."""

from __future__ import annotations

import json
import signal
import statistics
import threading
import traceback
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from skysub._version import __version__
from skysub.campaign.block_mode import process_units_in_blocks
from skysub.campaign.gather import gather_visit
from skysub.campaign.plan import make_plan
from skysub.campaign.progress import LOG, Progress, logged
from skysub.campaign.steps import find_step
from skysub.campaign.store.address import place_at
from skysub.campaign.store.place import writing
from skysub.campaign.store.runs import Unit, remove_unplanned
from skysub.campaign.unit import Receipt, failure_record, process_units
from skysub.campaign.window import Job, Window
from skysub.cluster import ALL_CORES, connected, expected_slots, load_profile
from skysub.errors import OutputError, RecipeError
from skysub.text import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from skysub.campaign.inputs import Unreadable
    from skysub.campaign.plan import Plan
    from skysub.campaign.recipe import Recipe
    from skysub.campaign.store.place import Hold, Place
    from skysub.campaign.store.runs import Run
    from skysub.campaign.window import Finished
    from skysub.cluster import Profile, Workers

__all__ = ["Outcome", "run_campaign"]

_TASK_SECONDS = 0.1
"""Work of one task at most where units are short, so that they do not pay for Dask one by one."""

_TASK_UNITS = 32
"""Units of one task at most."""


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


def run_campaign(
    recipe: Recipe,
    output: str | os.PathLike[str] | Place,
    *,
    verify: bool = False,
    stream: TextIO | None = None,
) -> Outcome:
    """Do what is left of a campaign; a killed or interrupted one is continued by calling this again.

    Parameters
    ----------
    output
        Folder of the campaign, or ``s3://BUCKET/PREFIX``.
    verify
        Compare what finished units wrote with their checksums first, and redo those that differ.
    stream
        Where progress is shown, such as ``sys.stderr``; None shows none.

    Raises
    ------
    OutputError
        When the output cannot be written, or fills up on the way; finished units stay.
    OutputInUseError
        When another process works on this output.
    NotEnoughMemoryError, ClusterError, InputsError, RecipeError, StoreVersionError
        Before anything is written.
    """
    profile = load_profile(recipe.cluster)
    # workers may stand elsewhere
    output = place_at(output).absolute()
    with output.locked() as hold:
        remove_unplanned(output)
        plan = make_plan(recipe, output, verify=verify)
        _note_unreadable(output, plan.unreadable)
        counts = _Counts(plan.left, plan.done, len(plan.unreadable), plan.memory)
        _announce(plan, stream)
        if not plan.left:
            if plan.rows:
                plan.freeze()
            return Outcome("", 0, counts.earlier, 0, 0, counts.unreadable, interrupted=False, seconds=0)
        run, unreadable = plan.freeze(), plan.unreadable
        # with its temporary file
        del plan
        kept_log = run.folder / "run.log"
        with (
            writing(run.folder),
            kept_log.appended() as log,
            logged(log),
            _interruptible(stream) as stop,
        ):
            LOG.info("skysub %s starts: %d units to do in run %s", __version__, counts.left, run.name)
            in_blocks = _in_blocks(recipe, profile, counts)
            for each in unreadable:
                LOG.warning("input unreadable, left out: %s: %s", each.path, each.reason)
            # a detector in blocks keeps all workers busy, however few detectors there are
            at_once = ALL_CORES if in_blocks else counts.left
            with connected(profile, need=counts.memory, units=at_once, log=log) as workers:
                progress = Progress(run.record["step"], counts.left, stream)
                how = ", detectors cut into blocks" if in_blocks else ""
                progress.say(f"run {run.name} on {workers.described}{how}; log: {kept_log}")
                coordinator = _Coordinator(run, progress, stop, hold, in_blocks=in_blocks)
                coordinator.work(workers)
                progress.end()
            LOG.info("ends: %d done, %d failed", progress.done, progress.failed)
            if coordinator.halted:
                raise OutputError(coordinator.halted)
        return Outcome(
            run=run.name,
            done=progress.done,
            earlier=counts.earlier,
            failed=progress.failed,
            left=counts.left - progress.done - progress.failed,
            unreadable=counts.unreadable,
            interrupted=stop.is_set(),
            seconds=progress.elapsed,
            stages=progress.stages(),
            log=str(kept_log),
        )


@dataclass(frozen=True)
class _Counts:
    left: int
    earlier: int
    unreadable: int
    memory: int


@dataclass
class _OpenVisit:
    lines: list[str]
    waiting: set[int] = field(default_factory=set)


class _Coordinator:
    """Units in the order of the plan, each visit gathered once its last detector is over."""

    def __init__(
        self, run: Run, progress: Progress, stop: threading.Event, hold: Hold, *, in_blocks: bool
    ) -> None:
        self.halted = ""
        self._in_blocks = in_blocks
        self._slots = 1
        self._run = run
        self._progress = progress
        self._stop = stop
        self._hold = hold
        self._folder = str(run.folder)
        self._open: dict[int, _OpenVisit] = {}
        self._ready: deque[Job] = deque()
        # seconds of the last units
        self._lately: deque[float] = deque(maxlen=15)
        self._units = self._jobs()

    def work(self, workers: Workers) -> None:
        """Do all units that are left."""
        self._slots = workers.slots
        # a unit in blocks leaves its thread to others, so these are counted here
        size = 1 if self._in_blocks else 4 * workers.slots + 4
        window = Window(workers.client, size=size)
        try:
            for finished in window.run(self._next, stopping=self._stopping):
                if finished.job.function is gather_visit:
                    self._visit_over(finished)
                else:
                    self._units_over(finished)
        finally:
            window.close()

    def _stopping(self) -> bool:
        if self._hold.lost:
            self._halt(self._hold.lost)
        return self._stop.is_set() or bool(self.halted)

    def _next(self) -> Job | None:
        if self._ready:
            return self._ready.popleft()
        return next(self._units, None)

    def _jobs(self) -> Iterator[Job]:
        markers = self._run.markers
        names: list[tuple[int, int]] = []
        task: list[str] = []
        gathered, begun = markers.gathered(), markers.begun()
        for visit, units in self._run.visits():
            if visit in gathered:
                if visit in begun:
                    # what a coordinator killed between marker and clean-up left behind
                    markers.clear_visit(visit)
                continue
            done = markers.done(visit, [unit.detector for unit in units]) if visit in begun else set()
            lines = [unit.to_json() for unit in units]
            left = [
                (unit, line) for unit, line in zip(units, lines, strict=True) if unit.detector not in done
            ]
            if not left:
                yield self._gathering(visit, lines)
                continue
            self._open[visit] = _OpenVisit(lines, {unit.detector for unit, _ in left})
            for unit, line in left:
                names.append((visit, unit.detector))
                task.append(line)
                if len(task) >= self._units_of_task():
                    yield self._processing(names, task)
                    names, task = [], []
        if task:
            yield self._processing(names, task)

    def _units_of_task(self) -> int:
        if self._in_blocks or not self._lately:
            return 1
        # the median: the first unit of a worker takes as long as a thousand others
        return max(1, min(_TASK_UNITS, int(_TASK_SECONDS / max(1e-6, statistics.median(self._lately)))))

    def _processing(self, names: Sequence[tuple[int, int]], lines: Sequence[str]) -> Job:
        if self._in_blocks:
            return Job(tuple(names), process_units_in_blocks, (self._folder, lines, self._slots))
        return Job(tuple(names), process_units, (self._folder, lines))

    def _gathering(self, visit: int, lines: list[str]) -> Job:
        return Job((visit,), gather_visit, (self._folder, lines))

    def _units_over(self, finished: Finished) -> None:
        names, lines = finished.job.name, finished.job.arguments[1]
        if finished.error is None:
            receipts = finished.result
        elif len(lines) > 1:
            # one of them took the others with it: which, each will say by itself
            for name, line in zip(names, lines, strict=True):
                self._ready.append(self._processing([name], [line]))
            return
        else:
            receipts = [self._lost(finished.error, Unit.from_json(lines[0]))]
        for receipt in receipts:
            self._unit_over(receipt)

    def _unit_over(self, receipt: Receipt) -> None:
        visit, detector = receipt.visit, receipt.detector
        if receipt.state == "stopped":
            self._halt(receipt.message)
            return
        if receipt.state == "failed":
            LOG.error("visit %d detector %d failed: %s", visit, detector, receipt.message)
        if receipt.timings:
            self._lately.append(sum(seconds for _, seconds in receipt.timings))
        self._progress.count(receipt)
        waiting = self._open[visit]
        waiting.waiting.discard(detector)
        if not waiting.waiting:
            del self._open[visit]
            self._ready.append(self._gathering(visit, waiting.lines))

    def _lost(self, error: BaseException, unit: Unit) -> Receipt:
        """Record a unit whose worker could not say itself what happened."""
        visit, detector = unit.visit, unit.detector
        message = " ".join(f"{type(error).__name__}: {error}".split())
        if type(error).__name__ == "KilledWorker":
            message = (
                "each worker that tried it died: too little memory, or a crash in a library; "
                f"{self._folder}/run.log says more"
            )
        trace = "".join(traceback.format_exception(error))
        try:
            with writing(self._run.folder):
                self._run.markers.fail(visit, detector, failure_record(self._run, unit, message, trace))
        except OutputError as full:
            return Receipt(visit, detector, "stopped", str(full))
        return Receipt(visit, detector, "failed", message)

    def _visit_over(self, finished: Finished) -> None:
        (visit,) = finished.job.name
        if finished.error is not None:
            LOG.error("visit %d could not be gathered", visit, exc_info=finished.error)
            self._progress.say(f"visit {visit} is done but could not be gathered: {finished.error}")
        elif finished.result:
            self._halt(finished.result)
        else:
            LOG.info("visit %d is over", visit)

    def _halt(self, message: str) -> None:
        if not self.halted:
            LOG.error(message)
            self.halted = message


def _in_blocks(recipe: Recipe, profile: Profile, counts: _Counts) -> bool:
    """Whether detectors are cut into blocks: where asked for, or where there are fewer than cores.

    Raises
    ------
    RecipeError
        When blocks are asked for a step that needs the whole detector at once.
    """
    possible = find_step(recipe.step).single_fit is not None
    if recipe.mode == "block" and not possible:
        raise RecipeError(
            f"mode: block is not for {recipe.step}, which needs whole detectors: use auto or detector"
        )
    if recipe.mode != "auto" or not possible:
        return recipe.mode == "block"
    return counts.left < expected_slots(profile, need=counts.memory, units=ALL_CORES)


def _note_unreadable(output: Place, unreadable: tuple[Unreadable, ...]) -> None:
    """Keep the inputs that could not even be planned beside the runs, as of the last start."""
    noted = output / "unreadable.json"
    if not unreadable:
        noted.remove()
        return
    rows = [{"path": each.path, "reason": each.reason} for each in unreadable]
    with writing(output):
        noted.put(json.dumps(rows, indent=1).encode())


def _announce(plan: Plan, stream: TextIO | None) -> None:
    if stream is None:
        return
    for each in plan.unreadable:
        print(printable(f"input unreadable, left out: {each.path}: {each.reason}"), file=stream)
    for unit in plan.changed:
        who = f"visit {unit.visit} detector {unit.detector}"
        print(printable(f"the input of {who} changed, it will be redone: {unit.path}"), file=stream)
    if plan.outdated:
        print(f"{plan.outdated} units will be redone with the new settings", file=stream)


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
