"""Detection, deblending and measurement of the sources of one background-subtracted image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.measurement.config import MeasurementConfig
from skysub.measurement.detect import Filters, significance
from skysub.measurement.footprints import Blends
from skysub.measurement.frame import UNUSABLE, Frame
from skysub.measurement.local_psf import PsfTable
from skysub.measurement.photometry import Targets, measure_places
from skysub.measurement.pixel_flags import pixel_flags
from skysub.measurement.result import SourceMeasurements
from skysub.measurement.search import find_sources
from skysub.measurement.sky_places import place_sky_sources
from skysub.measurement.solve import fit_at
from skysub.measurement.table_rows import columns_of_places, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.measurement.extended import Templates
    from skysub.measurement.fitted import Places
    from skysub.measurement.photometry import Photometry
    from skysub.measurement.solve import StarModel

__all__ = ["measure_sources"]


def measure_sources(  # noqa: PLR0917 - image, variance and mask go together, as do mask and planes
    image: NDArray[Any],
    variance: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    planes: Mapping[str, int],
    psf: Any,
    config: MeasurementConfig | None = None,
    *,
    gain: float | None = None,
) -> SourceMeasurements:
    """Find the sources of an image, tell them from their neighbours, and measure each.

    Parameters
    ----------
    image
        (ny, nx), counts, background subtracted; any type of number and byte order. Pixels that are NaN or
        lie in a plane of ``config.unusable`` carry no light.
    variance
        (ny, nx), counts squared. None, or pixels that are not above 0: measured on the image.
    mask
        (ny, nx) integers, or None.
    planes
        Bit number of each plane of the mask by name, such as ``{"SAT": 1}``.
    psf
        As `PsfTable.of` takes it. Where it is undefined the nearest place serves, and ``invalidPsfFlag`` says
        so.
    config
        Settings; ``MeasurementConfig()`` by default.
    gain
        Electrons per count, for the noise of sources where the image has no variance; None adds none.

    Raises
    ------
    InvalidImageError
        When planes are not of one shape (ny, nx), or not numbers.
    InvalidPsfError
        When there is no PSF anywhere.
    """
    config = config or MeasurementConfig()
    frame = Frame.of(image, variance, mask, planes, config, gain=gain)
    table = PsfTable.of(psf, frame.shape)
    filters = Filters.of(table, frame)
    values = significance(frame.image, filters, frame, threads=config.threads)
    stars, templates, budget = find_sources(frame, table, filters, values, config)
    columns, blends = _rows(frame, table, stars, templates, values, config)
    if budget.exceeded.any():
        frame.flags["too_crowded"] = (
            f"{np.count_nonzero(budget.exceeded)} of {budget.exceeded.size} cells of {config.noise_cell} "
            "pixels have more sources than the budget; the faintest were left out there"
        )
    crowded = budget.at(columns["y"], columns["x"])
    columns["deblend_tooManyPeaks"] = crowded & (columns["deblend_nChild"] > 0)
    unusable = (frame.state & UNUSABLE) != 0
    radius = np.full(len(columns["x"]), max(1, round(config.grow * table.sigma)))
    columns |= pixel_flags(mask, planes, unusable, columns["y"], columns["x"], radius)
    return SourceMeasurements(
        columns=columns,
        detected=blends.detected,
        too_crowded=budget.plane(),
        model=stars.model(),
        flags=frame.flags,
    )


def _rows(  # noqa: PLR0917
    frame: Frame,
    psf: PsfTable,
    stars: StarModel,
    templates: Templates,
    values: NDArray[np.float32],
    config: MeasurementConfig,
) -> tuple[dict[str, NDArray[Any]], Blends]:
    """Rows of sources, then blends, then empty sky; and the footprints."""
    threads = config.threads

    def rows_of(places: Places, found: Photometry, extended: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        return columns_of_places(
            places, found, psf, frame.variance_at(places.y, places.x), frame.shape, extended
        )

    sources, targets = _in_order(stars, templates)
    found = measure_places(frame, psf, stars.residual, targets, threads=threads)
    extended = targets.template >= 0
    sources = sources.replaced(extended, found.psf)
    rows = rows_of(sources, found, extended)
    blends = Blends.of(values, sources.y, sources.x, frame, psf, config)
    label = blends.label

    # a blend stands where its brightest source does
    blended = np.nonzero(blends.members > 1)[0]
    brightest = np.lexsort((-np.nan_to_num(sources.flux), label))
    at = brightest[np.searchsorted(label[brightest], blended)]
    by_place = np.lexsort((sources.x[at], sources.y[at]))
    blended, at = blended[by_place], at[by_place]
    parents = fit_at(frame, psf, frame.image, sources.y[at], sources.x[at], threads=threads)
    whole = measure_places(frame, psf, frame.image, Targets.stars(parents.y, parents.x), threads=threads)
    parent_rows = rows_of(parents, whole, extended[at])

    taken = blends.detected | ((frame.state & UNUSABLE) != 0)
    sky = fit_at(frame, psf, stars.residual, *place_sky_sources(taken, config), threads=threads)
    empty = measure_places(frame, psf, stars.residual, Targets.stars(sky.y, sky.x), threads=threads)
    sky_rows = rows_of(sky, empty, np.zeros(len(sky.y), np.bool_))

    n, m, k = len(sources.y), len(parents.y), len(sky.y)
    number = np.full(len(blends.members) + 1, -1)
    number[blended] = n + np.arange(m)
    columns = stacked([rows, parent_rows, sky_rows])
    columns["parentIndex"] = np.concatenate([number[label], np.full(m + k, -1)])
    columns["deblend_nChild"] = np.concatenate([np.zeros(n, int), blends.members[blended], np.zeros(k, int)])
    area = np.append(blends.area, 0.0)
    columns["footprintArea_value"] = np.concatenate([area[label], blends.area[blended], np.zeros(k)])
    columns["isPrimary"] = np.arange(n + m + k) < n
    columns["sky_source"] = np.arange(n + m + k) >= n + m
    columns["deblend_deblendedAsPsf"] = (columns["parentIndex"] >= 0) & (columns["extendedness"] == 0)
    return columns, blends


def _in_order(stars: StarModel, templates: Templates) -> tuple[Places, Targets]:
    """Stars and templates as sources by y, then x."""
    places = stars.places()
    n, m = len(stars), len(templates)
    y, x = np.concatenate([stars.y, templates.y]), np.concatenate([stars.x, templates.x])
    order = np.lexsort((x, y))
    every = places.with_more(templates.y, templates.x).of(order)
    targets = Targets(
        y=y[order],
        x=x[order],
        flux=np.concatenate([stars.flux, np.zeros(m)])[order],
        template=np.concatenate([np.full(n, -1), np.arange(m)])[order],
        templates=templates,
    )
    return every, targets
