"""A fleet of worker jobs: as many as there is work for, another for each that is lost, and none in the end.

Nobody else does this: Dask's own cluster objects do not notice that a job ended.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from skysub.cluster.workers import GatedWorkers
from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from distributed import Client

    from skysub.cluster.base import Demand

__all__ = ["Fleet", "FleetWorkers", "Queue", "QueuedJob"]

_LOG = logging.getLogger("skysub.campaign")

_EVERY = 3.0
"""Seconds between two looks at the queue."""

_IDLE = 10.0
"""Seconds without work after which a job is given back, when more run than units are left."""

_END = 30.0
"""Seconds that jobs have to leave the queue at the end."""

_FUTILE = 4
"""Jobs that may end without a unit being finished meanwhile, or twice as many as there are at a time."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs."""

    cancel_by: str
    """Identifier by which it is removed."""
    id: str
    """Identifier that its workers have in their names."""
    state: str
    """State in the batch system's words; empty where that is not known."""
    reason: str
    """Why it waits, in the batch system's words."""
    hopeless: bool = False
    """Whether it waits for what will not come by waiting."""


class Queue(Protocol):
    """Jobs of one name in a batch system."""

    name: str

    def submit(self, script: str, count: int) -> None:
        """Hand in jobs.

        Raises
        ------
        ClusterError
            When the batch system refuses them: with its own message.
        """

    def alive(self) -> list[QueuedJob]:
        """Jobs that wait or run.

        Raises
        ------
        ClusterError
            When the batch system cannot be asked.
        """

    def cancel(self, jobs: Sequence[str] | None = None) -> None:
        """Remove jobs by their identifiers; all of the name by default."""


