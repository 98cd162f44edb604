"""The pictures of one visit: each kind over the whole focal plane, and what its colours mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.report.charts import short
from skysub.report.colour import mask_swatches
from skysub.report.focal_plane import arrange, borrowed
from skysub.report.scales import (
    Scale,
    centred_scale,
    image_scale,
    map_scale,
    mask_url,
    residual_scale,
    share_scale,
    sky_scale,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from skysub.campaign.status import Failure
    from skysub.report.focal_plane import FocalPlane, Footprint, Place
    from skysub.report.rows import Row
    from skysub.report.views import View

__all__ = ["Absence", "CommonScales", "Panel", "Tile", "VisitCard", "common_scales", "visit_cards"]

MAPS = {
    "error": ("Error of means", "{unit}"),
    "noise": ("Noise of a pixel", "{unit}"),
    "psf_sigma": ("PSF σ", "pixel"),
}
"""Maps that have a name for people, and their unit."""


@dataclass(frozen=True)
class Tile:
    """One detector's picture in its place."""

    key: str
    name: str
    style: str
    url: str


@dataclass(frozen=True)
class Panel:
    """One kind of picture of a visit; it has either a scale or a legend."""

    title: str
    unit: str
    tiles: tuple[Tile, ...]
    rendering: str
    """"cells" to see each cell, "smooth" to blend them."""
    scale: Scale | None = None
    main: bool = False
    """Drawn larger than others."""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Absence:
    """The place of a detector that has no pictures."""

    words: str
    """Which, and why."""
    style: str
    target: str
    """Where in the page more is said."""


@dataclass(frozen=True)
class VisitCard:
    """A visit as the page shows it."""

    number: int
    band: str
    words: str
    aspect: str
    north: float | None
    east: float | None
    panels: tuple[Panel, ...]
    absences: tuple[Absence, ...]
    troubles: tuple[str, ...]


@dataclass(frozen=True)
class CommonScales:
    """Scales of the whole campaign, by unit of the pixels."""

    residual: dict[str, Scale]
    maps: dict[tuple[str, str], Scale]
    """By unit and name of the map."""


def common_scales(views: Sequence[View]) -> CommonScales:
    """Choose the scales that all visits share."""
    residual, maps = {}, {}
    for unit in dict.fromkeys(view.unit for view in views):
        own = [view for view in views if view.unit == unit and view.pictures]
        residual[unit] = residual_scale(own, unit)
        for name in dict.fromkeys(name for view in own for name in view.maps):
            arrays = [view.maps[name] for view in own if name in view.maps]
            maps[unit, name] = map_scale(arrays, MAPS.get(name, ("", ""))[1].format(unit=unit))
    return CommonScales(residual, maps)


def visit_cards(
    rows: Sequence[Row], views: Sequence[View], failures: Sequence[Failure], scales: CommonScales
) -> Iterator[VisitCard]:
    """Go through the visits that have views, the latest first; pictures are made one visit at a time."""
    row_at = {(row.visit, row.detector): row for row in rows}
    failed: dict[int, dict[int, str]] = {}
    for failure in failures:
        if failure.visit is not None and failure.detector is not None:
            failed.setdefault(failure.visit, {})[failure.detector] = failure.message
    sky = _Sky(rows, views)
    for visit in sorted({view.visit for view in views}, reverse=True):
        own = [view for view in views if view.visit == visit]
        yield _card([row_at[visit, view.detector] for view in own], own, failed.get(visit, {}), sky, scales)


class _Sky:
    """Where the detectors of all visits lie."""

    def __init__(self, rows: Sequence[Row], views: Sequence[View]) -> None:
        self._shapes: dict[int, dict[int, tuple[int, int]]] = {}
        self._known: dict[int, dict[int, Footprint]] = {}
        for row in rows:
            self._shapes.setdefault(row.visit, {})[row.detector] = row.shape
        for view in views:
            if view.footprint is not None:
                self._known.setdefault(view.visit, {})[view.detector] = view.footprint

    def plane(self, visit: int, drawn: set[int], without: set[int]) -> FocalPlane:
        """Arrange detectors of a visit, those without pictures where other visits of the camera have them."""
        known, own = self._known.get(visit, {}), self._shapes[visit]
        others: list[int] = []
        if (drawn | without) - known.keys():
            others = [other for other in self._known if other != visit and self._alike(visit, other)]
        usual = next(iter(own.values()))
        shapes = {
            number: own.get(number)
            or next((self._shapes[other][number] for other in others if number in self._shapes[other]), usual)
            for number in sorted(drawn | without)
        }
        elsewhere = [self._known[other] for other in others]
        plane = arrange(
            {
                number: known.get(number) or borrowed(number, known, elsewhere)
                for number in sorted(drawn | without)
            },
            shapes,
        )
        if plane.width is None and drawn and drawn <= known.keys():
            # rather leave out those without a place than have none in its own
            alone = arrange({number: known[number] for number in sorted(drawn)}, shapes)
            return plane if alone.width is None else alone
        return plane

    def _alike(self, visit: int, other: int) -> bool:
        """Whether two visits can be of one camera."""
        a, b = self._shapes[visit], self._shapes[other]
        return all(a[number] == b[number] for number in a.keys() & b.keys())


