"""Sources of a background-subtracted image: found, told from their neighbours, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.measure import measure_sources
    from skysub.measurement.result import SourceMeasurements

__all__ = ["MeasurementConfig", "SourceMeasurements", "measure_sources"]

_HOME = {
    "MeasurementConfig": "skysub.measurement.config",
    "SourceMeasurements": "skysub.measurement.result",
    "measure_sources": "skysub.measurement.measure",
}


def __getattr__(name: str) -> Any:
    import importlib

    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'skysub.measurement' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
