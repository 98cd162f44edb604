"""From detectors' records to the equations of a visit: values, errors, trust and own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.joint.fit import Observed
from skysub.pipeline.joint.focal_plane import positions
from skysub.pipeline.joint.system import DetectorRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid
    from skysub.pipeline.joint.record import Box, DetectorRecord
    from skysub.pipeline.joint.spline import Spline

__all__ = ["Scale", "amplifier_shares", "observed_of", "rows_of", "scale_of", "usable_superpixels"]

_LEAST_SKY = 0.02
"""Share of its pixels that a superpixel must keep to be used at all."""
_LARGE = 0.5
"""A superpixel that keeps less than this share of what is typical of its detector lies in a large object;"""
_REACH = 2
"""superpixels so many away from it still hold its light, and are not trusted."""
_CLUMP = 4
"""Superpixels that such a region has at least."""
_LEAST_TRUSTED = 0.25
"""Share of a detector's usable superpixels that stay trusted however large its objects are: those with the
most pixels left."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Level and unit in which a visit's equations are written."""

    level: float
    unit: float
    """Typical error of a superpixel, unit of the image."""


def usable_superpixels(record: DetectorRecord) -> NDArray[np.bool_]:
    """(gy, gx): superpixels with a value, an error and enough pixels."""
    statistics, grid = record.background.statistics, record.background.grid
    area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    usable: NDArray[np.bool_] = np.isfinite(statistics.mean) & np.isfinite(statistics.error)
    usable &= statistics.error > 0
    usable &= statistics.count >= np.maximum(2, _LEAST_SKY * area)
    return usable


def scale_of(records: Sequence[DetectorRecord]) -> Scale:
    """Level and unit of a visit: medians over its usable superpixels."""
    masks = [usable_superpixels(record) for record in records]
    values = np.concatenate(
        [record.background.statistics.mean[mask] for record, mask in zip(records, masks, strict=True)]
    )
    errors = np.concatenate(
        [record.background.statistics.error[mask] for record, mask in zip(records, masks, strict=True)]
    )
    return Scale(float(np.median(values)), float(np.median(errors)))


def rows_of(
    record: DetectorRecord,
    place: NDArray[np.float64],
    spline: Spline,
    scale: Scale,
    *,
    terms: frozenset[str],
    templates: NDArray[np.float64] | None = None,
    placebo: bool = False,
) -> DetectorRows:
    """Equations of one detector.

    Parameters
    ----------
    terms
        Of "offset" and "amplifier": its own terms. Amplifiers count where the record has at least two.
    templates
        (n, K) values of templates at its superpixels.
    placebo
        Put the boundaries of amplifiers where there are none.
    """
    grid = record.background.grid
    y, x = (c.ravel() for c in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    columns, groups = [], []
    if "offset" in terms:
        columns.append(np.ones((len(x), 1)))
        groups.append(np.zeros(1, np.int64))
    if "amplifier" in terms and len(record.amplifiers) > 1:
        boxes = displaced(record.amplifiers, record.shape) if placebo else record.amplifiers
        columns.append(amplifier_shares(grid, boxes))
        groups.append(np.ones(len(boxes), np.int64))
    shared = [] if templates is None else [templates]
    local = np.concatenate([*shared, *columns], axis=1) if shared or columns else np.zeros((len(x), 0))
    usable = usable_superpixels(record).ravel()
    values = record.background.statistics.mean.astype(np.float64).ravel() - scale.level
    return DetectorRows(
        detector=record.detector,
        basis=spline.basis(*positions(place, x, y)),
        local=np.ascontiguousarray(local),
        groups=np.concatenate(groups) if groups else np.zeros(0, np.int64),
        values=np.where(usable, values / scale.unit, 0.0),
    )


def observed_of(record: DetectorRecord, scale: Scale, *, reach: int = _REACH) -> Observed:
    """Errors of a detector's superpixels and how far they are trusted (``reach`` as for `trusted`)."""
    usable = usable_superpixels(record)
    error = np.where(usable, record.background.statistics.error.astype(np.float64) / scale.unit, np.inf)
    trust = trusted(record, usable, reach=reach)
    return Observed(error=error.ravel(), trust=trust.ravel(), grid=record.background.grid.shape)


def trusted(record: DetectorRecord, usable: NDArray[np.bool_], *, reach: int = _REACH) -> NDArray[np.float64]:
    """(gy, gx) 1 for usable superpixels, 0 in and within ``reach`` of large or bright objects.

    Those are regions where the source mask left less than half of what it typically leaves.
    """
    grid = record.background.grid
    area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges)).astype(np.float64)
    left = record.good / area
    there = left[usable]
    if not there.size:
        return usable.astype(np.float64)
    typical = float(np.quantile(there, 0.75))
    inside = _clumps(left < _LARGE * typical, _CLUMP)
    near = _grown(inside, reach)
    far = usable & ~near
    while far.sum() < _LEAST_TRUSTED * usable.sum() and reach > 0:
        reach -= 1
        far = usable & ~(_grown(inside, reach) if reach else inside)
    if far.sum() < _LEAST_TRUSTED * usable.sum():
        keep = float(np.quantile(there, 1 - _LEAST_TRUSTED))
        far = usable & (left >= keep)
    return far.astype(np.float64)


