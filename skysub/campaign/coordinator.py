"""The coordinator: hands units to workers, visit by visit, records what fails, and survives being killed."""

from __future__ import annotations

import statistics
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from skysub.campaign.block_mode import process_units_in_blocks
from skysub.campaign.flow import VisitFlow
from skysub.campaign.metrics import Snapshot
from skysub.campaign.planned import closing_unit
from skysub.campaign.progress import LOG, named
from skysub.campaign.records import WorkUnit, who
from skysub.campaign.store.storage_path import writing
from skysub.campaign.unit import Receipt, failure_of, process_units
from skysub.campaign.window import Job, Window
from skysub.errors import OutputError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator, Sequence

    from skysub.campaign.plan import Plan
    from skysub.campaign.progress import Progress
    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.stop import StopRequest
    from skysub.campaign.store.storage_path import Hold
    from skysub.campaign.window import Finished
    from skysub.cluster import Workers

__all__ = ["Coordinator", "units_of_task"]

_TASK_SECONDS = 0.1
"""Work of one task at most where units are short, so that they do not pay for Dask one by one."""

_WATCH_SECONDS = 5.0
"""Seconds between two times that a watcher is told where the run stands."""

_TASK_UNITS = 32
"""Units of one task at most."""

_TASKS_PER_SECOND = 50.0
"""Tasks that a coordinator hands out in a second, about: beyond that several units share one, however long
they take. A task costs it 2 to 5 ms of processor time, each unit in it a tenth of that."""

_AHEAD = 8
"""Tasks for each slot that must be left when several units share one, so that all workers end together."""


