"""Small pictures of a detector: its pixels in cells, its model, mask, statistics and maps."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.chebyshev import design_matrix
from skysub.background.model import Background
from skysub.campaign.store.backgrounds import unpacked
from skysub.errors import NotDoneError, SkysubError
from skysub.pipeline.preview import LEAST_GOOD, PREVIEW_EDGE, SOURCE_PLANES, cells
from skysub.report.focal_plane import Footprint, footprint, footprint_at, footprint_pixels
from skysub.visit.plane_table import planes_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from skysub.background.model import BackgroundList
    from skysub.background.superpixels import SuperpixelGrid
    from skysub.campaign.campaign import Campaign
    from skysub.campaign.products.base import Entry
    from skysub.campaign.products.image import Image
    from skysub.campaign.visit_products import VisitProducts
    from skysub.visit.image import VisitImage

__all__ = [
    "BUDGET",
    "View",
    "edge_for",
    "most_pictured",
    "pictures_of",
    "preview_views",
    "view_of",
    "views_of",
]

BUDGET = 24_000_000
"""Picture elements of a whole report."""
LARGEST_EDGE = 512
SMALLEST_EDGE = 16
RESIDUAL_EDGE = 56
"""Cells of residuals are larger than those of images, so that the noise of single pixels averages out."""
GRID_EDGE = 32


@dataclass(frozen=True, eq=False)
class View:
    """Pictures of one detector, each (gy, gx) float32 with NaN where nothing is known."""

    visit: int
    detector: int
    unit: str
    pictures: dict[str, NDArray[np.float32]]
    """"image" and "residual" in ``unit``; "model" and "superpixels" in ``sky_unit``; "sources", "defects" and
    "used" are shares. Where two steps found a sky, "before" is that of the first and "change" what the last
    one has more, in the unit of the input."""
    sky_unit: str = ""
    """Of the sky's model; that of the pixels where its own step subtracted it."""
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Those of the step, by name, and "error" of the superpixels' means."""
    steps: tuple[str, str] | None = None
    """Steps that "before" and "change" are of."""
    footprint: Footprint | None = None
    """Where it lies on the sky; None where that is not known."""
    trouble: str = ""
    """Why there are no pictures."""


def edge_for(detectors: int) -> int:
    """Longest edge of a detector's picture, cells, so that the campaign's stay within `BUDGET`."""
    edge = LARGEST_EDGE
    while edge > SMALLEST_EDGE and _elements(edge) * detectors > BUDGET:
        edge -= 8
    return edge


def most_pictured() -> int:
    """Detectors that can have pictures at all within `BUDGET`."""
    return BUDGET // _elements(SMALLEST_EDGE)


