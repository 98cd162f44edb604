"""What the report says of a finished detector in words and numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.store.backgrounds import unpacked
from skysub.campaign.store.records import header_of
from skysub.figures import COUNT_UNIT, PIXEL_UNIT, figure_named
from skysub.report.observed import derived_figures, observed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from skysub.campaign.campaign import Campaign
    from skysub.campaign.records import Exposure

__all__ = ["NOT_COMPARED", "Row", "common_units", "label_of", "row_of", "rows_of", "rows_of_visit"]

NOT_COMPARED = frozenset(["ra", "dec", "zenithDistance", "seconds"])
"""Figures that have no outliers: where a detector pointed, and how busy its worker was."""


@dataclass(frozen=True)
class Row:
    """A finished detector without its pixels."""

    visit: int
    detector: int
    band: str
    unit: str
    """Of the pixels."""
    counts: str
    """Unit of the input's pixels."""
    shape: tuple[int, int]
    path: str
    host: str
    peak_memory: int
    """Largest resident memory of its worker so far, bytes."""
    flags: Mapping[str, str]
    timings: Mapping[str, float]
    """Seconds by stage."""
    observed: tuple[str, ...] = ()
    """When and under which sky its visit was taken, in words; of the first detector of a visit alone."""
    figures: dict[str, float | str] = field(default_factory=dict)
    """Summary statistics, with "seconds" and, where the step maps it, "noise"; NaN where unknown."""

    @property
    def key(self) -> str:
        """Its name in the page."""
        return f"{self.visit}-{self.detector}"


def rows_of(campaign: Campaign, visits: Collection[int] | None = None) -> Iterator[Row]:
    """Go through the finished detectors of a campaign, or of some visits, visit by visit."""
    last: int | None = None
    for visit, detector, marker in campaign.markers(visits=visits):
        yield _row(campaign.exposure(visit, detector), marker, first=visit != last)
        last = visit


def rows_of_visit(campaign: Campaign, visit: int, markers: Mapping[int, Mapping[str, Any]]) -> Iterator[Row]:
    """Go through the finished detectors of a visit whose markers are at hand."""
    for number, (detector, marker) in enumerate(markers.items()):
        yield _row(campaign.exposure(visit, detector), marker, first=number == 0)


def row_of(campaign: Campaign, visit: int, detector: int) -> Row:
    """Return one finished detector.

    Raises
    ------
    NotDoneError
        When it is not done; the message says why.
    """
    return _row(campaign.exposure(visit, detector), campaign.marker(visit, detector), first=True)


def label_of(name: str, unit: str = "", counts: str = "") -> tuple[str, str]:
    """Name for people, and unit, of a figure; a figure that is not known keeps its own name.

    Parameters
    ----------
    unit, counts
        Of the pixels, and of the input's pixels; empty where they are not known, or not the same for all.
    """
    figure = figure_named(name)
    lacking = (not unit and PIXEL_UNIT in figure.unit) or (not counts and COUNT_UNIT in figure.unit)
    return figure.label or name.replace("_", " "), (
        "" if lacking else figure.unit.format(unit=unit, counts=counts)
    )


def common_units(rows: Collection[Row]) -> tuple[str, str]:
    """Unit of the pixels of all rows, and of their inputs' pixels; empty where rows differ."""
    unit, counts = ({row.unit for row in rows}, {row.counts for row in rows})
    return unit.pop() if len(unit) == 1 else "", counts.pop() if len(counts) == 1 else ""


def _row(exposure: Exposure, marker: Mapping[str, Any], *, first: bool) -> Row:
    figures: dict[str, float | str] = {
        name: math.nan if value is None else value
        for name, value in marker["figures"].items()
        # the corners on the sky are seen on the focal plane
        if "Corners" not in name
    }
    noise = _noise(marker)
    if noise is not None:
        figures["noise"] = noise
    unit = _unit(marker) or exposure.unit
    figures |= derived_figures(figures, exposure.unit)
    figures["seconds"] = sum(marker["timings"].values())
    return Row(
        visit=exposure.visit,
        detector=exposure.detector,
        band=exposure.band,
        unit=unit,
        counts=exposure.unit,
        observed=_observed(marker) if first else (),
        shape=exposure.shape,
        path=exposure.path,
        host=marker["host"],
        peak_memory=marker["peak_memory"],
        flags=marker["flags"],
        timings=marker["timings"],
        figures=figures,
    )


def _unit(marker: Mapping[str, Any]) -> str:
    """Unit of the pixels that the step made; empty where it made none."""
    units = [record["unit"] for record in marker["products"].values() if record and "planes" in record]
    return units[-1] if units else ""


def _observed(marker: Mapping[str, Any]) -> tuple[str, ...]:
    for name, record in marker["products"].items():
        if record and "planes" in record:
            header = header_of(marker["payload"][name])
            return () if header is None else observed(header)
    return ()


def _noise(marker: Mapping[str, Any]) -> float | None:
    packed = marker["payload"].get("noise")
    if not isinstance(packed, dict) or "zlib" not in packed:
        return None
    noise = unpacked(packed)
    known = noise[np.isfinite(noise)]
    return float(np.median(known)) if known.size else None
