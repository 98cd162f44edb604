"""A bounded window of units in flight, so that a million cost the scheduler what a thousand do."""

from __future__ import annotations

import itertools
import queue
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, Future

__all__ = ["Finished", "Job", "Window"]

_NAMES = 512
"""Names that jobs take turns to have."""

_PATIENCE = 120
"""Seconds without any worker after which the cluster counts as lost."""


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
    """Jobs on a cluster, at most ``size`` of them handed over at any time.

    Parameters
    ----------
    client
        Of the cluster; only its public interface is used.
    size
        Jobs in flight.
    retries
        How often Dask repeats a job that raised.
    """

    def __init__(self, client: Client, *, size: int, retries: int = 2) -> None:
        self._client = client
        self._size = size
        self._retries = retries
        # several campaigns may share one scheduler
        self._token = uuid.uuid4().hex[:8]
        self._flying: dict[Any, tuple[Job, Future[Any]]] = {}
        self._landed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waited = 0
        # Dask remembers the names of its last 100,000 tasks: few names, used again long after, keep it small
        self._numbers = itertools.cycle(range(max(_NAMES, 16 * size)))

    def run(self, next_job: Callable[[], Job | None], *, stopping: Callable[[], bool]) -> Iterator[Finished]:
        """Make the calls that ``next_job`` names until it gives None and all are finished.

        ``next_job`` is asked again after each finished call. Once ``stopping`` says so no job is handed
        over any more, those that no worker has begun are taken back, and the rest are waited for.

        Raises
        ------
        ClusterError
            When the scheduler is gone, or has had no worker for two minutes.
        """
        withdrawn = False
        while True:
            if stopping():
                if not withdrawn:
                    self._withdraw()
                    withdrawn = True
            else:
                while len(self._flying) < self._size and (job := next_job()) is not None:
                    self._submit(job)
            if not self._flying:
                return
            key = self._next_landed()
            if key is None or key not in self._flying:
                continue
            job, future = self._flying.pop(key)
            yield self._outcome(job, future)

    def close(self) -> None:
        """Take everything back that is still in flight."""
        futures = [future for _, future in self._flying.values()]
        self._flying.clear()
        if futures:
            self._client.cancel(futures)

    def _submit(self, job: Job) -> None:
        key = next(key for number in self._numbers if (key := self._key(job, number)) not in self._flying)
        future = self._client.submit(job.function, *job.arguments, key=key, pure=False, retries=self._retries)
        self._flying[key] = (job, future)
        landed = self._landed
        future.add_done_callback(lambda done: landed.put(done.key))

    def _key(self, job: Job, number: int) -> tuple[str, int]:
        return f"{job.function.__name__}-{self._token}", number

    def _next_landed(self) -> Any:
        """Key of the next future that is over; None after a second, so that a signal is seen."""
        try:
            return self._landed.get(timeout=1)
        except queue.Empty:
            self._check_cluster()
            return None

    def _check_cluster(self) -> None:
        if self._client.status in {"closed", "closing"}:
            raise ClusterError(
                "the Dask scheduler is gone. What is done is safe: start the same command again"
            )
        if self._client.nthreads():
            self._waited = 0
            return
        self._waited += 1
        if self._waited > _PATIENCE:
            raise ClusterError(
                f"the Dask cluster has had no worker for {_PATIENCE} s. What is done is safe: "
                "start the same command again"
            )

    def _withdraw(self) -> None:
        begun = {key for keys in self._client.processing().values() for key in keys}
        idle = [key for key in self._flying if key not in begun]
        futures = [self._flying.pop(key)[1] for key in idle]
        if futures:
            self._client.cancel(futures)

    def _outcome(self, job: Job, future: Future[Any]) -> Finished:
        if future.status == "finished":
            outcome = Finished(job, future.result(), None)
        elif future.status == "error":
            outcome = Finished(job, None, future.exception())
        else:
            raise ClusterError(
                "the Dask scheduler is gone, or another client took its work away. What is done is safe: "
                "start the same command again"
            )
        future.release()
        return outcome
