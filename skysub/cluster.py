"""Which Dask workers a campaign runs on: profiles, and the client of a cluster that has memory enough."""

from __future__ import annotations

import logging
import math
import resource
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Annotated, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skysub.campaign.lookup import find_yaml, merged, read_yaml
from skysub.campaign.progress import LogFormat
from skysub.campaign.recipe import explained
from skysub.errors import ClusterError, NotEnoughMemoryError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from distributed import Client

__all__ = ["ALL_CORES", "Profile", "Workers", "connected", "expected_slots", "load_profile"]

ALL_CORES = 1_000_000
"""A number of units that no cluster does at once."""

_LOOPBACK = "127.0.0.1"
"""Host at which Dask listens, whose protocol runs what it is sent: no other machine can reach it."""

_FILES_OF_WORKER = 12
"""Open files that this process needs for a worker process: pipes and connections (10 were seen)."""

_FILES = 64
"""Open files that it needs otherwise (21 were seen, and files of the store)."""

_USABLE = 0.9
"""Share of this machine's memory that workers may have."""

_SCHEDULER_WAIT = 15
"""Seconds that a scheduler has to answer; its workers may come later."""

_DASK = {
    # units hold their pixels themselves, so Dask has nothing to spill, and a pause would not end
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # short memories: a scheduler's logs would grow with the first ten thousand units
    "distributed.admin.log-length": 200,
    "distributed.admin.low-level-log-length": 50,
    "distributed.admin.system-monitor.log-length": 200,
    "distributed.diagnostics.computations.max-history": 5,
    "distributed.diagnostics.erred-tasks.max-history": 5,
    "distributed.nanny.pre-spawn-environ": {
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
    },
}


class Profile(BaseModel):
    """A place to run, as a YAML file of ``cluster/`` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local", "threads", "address"]
    """Processes of this machine, threads of this process, or a scheduler that is running already."""
    workers: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Worker processes (local) or threads (threads); auto: as many as cores and memory allow."""
    threads: int = Field(1, gt=0)
    """Threads per worker process."""
    memory: str | int = "auto"
    """Limit of one worker ("3 GiB"), of all threads for ``threads``; auto: what this machine has."""
    address: str = ""
    """Of the scheduler."""
    patience: float = Field(60, gt=0)
    """Seconds to wait for a scheduler's first worker; for the scheduler itself 15 at most."""
    dashboard: str = ""
    """Address of Dask's dashboard; empty: none. ":8787" is for this machine alone; as Dask asks for no
    login, only "0.0.0.0:8787" opens it to others."""


@dataclass(frozen=True)
class Workers:
    """A client, and how many units its workers do at once."""

    client: Client
    slots: int
    """Units at once: threads of all workers."""
    described: str
    """For people."""


def load_profile(cluster: Mapping[str, Any]) -> Profile:
    """Read the profile that a recipe's ``cluster`` names, with the recipe's changes.

    Raises
    ------
    RecipeError
        When there is no such profile, or a key or value of it is no good.
    """
    changes = dict(cluster)
    path = find_yaml(str(changes.pop("profile", "local")), "cluster")
    tree = read_yaml(path, "cluster")
    try:
        Profile.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explained(error, Profile)}") from None
    try:
        profile = Profile.model_validate(merged(tree, changes))
    except ValidationError as error:
        raise RecipeError(explained(error, Profile, "cluster")) from None
    _bytes(profile.memory)
    if profile.kind == "address" and not profile.address:
        raise RecipeError(f"{path}: address is missing: --set cluster.address=tcp://HOST:8786")
    return profile


def expected_slots(profile: Profile, *, need: int, units: int) -> int:
    """How many units the workers of a profile would do at once; 0 where only its scheduler knows.

    Parameters are those of `connected`.

    Raises
    ------
    NotEnoughMemoryError
        When a worker would have less memory than a unit needs.
    """
    if profile.kind == "local":
        return _local_workers(profile, need, max(1, units))[0] * profile.threads
    return _thread_count(profile, need, max(1, units)) if profile.kind == "threads" else 0


