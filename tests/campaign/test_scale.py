"""A finished campaign of a million units: opened, looked at and planned again within bounds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import campaign_scale

BOUNDS = {
    "open": (2, 200),
    "status": (5, 300),
    "figures": (5, 400),
    "plan": (60, 200),
    "report": (30, 400),
}
"""Seconds and MiB."""


@pytest.mark.long
def test_a_million_units(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(campaign_scale.__file__).parent))
    campaign_scale.synthesise(tmp_path, 1_000_000, 189)
    for found in campaign_scale.measured(tmp_path, BOUNDS):
        seconds, mebibytes = BOUNDS[found["act"]]
        assert found["CPU"] < seconds, found
        assert found["MiB"] < mebibytes, found
    assert (tmp_path / "out/report.html").stat().st_size < 5e6
    units = 2 * 189 + 1
    entries = sum(1 for _ in (tmp_path / "out").rglob("*"))
    assert entries < 0.2 * units * -(-1_000_000 // units)
