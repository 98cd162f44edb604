"""Workers as jobs of a batch system: what a profile says of a job, and how its script is made.

The script is that of dask-jobqueue (an extra), whose configuration files hold here as well; jobs are
handed in, counted and replaced by `skysub.cluster.fleet`.
"""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
from abc import abstractmethod
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from skysub.cluster.base import Demand, Profile, started
from skysub.cluster.commands import CommandQueue
from skysub.cluster.dask_settings import forget_tasks, worker_environment
from skysub.cluster.fleet import Fleet, FleetWorkers
from skysub.cluster.limits import allow_open_files, not_enough, parsed_bytes, parsed_seconds, walltime_text
from skysub.cluster.local import dashboard_options, seen_at
from skysub.errors import ClusterError, MissingPackageError, RecipeError, how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.cluster.fleet import Queue
    from skysub.cluster.workers import Workers

__all__ = ["HTCondorProfile", "JobProfile", "PBSProfile"]

_SHORTEST = 60.0
"""Walltime in seconds below which a job would hardly do anything."""


class JobProfile(Profile):
    """Workers that are jobs of a batch system."""

    jobs: int = Field(10, gt=0)
    """Worker jobs at most; there are fewer where fewer units are left."""
    cores: int = Field(1, gt=0)
    """Cores of a job."""
    processes: int | Literal["auto"] = "auto"
    """Worker processes of a job; auto: one for each core."""
    memory: str | int = "4 GiB"
    """Memory of a job, shared evenly by its processes."""
    walltime: Annotated[str, BeforeValidator(walltime_text)] = "01:00:00"
    """Time that a job may take; its workers end before that by themselves, and other jobs replace them."""
    queue: str = ""
    """Queue or partition; empty: the system's default."""
    account: str = ""
    """Account or project that is charged; empty: the user's default."""
    directives: tuple[str, ...] = ()
    """Further options of the batch system, as they stand after #SBATCH or #PBS."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as ``module load`` or ``source .../activate``."""
    python: str = ""
    """Python of the workers; empty: that of the coordinator."""
    interface: str = ""
    """Network interface that joins nodes and coordinator, such as ib0; empty: that of the default route."""
    local_directory: str = ""
    """Folder of a node's own disk for what Dask keeps; empty: the node's temporary folder."""
    log_directory: str = ""
    """Folder for what jobs print; empty: ``jobs`` beside the campaign's log."""
    encrypted: bool = True
    """Whether coordinator and workers know each other by certificates that are made for the run. Without,
    whoever reaches the scheduler's port can run what he likes as this user."""
    patience: float = Field(3600, gt=0)
    """Seconds to wait for a first worker."""
    dashboard: str = ""
    """Address of Dask's dashboard, as for `skysub.cluster.local.LocalProfile`."""

    job_class: ClassVar[str]
    """Class of dask-jobqueue that makes the script."""

    def check(self) -> None:
        """Look at memory, time, and the share of each process."""
        parsed_bytes(self.memory)
        if parsed_bytes(self.memory) == 0:
            raise RecipeError("cluster.memory must be the size of a job, as '8 GiB', not auto")
        if parsed_seconds(self.walltime, "walltime") < _SHORTEST:
            raise RecipeError(f"cluster.walltime must be {_SHORTEST:.0f} s at least, not {self.walltime}")
        if self.cores % self.process_count:
            raise RecipeError(
                f"cluster.cores must be a multiple of cluster.processes, not {self.cores} and "
                f"{self.processes}"
            )

    @property
    def process_count(self) -> int:
        """Worker processes of a job."""
        return self.cores if self.processes == "auto" else self.processes

    @property
    def lifetime(self) -> tuple[float, float]:
        """Seconds after which a worker ends by itself, and by how much that is spread either way."""
        walltime = parsed_seconds(self.walltime, "walltime")
        spread = min(0.1 * walltime, 600)
        return walltime - min(max(0.1 * walltime, 15), 300) - spread, spread

    def slots(self, demand: Demand) -> int:
        """Units that all jobs do at once."""
        threads = self.cores // self.process_count
        each, need = parsed_bytes(self.memory) // self.process_count, demand.memory * threads
        if each < need:
            raise not_enough(
                f"each of {self.process_count} worker processes of a job",
                each,
                need,
                "a larger cluster.memory",
            )
        lifetime, spread = self.lifetime
        if demand.seconds > lifetime - spread:
            raise ClusterError(
                f"cluster.walltime {self.walltime} is shorter than a unit needs, {demand.seconds:.0f} "
                "s and the "
                "start of a worker: use a longer one"
            )
        return min(self.jobs, math.ceil(demand.units / self.cores)) * self.cores

    def script(self, scheduler: str, name: str, *, tls: Path | None = None, logs: Path | None = None) -> str:
        """Return the script of a worker job.

        Parameters
        ----------
        scheduler
            Address that the workers connect to.
        name
            Name of the job.
        tls
            Folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; None where nothing is encrypted.
        logs
            Folder for what jobs print.

        Raises
        ------
        MissingPackageError
            When dask-jobqueue is not installed.
        """
        lifetime, spread = self.lifetime
        extra = ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{spread:.0f}s", "--no-dashboard"]
        if tls is not None:
            for option, file in (("ca-file", "ca"), ("cert", "cert"), ("key", "key")):
                extra += [f"--tls-{option}", shlex.quote(str(tls / f"{file}.pem"))]
        exports = [f"export {key}={shlex.quote(value)}" for key, value in worker_environment().items()]
        options: dict[str, Any] = {
            "scheduler": scheduler,
            "name": self._worker_name,
            "job_name": name,
            "cores": self.cores,
            "processes": self.process_count,
            "memory": parsed_bytes(self.memory),
            "python": self.python or sys.executable,
            "interface": self.interface or None,
            "local_directory": self.local_directory or None,
            "log_directory": None if logs is None else str(logs),
            "death_timeout": 60,
            "worker_extra_args": extra,
            "job_script_prologue": [*self.prologue, *exports],
            "job_extra_directives": [*self.directives],
            **self._options(),
        }
        return str(_job_queue_module_class(self.job_class)(**options).job_script())

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Start a scheduler here, and hand in jobs whose workers connect to it."""
        from distributed import Client, LocalCluster

        slots = self.slots(demand)
        allow_open_files(slots)
        logs = self._log_folder(demand)
        with ExitStack() as stack:
            tls, security = stack.enter_context(_certificates(logs)) if self.encrypted else (None, None)

            def start() -> LocalCluster:
                return LocalCluster(
                    n_workers=0,
                    host=_own_address(self.interface),
                    protocol="tls" if security else "tcp",
                    security=security,
                    **dashboard_options(self.dashboard),
                )

            cluster = stack.enter_context(started(start))
            client = stack.enter_context(Client(cluster, set_as_default=False))
            client.register_plugin(forget_tasks())
            script = self.script(cluster.scheduler_address, demand.name, tls=tls, logs=logs)
            (logs / f"{demand.name}.sh").write_text(script)
            fleet = Fleet(self.batch_system(demand.name), script, most=self.jobs, cores=self.cores, logs=logs)
            stack.enter_context(fleet.kept(demand.units))
            yield FleetWorkers(
                client,
                f"jobs of {self.kind}, {self.jobs} at most with {self.cores} cores each"
                + seen_at(client, self.dashboard),
                demand,
                fleet,
                patience=self.patience,
                cure="see what the queue says of them, or ask for less: fewer cores, less memory or time",
            )

    @abstractmethod
    def batch_system(self, name: str) -> Queue:
        """Return the jobs of a name in the batch system, by its commands."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Return what the class of dask-jobqueue takes besides."""

    @property
    @abstractmethod
    def _worker_name(self) -> str:
        """Name of a worker, in shell: another one for each job."""

    def _log_folder(self, demand: Demand) -> Path:
        given = Path(self.log_directory).expanduser() if self.log_directory else None
        beside = demand.log.parent / "jobs" if demand.log is not None else Path("skysub-jobs")
        folder = (given or beside).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"{folder} cannot be made for what jobs print ({error.strerror}): set cluster.log_directory"
            ) from None
        return folder


