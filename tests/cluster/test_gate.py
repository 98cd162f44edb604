"""Workers that join: which are given units, which are left out, and in which words."""

import shlex
import shutil
import subprocess
import sys
import threading
import time

import pytest
from distributed import Client

import skysub
from skysub.campaign.store.address import place_at
from skysub.campaign.store.reach import reachable
from skysub.campaign.window import Job, Window
from skysub.cluster import Demand, connected, load_profile
from skysub.cluster.address import borrowed
from skysub.cluster.dask_settings import worker_environment
from skysub.cluster.gate import PACKAGES, Passed, Refused, judged
from skysub.cluster.probe import probe
from skysub.errors import ClusterError, NotEnoughMemoryError

from .conftest import write_visits

MEMORY = 2**28
HERE = probe([*PACKAGES], [], None)


def answer(**changes):
    """What a sound worker says of itself, but for some changes."""
    sound = {
        **probe([*PACKAGES], sorted(worker_environment()), None),
        "environment": worker_environment(),
        "name": "w1",
        "threads": 2,
        "memory": 2 * MEMORY,
        "pause": False,
    }
    versions = changes.pop("versions", {})
    return {**sound, **changes, "versions": {**sound["versions"], **versions}}


def verdict(**changes):
    return judged("tcp://a:1", answer(**changes), HERE, Demand(MEMORY, 1), time.time())


def test_a_sound_worker_does_as_many_units_as_it_has_threads():
    passed = verdict()
    assert isinstance(passed, Passed)
    assert (passed.slots, passed.notes) == (2, ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"versions": {"skysub": "0.0.9"}}, r"has skysub 0\.0\.9, the coordinator .*: install"),
        (
            {"versions": {"skysub": ""}, "errors": {"skysub": "ModuleNotFoundError: x"}},
            r"has no skysub .*install",
        ),
        (
            {"versions": {"numba": ""}, "errors": {"numba": "ImportError: x"}},
            r"cannot import numba \(ImportError",
        ),
        ({"versions": {"numpy": "1.26.4"}}, r"has numpy 1\.26\.4, .*install numpy=="),
        ({"versions": {"zarr": "2.18.0"}}, r"has zarr 2\.18\.0"),
        ({"versions": {"python": "3.9.1"}}, r"has Python 3\.9\.1, the coordinator"),
        ({"code": "00000000"}, r"has other code of skysub"),
        ({"store": "it is full"}, r"cannot work on the store: it is full"),
    ],
)
def test_what_is_left_out_and_why(changes, words):
    refused = verdict(**changes)
    assert isinstance(refused, Refused)
    assert refused.error is ClusterError
    import re

    assert re.search(words, refused.problem), refused.problem


def test_a_worker_with_too_little_memory_is_left_out():
    refused = verdict(memory=MEMORY - 1)
    assert refused.error is NotEnoughMemoryError
    assert "0.25 GiB" in refused.problem


@pytest.mark.parametrize(
    ("changes", "slots", "words"),
    [
        ({"threads": 4, "memory": 3 * MEMORY}, 3, "memory for 3 units"),
        ({"memory": 0}, 2, ""),
        ({"environment": worker_environment() | {"MALLOC_ARENA_MAX": "8"}}, 2, r"(MALLOC_ARENA_MAX)"),
        ({"pause": 0.8}, 2, "paused by Dask at 80 %"),
        ({"time": time.time() + 3600}, 2, "has a clock that is"),
        ({"time": time.time() - 3600}, 2, "has a clock that is"),
    ],
)
def test_what_is_said_of_workers_that_pass(changes, slots, words):
    passed = verdict(**changes)
    assert passed.slots == slots
    assert len(passed.notes) == bool(words)
    assert words in "".join(passed.notes)


def test_a_patch_release_is_near_enough_and_said():
    later = HERE["versions"]["numpy"] + ".1"
    passed = verdict(versions={"numpy": later})
    assert f"numpy {later}" in passed.notes[0]


def pause(number):
    time.sleep(0.05)
    return number


def jobs(count):
    numbers = iter(range(count))
    return lambda: next((Job((each,), pause, (each,)) for each in numbers), None)


