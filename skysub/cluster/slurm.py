"""Jobs of Slurm."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from skysub.cluster.commands import answer_of
from skysub.cluster.fleet import QueuedJob
from skysub.cluster.job_queues import JobProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skysub.cluster.fleet import Queue

__all__ = ["SlurmProfile", "SlurmQueue"]

_ARRAY = 1000
"""Jobs of one array at most, by Slurm's default of MaxArraySize."""

_HOPELESS = {
    "AccountNotAllowed",
    "AssocMaxCpuMinutesPerJobLimit",
    "AssocMaxWallDurationPerJobLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldAdmin",
    "JobHeldUser",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSMaxWallDurationPerJobLimit",
    "QOSNotAllowed",
}
"""Reasons of Slurm for which a job waits in vain, unless somebody changes it."""


class SlurmProfile(JobProfile):
    """Jobs of Slurm."""

    kind: Literal["slurm"] = "slurm"
    job_class: ClassVar[str] = "dask_jobqueue.slurm:SLURMJob"

    def batch_system(self, name: str) -> Queue:
        """Return the jobs of a name."""
        return SlurmQueue(name)

    def _options(self) -> dict[str, Any]:
        return {
            "queue": self.queue or None,
            "account": self.account or None,
            "walltime": self.walltime,
        }

    @property
    def _worker_name(self) -> str:
        return "skysub-$SLURM_JOB_ID"


class SlurmQueue:
    """Jobs of one name and of this user."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._mine = ("--user", getpass.getuser(), "--name", name)

    def submit(self, script: str, count: int) -> None:
        """Hand in jobs, as an array."""
        while count > 0:
            array = min(count, _ARRAY)
            answer_of(("sbatch", "--parsable", f"--job-name={self.name}", f"--array=1-{array}"), given=script)
            count -= array

    def alive(self) -> list[QueuedJob]:
        """Jobs that wait or run."""
        form = "%i|%A|%T|%r"
        lines = answer_of(("squeue", "--noheader", "--array", *self._mine, f"--format={form}")).splitlines()
        jobs = []
        for line in lines:
            cancel_by, job, state, reason = line.strip().split("|", 3)
            if state == "COMPLETING":
                continue
            pending = state == "PENDING"
            word = reason.strip("()")
            jobs.append(
                QueuedJob(
                    cancel_by,
                    job,
                    state,
                    word if pending and word != "None" else "",
                    pending and word in _HOPELESS,
                )
            )
        return jobs

    def cancel(self, jobs: Sequence[str] | None = None) -> None:
        """Remove jobs; all of the name by default."""
        answer_of(("scancel", *self._mine) if jobs is None else ("scancel", *jobs))
