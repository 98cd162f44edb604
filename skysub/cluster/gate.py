"""The gate: every worker that joins is looked at, and given units only when they can be done there.

A worker that passes is granted a resource of the campaign, one for each unit that it may do at once; units
ask for that resource, so that Dask itself keeps them from workers that were not looked at, or did not pass.
"""

from __future__ import annotations

import inspect
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skysub.cluster import probe as probe_module
from skysub.cluster.dask_settings import ENVIRONMENT
from skysub.errors import ClusterError, NotEnoughMemoryError

if TYPE_CHECKING:
    from distributed import Client, Future

    from skysub.cluster.base import Demand

__all__ = ["PACKAGES", "Gate", "Passed", "Refused"]

PACKAGES = ("skysub", "numpy", "numba", "zarr", "dask", "distributed")
"""Packages whose versions decide whether a worker gives the same bits, or understands its coordinator."""

_CLOCK_TOLERANCE = 5.0
"""Seconds by which a worker's clock may differ before it is told."""

_GRANT = """
async def _grant(worker, resources):
    await worker.set_resources(**resources)

def grant(resources):
    import asyncio
    from distributed import get_worker
    worker = get_worker()
    loop = worker.loop.asyncio_loop
    asyncio.run_coroutine_threadsafe(_grant(worker, resources), loop).result(60)
"""
"""What gives a worker a resource of Dask, run on that worker."""


@dataclass(frozen=True)
class Passed:
    """A worker that units may be given to."""

    address: str
    answer: dict[str, Any]
    """What the worker said of itself."""
    slots: int
    """Units at once: as many as it has threads, and memory for."""
    notes: tuple[str, ...]
    """What is less good than it could be, in sentences."""


@dataclass(frozen=True)
class Refused:
    """A worker that is left out."""

    address: str
    answer: dict[str, Any]
    problem: str
    """What is wrong with it, and the cure; the same text for workers with the same fault."""
    error: type[ClusterError | NotEnoughMemoryError] = ClusterError


@dataclass
class _Asked:
    future: Future[Any]
    since: float
    passed: Passed | None = None
    """The verdict, while the resource is being granted."""


@dataclass
class Gate:
    """Look at the workers of a client as they come.

    Parameters
    ----------
    client
        Of the scheduler.
    demand
        What the campaign needs.
    """

    client: Client
    demand: Demand
    passed: dict[str, Passed] = field(default_factory=dict)
    """Workers that are there and may be given units, by address."""
    refused: dict[str, Refused] = field(default_factory=dict)
    """Workers that are there and are left out, by address."""

    def __post_init__(self) -> None:
        # several campaigns may share one scheduler, each with a need of its own
        self.resource = f"skysub-{uuid.uuid4().hex[:8]}"
        self._asked: dict[str, _Asked] = {}
        self._mine = _ask_here(self.demand)
        self._question = _call(
            inspect.getsource(probe_module),
            "probe",
            [*PACKAGES],
            sorted(ENVIRONMENT),
            self.demand.store_check,
        )

    @property
    def asked(self) -> int:
        """Workers that have not answered yet."""
        return len(self._asked)

    @property
    def slots(self) -> int:
        """Units that all workers do at once."""
        return sum(each.slots for each in self.passed.values())

    def check_scheduler(self) -> None:
        """Make sure that the scheduler understands what it will be sent.

        Raises
        ------
        ClusterError
            When it has another skysub, Python or Dask: it reads the names of functions as workers do.
        """
        question = _call(inspect.getsource(probe_module), "probe", [*PACKAGES], [], None)
        answer = self.client.run_on_scheduler(eval, question)
        problem = _other_versions(answer, self._mine)
        if problem:
            raise ClusterError(f"the Dask scheduler on {answer['host']} {problem}")

    def look(self) -> tuple[list[Passed], list[Refused]]:
        """Take notice of workers that came and went; which passed since, and which are left out."""
        present = self.client.nthreads()
        for known in (self.passed, self.refused, self._asked):
            for address in known.keys() - present.keys():
                gone = known.pop(address)
                if isinstance(gone, _Asked):
                    gone.future.cancel()
        for address in present.keys() - self.passed.keys() - self.refused.keys() - self._asked.keys():
            self._asked[address] = _Asked(self._send(address, self._question), time.time())
        passed, refused = [], []
        for address, asked in list(self._asked.items()):
            if not asked.future.done():
                continue
            verdict = self._verdict(address, asked)
            if isinstance(verdict, Passed) and asked.passed is None:
                call = _call(_GRANT, "grant", {self.resource: verdict.slots})
                self._asked[address] = _Asked(self._send(address, call), asked.since, verdict)
                continue
            del self._asked[address]
            if isinstance(verdict, Passed):
                self.passed[address] = verdict
                passed.append(verdict)
            else:
                self.refused[address] = verdict
                refused.append(verdict)
        return passed, refused

    def _send(self, address: str, call: str) -> Future[Any]:
        return self.client.submit(
            # a builtin is there in any Python, and what it is given is text
            eval,
            call,
            key=f"skysub-gate-{uuid.uuid4().hex}",
            workers=[address],
            allow_other_workers=False,
            pure=False,
            priority=1_000_000,
        )

    def _verdict(self, address: str, asked: _Asked) -> Passed | Refused:
        if asked.future.status != "finished":
            error = asked.future.exception() if asked.future.status == "error" else None
            reason = (
                " ".join(f"{type(error).__name__}: {error}".split()) if error else "its task was taken away"
            )
            return Refused(
                address,
                {},
                f"cannot do what it is asked ({reason}): give it the Python, dask and distributed of the "
                "coordinator",
            )
        if asked.passed is not None:
            return asked.passed
        answer: dict[str, Any] = asked.future.result()
        return judged(address, answer, self._mine, self.demand, asked.since)