def test_the_window_follows_workers_that_join_and_bad_ones_are_left_out(place, impostor):
    """The first worker that comes has no skysub; the run waits for the good ones, which get all units."""
    heard = []
    bad = impostor("raise ImportError('not here')")
    profile = load_profile({"profile": "address", "address": place.address, "patience": 60})
    place.worker("--nthreads", "8", "--name", "bad", path=bad)
    timer = threading.Timer(3, place.worker, ["--nthreads", "3", "--name", "good", "--memory-limit", "0"])
    timer.start()
    with connected(profile, Demand(MEMORY, 40)) as workers:
        workers.say = heard.append
        assert workers.slots == 0
        window = Window(workers, size=lambda slots: 4 * slots + 4 if slots else 0)
        finished = list(window.run(jobs(40), stopping=lambda: False))
        assert sorted(each.result for each in finished) == list(range(40))
        assert workers.slots == 3
        where = workers.client.run(lambda: None)
        assert len(where) == 2
    assert any("worker bad" in each and "has no skysub" in each for each in heard), heard


def test_when_all_are_left_out_the_run_ends_and_says_why(place, impostor, monkeypatch):
    monkeypatch.setattr("skysub.cluster.workers._ALL_REFUSED", 1.0)
    place.worker("--name", "old", path=impostor("__version__ = '0.0.9'\n__path__ = []"))
    with Client(place.address) as client, borrowed(client, Demand(MEMORY, 1)) as workers:
        window = Window(workers, size=lambda slots: slots)
        with pytest.raises(
            ClusterError, match=r"no worker can do the units: worker old on .* has skysub 0\.0\.9"
        ):
            list(window.run(jobs(1), stopping=lambda: False))


def test_units_survive_that_all_workers_go(place):
    """Dask forgets units that wait for a worker which is gone: they are handed over again."""
    with Client(place.address) as client, borrowed(client, Demand(MEMORY, 30)) as workers:
        window = Window(workers, size=lambda slots: 30 if slots else 0)
        first = place.worker("--nthreads", "1", "--name", "first")
        done = []
        for each in window.run(jobs(30), stopping=lambda: False):
            done.append(each.result)
            if len(done) == 3:
                first.terminate()
                first.wait()
                place.worker("--nthreads", "2", "--name", "second")
        assert sorted(done) == list(range(30))


def test_a_store_that_a_worker_does_not_see_is_said(tmp_path):
    with reachable(place_at(tmp_path)) as (_, _, (output, token)):
        from skysub.campaign.store.reach import seen_from_here

        assert not seen_from_here(output, token)
        assert "is not what the coordinator sees" in seen_from_here(f"{output}/elsewhere", token)
        assert "is not what the coordinator sees" in seen_from_here(output, "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_worker_does_not_see_its_store_ends_and_says_so(place, tmp_path, monkeypatch):
    """The worker has another file system at the output's path, as a node without the mount."""
    alone = ["unshare", "-m", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*alone, f"mount -t tmpfs none {tmp_path}"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("a worker cannot be given a file system of its own here: that needs root")
    monkeypatch.setattr("skysub.cluster.workers._ALL_REFUSED", 1.0)
    (tmp_path / "raw").mkdir()
    write_visits(tmp_path / "raw", 1, 1)
    output = tmp_path / "out"
    output.mkdir()
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", place.address, "--no-nanny"]
    worker += ["--no-dashboard", "--local-directory", str(tmp_path / "scratch")]
    hidden = f"mount -t tmpfs none {output} && exec {shlex.join(worker)}"
    devnull = subprocess.DEVNULL
    with subprocess.Popen([*alone, hidden], stdout=devnull, stderr=devnull) as process:
        try:
            with (
                Client(place.address) as client,
                pytest.raises(ClusterError, match="is not what the coordinator sees"),
            ):
                skysub.run_campaign(
                    "background",
                    output,
                    inputs=[f"{tmp_path}/raw/*.fits"],
                    settings=["steps.background.fit.superpixel=32"],
                    client=client,
                )
        finally:
            process.terminate()
    assert skysub.open_campaign(output).status().counts["left"] == 1
