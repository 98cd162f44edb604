"""Opening clusters: what one process may do twice, and what is checked before anything starts."""

import subprocess
import sys

import pytest

from skysub.cluster import Demand, connected, load_profile
from skysub.errors import NotEnoughMemoryError

TWICE = """
from skysub.cluster import Demand, connected, load_profile
for _ in range(2):
    with connected(load_profile({"profile": "threads", "workers": 1}), Demand(2**20, 1)) as workers:
        print(workers.client.submit(sum, (1, 2)).result())
"""


def test_a_process_opens_one_cluster_after_another():
    """Settings that are taken back must not take Dask's own defaults along."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "3"]


def test_too_little_memory_is_said_before_anything_starts():
    profile = load_profile({"profile": "local", "workers": 1, "memory": "1 GiB"})
    with pytest.raises(NotEnoughMemoryError), connected(profile, Demand(2**34, 1)):
        pass


def test_a_scheduler_keeps_nothing_of_tasks_that_are_over():
    """A survey has millions of them."""
    with connected(load_profile({"profile": "threads", "workers": 1}), Demand(2**20, 1)) as workers:
        for number in range(10):
            assert workers.client.submit(abs, -number, pure=False).result() == number
        scheduler = workers.client.cluster.scheduler
        spans = scheduler.extensions["spans"].spans.values()
        assert spans
        assert not any(span.metadata["collections"] for span in spans)