class Fleet:
    """Keep as many worker jobs in a queue as there is work for.

    Parameters
    ----------
    queue
        The jobs of this campaign in the batch system.
    script
        Of a worker job.
    most
        Jobs at most.
    cores
        Units that a job does at once.
    logs
        Folder in which jobs leave what they print.
    """

    def __init__(self, queue: Queue, script: str, *, most: int, cores: int, logs: Path) -> None:
        self.trouble: ClusterError | None = None
        """Why no worker is to be expected."""
        self.idle: frozenset[str] = frozenset()
        """Jobs whose workers have had nothing to do for a while."""
        self._queue, self._script, self._most, self._cores = queue, script, most, cores
        self._logs = logs
        self._left = 0
        self._done = 0
        self._jobs: dict[str, QueuedJob] = {}
        self._handed_in = 0
        """Jobs that were handed in so far."""
        self._ended_then = 0
        """Jobs that had ended when a unit was seen to be finished last."""
        self._done_then = 0
        self._refused = ""
        self._over = threading.Event()

    @property
    def wanted(self) -> int:
        """Jobs that there is work for."""
        return min(self._most, math.ceil(self._left / self._cores))

    @contextmanager
    def kept(self, units: int) -> Iterator[None]:
        """Hand in the first jobs, and keep their number until the block ends; then none is left in the queue.

        Raises
        ------
        ClusterError
            When the batch system refuses the jobs: with its own message.
        """
        self.need(units, 0)
        # of a coordinator that was killed: the output's lock says that there is no other one
        self._queue.cancel()
        keeper = threading.Thread(target=self._keep, daemon=True)
        try:
            self._submit(self.wanted)
            keeper.start()
            yield
        finally:
            self._over.set()
            if keeper.is_alive():
                keeper.join()
            self._end()

    def need(self, units: int, done: int) -> None:
        """Say how many units are left, and how many are done."""
        self._left, self._done = units, done

    def state(self) -> str:
        """What the queue says of the jobs, for people."""
        jobs = list(self._jobs.values())
        if not jobs:
            return self._refused or "no job is in the queue"
        states: dict[str, int] = {}
        for each in jobs:
            key = f"{each.state.lower() or 'there'}{f', {each.reason}' if each.reason else ''}"
            states[key] = states.get(key, 0) + 1
        return "; ".join(f"{count} jobs {key}" for key, count in states.items())

    def _keep(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                self._look()
            except ClusterError as error:
                # a batch system that is away comes back; jobs go on meanwhile
                if str(error) != self._refused:
                    self._refused = str(error)
                    _LOG.warning("the queue cannot be asked, or refuses a job: %s", error)

    def _look(self) -> None:
        jobs = {each.cancel_by: each for each in self._queue.alive()}
        # some come and go between two looks
        ended = self._handed_in - len(jobs)
        self._jobs = jobs
        if self._done > self._done_then:
            self._ended_then, self._done_then = ended, self._done
        wanted, futile = self.wanted, ended - self._ended_then
        if futile > max(_FUTILE, 2 * wanted):
            self.trouble = ClusterError(
                f"{futile} jobs ended one after the other, and no unit was finished meanwhile: they die at "
                "their start, their walltime is shorter than a unit, or their memory too "
                f"small{self._last_words()}"
            )
            return
        hopeless = [each for each in jobs.values() if each.hopeless]
        if hopeless and len(hopeless) == len(jobs):
            self.trouble = ClusterError(
                f"the queue will never start the jobs, it says {hopeless[0].reason}: change cluster.queue, "
                "cluster.walltime, cluster.cores or cluster.memory"
            )
            return
        if len(jobs) < wanted:
            _LOG.info("%d jobs ended so far; %d are handed in", ended, wanted - len(jobs))
            self._submit(wanted - len(jobs))
            self._refused = ""
        elif len(jobs) > wanted:
            self._shrink(list(jobs.values()), len(jobs) - wanted)

    def _submit(self, count: int) -> None:
        self._queue.submit(self._script, count)
        self._handed_in += count

    def _shrink(self, jobs: list[QueuedJob], surplus: int) -> None:
        """Give back jobs that wait, and then those that have nothing to do."""
        waiting = [each for each in jobs if each.state == "PENDING"]
        idle = [each for each in jobs if each.state != "PENDING" and each.id in self.idle]
        given_back = (waiting + idle)[:surplus]
        if given_back:
            _LOG.info("%d jobs are given back", len(given_back))
            self._queue.cancel([each.cancel_by for each in given_back])

    def _last_words(self) -> str:
        """What the job that ended last has printed in the end."""
        with suppress(OSError):
            files = sorted(self._logs.glob(f"{self._queue.name}-*"), key=lambda each: each.stat().st_mtime)
            for file in reversed(files):
                lines = [
                    line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()
                ]
                if lines:
                    return f"; the last line of {file}: {lines[-1]}"
        return f"; see {self._logs}"

    def _end(self) -> None:
        until = time.monotonic() + _END
        while time.monotonic() < until:
            try:
                self._queue.cancel()
                if not self._queue.alive():
                    return
            except ClusterError as error:
                _LOG.warning("jobs of %s may be left in the queue: %s", self._queue.name, error)
            time.sleep(0.5)


class FleetWorkers(GatedWorkers):
    """Workers of a fleet's jobs; parameters are those of `GatedWorkers`, and the fleet."""

    def __init__(self, client: Client, described: str, demand: Demand, fleet: Fleet, **options: Any) -> None:
        super().__init__(client, described, demand, **options)
        self._fleet = fleet
        self._idle_since: dict[str, float] = {}
        self._looked_idle = 0.0

    def waiting_for(self) -> str:
        """Return what the queue says of the jobs."""
        return self._fleet.state()

    def need(self, units: int, done: int) -> None:
        """Tell the fleet, which grows and shrinks by that."""
        self._fleet.need(units, done)

    def look(self) -> bool:
        """Take notice of who is there; jobs that are lost are replaced meanwhile."""
        if self._fleet.trouble is not None:
            raise self._fleet.trouble
        came = super().look()
        self._look_for_idle_ones()
        return came

    def _look_for_idle_ones(self) -> None:
        now = time.monotonic()
        if now - self._looked_idle < _IDLE / 4:
            return
        self._looked_idle = now
        busy = self.client.processing()
        jobs: dict[str, bool] = {}
        for address, passed in self.gate.passed.items():
            job = str(passed.answer["name"]).split("-")[1] if "-" in passed.answer["name"] else ""
            jobs[job] = jobs.get(job, True) and not busy.get(address)
        self._idle_since = {
            job: self._idle_since.get(job, now) for job, without_work in jobs.items() if without_work
        }
        self._fleet.idle = frozenset(job for job, since in self._idle_since.items() if now - since >= _IDLE)
