"""Which Dask workers a campaign runs on: a module for each kind, and the gate that they pass."""

from __future__ import annotations

from skysub.cluster.base import ALL_CORES, Demand, Profile, connected, expected_slots
from skysub.cluster.profiles import load_profile
from skysub.cluster.workers import Workers

__all__ = ["ALL_CORES", "Demand", "Profile", "Workers", "connected", "expected_slots", "load_profile"]