def views_of(
    campaign: Campaign,
    units: Sequence[tuple[int, int]],
    edge: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[View]:
    """Look at detectors in order; as many at a time as there are cores, four at most."""
    workers = min(4, os.cpu_count() or 1)
    waiting: Iterable[tuple[int, int]] = iter(units)
    with ThreadPoolExecutor(workers) as pool:
        # no more in flight than workers: what lies ahead would hold whole images
        flying: deque[Future[View]] = deque(
            pool.submit(view_of, campaign, *unit, edge) for unit in islice(waiting, workers)
        )
        done = 0
        while flying:
            view = flying.popleft().result()
            for unit in islice(waiting, 1):
                flying.append(pool.submit(view_of, campaign, *unit, edge))
            done += 1
            if progress is not None:
                progress(done, len(units))
            yield view


def view_of(campaign: Campaign, visit: int, detector: int, edge: int) -> View:
    """Look at one detector; what cannot be read is a view without pictures that says why."""
    products = campaign.visit_products(visit)
    marker = campaign.marker(visit, detector)
    unit = campaign.exposure(visit, detector).unit
    kinds = {name: campaign.kind(name) for name in marker["products"]}
    try:
        visit_image = campaign.visit_image(visit, detector)
        unit = visit_image.unit
        skies = _Skies.of(products, detector, kinds)
    except SkysubError as error:
        return View(visit=visit, detector=detector, unit=unit, pictures={}, trouble=str(error))
    pictures = pictures_of(visit_image, skies.own, edge)
    if skies.own is None and skies.last is not None:
        pictures = _of_background(pictures["image"], skies.last, edge) | pictures
    return View(
        visit=visit,
        detector=detector,
        unit=unit,
        sky_unit=campaign.exposure(visit, detector).unit if skies.own is None and skies.last else unit,
        pictures=pictures | skies.compared(min(edge, GRID_EDGE)),
        steps=skies.steps,
        maps=_maps(marker, kinds, skies.own, edge),
        footprint=footprint(visit_image.wcs, visit_image.shape),
    )


@dataclass(frozen=True, eq=False)
class _Skies:
    """Backgrounds of one detector, as the steps of a chain found them."""

    own: BackgroundList | None
    """What the detector's last step subtracted, in the unit of its pixels."""
    first: BackgroundList | None
    """What the first step found, in the unit of the input;"""
    last: BackgroundList | None
    """and the last step that found one."""
    steps: tuple[str, str] | None
    """Names of these two steps, where they are two."""

    @classmethod
    def of(cls, products: VisitProducts, detector: int, kinds: Mapping[str, str]) -> _Skies:
        """Read them.

        Raises
        ------
        DamagedError
            When one is not as it was written.
        """
        made: dict[str, str] = {}
        for name, step in products.names("background").items():
            # the first of a step is what it is for
            made.setdefault(step, name)
        found = {step: products.value(name, detector) for step, name in made.items()}
        there = {step: layers for step, layers in found.items() if layers}
        own = [name for name, kind in kinds.items() if kind == "background"]
        steps = list(there)
        return cls(
            own=products.value(own[-1], detector) if own else None,
            first=there[steps[0]] if steps else None,
            last=there[steps[-1]] if steps else None,
            steps=(steps[0], steps[-1]) if len(steps) > 1 else None,
        )

    def compared(self, edge: int) -> dict[str, NDArray[np.float32]]:
        """The first step's sky, and what the last one changed in it; nothing where there are no two."""
        if self.steps is None or self.first is None or self.last is None:
            return {}
        grid = cells(self.first[0].shape, edge)
        before = _at(self.first, grid)
        return {"before": before, "change": _at(self.last, grid) - before}


def _maps(
    marker: Mapping[str, Any], kinds: Mapping[str, str], layers: BackgroundList | None, edge: int
) -> dict[str, NDArray[np.float32]]:
    maps = {}
    if layers is not None:
        maps["error"] = _shrunk(_as_float(layers[-1].statistics.error), min(edge, GRID_EDGE))
    for name, packed in marker["payload"].items():
        if kinds.get(name) != "grid":
            continue
        values = unpacked(packed)
        if values.ndim == 2 and values.size and values.dtype.kind in "fiub":
            maps[name] = _shrunk(_as_float(values), min(edge, GRID_EDGE))
    return maps


def preview_views(
    campaign: Campaign, products: VisitProducts, markers: Mapping[int, Mapping[str, Any]]
) -> Iterator[View]:
    """Look at the detectors of a visit by the previews that workers made; no pixels are read."""
    images = list(products.names("image"))
    for detector, marker in markers.items():
        exposure = campaign.exposure(products.visit, detector)
        kinds = {name: campaign.kind(name) for name in marker["products"]}
        found = next((found for name in reversed(images) if (found := products.image(name, detector))), None)
        try:
            if found is None:
                raise NotDoneError("no step has made an image of it")
            view = _preview_view(products, detector, found, marker=marker, kinds=kinds)
        except SkysubError as error:
            view = View(
                visit=products.visit, detector=detector, unit=exposure.unit, pictures={}, trouble=str(error)
            )
        yield replace(view, sky_unit=view.sky_unit or exposure.unit)


def _preview_view(
    products: VisitProducts,
    detector: int,
    found: tuple[Image, Entry],
    *,
    marker: Mapping[str, Any],
    kinds: Mapping[str, str],
) -> View:
    """View of one detector, its ``sky_unit`` left empty where it is that of the input."""
    image, entry = found
    skies = _Skies.of(products, detector, kinds)
    pictures = image.preview(entry)
    layers = skies.own or skies.last
    if layers:
        shown = _of_background(pictures["image"], layers, PREVIEW_EDGE, smooth=PREVIEW_EDGE)
        pictures = pictures | shown if skies.own else shown | pictures
    assert entry.slot.shape is not None
    where = image.sky_positions(entry, *footprint_pixels(entry.slot.shape))
    unit = str(entry.record["unit"])
    return View(
        visit=products.visit,
        detector=detector,
        unit=unit,
        sky_unit="" if skies.own is None and skies.last else unit,
        pictures=pictures | skies.compared(GRID_EDGE),
        steps=skies.steps,
        maps=_maps(marker, kinds, skies.own, PREVIEW_EDGE),
        footprint=footprint_at(where),
    )


def pictures_of(
    visit_image: VisitImage, layers: BackgroundList | None, edge: int
) -> dict[str, NDArray[np.float32]]:
    """Bin a background-subtracted image and what belongs to it into cells.

    Parameters
    ----------
    layers
        What was subtracted; None where nothing is known of that: there are no pictures of it then.
    edge
        Cells along the longer side at most.

    Returns
    -------
    pictures
        See `View.pictures`. "image" is with its background again, without bad pixels; "residual" is
        without all masked pixels.
    """
    image, mask = visit_image.image, visit_image.mask
    fine = cells(image.shape, edge)
    coarse = cells(image.shape, min(edge, RESIDUAL_EDGE))
    excluded = visit_image.bits(*planes_with("no_science"))
    sources = visit_image.bits(*SOURCE_PLANES)
    defects = visit_image.bits(*planes_with("no_science", "saturated"))
    seen = _binned(image, mask, excluded, fine, 0.0)
    pictures = {
        "image": seen,
        "residual": _binned(image, mask, sources | defects, coarse, LEAST_GOOD),
        "sources": _covered(mask, sources, fine),
        "defects": _covered(mask, defects, fine),
    }
    if not layers:
        return pictures
    return pictures | _of_background(seen, layers, edge)


def _of_background(
    seen: NDArray[np.float32], layers: BackgroundList, edge: int, *, smooth: int = GRID_EDGE
) -> dict[str, NDArray[np.float32]]:
    """Pictures that need the background: "image" has it again; "model" has ``smooth`` cells along a side."""
    last = layers[-1]
    there = _at(layers, cells(last.shape, edge))
    means = np.where(last.usable, _as_float(last.statistics.mean), np.float32(np.nan))
    if len(layers) > 1:
        means += _at(layers[:-1], last.grid)
    size = np.diff(last.grid.y_edges)[:, None] * np.diff(last.grid.x_edges)[None]
    return {
        "image": seen + there,
        "model": there if smooth == edge else _at(layers, cells(last.shape, min(edge, smooth))),
        "superpixels": _shrunk(means, min(edge, GRID_EDGE)),
        "used": _shrunk(_as_float(last.statistics.count / size), min(edge, GRID_EDGE)),
    }


def _elements(edge: int) -> int:
    # image and mask; residual; model, before, change, superpixels, used, error, noise and one more map
    return 2 * edge**2 + min(edge, RESIDUAL_EDGE) ** 2 + 8 * min(edge, GRID_EDGE) ** 2


def _binned(
    image: NDArray[np.float32], mask: NDArray[Any], excluded: int, grid: SuperpixelGrid, least: float
) -> NDArray[np.float32]:
    from skysub.report.kernels import bin_mean

    mean = np.empty(grid.shape, np.float32)
    bin_mean(image, mask, excluded, grid.y_edges, grid.x_edges, least, mean)
    return mean


def _covered(mask: NDArray[Any], bits: int, grid: SuperpixelGrid) -> NDArray[np.float32]:
    from skysub.report.kernels import bin_share

    share = np.empty(grid.shape, np.float32)
    bin_share(mask, bits, grid.y_edges, grid.x_edges, share)
    return share


def _at(layers: BackgroundList, grid: SuperpixelGrid) -> NDArray[np.float32]:
    """Model at the centres of cells, to the pixel."""
    rows, columns = grid.y_centers.astype(int), grid.x_centers.astype(int)
    total = np.zeros((len(rows), len(columns)), np.float32)
    for layer in layers:
        total += _layer_at(layer, rows, columns)
    return total


def _layer_at(layer: Background, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    if type(layer) is Background and not layer.is_spline and layer.amplifiers is None:
        # a polynomial alone: not its whole rows
        ny, nx = layer.shape
        x, y = np.meshgrid(columns.astype(float), rows.astype(float))
        matrix = design_matrix(x.ravel(), y.ravel(), shape=(ny, nx), order=layer.order)
        return (matrix @ layer.coefficients).reshape(x.shape).astype(np.float32)
    return np.stack([layer.evaluate(y=slice(row, row + 1))[0, columns] for row in rows.tolist()])


def _shrunk(values: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Means over groups of cells, so that no side has more than ``edge``."""
    if max(values.shape) <= edge:
        return values
    nothing = np.zeros(values.shape, np.int32)
    return _binned(values, nothing, 0, cells((values.shape[0], values.shape[1]), edge), 0.0)


def _as_float(values: NDArray[Any]) -> NDArray[np.float32]:
    converted: NDArray[np.float32] = np.ascontiguousarray(values, np.float32)
    return converted
