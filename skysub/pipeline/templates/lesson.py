"""What one visit says of its detectors, once its sky is fit jointly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import design_matrix
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import InvalidImageError
from skysub.pipeline.joint.amplifier_layers import layer_means, put_back
from skysub.pipeline.joint.rows import amplifier_shares
from skysub.pipeline.visit_background import VisitBackgroundConfig, visit_background

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.background.model import Background
    from skysub.pipeline.joint.record import Box, DetectorRecord
    from skysub.pipeline.joint.templates import VisitTemplates
    from skysub.pipeline.templates.cells import SkyCells

__all__ = ["Lesson", "TemplateVisit", "amplifier_means", "lesson_of"]

_WHOLE = 0.999
"""Share of a cell in an amplifier from which the cell is that amplifier's own."""
_FEWEST_CELLS = 8


@dataclass(frozen=True, eq=False)
class TemplateVisit:
    """Calibrated detectors of one visit, and the cells of some or all of them.

    Raises
    ------
    InvalidImageError
        When there is no record, or records are of several visits.
    """

    records: Sequence[DetectorRecord]
    cells: Mapping[int, SkyCells]
    """By detector."""

    def __post_init__(self) -> None:
        visits = sorted({record.visit for record in self.records})
        if len(visits) != 1:
            raise InvalidImageError(
                f"templates are made of visits with detectors of one visit each, not of {visits or 'none'}"
            )

    @property
    def visit(self) -> int:
        """Number of the visit."""
        return self.records[0].visit


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is left of one visit's sky when what is smooth over the focal plane is taken off."""

    visit: int
    level: float
    """Of the sky, unit of the image."""
    offsets: Mapping[int, tuple[float, float]]
    """By detector with a vote: offset and its standard deviation."""
    cells: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    """By detector with a vote: (cy, cx) float32, mean 0; NaN where nothing was seen. What amplifiers
    add is in them."""
    errors: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)


def lesson_of(
    visit: TemplateVisit, templates: VisitTemplates | None = None, *, terms: tuple[str, ...] = ("offset",)
) -> Lesson | None:
    """Fit a visit jointly, with an offset for each detector; None where no joint fit was possible.

    ``terms`` are those of the fit. Steps of amplifiers are needed among them where there are some: else the
    smooth sky takes a part of them.
    """
    # a pattern looks like steps and drift of amplifiers to a detector alone, so that all is looked at again
    sky = visit_background(
        [put_back(record) for record in visit.records],
        VisitBackgroundConfig(terms=terms, detection=False),
        templates=templates,
    )
    if sky.mode != "joint" or sky.votes is None:
        return None
    records = {record.detector: record for record in visit.records}
    heard = [n for n in sky.joint if n not in sky.votes.suspect]
    cells, errors = {}, {}
    for number in heard:
        if number in visit.cells:
            one = visit.cells[number]
            cells[number] = _left(records[number], sky.backgrounds[number], one)
            errors[number] = one.error
    levels = [float(sky.backgrounds[n].coefficients[0]) for n in sky.joint]
    return Lesson(
        visit=visit.visit,
        level=float(np.median(levels)),
        offsets={n: sky.offsets[n] for n in heard},
        cells=cells,
        errors=errors,
    )


def _left(record: DetectorRecord, joint: Background, cells: SkyCells) -> NDArray[np.float32]:
    """Cells of the image minus what is smooth over the focal plane; what amplifiers add stays in."""
    cy, cx = cells.mean.shape
    grid = SuperpixelGrid.of_counts(record.shape, gy=cy, gx=cx)
    own = record.background
    left = cells.mean + _polynomial(own, grid) - _polynomial(joint, grid)
    if own.amplifiers is not None:
        left += layer_means(own.amplifiers, grid)
    seen = np.isfinite(left)
    if seen.any():
        left -= np.average(left[seen], weights=1 / cells.error[seen].astype(np.float64) ** 2)
    return left.astype(np.float32)


def _polynomial(layer: Background, grid: SuperpixelGrid) -> NDArray[np.float64]:
    """(cy, cx) values of a background's polynomial at the centres of cells."""
    y, x = (c.ravel() for c in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    terms = design_matrix(x, y, shape=layer.shape, order=layer.order)
    values: NDArray[np.float64] = np.einsum("ki,i->k", terms, layer.coefficients).reshape(grid.shape)
    return values


def amplifier_means(
    cells: NDArray[np.float32], errors: NDArray[np.float32], shape: tuple[int, int], boxes: Sequence[Box]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(q,) mean of each amplifier's own cells about that of all, and its standard error; NaN where unseen."""
    cy, cx = cells.shape
    grid = SuperpixelGrid.of_counts(shape, gy=cy, gx=cx)
    inside = amplifier_shares(grid, boxes) > _WHOLE
    flat, error = cells.ravel().astype(np.float64), errors.ravel().astype(np.float64)
    weight = np.where(np.isfinite(flat) & (error > 0), 1 / np.where(error > 0, error, 1.0) ** 2, 0.0)
    total = np.einsum("kq,k->q", inside, weight)
    mean = np.einsum("kq,k->q", inside, weight * np.where(weight > 0, flat, 0.0))
    enough = np.sum(inside & (weight > 0)[:, None], axis=0) >= _FEWEST_CELLS
    found = np.where(enough, mean / np.where(total > 0, total, 1.0), np.nan)
    deviation = np.where(enough, 1 / np.sqrt(np.where(total > 0, total, 1.0)), np.nan)
    return found - (np.nanmean(found) if enough.any() else 0.0), deviation