def amplifier_shares(grid: SuperpixelGrid, boxes: Sequence[Box]) -> NDArray[np.float64]:
    """(n, q) share of each superpixel's area that lies in each amplifier."""
    shares = []
    for y0, y1, x0, x1 in boxes:
        rows = np.minimum(grid.y_edges[1:], y1) - np.maximum(grid.y_edges[:-1], y0)
        columns = np.minimum(grid.x_edges[1:], x1) - np.maximum(grid.x_edges[:-1], x0)
        part = np.outer(
            np.maximum(rows, 0) / np.diff(grid.y_edges), np.maximum(columns, 0) / np.diff(grid.x_edges)
        )
        shares.append(part.ravel())
    return np.stack(shares, axis=1)


def displaced(boxes: Sequence[Box], shape: tuple[int, int]) -> list[Box]:
    """Return boxes moved by half their size along the axis that has more of them, with one more at the end.

    There are never fewer of them than of the true ones, so that they explain structure of the sky as well.
    """
    ny, nx = shape
    rows, columns = len({box[0] for box in boxes}), len({box[2] for box in boxes})
    moved = []
    for y0, y1, x0, x1 in boxes:
        if columns >= rows:
            half = (x1 - x0) // 2
            moved.append((y0, y1, max(0, x0 - half), x1 - half))
            if x1 == nx:
                moved.append((y0, y1, x1 - half, x1))
        else:
            half = (y1 - y0) // 2
            moved.append((max(0, y0 - half), y1 - half, x0, x1))
            if y1 == ny:
                moved.append((y1 - half, y1, x0, x1))
    return [box for box in moved if box[1] > box[0] and box[3] > box[2]]


def _grown(region: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    n = 2 * reach + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(region, reach), (n, n))
    grown: NDArray[np.bool_] = np.any(windows, axis=(2, 3))
    return grown


def _clumps(region: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Connected parts of a region, over edges, of at least so many superpixels."""
    gy, gx = region.shape
    kept = np.zeros_like(region)
    seen = np.zeros_like(region)
    for y, x in np.argwhere(region).tolist():
        if seen[y, x]:
            continue
        seen[y, x] = True
        part = [(y, x)]
        for j, i in part:
            for b, a in ((j - 1, i), (j + 1, i), (j, i - 1), (j, i + 1)):
                if 0 <= b < gy and 0 <= a < gx and region[b, a] and not seen[b, a]:
                    seen[b, a] = True
                    part.append((b, a))
        if len(part) >= least:
            for j, i in part:
                kept[j, i] = True
    return kept
