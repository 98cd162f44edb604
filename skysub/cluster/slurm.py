"""Jobs of Slurm."""

from __future__ import annotations

import getpass
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from skysub.cluster.base import Submission
from skysub.cluster.commands import answer_of
from skysub.cluster.fleet import QueuedJob
from skysub.cluster.job_queues import JobProfile
from skysub.cluster.limits import parsed_bytes, parsed_seconds, walltime_text
from skysub.errors import OutputInUseError

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


_COORDINATOR = """#!/bin/bash
{options}
{prologue}
cd {folder} || exit 1
again=
# its walltime is near: the units in flight are finished, and the job is asked for again
trap 'again=yes; kill -INT "$child"' USR1
trap 'kill -TERM "$child"' TERM INT
{command} &
child=$!
while :; do
    wait "$child"
    code=$?
    # a signal ends the waiting, not the child
    kill -0 "$child" 2>/dev/null || break
done
if [ "$code" = 2 ] && [ -n "$again" ]; then
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60
fi
exit "$code"
"""
"""Script of the coordinator's job."""


class CoordinatorJob(BaseModel):
    """The job that `skysub submit` hands in: it does no unit, but hands in worker jobs and counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: str = "4 GiB"
    """Memory of the job: 1.3 GB for a campaign of a million units."""
    walltime: Annotated[str, BeforeValidator(walltime_text)] = "24:00:00"
    """Time of the job; one that does not suffice is asked for again, as often as needed."""
    queue: str = ""
    """Partition; empty: that of the worker jobs."""
    warning: int = Field(default=120, gt=0)
    """Seconds before the end of the walltime at which the units in flight are finished."""
    directives: tuple[str, ...] = ()
    """Further options, as they stand after #SBATCH."""


class SlurmProfile(JobProfile):
    """Jobs of Slurm."""

    kind: Literal["slurm"] = "slurm"
    coordinator: CoordinatorJob = CoordinatorJob()
    """The job that `skysub submit` hands in."""
    job_class: ClassVar[str] = "dask_jobqueue.slurm:SLURMJob"

    def batch_system(self, name: str) -> Queue:
        """Return the jobs of a name."""
        return SlurmQueue(name)

    def check(self) -> None:
        """Look at memory and time, those of the coordinator as well."""
        super().check()
        parsed_bytes(self.coordinator.memory)
        parsed_seconds(self.coordinator.walltime, "coordinator.walltime")

    def submit(self, command: Sequence[str], name: str, logs: Path, *, dry_run: bool = False) -> Submission:
        """Hand in one job that starts again by itself: after a failure of its node, and at its walltime."""
        script = self.coordinator_script(command, name, logs)
        if dry_run:
            return Submission("", name, script)
        there = SlurmQueue(f"{name}-coordinator").alive()
        if there:
            raise OutputInUseError(
                f"the campaign is in the queue already, as job {there[0].id} ({there[0].state.lower()}): "
                "`skysub cancel` removes it"
            )
        logs.mkdir(parents=True, exist_ok=True)
        return Submission(
            answer_of(("sbatch", "--parsable"), given=script).strip().partition(";")[0], name, script
        )

    def coordinator_script(self, command: Sequence[str], name: str, logs: Path) -> str:
        """Return the script of the coordinator's job."""
        job = self.coordinator
        memory = -(-parsed_bytes(job.memory) // 2**20)
        options = [
            f"--job-name={name}-coordinator",
            "--ntasks=1",
            "--cpus-per-task=1",
            f"--mem={memory}M",
            f"--time={job.walltime}",
            *([f"--partition={job.queue or self.queue}"] if job.queue or self.queue else []),
            *([f"--account={self.account}"] if self.account else []),
            "--requeue",
            "--open-mode=append",
            f"--output={logs}/{name}-coordinator-%j.out",
            f"--signal=B:USR1@{job.warning}",
            *job.directives,
        ]
        return _COORDINATOR.format(
            options="\n".join(f"#SBATCH {each}" for each in options),
            prologue="\n".join(self.prologue),
            folder=shlex.quote(str(Path.cwd())),
            command=shlex.join(command),
        )

    def state_of(self, submission: Submission) -> str:
        """Return what Slurm says of the coordinator's job."""
        jobs = SlurmQueue(f"{submission.name}-coordinator").alive()
        return f"{jobs[0].state.lower()}{f', {jobs[0].reason}' if jobs[0].reason else ''}" if jobs else ""

    def withdraw(self, submission: Submission) -> None:
        """Remove the coordinator's job if it waits; one that runs sees the wish to stop by itself."""
        queue = SlurmQueue(f"{submission.name}-coordinator")
        queue.cancel([each.cancel_by for each in queue.alive() if each.state == "PENDING"])

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
        if jobs is None or jobs:
            answer_of(("scancel", *self._mine) if jobs is None else ("scancel", *jobs))