class PBSProfile(JobProfile):
    """Jobs of PBS or Torque. Its commands were never run by skysub's own tests, its script was made only."""

    kind: Literal["pbs"] = "pbs"
    job_class: ClassVar[str] = "dask_jobqueue.pbs:PBSJob"

    def batch_system(self, name: str) -> Queue:
        """Return the jobs of a name."""
        return CommandQueue(
            name,
            submit=("qsub", "-N", name),
            alive=("qselect", "-N", name),
            cancel=("qdel",),
        )

    def _options(self) -> dict[str, Any]:
        return {
            "queue": self.queue or None,
            "account": self.account or None,
            "walltime": self.walltime,
        }

    @property
    def _worker_name(self) -> str:
        return "skysub-$PBS_JOBID"


class HTCondorProfile(JobProfile):
    """Jobs of HTCondor. Its commands were never run by skysub's own tests, its file was made only."""

    kind: Literal["htcondor"] = "htcondor"
    disk: str = "2 GB"
    """Disk of a job."""
    job_class: ClassVar[str] = "dask_jobqueue.htcondor:HTCondorJob"

    def batch_system(self, name: str) -> Queue:
        """Return the jobs of a name."""
        return CommandQueue(
            name,
            submit=("condor_submit", "-terse", "-batch-name", name),
            alive=("condor_q", "-constraint", f'JobBatchName == "{name}"', "-af:j", "JobStatus"),
            cancel=("condor_rm",),
        )

    def _options(self) -> dict[str, Any]:
        return {"disk": self.disk}

    @property
    def _worker_name(self) -> str:
        return "skysub-$$"


def _job_queue_module_class(path: str) -> Any:
    import importlib

    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        raise MissingPackageError(
            f"jobs of a batch system need dask-jobqueue: {how_to_install('jobqueue')}"
        ) from None


def _own_address(interface: str) -> str:
    """Address of this machine that nodes connect to.

    Raises
    ------
    ClusterError
        When there is no such interface.
    """
    from distributed.utils import get_ip, get_ip_interface

    if not interface:
        return str(get_ip())
    try:
        return str(get_ip_interface(interface))
    except ValueError as error:
        raise ClusterError(f"cluster.interface: {error}") from None


@contextmanager
def _certificates(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Certificates for one run, in a folder that this user alone can read, removed with the block.

    Raises
    ------
    MissingPackageError
        When the package that makes them is not installed.
    """
    from distributed.security import Security

    try:
        made = Security.temporary()
    except ImportError:
        raise MissingPackageError(
            f"certificates need the package cryptography: {how_to_install('jobqueue')}, or set "
            "cluster.encrypted "
            "to false where all who reach the scheduler's port are trusted"
        ) from None
    with tempfile.TemporaryDirectory(prefix="tls-", dir=folder) as kept:
        # the folder is of this user alone
        for name, text in (
            ("ca", made.tls_ca_file),
            ("cert", made.tls_worker_cert),
            ("key", made.tls_worker_key),
        ):
            (Path(kept) / f"{name}.pem").write_text(text)
        yield Path(kept), made
