"""The pictures of one visit: each kind over the whole focal plane, and what its colours mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.report.charts import short
from skysub.report.colour import mask_swatches
from skysub.report.focal_plane import arrange
from skysub.report.scales import (
    Scale,
    image_scale,
    map_scale,
    mask_url,
    residual_scale,
    share_scale,
    sky_scale,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from skysub.report.focal_plane import Place
    from skysub.report.rows import Row
    from skysub.report.views import View

__all__ = ["CommonScales", "Panel", "Tile", "VisitCard", "common_scales", "visit_cards"]

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
class VisitCard:
    """A visit as the page shows it."""

    number: int
    band: str
    words: str
    aspect: str
    north: float | None
    east: float | None
    panels: tuple[Panel, ...]
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


def visit_cards(rows: Sequence[Row], views: Sequence[View], scales: CommonScales) -> Iterator[VisitCard]:
    """Go through the visits that have views, in their order; pictures are made one visit at a time."""
    row_at = {(row.visit, row.detector): row for row in rows}
    for visit in dict.fromkeys(view.visit for view in views):
        own = [view for view in views if view.visit == visit]
        yield _card([row_at[visit, view.detector] for view in own], own, scales)


def _card(rows: list[Row], views: list[View], scales: CommonScales) -> VisitCard:
    plane = arrange(
        {view.detector: view.footprint for view in views}, {row.detector: row.shape for row in rows}
    )
    drawn = [view for view in views if view.pictures]
    styles = {number: _style(place) for number, place in plane.places.items()}
    count = f"{len(rows)} detector{'s' if len(rows) > 1 else ''}"
    where = (
        "side by side, as places on the sky are not known"
        if plane.width is None
        else (f"{plane.width:.2f}° wide" if plane.width >= 1 else f"{plane.width * 60:.1f}′ wide")
    )
    words = [count, *_sky_words(rows), where]
    return VisitCard(
        number=rows[0].visit,
        band=rows[0].band,
        words=" · ".join(words),
        aspect=f"{plane.aspect:.5f}",
        north=plane.north,
        east=plane.east,
        panels=tuple(
            panel
            for unit in dict.fromkeys(view.unit for view in drawn)
            for panel in _panels([view for view in drawn if view.unit == unit], unit, styles, scales)
        ),
        troubles=tuple(
            f"detector {view.detector} has no pictures: {view.trouble}" for view in views if view.trouble
        ),
    )


def _panels(views: list[View], unit: str, styles: dict[int, str], scales: CommonScales) -> Iterator[Panel]:
    image, sky, share = image_scale(views, unit), sky_scale(views, unit), share_scale()
    swatches = mask_swatches()

    def tiles(urls: list[str]) -> tuple[Tile, ...]:
        return tuple(
            Tile(f"{view.visit}-{view.detector}", f"detector {view.detector}", styles[view.detector], url)
            for view, url in zip(views, urls, strict=True)
        )

    def scaled(title: str, name: str, scale: Scale, rendering: str = "cells", *, main: bool = True) -> Panel:
        urls = [scale.url(view.pictures[name]) for view in views]
        return Panel(title, unit, tiles(urls), rendering, scale, main)

    yield scaled("Image", "image", image)
    yield scaled("Sky model", "model", sky, "smooth")
    yield scaled("Residual", "residual", scales.residual[unit])
    masks = [mask_url(view.pictures["sources"], view.pictures["defects"]) for view in views]
    legend = (("sky", swatches["clean"]), ("sources", swatches["sources"]), ("defects", swatches["defects"]))
    yield Panel("Mask", "share of a cell that is covered", tiles(masks), "cells", main=True, legend=legend)
    yield scaled("Superpixel means", "superpixels", sky, main=False)
    used = [share.url(100 * view.pictures["used"]) for view in views]
    yield Panel("Pixels used", "%", tiles(used), "cells", share)
    for name in dict.fromkeys(name for view in views for name in view.maps):
        title = MAPS.get(name, (name.replace("_", " "), ""))[0]
        scale = scales.maps[unit, name]
        nothing = np.full((1, 1), np.nan, np.float32)
        urls = [scale.url(view.maps.get(name, nothing)) for view in views]
        yield Panel(title, scale.unit, tiles(urls), "cells", scale)


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
