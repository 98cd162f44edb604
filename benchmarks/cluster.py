"""How the window follows workers that join, and what a unit costs the coordinator's process.

python benchmarks/cluster.py follow      # one thread at first and forty later, or forty at once
python benchmarks/cluster.py coordinator # processor time of coordinator and scheduler for each unit
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent))
from campaign import _nothing as nothing
from campaign import recipe_of, table_of, tiny

PAUSE = 3.0
SLEEP = 0.3
"""Seconds of a unit: more than those that share a task for being short."""


def pause(seconds: float) -> None:
    time.sleep(seconds)


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
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
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


def sleeping(given, config):
    """A unit that takes a while and no processor, so that one machine stands for many cores."""
    import dataclasses

    time.sleep(SLEEP)
    result = nothing(given, config)
    return dataclasses.replace(result, timings={**result.timings, "sleep": SLEEP})


def __getattr__(name):
    if name != "sleep":
        raise AttributeError(name)
    import dataclasses

    from skysub.campaign.shipped import STEPS

    return dataclasses.replace(STEPS["background"], name="cluster:sleep", work=sleeping, blocks=None)


def processor_seconds() -> float:
    import psutil

    return sum(psutil.Process().cpu_times()[:2])


def of_units(units: int, threads: int, tasks_per_second: float) -> tuple[float, float, float]:
    """Processor seconds of this process (coordinator and scheduler) for the units of a campaign.

    Beside them what it takes in a second without any unit, and the units done in a second.
    """
    import dask
    from distributed import Client, LocalCluster

    from skysub.campaign import coordinator as module
    from skysub.campaign.run import run_campaign
    from skysub.cluster.dask_settings import CONFIGURATION

    # what a campaign finds out by the rate of its units
    module._TASKS_PER_SECOND = tasks_per_second  # noqa: SLF001

    with (
        tempfile.TemporaryDirectory() as scratch,
        dask.config.set(CONFIGURATION),
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as cluster,
        Client(cluster) as client,
        worker(cluster.scheduler_address, threads),
    ):
        folder = Path(scratch)
        table = table_of(folder, [tiny(folder)], units, 100)
        recipe = recipe_of(folder, table, "cluster:sleep", "products.pixels=on_demand")
        client.wait_for_workers(1, timeout=120)
        idle = processor_seconds()
        pause(10)
        idle = (processor_seconds() - idle) / 10
        spent: list[tuple[float, float]] = []

        def watch(_snapshot) -> None:
            spent.append((time.monotonic(), processor_seconds()))

        clock = time.perf_counter()
        outcome = run_campaign(recipe, folder / "out", client=client, watch=watch)
        assert outcome.done == units, outcome
        # from when the work is under way to its end: plan and start are not of it
        seconds, used = (after - before for before, after in zip(spent[0], spent[-1], strict=True))
        return used - idle * seconds, idle, units / (time.perf_counter() - clock)


def coordinator() -> None:
    """A unit's cost where each has a task of its own, and where many share one, as at high rates."""
    for units, threads, rate in ((1000, 40, 1e6), (1600, 8, 1.0)):
        seconds, idle, per_second = of_units(units, threads, rate)
        shared = "a task of its own each" if rate > 1e3 else "up to 24 units a task"
        print(
            f"{shared}: {1e3 * seconds / units:.2f} ms of processor a unit ({per_second:.0f} units/s), "
            f"and {1e3 * idle:.0f} ms in each second without any",
            flush=True,
        )


if __name__ == "__main__":
    {"follow": follow, "coordinator": coordinator}[sys.argv[1]]()
