"""Where Dask's own dashboard is, is said with what the workers are."""

import re

from skysub.cluster.base import Demand
from skysub.cluster.profiles import load_profile


def test_its_address_is_said():
    profile = load_profile({"profile": "threads", "workers": 1, "dashboard": ":0"})
    with profile.open(Demand(1 << 20, 1, name="small")) as workers:
        words, _, address = workers.described.partition(", Dask's dashboard at ")
        assert words == "1 threads of this process"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/status", address)


def test_without_one_nothing_is_said():
    with load_profile({"profile": "threads", "workers": 1}).open(Demand(1 << 20, 1, name="small")) as workers:
        assert workers.described == "1 threads of this process"
