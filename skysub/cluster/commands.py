"""Commands of batch systems: run with a time limit, and with their own message when they fail."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from skysub.cluster.fleet import QueuedJob
from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CommandQueue", "answer_of"]

_SECONDS = 60
"""Time that a command may take: a busy batch system is slow."""


def answer_of(command: Sequence[str], *, given: str = "") -> str:
    """Return what a command prints.

    Raises
    ------
    ClusterError
        When it is not there, fails or takes too long: with the message of the batch system itself.
    """
    try:
        done = subprocess.run(  # noqa: S603 - commands of this package, whose arguments are no shell's
            command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ClusterError(
            f"there is no command {command[0]} here: start this where the batch system's commands "
            "are, such as on "
            "its login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]} did not answer in {_SECONDS} s: is the batch system up?") from None
    if done.returncode:
        lines = (
            line.strip().removeprefix(f"{command[0]}: ") for line in (done.stderr or done.stdout).splitlines()
        )
        message = "; ".join(line.removeprefix("error: ") for line in lines if line)
        raise ClusterError(f"{command[0]} says: {message or f'nothing, and exits with {done.returncode}'}")
    return done.stdout


class CommandQueue:
    """Jobs of one name in a batch system that has a command to hand in, list and remove them.

    Parameters
    ----------
    name
        Of the jobs.
    submit, alive, cancel
        The commands: the first is given the script at its input and prints an identifier, the second prints
        one line for each job that waits or runs, beginning with its identifier, the third is given
        identifiers.
    """

    def __init__(
        self, name: str, *, submit: Sequence[str], alive: Sequence[str], cancel: Sequence[str]
    ) -> None:
        self.name = name
        self._submit, self._alive, self._cancel = submit, alive, cancel

    def submit(self, script: str, count: int) -> None:
        """Hand in jobs."""
        for _ in range(count):
            answer_of(self._submit, given=script)

    def alive(self) -> list[QueuedJob]:
        """Jobs that wait or run."""
        lines = answer_of(self._alive).split("\n")
        return [QueuedJob(line.split()[0], line.split()[0], "", "") for line in lines if line.strip()]

    def cancel(self, jobs: Sequence[str] | None = None) -> None:
        """Remove jobs by their identifiers; all of the name by default."""
        given = [each.cancel_by for each in self.alive()] if jobs is None else list(jobs)
        if given:
            answer_of((*self._cancel, *given))
