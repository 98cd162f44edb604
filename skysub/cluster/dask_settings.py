"""How Dask and its workers are set for units that hold their pixels themselves."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

from skysub.text import LogFormat

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONFIGURATION", "ENVIRONMENT", "forget_tasks", "quiet_workers", "worker_environment"]

ENVIRONMENT = {
    # keep the memory of one detector for the next: fresh pages cost more than the arithmetic
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_MAX_": 0,
    "MALLOC_TOP_PAD_": 64 * 2**20,
    "MALLOC_TRIM_THRESHOLD_": 2**40,
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    # a worker is one thread, in Zarr as well: the other cores have workers of their own
    "ZARR_THREADING__MAX_WORKERS": 1,
}
"""Environment of a worker process."""

_MEMORY = {
    # units hold their pixels themselves, so Dask has nothing to spill, and a pause would not end
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

CONFIGURATION = {
    **_MEMORY,
    # a unit whose workers died twice is given back to the coordinator, which tries it once more by itself
    "distributed.scheduler.allowed-failures": 1,
    # short memories: a scheduler's logs would grow with the first ten thousand units
    "distributed.admin.log-length": 200,
    "distributed.admin.low-level-log-length": 50,
    "distributed.admin.system-monitor.log-length": 200,
    "distributed.diagnostics.computations.max-history": 5,
    "distributed.diagnostics.erred-tasks.max-history": 5,
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
}
"""Dask's configuration in the process of the coordinator, and in workers that it starts on its own
machine."""


def worker_environment() -> dict[str, str]:
    """Environment in which workers are started elsewhere, so that they are as those of this machine are."""
    as_dask_reads_it = {
        "DASK_" + key.replace(".", "__").replace("-", "_").upper(): str(value)
        for key, value in _MEMORY.items()
    }
    return {key: str(value) for key, value in ENVIRONMENT.items()} | as_dask_reads_it


def quiet_workers(log: Path | None) -> Any:
    """Plugin by which workers keep their logs off the terminal, and leave Ctrl-C on it to the coordinator."""
    from distributed import WorkerPlugin

    class QuietWorkers(WorkerPlugin):
        name = "quiet-workers"

        def setup(self, worker: Any) -> None:  # noqa: ARG002
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if log is not None:
                handler = logging.FileHandler(log, encoding="utf-8")
                handler.setLevel(logging.WARNING)
                handler.setFormatter(LogFormat())
                logging.getLogger("distributed").handlers = [handler]

    return QuietWorkers()


def forget_tasks() -> Any:
    """Plugin by which a scheduler forgets what it would note of each task for good, a third of a kilobyte."""
    from distributed import SchedulerPlugin

    class ForgetTasks(SchedulerPlugin):
        name = "forget-tasks"

        def update_graph(self, scheduler: Any, **_graph: Any) -> None:
            kept = scheduler.extensions.get("spans")
            for span in kept.spans.values() if kept else ():
                if span.metadata is not None:
                    span.metadata["collections"].clear()

    return ForgetTasks()
