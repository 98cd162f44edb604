"""Worker processes of this machine."""

from __future__ import annotations

import math
import re
import signal
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from skysub.cluster.base import LOOPBACK, Demand, Profile, started
from skysub.cluster.dask_settings import forget_tasks, quiet_workers
from skysub.cluster.limits import allow_open_files, memory_here, not_enough, parsed_bytes
from skysub.cluster.workers import OwnWorkers, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

__all__ = ["LocalProfile", "dashboard_options", "seen_at"]


class LocalProfile(Profile):
    """Worker processes of one thread, one for each core as far as memory allows."""

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Worker processes; auto: as many as cores and memory allow."""
    threads: int = Field(1, gt=0)
    """Threads of each process."""
    memory: str | int = "auto"
    """Limit of one worker ("3 GiB"); auto: an even share of what this machine has."""
    dashboard: str = ""
    """Address of Dask's dashboard; empty: none. ":8787" is for this machine alone; as Dask asks for no
    login, only "0.0.0.0:8787" opens it to others."""

    def check(self) -> None:
        """Look at the memory."""
        parsed_bytes(self.memory)

    def slots(self, demand: Demand) -> int:
        """Threads of all processes."""
        return self._processes(demand)[0] * self.threads

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Start the processes."""
        from distributed import Client, LocalCluster

        count, limit = self._processes(demand)
        allow_open_files(count)

        def start() -> LocalCluster:
            with _without_interrupts():
                return LocalCluster(
                    host=LOOPBACK,
                    n_workers=count,
                    threads_per_worker=self.threads,
                    processes=True,
                    memory_limit=limit,
                    **dashboard_options(self.dashboard),
                )

        with started(start) as cluster, Client(cluster) as client:
            client.register_plugin(quiet_workers(demand.log))
            client.register_plugin(forget_tasks())
            threads = "" if self.threads == 1 else f" of {self.threads} threads"
            processes = "process" if count == 1 else "processes"
            described = f"{count} worker {processes}{threads} on this machine"
            yield OwnWorkers(client, count * self.threads, described + seen_at(client, self.dashboard))

    def _processes(self, demand: Demand) -> tuple[int, int]:
        """Number of processes, and the memory limit of each in bytes."""
        from dask.system import CPU_COUNT

        room = memory_here()
        each = max(1, demand.memory * self.threads)
        limit = parsed_bytes(self.memory)
        if self.workers == "auto":
            wanted = min(CPU_COUNT, math.ceil(demand.units / self.threads))
            count = max(1, min(wanted, int(room // (limit or each))))
        else:
            count = self.workers
        limit = limit or int(room // count)
        if limit < each:
            cure = "a larger cluster.memory, or a machine with more"
            cure = cure if count == 1 else f"--set cluster.workers=1, or {cure}"
            who = "the worker process" if count == 1 else f"each of {count} worker processes"
            raise not_enough(who, limit, each, cure)
        return count, limit


def dashboard_options(dashboard: str) -> dict[str, Any]:
    """Return what a scheduler is told of its dashboard."""
    # without one a server is still there: at any free port, as 8787 may be taken
    address = dashboard or ":0"
    address = f"{LOOPBACK}{address}" if address.startswith(":") else address
    return {"dashboard_address": address, "scheduler_kwargs": {"dashboard": bool(dashboard)}}


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block is left; processes that are started in it never see one."""
    # starting it later would let signals through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def seen_at(client: Client, dashboard: str) -> str:
    """Return where the dashboard of Dask is, to be said behind what the workers are; empty without one."""
    if not dashboard:
        return ""
    link = str(client.dashboard_link)
    if dashboard.startswith(":"):
        # Dask names the scheduler's host, at which nobody listens then
        link = re.sub(r"^http://[^/]*:(\d+)/status$", rf"http://{LOOPBACK}:\1/status", link)
    return f", Dask's dashboard at {link}"