class Coordinator:
    """Units in the order of visits; a visit is begun when those before it have nothing to be handed out."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        progress: Progress,
        stop: threading.Event,
        hold: Hold,
        *,
        asked_to_stop: StopRequest,
        in_blocks: Collection[str],
        watch: Callable[[Snapshot], None] | None = None,
    ) -> None:
        self.halted = ""
        self.widened = False
        """Whether a detector is done now that a finished unit of its visit did without."""
        self._in_blocks = in_blocks
        self._workers: Workers | None = None
        self._run = run
        self._chain = plan.chain
        self._progress = progress
        self._stop = stop
        self._hold = hold
        self._asked_to_stop = asked_to_stop
        self._watch = watch
        self._watched = 0.0
        self._flows: dict[int, VisitFlow] = {}
        self._ready: deque[tuple[Run, WorkUnit]] = deque()
        self._again: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        """Units whose workers died, each to be tried once more while no other suspect is under way."""
        self._suspected: set[tuple[str, int, int | None]] = set()
        self._tried: tuple[Any, ...] | None = None
        """Name of the suspect that is under way."""
        # seconds of the last units
        self._lately: deque[float] = deque(maxlen=15)
        self._ahead = self._visits(plan)

    def work(self, workers: Workers) -> None:
        """Do all units that are left."""
        self._workers = workers
        workers.say = self._say
        window = Window(workers, size=self._in_flight)
        try:
            for finished in window.run(self._next, stopping=self._stopping):
                self._task_over(finished)
        finally:
            window.close()
            self._show_where_it_stands(now=True)

    def _in_flight(self, slots: int) -> int:
        """Tasks that keep so many units at once going."""
        if not slots:
            return 0
        # a unit in blocks leaves its thread to others, so these are counted here
        return 1 if self._in_blocks else 4 * slots + 4

    def _say(self, message: str) -> None:
        LOG.warning(message)
        self._progress.say(message)

    def _stopping(self) -> bool:
        if self._workers is not None:
            self._workers.need(self._progress.remaining, self._progress.over)
        if self._hold.lost:
            self._halt(self._hold.lost)
        if not self._stop.is_set() and self._asked_to_stop.is_made():
            self._say("asked to stop by `skysub cancel`: finishing the units in flight")
            self._stop.set()
        self._show_where_it_stands()
        return self._stop.is_set() or bool(self.halted)

    def _show_where_it_stands(self, *, now: bool = False) -> None:
        if self._watch is None or not (now or time.monotonic() - self._watched > _WATCH_SECONDS):
            return
        self._watched = time.monotonic()
        progress = self._progress
        self._watch(
            Snapshot(
                output=str(self._run.folder.parent.parent),
                done=progress.done,
                failed=progress.failed_units,
                waiting=progress.waiting,
                left=progress.remaining,
                slots=0 if now or self._workers is None else self._workers.slots,
                stages=dict(progress.seconds_of),
            )
        )

    def _visits(self, plan: Plan) -> Iterator[None]:
        """Begin one visit after the other."""
        for name, visit, step in plan.closings:
            run = self._run.other(name)
            planned = run.plan_of(visit)
            if planned is not None:
                self._ready.append((run, closing_unit(planned, step)))
                yield
        for step in self._chain.names:
            markers = self._run.markers(step)
            for each in markers.finished() & markers.begun():
                # what a worker killed between marker and clean-up left behind
                markers.clear_visit(each)
        for left in plan.rows:
            planned = self._run.plan_of(left.visit)
            if planned is None or next(left.own(), None) is None:
                continue
            flow = self._flows[left.visit] = VisitFlow(self._run, self._chain, planned, left)
            self._hand_out(flow, flow.begin())
            yield

    def _next(self) -> Job | None:
        if self._again:
            return self._again.popleft()
        if self._suspects and self._tried is None:
            job = self._suspects.popleft()
            self._tried = job.name
            return job
        most = self._units_of_task()
        while len(self._ready) < most and next(self._ahead, self) is not self:
            pass
        if not self._ready:
            return None
        run = self._ready[0][0]
        task: list[WorkUnit] = []
        while self._ready and len(task) < most and self._ready[0][0] is run:
            task.append(self._ready.popleft()[1])
        return self._job(run, task)

    def _units_of_task(self) -> int:
        if self._in_blocks or not self._lately:
            return 1
        # the median: the first unit of a worker takes as long as a thousand others
        slots = self._workers.slots if self._workers is not None else 1
        return units_of_task(statistics.median(self._lately), slots, self._progress.remaining)

    def _job(self, run: Run, units: Sequence[WorkUnit]) -> Job:
        lines = [unit.to_json() for unit in units]
        if units[0].step in self._in_blocks and self._workers is not None:
            workers = self._workers
            return Job(
                tuple(unit.name for unit in units),
                process_units_in_blocks,
                (str(run.folder), lines, workers.addresses),
            )
        return Job(tuple(unit.name for unit in units), process_units, (str(run.folder), lines))

    def _hand_out(self, flow: VisitFlow, units: Iterator[WorkUnit]) -> None:
        before = flow.waits
        self._ready.extend((self._run, unit) for unit in units)
        self._progress.waiting += flow.waits - before
        if flow.is_over:
            self._flows.pop(flow.visit, None)
            LOG.info("visit %d is over", flow.visit)

    def _task_over(self, finished: Finished) -> None:
        folder, lines = finished.job.arguments[:2]
        run = self._run if folder == str(self._run.folder) else self._run.other(folder.rpartition("/")[2])
        units = [WorkUnit.from_json(line) for line in lines]
        if finished.job.name == self._tried:
            self._tried = None
        if finished.error is None:
            receipts = finished.result
        elif len(units) > 1:
            # one of them took the others with it: which, each will say by itself
            self._again.extend(self._job(run, [unit]) for unit in units)
            return
        elif _is_killed(finished.error) and units[0].name not in self._suspected:
            # where many workers go at once, Dask blames all units that they had, also those not begun
            self._suspected.add(units[0].name)
            self._suspects.append(finished.job)
            LOG.warning("workers with %s died; it is tried again by itself", who(*units[0].name[1:]))
            return
        else:
            receipts = [self._lost(run, finished.error, units[0])]
        for receipt in receipts:
            self._unit_over(receipt)

    def _unit_over(self, receipt: Receipt) -> None:
        if receipt.state == "stopped":
            self._halt(receipt.message)
            return
        if receipt.state == "failed":
            LOG.error("%s failed: %s", named(receipt), receipt.message)
        if receipt.timings:
            self._lately.append(sum(seconds for _, seconds in receipt.timings))
        self._progress.count(receipt)
        flow = self._flows.get(receipt.visit)
        if receipt.closing or flow is None:
            return
        failure = receipt.message if receipt.state == "failed" else None
        self._hand_out(flow, flow.over(receipt.step, receipt.detector, failure))
        self.widened = self.widened or flow.widened

    def _lost(self, run: Run, error: BaseException, unit: WorkUnit) -> Receipt:
        """Record a unit whose worker could not say itself what happened."""
        message = " ".join(f"{type(error).__name__}: {error}".split())
        if _is_killed(error):
            message = (
                "each worker that tried it died: too little memory, or a crash in a library; "
                f"{run.folder}/run.log says more"
            )
        trace = "".join(traceback.format_exception(error))
        state = "failed"
        try:
            with writing(run.folder):
                run.markers(unit.step).fail(failure_of(run, unit, message, trace))
        except OutputError as full:
            state, message = "stopped", str(full)
        return Receipt(unit.step, unit.visit, unit.detector, state, message, closing=unit.closing)

    def _halt(self, message: str) -> None:
        if not self.halted:
            LOG.error(message)
            self.halted = message


def _is_killed(error: BaseException) -> bool:
    """Whether Dask gave a unit up because workers that had it died."""
    return type(error).__name__ == "KilledWorker"


def units_of_task(seconds: float, slots: int, left: int) -> int:
    """Return how many units share a task.

    Parameters
    ----------
    seconds
        What a unit takes.
    slots
        Units that the workers do at once.
    left
        Units that are left to do.
    """
    seconds = max(1e-6, seconds)
    short = int(_TASK_SECONDS / seconds)
    many = min(int(slots / seconds / _TASKS_PER_SECOND), left // (_AHEAD * max(1, slots)))
    return max(1, min(_TASK_UNITS, max(short, many)))