def _card(
    rows: list[Row], views: list[View], failed: Mapping[int, str], sky: _Sky, scales: CommonScales
) -> VisitCard:
    without = {number: f"detector {number} failed: {why}" for number, why in failed.items()}
    without |= {
        view.detector: f"detector {view.detector} has no pictures: {view.trouble}"
        for view in views
        if view.trouble
    }
    visit = rows[0].visit
    drawn = [view for view in views if view.pictures]
    plane = sky.plane(visit, {view.detector for view in drawn}, set(without))
    styles = {number: _style(place) for number, place in plane.places.items()}
    count = f"{len(rows)} detector{'s' if len(rows) > 1 else ''}"
    where = (
        "side by side, as places on the sky are not known"
        if plane.width is None
        else (f"{plane.width:.2f}° wide" if plane.width >= 1 else f"{plane.width * 60:.1f}′ wide")
    )
    seen = next((row.observed for row in rows if row.observed), ())
    words = [count, *([f"{len(failed)} failed"] if failed else []), *_sky_words(rows), where, *seen]
    band_of = {row.detector: row.band for row in rows}
    bands = list(dict.fromkeys(band_of.values()))
    groups: dict[tuple[str, str], list[View]] = {}
    for view in drawn:
        groups.setdefault((view.unit, band_of[view.detector]), []).append(view)
    return VisitCard(
        number=visit,
        band=", ".join(bands),
        words=" · ".join(words),
        aspect=f"{plane.aspect:.5f}",
        north=plane.north,
        east=plane.east,
        panels=tuple(
            panel
            for (unit, band), alike in groups.items()
            for panel in _panels(alike, unit, styles, scales, band if len(bands) > 1 else "")
        ),
        absences=tuple(
            Absence(why, styles[number], "#failures" if number in failed else f"#d-{visit}-{number}")
            for number, why in sorted(without.items())
            if number in styles
        ),
        troubles=tuple(
            why for number, why in sorted(without.items()) if number not in styles or number not in failed
        ),
    )


def _panels(
    views: list[View], unit: str, styles: dict[int, str], scales: CommonScales, band: str
) -> Iterator[Panel]:
    """Panels of detectors of one unit and band; ``band`` stands in titles, where a visit has several."""
    image, share = image_scale(views, unit), share_scale()
    modelled = all("model" in view.pictures for view in views)
    swatches = mask_swatches()

    def titled(title: str) -> str:
        return f"{title}, {band}" if band else title

    def tiles(urls: list[str]) -> tuple[Tile, ...]:
        return tuple(
            Tile(f"{view.visit}-{view.detector}", f"detector {view.detector}", styles[view.detector], url)
            for view, url in zip(views, urls, strict=True)
        )

    def scaled(title: str, name: str, scale: Scale, rendering: str = "cells", *, main: bool = True) -> Panel:
        urls = [scale.url(view.pictures[name]) for view in views]
        return Panel(titled(title), scale.unit, tiles(urls), rendering, scale, main)

    yield scaled("Image", "image", image)
    if modelled:
        sky = sky_scale(views, views[0].sky_unit or unit)
        yield scaled("Sky model", "model", sky, "smooth")
    yield scaled("Residual", "residual", scales.residual[unit])
    steps = views[0].steps
    if steps is not None and all(view.steps == steps for view in views):
        # on the scale of the model, so that they can be held beside it
        before = sky if modelled else map_scale([view.pictures["before"] for view in views], "")
        yield scaled(f"Sky of {steps[0]} alone", "before", before, "smooth", main=False)
        change = centred_scale([view.pictures["change"] for view in views], views[0].sky_unit)
        yield scaled(f"What {steps[1]} changed", "change", change, "smooth", main=False)
    masks = [mask_url(view.pictures["sources"], view.pictures["defects"]) for view in views]
    legend = (("sky", swatches["clean"]), ("sources", swatches["sources"]), ("defects", swatches["defects"]))
    yield Panel(
        titled("Mask"), "share of a cell that is covered", tiles(masks), "cells", main=True, legend=legend
    )
    if modelled:
        yield scaled("Superpixel means", "superpixels", sky, main=False)
        used = [share.url(100 * view.pictures["used"]) for view in views]
        yield Panel(titled("Pixels used"), "%", tiles(used), "cells", share)
    for name in dict.fromkeys(name for view in views for name in view.maps):
        title = MAPS.get(name, (name.replace("_", " "), ""))[0]
        scale = scales.maps[unit, name]
        nothing = np.full((1, 1), np.nan, np.float32)
        urls = [scale.url(view.maps.get(name, nothing)) for view in views]
        yield Panel(titled(title), scale.unit, tiles(urls), "cells", scale)


def _sky_words(rows: list[Row]) -> list[str]:
    levels: dict[str, list[float]] = {}
    for row in rows:
        value: Any = row.figures.get("sky")
        if isinstance(value, (int, float)) and np.isfinite(value):
            levels.setdefault(row.unit, []).append(float(value))
    return [
        f"sky {short(min(values))}" + (f" to {short(max(values))}" if len(values) > 1 else "") + f" {unit}"
        for unit, values in levels.items()
    ]


def _style(place: Place) -> str:
    turn = f"rotate({place.angle:.3f}deg){' scaleX(-1)' if place.mirrored else ''}"
    still = abs(place.angle) < 1e-3 and not place.mirrored
    return f"left:{place.left:.4%};top:{place.top:.4%};width:{place.width:.4%};height:{place.height:.4%}" + (
        "" if still else f";transform:{turn}"
    )
