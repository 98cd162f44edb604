"""What every kind of place to run has: a profile with fields of its own, a number of slots, and workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from skysub.cluster.dask_settings import CONFIGURATION
from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from skysub.cluster.workers import Workers

__all__ = [
    "ALL_CORES",
    "LOOPBACK",
    "Demand",
    "Profile",
    "Submission",
    "connected",
    "expected_slots",
    "started",
]

ALL_CORES = 1_000_000
"""A number of units that no cluster does at once."""

LOOPBACK = "127.0.0.1"
"""Host at which Dask listens, whose protocol runs what it is sent: no other machine can reach it."""


@dataclass(frozen=True)
class Demand:
    """What a campaign needs of its workers."""

    memory: int
    """Bytes that one unit of work needs at most, libraries included."""
    units: int
    """Units of work; more workers than that are not started."""
    seconds: float = 0.0
    """Expected time of the longest unit on one core; 0 where that is not known."""
    log: Path | None = None
    """File for what worker processes on this machine have to say; None: their standard error."""
    name: str = "skysub"
    """Name of the campaign among others, for jobs of a queue: letters, digits and dashes."""
    store_check: tuple[str, str, tuple[str, ...]] | None = None
    """Module, function and arguments: a call that each worker makes when it joins, and that says in a
    sentence what is wrong with the campaign's store as seen from there; empty where nothing is."""


@dataclass(frozen=True)
class Submission:
    """A coordinator that was handed to a place."""

    job: str
    """Identifier that the place gave it; empty where nothing was handed in."""
    name: str
    """Name of the campaign there."""
    script: str
    """What was handed in."""


class Profile(BaseModel, ABC):
    """A place to run, as a YAML file of ``cluster/`` says; each kind is a class with fields of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """Name of the class, as `skysub.cluster.profiles.KINDS` has it."""

    def check(self) -> None:
        """Look at what the types of the fields do not say.

        Raises
        ------
        RecipeError
            When a value is no good.
        """

    @abstractmethod
    def slots(self, demand: Demand) -> int:
        """How many units the workers would do at once; 0 where only a running scheduler knows.

        Raises
        ------
        NotEnoughMemoryError
            When a worker would have less memory than a unit needs.
        """

    @abstractmethod
    def open(self, demand: Demand) -> AbstractContextManager[Workers]:
        """Open the workers; what was started for them ends with the block.

        Raises
        ------
        NotEnoughMemoryError
            When no worker has as much memory as a unit needs.
        ClusterError
            When no scheduler or queue answers, or refuses what it is asked for.
        """

    def submit(self, command: Sequence[str], name: str, logs: Path, *, dry_run: bool = False) -> Submission:
        """Hand the coordinator itself to the place, as a job that outlives this process.

        Parameters
        ----------
        command
            What starts the coordinator: ``skysub run`` and what it is given.
        name
            Of the campaign, as `Demand` has it.
        logs
            Folder for what the job prints.
        dry_run
            Only say what would be handed in.

        Raises
        ------
        ClusterError
            When the place takes no coordinator, or refuses this one.
        """
        raise ClusterError(
            f"a cluster of kind {self.kind} takes no coordinator: use `skysub run`, or a profile of "
            "kind slurm or "
            "kubernetes"
        )

    def state_of(self, submission: Submission) -> str:
        """Return what the place says of a coordinator that was handed in; empty where it is over.

        Raises
        ------
        ClusterError
            When the place cannot be asked from here.
        """
        raise ClusterError(f"a cluster of kind {self.kind} has no coordinator")

    def withdraw(self, submission: Submission) -> None:
        """Remove a coordinator that was handed in, and its workers.

        Raises
        ------
        ClusterError
            When the place cannot be asked from here.
        """
        raise ClusterError(f"a cluster of kind {self.kind} has no coordinator")

    @property
    def where(self) -> str:
        """Where this is, for people."""
        return self.kind


def expected_slots(profile: Profile, *, need: int, units: int) -> int:
    """How many units the workers of a profile would do at once; 0 where only its scheduler knows.

    Raises
    ------
    NotEnoughMemoryError
        When a worker would have less memory than a unit needs.
    """
    return profile.slots(Demand(need, max(1, units)))


@contextmanager
def connected(profile: Profile, demand: Demand) -> Iterator[Workers]:
    """Open a client of the profile's workers; a cluster that was started for it ends with it.

    Raises
    ------
    NotEnoughMemoryError
        When a worker has less memory than a unit needs.
    ClusterError
        When no scheduler or queue answers, or refuses what it is asked for.
    """
    import dask

    # its defaults must be there before settings are laid over them, or they go with the settings
    import distributed  # noqa: F401

    with dask.config.set(CONFIGURATION), profile.open(demand) as workers:
        yield workers


@contextmanager
def started(start: Callable[[], Any], cure: str = "") -> Iterator[Any]:
    """Start a cluster or client, which ends with the block.

    Raises
    ------
    ClusterError
        When it does not start: why, and the cure.
    """
    try:
        opened = start()
    except (OSError, TimeoutError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, ClusterError):
            raise
        reason = " ".join(str(error).split())
        advice = f": {cure}" if cure else ""
        raise ClusterError(f"no Dask cluster to work on: {reason}{advice}") from error
    with opened:
        yield opened
