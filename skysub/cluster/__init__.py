"""Which Dask workers a campaign runs on: a module for each kind of place, and the gate that all workers pass."""

from __future__ import annotations

from skysub.cluster.base import ALL_CORES, Demand, Profile, connected, expected_slots
from skysub.cluster.profiles import load_profile
from skysub.cluster.workers import Workers

__all__ = ["ALL_CORES", "Demand", "Profile", "Workers", "connected", "expected_slots", "load_profile"]
