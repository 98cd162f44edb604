"""A bounded window of units in flight, so that a million cost the scheduler what a thousand do."""

from __future__ import annotations

import queue
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Future

    from skysub.cluster import Workers

__all__ = ["Finished", "Job", "Window"]

_NAMES = 512
"""Names that jobs take turns to have, at least."""

_RESULT_SECONDS = 10
"""Time that the result of a finished job has to come; its worker may have gone in between."""


@dataclass(frozen=True, slots=True)
class Job:
    """A call to be made on a worker."""

    name: tuple[Any, ...]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A call that was made, or could not be."""

    job: Job
    result: Any
    error: BaseException | None


class Window:
    """Jobs on a cluster, as many of them handed over at any time as its workers keep busy with.

    Parameters
    ----------
    workers
        Who does them; their number may change at any time, and be none.
    size
        Jobs in flight, as a function of the units that the workers do at once.
    retries
        How often Dask repeats a job that raised.
    """

    def __init__(self, workers: Workers, *, size: Callable[[int], int], retries: int = 2) -> None:
        self._workers = workers
        self._client = workers.client
        self._size = size
        self._retries = retries
        # several campaigns may share one scheduler
        self._token = uuid.uuid4().hex[:8]
        self._flying: dict[Any, tuple[Job, Future[Any]]] = {}
        self._landed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._held: Job | None = None
        """The next job, while there is no worker for it."""
        self._number = 0

    def run(self, next_job: Callable[[], Job | None], *, stopping: Callable[[], bool]) -> Iterator[Finished]:
        """Make the calls that ``next_job`` names until it gives None and all are finished.

        ``next_job`` is asked again after each finished call. Once ``stopping`` says so no job is handed
        over any more, those that no worker has begun are taken back, and the rest are waited for.

        Raises
        ------
        ClusterError, NotEnoughMemoryError
            When the scheduler is gone, or there is no worker and none is to be expected.
        """
        withdrawn = False
        while True:
            came = self._workers.look()
            if stopping():
                if not withdrawn:
                    self._take_back()
                    withdrawn = True
                if not self._flying or not self._workers.slots:
                    # what no worker has will not be finished by waiting
                    return
            else:
                if came:
                    # they may wait for workers that are gone, of which Dask does not think again
                    for job in self._take_back():
                        self._submit(job)
                self._fill(next_job)
                if not self._flying and self._held is None:
                    return
            key = self._next_landed()
            if key is None or key not in self._flying:
                continue
            job, future = self._flying.pop(key)
            outcome = self._outcome(job, future)
            if outcome is None:
                # its result went with the worker that had it, and is made anew
                self._flying[key] = (job, future)
                self._listen(future)
            else:
                yield outcome

    def close(self) -> None:
        """Take everything back that is still in flight."""
        futures = [future for _, future in self._flying.values()]
        self._flying.clear()
        if futures and self._client.status not in {"closed", "closing"}:
            self._client.cancel(futures)

    def _fill(self, next_job: Callable[[], Job | None]) -> None:
        """Hand over as many jobs as the workers that are there now keep busy with."""
        room = self._size(self._workers.slots)
        while len(self._flying) < room:
            job, self._held = self._held or next_job(), None
            if job is None:
                return
            self._submit(job)
        if not self._flying and self._held is None:
            # whether there is anything to wait for
            self._held = next_job()

    def _submit(self, job: Job) -> None:
        # Dask remembers the names of its last 100,000 tasks: few names, used again long after, keep it small
        names = max(_NAMES, 16 * len(self._flying))
        while True:
            self._number = (self._number + 1) % names
            key = f"{job.function.__name__}-{self._token}", self._number
            if key not in self._flying:
                break
        future = self._client.submit(
            job.function,
            *job.arguments,
            key=key,
            pure=False,
            retries=self._retries,
            resources=self._workers.resources or None,
        )
        self._flying[key] = (job, future)
        self._listen(future)

    def _listen(self, future: Future[Any]) -> None:
        landed = self._landed
        future.add_done_callback(lambda done: landed.put(done.key))

    def _next_landed(self) -> Any:
        """Key of the next future that is over; None after a second at most, so that a signal is seen."""
        try:
            return self._landed.get(timeout=1 if self._flying else 0.1)
        except queue.Empty:
            return None

    def _take_back(self) -> list[Job]:
        """Take back the jobs that no worker has begun, or been given; return them."""
        begun = {key for keys in self._client.processing().values() for key in keys}
        idle = [key for key, (_, future) in self._flying.items() if key not in begun and not future.done()]
        taken = [self._flying.pop(key) for key in idle]
        if taken:
            self._client.cancel([future for _, future in taken])
        return [job for job, _ in taken]

    def _outcome(self, job: Job, future: Future[Any]) -> Finished | None:
        if future.status in {"pending", "lost"}:
            return None
        if future.status == "finished":
            try:
                outcome = Finished(job, future.result(timeout=_RESULT_SECONDS), None)
            except TimeoutError:
                return None
        elif future.status == "error":
            outcome = Finished(job, None, future.exception())
        else:
            raise ClusterError(
                "the Dask scheduler is gone, or another client took its work away. What is done is safe: "
                "start the same command again"
            )
        future.release()
        return outcome
