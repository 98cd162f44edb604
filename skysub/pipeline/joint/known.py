"""What is known of a visit before it is fit, and the equations that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.joint.amplifier_layers import layer_means, pattern_layer
from skysub.pipeline.joint.rows import rows_of
from skysub.pipeline.joint.system import System
from skysub.pipeline.joint.templates import cells_at_superpixels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.rows import Scale
    from skysub.pipeline.joint.spline import Spline
    from skysub.pipeline.joint.templates import VisitTemplates
    from skysub.pipeline.joint.votes import OffsetPrior

__all__ = ["DetectorFrames", "Known"]


@dataclass(frozen=True, eq=False)
class DetectorFrames:
    """Sky frames of one detector."""

    frames: NDArray[np.float32]
    """(K, cy, cx), unit of the image at a strength of 1."""
    errors: NDArray[np.float64]
    """(K,) rms of what is not known of them, unit of the image."""
    at_superpixels: NDArray[np.float64]
    """(n, K) means over superpixels, in typical errors."""


class Known:
    """Records of a visit's detectors, their places, and what other visits say of them."""

    def __init__(
        self,
        records: Sequence[DetectorRecord],
        places: Mapping[int, NDArray[np.float64]],
        spline: Spline,
        scale: Scale,
        templates: VisitTemplates | None,
        *,
        given_back: bool = False,
    ) -> None:
        """Gather what is known; ``given_back``: what calibration took for amplifiers holds no sky frames."""
        self.records, self.places, self.spline, self.scale = records, places, spline, scale
        self.templates = templates
        self.frames: dict[int, DetectorFrames] = {}
        self.steps: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        """By detector, steps of amplifiers that other visits tell and their deviations, in typical errors."""
        self.offsets: dict[int, OffsetPrior] = {}
        """By detector, offsets that other visits tell."""
        if templates is None:
            return
        told = templates.offset_priors(scale.level)
        self.offsets = {r.detector: told[r.detector] for r in records if r.detector in told}
        for record in records:
            self._add_frames(record, templates, given_back=given_back)
            self._add_steps(record, templates)

    @property
    def count(self) -> int:
        """Number of sky frames."""
        return 0 if self.templates is None or not self.frames else self.templates.frames

    def with_records(self, records: Sequence[DetectorRecord]) -> Known:
        """The same with other records, whose amplifiers hold no sky frames."""
        return Known(records, self.places, self.spline, self.scale, self.templates, given_back=True)

    def system(
        self,
        terms: Sequence[str],
        *,
        placebo: bool = False,
        offsets: Mapping[int, tuple[float, float]] | None = None,
    ) -> System:
        """Equations with these terms of every detector."""
        count = self.count
        rows = []
        for record in self.records:
            columns = None
            if count:
                gy, gx = record.background.grid.shape
                own = self.frames.get(record.detector)
                columns = np.zeros((gy * gx, count)) if own is None else own.at_superpixels
            rows.append(
                rows_of(
                    record,
                    self.places[record.detector],
                    self.spline,
                    self.scale,
                    terms=frozenset(terms),
                    templates=columns,
                    placebo=placebo,
                )
            )
        told = self.steps if "amplifier" in terms and not placebo else {}
        return System(self.spline, rows, count, offsets, told)

    def _add_frames(self, record: DetectorRecord, templates: VisitTemplates, *, given_back: bool) -> None:
        one = templates.of(record.detector, record.shape)
        if one is None or one.frames is None or not templates.frames or len(one.frames) != templates.frames:
            return
        grid, layer = record.background.grid, record.background.amplifiers
        means = [cells_at_superpixels(frame, grid) for frame in one.frames]
        if layer is not None and not given_back:
            # what of a frame went into the amplifiers is not in the superpixels
            means = [
                mean - layer_means(pattern_layer(layer, frame), grid)
                for mean, frame in zip(means, one.frames, strict=True)
            ]
        errors = np.zeros(templates.frames) if one.frame_errors is None else one.frame_errors
        columns = np.stack([mean.ravel() / self.scale.unit for mean in means], axis=1)
        self.frames[record.detector] = DetectorFrames(one.frames, errors, columns)

    def _add_steps(self, record: DetectorRecord, templates: VisitTemplates) -> None:
        one = templates.of(record.detector, record.shape)
        if one is None or one.steps is None or one.steps.boxes != tuple(record.amplifiers):
            return
        steps, deviations = one.steps.expected(self.scale.level)
        own = record.background.amplifiers
        if own is not None:
            # superpixels were measured without what calibration found of them
            taken = {(*a.y, *a.x): step for a, step in zip(own.amplifiers, own.steps.tolist(), strict=True)}
            steps = steps - np.array([taken.get(box, 0.0) for box in record.amplifiers])
        self.steps[record.detector] = (steps / self.scale.unit, deviations / self.scale.unit)
