"""What is written of one visit of a release, and what is said of where it came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr

    from skysub.campaign.reading import Finished
    from skysub.campaign.records import Marker
    from skysub.release.contents import Source, VisitContents
    from skysub.release.files import Shelf
    from skysub.release.part import Axes, Part

__all__ = ["rows_of"]


def rows_of(  # noqa: PLR0917 - all of one visit
    source: Source,
    parts: Mapping[str, Part],
    axes: Axes,
    groups: Mapping[str, zarr.Group],
    visit: VisitContents,
    shelf: Shelf,
) -> dict[str, Any]:
    """Write all products of a visit; returns coordinates, provenance and figures, ready for JSON.

    Raises
    ------
    FileNotFoundError
        When a file of the campaign went away, as it does when a visit is finished meanwhile.
    DamagedError, ReleaseError
        When a file or a result is not what it was.
    """
    held = source.held(visit)
    values: dict[str, list[Any]] = {}
    provenance: list[dict[str, Any]] = []
    for name, part in parts.items():
        step = source.chain.makers[name]
        entries = source.entries(name, held[step])
        placed = part.write(shelf, axes, visit.visit, entries, groups[name])
        values[name] = [[detector, dict(each.values)] for detector, each in placed.items()]
        for detector, each in placed.items():
            provenance.append(_origin(name, detector, entries[detector].finished, each.files))
    figures = {
        step: [_figures(each, visit.band) for each in units.values()] for step, units in held.items() if units
    }
    return {"values": values, "provenance": provenance, "figures": figures}


def _origin(product: str, detector: int | None, finished: Finished, files: tuple[str, ...]) -> dict[str, Any]:
    """Where a product came from."""
    marker = finished.marker
    record = finished.run.record.step(finished.step)
    assert record is not None
    read = marker.input or {}
    return {
        "product": product,
        "visit": marker.visit,
        "detector": detector,
        "step": finished.step,
        "step_version": record.version,
        "run": finished.run.name,
        "key": marker.key,
        "settings_hash": record.settings_hash,
        "missing": list(marker.missing),
        "input_path": read.get("path"),
        "input_bytes": read.get("size"),
        "input_crc32c": read.get("crc32c"),
        "skysub": marker.versions.get("skysub"),
        "versions": json.dumps(dict(marker.versions), sort_keys=True),
        "started": marker.started,
        "host": marker.host,
        "files": list(files),
    }


def _figures(finished: Finished, band: str) -> dict[str, Any]:
    marker: Marker = finished.marker
    own = finished.detector
    return {
        "visit": marker.visit,
        "detector": own,
        "band": band if own is None else finished.plan.exposures[own].band,
        "run": finished.run.name,
        "seconds": marker.seconds,
        "flags": ",".join(marker.flags),
        **{name: value for name, value in marker.figures.items() if name not in _OWN},
    }


_OWN = {"visit", "detector", "band", "run", "seconds", "flags"}
