"""A Slurm of one node on loopback, from Debian's packages slurm-wlm and munge: for tests, as root."""

import os
import shutil
import socket
import subprocess
import time

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CONFIGURATION = """
ClusterName=loop
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# no systemd here, and the cgroups are not ours: plain processes, whose memory is limited by looking at it
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
# more CPUs than the machine has
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=10
MinJobAge=600
CompleteWait=0
SlurmctldTimeout=30
SlurmdTimeout=60
PropagateResourceLimits=NONE
DefMemPerCPU=1024
NodeName={node} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes={node} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=short Nodes={node} MaxTime=00:01:00 State=UP
PartitionName=closed Nodes={node} AllowAccounts=survey State=UP
"""


def why_not():
    """Why it cannot be started here; empty where it can."""
    missing = [each for each in PROGRAMS if shutil.which(each) is None]
    if missing:
        return f"there is no {missing[0]} here: apt-get install --no-install-recommends slurm-wlm munge"
    return "" if os.geteuid() == 0 else "daemons of Slurm are started as root here"


class SlurmNode:
    """The daemons, in a folder of their own; ``environment`` is for programs that ask them."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self):
        for each in ("state", "spool"):
            (self.folder / each).mkdir()
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                node=socket.gethostname().partition(".")[0],
                folder=self.folder,
                port=ports[0],
                node_port=ports[1],
            )
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        # by force, as the folder is of another user
        self.call("munged", "--force", *(f"--{name}={self.folder / file}" for name, file in files.items()))
        self.call("slurmctld", "-f", str(self.folder / "slurm.conf"))
        self.call("slurmd", "-f", str(self.folder / "slurm.conf"))
        deadline = time.monotonic() + 40
        while "idle" not in self.call("sinfo", "-h", "-o", "%T", check=False):
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)

    def stop(self):
        self.call("scancel", "--user", "root", check=False)
        for name in ("slurmd", "slurmctld", "munged"):
            pid = self.folder / f"{name}.pid"
            if pid.is_file() and pid.read_text().strip():
                subprocess.run(["kill", pid.read_text().strip()], check=False, capture_output=True)

    def call(self, *command, check=True):
        # daemons keep what they are given open: a file, and no pipe
        with (self.folder / "output.txt").open("w+") as output:
            subprocess.run(
                command, env=self.environment, stdout=output, stderr=output, check=check, timeout=60
            )
            output.seek(0)
            return output.read()

    def queue(self):
        """Names and states of the jobs, by identifier."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i|%j|%T").splitlines()
        return {line.split("|")[0]: tuple(line.strip().split("|")[1:]) for line in lines}
