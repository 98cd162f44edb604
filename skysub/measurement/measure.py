"""Detection, deblending and measurement of the sources of one background-subtracted image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.measurement.config import MeasurementConfig
from skysub.measurement.detect import Filters, significance
from skysub.measurement.footprints import Blends
from skysub.measurement.frame import UNUSABLE, Frame
from skysub.measurement.local_psf import PsfTable
from skysub.measurement.photometry import measure_places
from skysub.measurement.pixel_flags import pixel_flags
from skysub.measurement.result import SourceMeasurements
from skysub.measurement.sky_places import place_sky_sources
from skysub.measurement.search import find_stars
from skysub.measurement.solve import fit_at
from skysub.measurement.table_rows import columns_of_places, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["measure_sources"]


def measure_sources(
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
    stars = find_stars(frame, table, filters, values, config)
    blends = Blends.of(values, stars.y, stars.x, frame, table, config)
    columns = _rows(frame, table, stars, blends, config)
    unusable = (frame.state & UNUSABLE) != 0
    radius = np.full(len(columns["x"]), max(1, round(config.grow * table.sigma)))
    columns |= pixel_flags(mask, planes, unusable, columns["y"], columns["x"], radius)
    return SourceMeasurements(
        columns=columns,
        detected=blends.detected,
        too_crowded=np.zeros(frame.shape, np.bool_),
        model=stars.model(),
        flags=frame.flags,
    )


def _rows(
    frame: Frame, psf: PsfTable, stars: Any, blends: Blends, config: MeasurementConfig
) -> dict[str, NDArray[Any]]:
    """Rows of sources, then blends, then empty sky."""
    threads = config.threads
    order = np.lexsort((stars.x, stars.y))
    sources = stars.places().of(order)
    label = blends.label[order]
    found = measure_places(frame, psf, stars.residual, sources.y, sources.x, sources.flux, threads=threads)
    rows = columns_of_places(sources, found, psf, frame.variance_at(sources.y, sources.x), frame.shape)

    # a blend stands where its brightest source does
    blended = np.nonzero(blends.members > 1)[0]
    brightest = np.lexsort((-np.nan_to_num(sources.flux), label))
    first = np.searchsorted(label[brightest], blended)
    at = brightest[first]
    parent_order = np.lexsort((sources.x[at], sources.y[at]))
    blended, at = blended[parent_order], at[parent_order]
    parents = fit_at(frame, psf, frame.image, sources.y[at], sources.x[at], threads=threads)
    whole = measure_places(frame, psf, frame.image, parents.y, parents.x, np.zeros(len(at)), threads=threads)
    parent_rows = columns_of_places(parents, whole, psf, frame.variance_at(parents.y, parents.x), frame.shape)

    taken = blends.detected | ((frame.state & UNUSABLE) != 0)
    sky = fit_at(frame, psf, stars.residual, *place_sky_sources(taken, config), threads=threads)
    empty = measure_places(frame, psf, stars.residual, sky.y, sky.x, np.zeros(len(sky.y)), threads=threads)
    sky_rows = columns_of_places(sky, empty, psf, frame.variance_at(sky.y, sky.x), frame.shape)

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
    columns["deblend_deblendedAsPsf"] = columns["parentIndex"] >= 0
    return columns