@contextmanager
def connected(profile: Profile, *, need: int, units: int, log: Path | None = None) -> Iterator[Workers]:
    """Open a client of the profile's workers; a cluster that was started for it ends with it.

    Parameters
    ----------
    need
        Bytes that one unit of work needs at most, libraries included.
    units
        Units of work; more workers than that are not started.
    log
        File for what worker processes on this machine have to say; None: their standard error.

    Raises
    ------
    NotEnoughMemoryError
        When a worker has less memory than a unit needs.
    ClusterError
        When no scheduler answers, or it has no workers.
    """
    import dask

    # its defaults must be there before settings are laid over them, or they go with the settings
    import distributed  # noqa: F401

    processes = _local_workers(profile, need, max(1, units))[0] if profile.kind == "local" else 0
    _allow_files(_FILES + processes * _FILES_OF_WORKER)
    opened = {"local": _local, "threads": _threads, "address": _address}[profile.kind]
    with dask.config.set(_DASK), opened(profile, need, max(1, units)) as workers:
        if profile.kind == "local":
            workers.client.register_plugin(_manners(log))
        if profile.kind != "address":
            workers.client.register_plugin(_short_memory())
        yield workers


def _allow_files(number: int) -> None:
    """Make sure that this process, and those it starts, may open so many files.

    Raises
    ------
    ClusterError
        When the system's limit is lower: connections would fail here and there, and be tried again for long.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= number:
        return
    if hard != resource.RLIM_INFINITY and hard < number:
        raise ClusterError(
            f"a process may open {soft} files here (ulimit -n), {number} are needed: raise the limit by "
            f"`ulimit -n {max(1024, number)}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


@contextmanager
def _local(profile: Profile, need: int, units: int) -> Iterator[Workers]:
    from distributed import Client, LocalCluster

    count, limit = _local_workers(profile, need, units)

    def start() -> LocalCluster:
        with _shielded():
            return LocalCluster(
                host=_LOOPBACK,
                n_workers=count,
                threads_per_worker=profile.threads,
                processes=True,
                memory_limit=limit,
                **_dashboard(profile),
            )

    with (
        _started(start) as cluster,
        Client(cluster) as client,
    ):
        threads = "" if profile.threads == 1 else f" of {profile.threads} threads"
        yield Workers(client, count * profile.threads, f"{count} worker processes{threads} on this machine")


@contextmanager
def _shielded() -> Iterator[None]:
    """Hold Ctrl-C back until the block is left; processes that are started in it never see one."""
    # starting it later would let signals through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _manners(log: Path | None) -> Any:
    """Plugin by which workers keep their logs off the terminal, and leave Ctrl-C on it to the coordinator."""
    from distributed import WorkerPlugin

    class Manners(WorkerPlugin):
        name = "manners"

        def setup(self, worker: Any) -> None:  # noqa: ARG002
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if log is not None:
                handler = logging.FileHandler(log, encoding="utf-8")
                handler.setLevel(logging.WARNING)
                handler.setFormatter(LogFormat())
                logging.getLogger("distributed").handlers = [handler]

    return Manners()


def _short_memory() -> Any:
    """Plugin by which a scheduler forgets what it would note of each task for good, a third of a kilobyte."""
    from distributed import SchedulerPlugin

    class ShortMemory(SchedulerPlugin):
        name = "short-memory"

        def update_graph(self, scheduler: Any, **_graph: Any) -> None:
            kept = scheduler.extensions.get("spans")
            for span in kept.spans.values() if kept else ():
                if span.metadata is not None:
                    span.metadata["collections"].clear()

    return ShortMemory()


@contextmanager
def _threads(profile: Profile, need: int, units: int) -> Iterator[Workers]:
    from distributed import Client, LocalCluster, Worker

    class Quiet(Worker):
        def __init__(self, *given: Any, **options: Any) -> None:
            # within one process there is no address whose host it would take
            super().__init__(*given, **{**options, "dashboard_address": f"{_LOOPBACK}:0"})

    count = _thread_count(profile, need, units)
    with (
        _started(
            lambda: LocalCluster(
                n_workers=1,
                threads_per_worker=count,
                processes=False,
                memory_limit=None,
                worker_class=Quiet,
                **_dashboard(profile),
            )
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Workers(client, count, f"{count} threads of this process")


@contextmanager
def _address(profile: Profile, need: int, units: int) -> Iterator[Workers]:
    from distributed import Client

    wait = min(_SCHEDULER_WAIT, profile.patience)
    cure = "is `dask scheduler` running there? Else give its address by --set cluster.address=tcp://HOST:8786"
    with _started(lambda: Client(profile.address, timeout=wait), cure) as client:
        try:
            client.wait_for_workers(1, timeout=profile.patience)
        except TimeoutError:
            raise ClusterError(
                f"{profile.address} has no workers, after {profile.patience:g} s: start some, as by "
                f"`dask worker {profile.address}`"
            ) from None
        known = client.scheduler_info(n_workers=-1)["workers"]
        small = {
            address: worker["memory_limit"]
            for address, worker in known.items()
            if worker["memory_limit"] and worker["memory_limit"] < need * worker["nthreads"]
        }
        if small:
            address, limit = min(small.items(), key=lambda item: item[1])
            what = f"worker {address} ({known[address]['nthreads']} threads)"
            _refuse(
                what, limit, need * known[address]["nthreads"], "workers with fewer threads or more memory"
            )
        slots = sum(worker["nthreads"] for worker in known.values())
        yield Workers(client, min(slots, units), f"{len(known)} workers at {profile.address}")


def _local_workers(profile: Profile, need: int, units: int) -> tuple[int, int]:
    """Number of processes, and the memory limit of each in bytes."""
    from dask.system import CPU_COUNT

    room = _memory_here()
    each = max(1, need * profile.threads)
    limit = _bytes(profile.memory)
    if profile.workers == "auto":
        wanted = min(CPU_COUNT, math.ceil(units / profile.threads))
        count = max(1, min(wanted, int(room // (limit or each))))
    else:
        count = profile.workers
    limit = limit or int(room // count)
    if limit < each:
        cure = "a larger cluster.memory, or a machine with more"
        cure = cure if count == 1 else f"--set cluster.workers=1, or {cure}"
        who = "the worker process" if count == 1 else f"each of {count} worker processes"
        _refuse(who, limit, each, cure)
    return count, limit


def _thread_count(profile: Profile, need: int, units: int) -> int:
    from dask.system import CPU_COUNT

    room = _bytes(profile.memory) or _memory_here()
    count = (
        max(1, min(CPU_COUNT, units, int(room // max(1, need))))
        if profile.workers == "auto"
        else profile.workers
    )
    if room < need * count:
        cure = "a machine with more memory" if count == 1 else "--set cluster.workers=1"
        _refuse(f"this process with {count} threads", int(room), need * count, cure)
    return count


@contextmanager
def _started(start: Any, cure: str = "") -> Iterator[Any]:
    try:
        opened = start()
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        advice = f": {cure}" if cure else ""
        raise ClusterError(f"no Dask cluster to work on: {reason}{advice}") from error
    with opened:
        yield opened


def _dashboard(profile: Profile) -> dict[str, Any]:
    # without one a server is still there: at any free port, as 8787 may be taken
    address = profile.dashboard or ":0"
    address = f"{_LOOPBACK}{address}" if address.startswith(":") else address
    return {"dashboard_address": address, "scheduler_kwargs": {"dashboard": bool(profile.dashboard)}}


def _refuse(who: str, has: int, needs: int, cure: str) -> None:
    has_gib, needs_gib = has / 2**30, needs / 2**30
    raise NotEnoughMemoryError(
        f"{who} would have {has_gib:.2f} GiB of memory, units need {needs_gib:.2f} GiB: use {cure}"
    )


def _memory_here() -> float:
    from distributed.system import MEMORY_LIMIT

    # the limit knows of containers, what is available of other processes
    return _USABLE * float(min(MEMORY_LIMIT, psutil.virtual_memory().available))


def _bytes(memory: str | int) -> int:
    from dask.utils import parse_bytes

    if memory == "auto":
        return 0
    try:
        return int(parse_bytes(memory))
    except ValueError:
        raise RecipeError(f"cluster.memory must be auto or a size as '3 GiB', not {memory!r}") from None
