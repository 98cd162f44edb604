"""Threads of this very process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from skysub.cluster.base import LOOPBACK, Demand, Profile, started
from skysub.cluster.dask_settings import forget_tasks
from skysub.cluster.limits import allow_open_files, memory_here, not_enough, parsed_bytes
from skysub.cluster.local import dashboard_options, seen_at
from skysub.cluster.workers import OwnWorkers, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ThreadsProfile"]


class ThreadsProfile(Profile):
    """Threads of this process: they start at once, for small campaigns and for finding faults."""

    kind: Literal["threads"] = "threads"
    workers: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Threads; auto: as many as cores and memory allow."""
    memory: str | int = "auto"
    """What all threads together may need ("3 GiB"); auto: what this machine has."""
    dashboard: str = ""
    """Address of Dask's dashboard, as for `skysub.cluster.local.LocalProfile`."""

    def check(self) -> None:
        """Look at the memory."""
        parsed_bytes(self.memory)

    def slots(self, demand: Demand) -> int:
        """Threads."""
        from dask.system import CPU_COUNT

        room = parsed_bytes(self.memory) or memory_here()
        count = (
            max(1, min(CPU_COUNT, demand.units, int(room // max(1, demand.memory))))
            if self.workers == "auto"
            else self.workers
        )
        if room < demand.memory * count:
            cure = "a machine with more memory" if count == 1 else "--set cluster.workers=1"
            raise not_enough(f"this process with {count} threads", int(room), demand.memory * count, cure)
        return count

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Start the threads."""
        from distributed import Client, LocalCluster, Worker

        class LoopbackWorker(Worker):
            def __init__(self, *given: Any, **options: Any) -> None:
                # within one process there is no address whose host it would take
                super().__init__(*given, **{**options, "dashboard_address": f"{LOOPBACK}:0"})

        count = self.slots(demand)
        allow_open_files(0)

        def start() -> LocalCluster:
            return LocalCluster(
                n_workers=1,
                threads_per_worker=count,
                processes=False,
                memory_limit=None,
                worker_class=LoopbackWorker,
                **dashboard_options(self.dashboard),
            )

        with started(start) as cluster, Client(cluster) as client:
            client.register_plugin(forget_tasks())
            yield OwnWorkers(
                client, count, f"{count} threads of this process" + seen_at(client, self.dashboard)
            )
