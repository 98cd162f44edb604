"""Small pictures of a detector: its pixels in cells, its model, mask, statistics and maps."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import SkysubError
from skysub.pipeline.config import IGNORED_PLANES, SATURATED_PLANES
from skysub.report.focal_plane import Footprint, footprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from skysub.background.model import BackgroundList
    from skysub.campaign.campaign import Campaign
    from skysub.visit.image import VisitImage

__all__ = ["BUDGET", "View", "edge_for", "most_pictured", "pictures_of", "view_of", "views_of"]

BUDGET = 24_000_000
"""Picture elements of a whole report."""
LARGEST_EDGE = 512
SMALLEST_EDGE = 16
RESIDUAL_EDGE = 56
"""Cells of residuals are larger than those of images, so that the noise of single pixels averages out."""
GRID_EDGE = 48
SOURCE_PLANES = ("DETECTED", "DETECTED_NEGATIVE")
LEAST_GOOD = 0.15
"""A cell whose share of good pixels is smaller shows nothing."""


@dataclass(frozen=True, eq=False)
class View:
    """Pictures of one detector, each (gy, gx) float32 with NaN where nothing is known."""

    visit: int
    detector: int
    unit: str
    pictures: dict[str, NDArray[np.float32]]
    """"image", "model", "residual", "superpixels" in ``unit``; "sources", "defects", "used" are shares."""
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Those of the step, by name, and "error" of the superpixels' means."""
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
    marker = campaign.marker(visit, detector)
    unit = marker["image"]["unit"]
    try:
        visit_image = campaign.visit_image(visit, detector)
        layers = campaign.background(_background_product(campaign), visit, detector)
    except SkysubError as error:
        return View(visit=visit, detector=detector, unit=unit, pictures={}, trouble=str(error))
    maps = {"error": _shrunk(_as_float(layers[-1].statistics.error), min(edge, GRID_EDGE))}
    for name in marker["maps"]:
        values = campaign.map(name, visit, detector)
        if values.ndim == 2 and values.size and values.dtype.kind in "fiub":
            maps[name] = _shrunk(_as_float(values), min(edge, GRID_EDGE))
    return View(
        visit=visit,
        detector=detector,
        unit=unit,
        pictures=pictures_of(visit_image, layers, edge),
        maps=maps,
        footprint=footprint(visit_image.wcs, visit_image.shape),
    )


def pictures_of(visit_image: VisitImage, layers: BackgroundList, edge: int) -> dict[str, NDArray[np.float32]]:
    """Bin a background-subtracted image and what belongs to it into cells.

    Parameters
    ----------
    edge
        Cells along the longer side at most.

    Returns
    -------
    pictures
        See `View.pictures`. "image" is with its background again, without bad pixels; "residual" is
        without all masked pixels.
    """
    from skysub.report.kernels import bin_mean, bin_share

    image, mask = visit_image.image, visit_image.mask
    longest = max(image.shape)
    fine = -(-longest // edge)
    coarse = -(-longest // min(edge, RESIDUAL_EDGE))
    excluded = visit_image.bits(*IGNORED_PLANES)
    sources = visit_image.bits(*SOURCE_PLANES)
    defects = visit_image.bits(*IGNORED_PLANES, *SATURATED_PLANES)
    made = {name: _empty(image.shape, fine) for name in ("image", "sources", "defects")}
    made["residual"] = _empty(image.shape, coarse)
    bin_mean(image, mask, excluded, fine, 0.0, made["image"])
    bin_mean(image, mask, sources | defects, coarse, LEAST_GOOD, made["residual"])
    bin_share(mask, sources, fine, made["sources"])
    bin_share(mask, defects, fine, made["defects"])
    made["image"] += _model(layers, fine)
    made["model"] = _model(layers, -(-longest // min(edge, GRID_EDGE)))
    last = layers[-1]
    ys, xs = last.grid.y_centers, last.grid.x_centers
    means = np.where(last.usable, _as_float(last.statistics.mean), np.float32(np.nan))
    for layer in layers[:-1]:
        means += _at(layer.evaluate, ys, xs)
    size = np.diff(last.grid.y_edges)[:, None] * np.diff(last.grid.x_edges)[None]
    made["superpixels"] = _shrunk(means, min(edge, GRID_EDGE))
    made["used"] = _shrunk(_as_float(last.statistics.count / size), min(edge, GRID_EDGE))
    return made


def _elements(edge: int) -> int:
    # image and mask; residual; model, superpixels, used, error, noise and one more map
    return 2 * edge**2 + min(edge, RESIDUAL_EDGE) ** 2 + 6 * min(edge, GRID_EDGE) ** 2


def _background_product(campaign: Campaign) -> str:
    return campaign.products[1]


def _empty(shape: tuple[int, int], cell: int) -> NDArray[np.float32]:
    return np.empty((-(-shape[0] // cell), -(-shape[1] // cell)), np.float32)


def _model(layers: BackgroundList, cell: int) -> NDArray[np.float32]:
    """Model at the centres of cells."""
    ny, nx = layers[0].shape
    ys, xs = (np.minimum(np.arange(0, n, cell) + (cell - 1) / 2, n - 1) for n in (ny, nx))
    return _at(layers.evaluate, ys, xs)


def _at(
    evaluate: Callable[..., NDArray[np.float32]], ys: NDArray[np.float64], xs: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Model where rows ``ys`` cross columns ``xs``, to the pixel."""
    columns = np.rint(xs).astype(int)
    rows = [evaluate(y=slice(y, y + 1))[0, columns] for y in np.rint(ys).astype(int)]
    return np.stack(rows)


def _shrunk(values: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Means over groups of cells, so that no side has more than ``edge``."""
    from skysub.report.kernels import bin_mean

    cell = -(-max(values.shape) // edge)
    if cell == 1:
        return values
    shrunk = _empty((values.shape[0], values.shape[1]), cell)
    bin_mean(values, np.zeros(values.shape, np.int32), 1, cell, 0.0, shrunk)
    return shrunk


def _as_float(values: NDArray[Any]) -> NDArray[np.float32]:
    converted: NDArray[np.float32] = np.ascontiguousarray(values, np.float32)
    return converted
