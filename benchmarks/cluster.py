"""How the window follows workers that join, and what a unit costs the coordinator's process.

python benchmarks/cluster.py follow      # one thread at first and forty later, or forty at once
python benchmarks/cluster.py coordinator # processor time of coordinator and scheduler for each unit
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSE = 0.5


def pause(seconds: float) -> None:
    time.sleep(seconds)


def nothing(_number: int) -> None:
    pass


@contextmanager
def worker(address: str, threads: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--no-nanny",
            "--no-dashboard",
        ]
        command += ["--nthreads", str(threads), "--memory-limit", "0", "--local-directory", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def rate(first: int, later: int, *, seconds: float = 30.0) -> float:
    """Units per second, from eight seconds after the later workers passed the gate."""
    from contextlib import ExitStack

    from distributed import Client, LocalCluster

    from skysub.campaign.window import Job, Window
    from skysub.cluster import Demand
    from skysub.cluster.address import borrowed

    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0"))
        client = stack.enter_context(Client(cluster))
        workers = stack.enter_context(borrowed(client, Demand(1, 10**6)))
        stack.enter_context(worker(cluster.scheduler_address, first))
        window = Window(workers, size=lambda slots: 4 * slots + 4 if slots else 0)
        began = full = None
        done = 0
        for _ in window.run(lambda: Job((0,), pause, (PAUSE,)), stopping=lambda: False):
            now = time.monotonic()
            if began is None:
                began = now
            if later and now - began > 3:
                stack.enter_context(worker(cluster.scheduler_address, later))
                later = 0
            if not later and full is None and workers.slots > first * bool(first != 40):
                full = now
            if full is not None and now - full > 8:
                done += 1
                if now - full > 8 + seconds:
                    break
        window.close()
        return done / seconds


def follow() -> None:
    from_start = rate(40, 0)
    joined = rate(1, 40)
    print(f"40 threads from the start: {from_start:.1f} units/s; 1, and 40 more later: {joined:.1f} units/s")
    print(f"ratio {joined / from_start * 40 / 41:.2f} for each thread")


def coordinator() -> None:
    import itertools

    import psutil

    from skysub.campaign.window import Job, Window
    from skysub.cluster import Demand, connected, load_profile

    count = 5000
    with connected(load_profile({"profile": "local", "workers": 2}), Demand(2**28, count)) as workers:
        window = Window(workers, size=lambda slots: 4 * slots + 4)
        numbers = itertools.count()
        for limit in (200, count):
            clock = sum(psutil.Process().cpu_times()[:2])
            first = next(numbers)
            jobs = iter(range(first, first + limit))
            list(
                window.run(
                    lambda: next((Job((each,), nothing, (each,)) for each in jobs), None),  # noqa: B023
                    stopping=lambda: False,
                )
            )
            spent = sum(psutil.Process().cpu_times()[:2]) - clock
    print(f"{1e3 * spent / count:.2f} ms of processor time for each task in coordinator and scheduler")


if __name__ == "__main__":
    {"follow": follow, "coordinator": coordinator}[sys.argv[1]]()
