"""The workers of a campaign while it runs: how many units they do at once, as they come and go."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING

from skysub.cluster.gate import Gate
from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from skysub.cluster.base import Demand
    from skysub.cluster.gate import Refused

__all__ = ["GatedWorkers", "OwnWorkers", "Workers"]

_LOOK_EVERY = 1.0
"""Seconds between two looks at who is there."""

_LOOK_FIRST = 0.1
"""The same while there is no worker."""

_ALL_REFUSED = 15.0
"""Seconds for which good workers may still come, when all that are there were left out."""

_LOST = 120.0
"""Seconds without any worker, after there were some, at the end of which the cluster counts as lost."""

_SAY_EVERY = 60.0
"""Seconds between two messages of waiting."""


class Workers(ABC):
    """A client, and how many units its workers do at once."""

    def __init__(self, client: Client, described: str) -> None:
        self.client = client
        self.described = described
        """For people."""
        self.resources: dict[str, float] = {}
        """Resources of Dask that a unit asks for."""
        self.say: Callable[[str], None] = lambda _message: None
        """What is told of workers that come, go and are left out."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Units that the workers do at once now."""

    @property
    def addresses(self) -> list[str] | None:
        """Workers that may be given parts of a unit; None where all may."""
        return None

    @abstractmethod
    def look(self) -> bool:
        """Take notice of who is there; True where workers came after a time without any.

        Raises
        ------
        ClusterError, NotEnoughMemoryError
            When there is no worker, and none is to be expected: why, and what to do.
        """

    def need(self, units: int, done: int) -> None:  # noqa: B027 - most kinds do not grow
        """Say how many units are left, and how many are done, to a cluster that grows and shrinks."""


class OwnWorkers(Workers):
    """Workers that this process started from its own installation: they are there until the end."""

    def __init__(self, client: Client, slots: int, described: str) -> None:
        super().__init__(client, described)
        self._slots = slots
        self._missed: float | None = None
        self._looked = time.monotonic()

    @property
    def slots(self) -> int:
        """Threads of all workers."""
        return self._slots

    def look(self) -> bool:
        """See that there are workers still, once in a second: Dask replaces those that die."""
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        _check_scheduler(self.client)
        if self.client.nthreads():
            self._missed = None
            return False
        self._missed = self._missed or time.monotonic()
        if time.monotonic() - self._missed > _LOST:
            raise ClusterError(_lost(_LOST))
        return False


class GatedWorkers(Workers):
    """Workers that come and go, each of which passes the gate before it is given a unit.

    Parameters
    ----------
    client
        Of the scheduler.
    described
        Where that is, for people.
    demand
        What the campaign needs of each.
    patience
        Seconds to wait for the first worker.
    cure
        What to do when none comes.
    check_scheduler
        Whether the scheduler is of another installation, perhaps.
    """

    def __init__(
        self,
        client: Client,
        described: str,
        demand: Demand,
        *,
        patience: float,
        cure: str,
        check_scheduler: bool = False,
    ) -> None:
        super().__init__(client, described)
        self.gate = Gate(client, demand)
        self.resources = {self.gate.resource: 1}
        self._patience = patience
        self._cure = cure
        self._looked = 0.0
        self._alone_since: float | None = time.monotonic()
        """Since when there is no worker."""
        self._said = time.monotonic()
        self._any = False
        self._told: Counter[str] = Counter()
        if check_scheduler:
            self.gate.check_scheduler()

    @property
    def slots(self) -> int:
        """Units that the workers do at once now."""
        return self.gate.slots

    @property
    def addresses(self) -> list[str]:
        """Workers that passed."""
        return list(self.gate.passed)

    def waiting_for(self) -> str:
        """Why there is no worker, as far as a queue says so; empty where nothing is known."""
        return ""

    def look(self) -> bool:
        """Take notice of who is there, once in a second."""
        now = time.monotonic()
        if now - self._looked < (_LOOK_EVERY if self.slots else _LOOK_FIRST):
            return False
        self._looked = now
        _check_scheduler(self.client)
        passed, refused = self.gate.look()
        for each in passed:
            for note in each.notes:
                self._tell(f"worker {each.answer['name']} on {each.answer['host']} {note}", note)
        for bad in refused:
            self._tell(_left_out(bad), bad.problem)
        if self.slots:
            came = self._alone_since is not None
            if came:
                self.say(f"{len(self.gate.passed)} workers, {self.slots} units at once")
            self._any, self._alone_since, self._said = True, None, now
            return came
        self._alone_since = self._alone_since or now
        self._check_patience(now)
        return False

    def _check_patience(self, now: float) -> None:
        alone = now - (self._alone_since or now)
        bad = list(self.gate.refused.values())
        if bad and not self.gate.asked and alone > _ALL_REFUSED:
            more = f" ({len(bad)} workers were left out)" if len(bad) > 1 else ""
            raise bad[0].error(f"no worker can do the units: {_left_out(bad[0])}{more}")
        reason = self.waiting_for()
        if self._any and alone > max(_LOST, self._patience):
            raise ClusterError(_lost(alone))
        if not self._any and alone > self._patience:
            silent = f"; {self.gate.asked} workers do not answer" if self.gate.asked else ""
            why = f" ({reason})" if reason else ""
            raise ClusterError(
                f"no worker came in {self._patience:g} s to {self.described}{why}{silent}: {self._cure}"
            )
        if now - self._said > _SAY_EVERY:
            self._said = now
            self.say(f"no worker for {alone:.0f} s{': ' if reason else ''}{reason}")

    def _tell(self, message: str, kind: str) -> None:
        """Say a thing of the first worker that it is true of, and of the tenth, the hundredth."""
        self._told[kind] += 1
        count = self._told[kind]
        if str(count).rstrip("0") == "1":
            self.say(message if count == 1 else f"{message} ({count} workers so far)")


def _left_out(bad: Refused) -> str:
    name, host = bad.answer.get("name", bad.address), bad.answer.get("host", "")
    return f"worker {name}{f' on {host}' if host else ''} is left out: it {bad.problem}"


def _check_scheduler(client: Client) -> None:
    if client.status in {"closed", "closing"}:
        raise ClusterError("the Dask scheduler is gone. What is done is safe: start the same command again")


def _lost(seconds: float) -> str:
    return (
        f"the Dask cluster has had no worker for {seconds:.0f} s. What is done is safe: "
        "start the same command again"
    )