def judged(
    address: str, answer: dict[str, Any], mine: dict[str, Any], demand: Demand, since: float
) -> Passed | Refused:
    """Say whether units can be given to a worker, by its answer and that of the coordinator itself.

    Parameters
    ----------
    address
        Of the worker.
    answer, mine
        What `skysub.cluster.probe.probe` gave there and here.
    demand
        What the campaign needs.
    since
        Time by this machine's clock when the worker was asked.
    """
    problem = _other_versions(answer, mine)
    if problem:
        return Refused(address, answer, problem)
    if answer["store"]:
        return Refused(address, answer, f"cannot work on the store: {answer['store']}")
    threads, memory = int(answer["threads"]), int(answer["memory"])
    slots = min(threads, memory // max(1, demand.memory)) if memory else threads
    if not slots:
        return Refused(
            address,
            answer,
            f"has {memory / 2**30:.2f} GiB of memory, units need {demand.memory / 2**30:.2f} GiB: start "
            "workers with more memory, or with fewer processes on each machine",
            NotEnoughMemoryError,
        )
    notes = []
    if slots < threads:
        notes.append(
            f"has {threads} threads, and memory for {slots} units: it does {slots} at once; give it "
            f"{threads * demand.memory / 2**30:.1f} GiB, or fewer threads"
        )
    others = [
        f"{name} {answer['versions'][name]} (here {mine['versions'][name]})"
        for name in mine["versions"]
        if answer["versions"].get(name) != mine["versions"][name]
    ]
    if others:
        notes.append(f"has {', '.join(others)}: near enough, but no two releases are sure to give equal bits")
    lacking = sorted(
        name for name, value in ENVIRONMENT.items() if answer["environment"].get(name) != str(value)
    )
    if lacking:
        notes.append(
            f"lacks settings of the environment ({', '.join(lacking)}), so that units are slower and "
            "take more "
            "memory: `skysub cluster environment` prints what to set before workers start"
        )
    if answer.get("pause"):
        notes.append(
            f"is paused by Dask at {100 * answer['pause']:.0f} % of its memory, and might not go on: set "
            "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False where it is started"
        )
    ahead = max(answer["time"] - time.time(), since - answer["time"])
    if ahead > _CLOCK_TOLERANCE:
        notes.append(f"has a clock that is {ahead:.0f} s off: times in logs and markers will be, too")
    return Passed(address, answer, slots, tuple(notes))


def _other_versions(answer: dict[str, Any], mine: dict[str, Any]) -> str:
    theirs, ours = answer["versions"], mine["versions"]
    if _release(theirs["python"]) != _release(ours["python"]):
        return (
            f"has Python {theirs['python']}, the coordinator {ours['python']}: use one environment for both "
            f"(there: {answer['python']})"
        )
    broken = {name: answer["errors"][name] for name in ours if name in answer["errors"]}
    if "skysub" in broken:
        return f"has no skysub ({broken['skysub']}): install {ours['skysub']} there, for {answer['python']}"
    if broken:
        name, why = next(iter(broken.items()))
        return f"cannot import {name} ({why}): install {name} {ours[name]} there, for {answer['python']}"
    if theirs["skysub"] != ours["skysub"]:
        return (
            f"has skysub {theirs['skysub']}, the coordinator {ours['skysub']}: install "
            f"{ours['skysub']} there, "
            f"for {answer['python']}"
        )
    for name in ours:
        if _release(theirs[name]) != _release(ours[name]):
            return (
                f"has {name} {theirs[name]}, the coordinator {ours[name]}: install "
                f"{name}=={ours[name]} there, "
                f"for {answer['python']}"
            )
    if answer["code"] != mine["code"]:
        return (
            f"has other code of skysub than the coordinator, though both say {ours['skysub']}: "
            "install the same "
            f"there, for {answer['python']}"
        )
    return ""


def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _ask_here(demand: Demand) -> dict[str, Any]:
    mine = probe_module.probe([*PACKAGES], [], demand.store_check)
    if mine["store"]:
        raise ClusterError(f"the store cannot be worked on from here: {mine['store']}")
    return mine


def _call(source: str, function: str, *arguments: Any) -> str:
    """Return an expression that defines functions by their source and calls one of them."""
    # annotations may name types that an old Python lacks, which the future import leaves as text
    given = ", ".join(repr(each) for each in arguments)
    scope = "{'__name__': 'skysub_gate'}"
    return f"(lambda scope: (exec({source!r}, scope), scope[{function!r}]({given}))[1])({scope})"
