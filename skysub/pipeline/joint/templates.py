"""What many visits say of each detector: its offset, steps of its amplifiers, and sky frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.layered import interpolated
from skysub.pipeline.joint.votes import OffsetPrior

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["DetectorTemplate", "StepTemplate", "VisitTemplates", "cells_at_superpixels"]

Box = tuple[int, int, int, int]

_SAMPLES = 8
"""Points along each axis by which cells are averaged over a superpixel."""


@dataclass(frozen=True, eq=False)
class StepTemplate:
    """What the amplifiers of a detector add about their mean."""

    boxes: tuple[Box, ...]
    """Boxes (y0, y1, x0, x1), pixel, ends excluded."""
    terms: NDArray[np.float64]
    """(q, 2) constant, unit of the image, and share of the sky's level;"""
    covariance: NDArray[np.float64]
    """(q, 2, 2) of these two."""
    deviation: NDArray[np.float64]
    """(q,) standard deviation of a visit's steps about them, unit of the image."""

    def expected(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(q,) steps at a sky of this level, and their standard deviations, unit of the image."""
        x = np.array([1.0, level])
        unsure = np.einsum("j,qjk,k->q", x, self.covariance, x)
        return np.einsum("qj,j->q", self.terms, x), np.sqrt(self.deviation**2 + np.maximum(unsure, 0.0))


@dataclass(frozen=True, eq=False)
class DetectorTemplate:
    """Of one detector."""

    shape: tuple[int, int] | None = None
    """(ny, nx) of its images, pixel; None fits any."""
    constant: float = 0.0
    """Offset that does not depend on the sky, unit of the image,"""
    proportional: float = 0.0
    """and the part of the sky's level that is added."""
    covariance: NDArray[np.float64] | None = None
    """(2, 2) of these two; None where they are as good as known."""
    deviation: float = 0.0
    """Standard deviation of a visit's offset about those two, unit of the image; 0 where nothing is known."""
    steps: StepTemplate | None = None
    """What its amplifiers add; None where there is nothing."""
    frames: NDArray[np.float32] | None = None
    """(K, cy, cx) float32: sky frames, unit of the image for a strength of 1; None where there are none."""
    frame_errors: NDArray[np.float64] | None = None
    """(K,) rms of what is not known of the frames, unit of the image."""

    def offset_prior(self, level: float) -> OffsetPrior | None:
        """Offset that is expected at a sky of this level; None where nothing is known."""
        if not self.deviation > 0:
            return None
        x = np.array([1.0, level])
        unsure = 0.0 if self.covariance is None else float(np.einsum("j,jk,k->", x, self.covariance, x))
        return OffsetPrior(
            self.constant + self.proportional * level, math.sqrt(self.deviation**2 + max(0.0, unsure))
        )


@dataclass(frozen=True, eq=False)
class VisitTemplates:
    """Templates of a camera in one band."""

    detectors: Mapping[int, DetectorTemplate]
    visits: tuple[int, ...]
    """Visits they were made of."""
    frames: int = 0
    """Number K of sky frames."""
    strengths: NDArray[np.float64] | None = None
    """(V, K) of the frames in those visits."""
    levels: NDArray[np.float64] | None = None
    """(V,) of the sky in those visits, unit of the image."""
    unit: str = "electron"
    band: str = ""
    camera: str = ""
    """Empty where unknown: then any camera may use them."""
    flags: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    """How they were made: versions, date, settings, what was judged."""
    name: str = ""
    """Name of the file they were read from."""

    def __repr__(self) -> str:
        return (
            f"VisitTemplates({f'{self.name}, ' if self.name else ''}band={self.band!r}, "
            f"camera={self.camera!r}, detectors={len(self.detectors)}, visits={len(self.visits)}, "
            f"frames={self.frames}, flags={' '.join(self.flags) or 'none'})"
        )

    def offset_priors(self, level: float) -> dict[int, OffsetPrior]:
        """Offsets that are expected at a sky of this level, by detector."""
        found = {number: one.offset_prior(level) for number, one in self.detectors.items()}
        return {number: prior for number, prior in found.items() if prior is not None}

    def why_not(self, *, unit: str, band: str, camera: str) -> str:
        """Why these cannot be used for such a visit; empty where they can."""
        for name, own, other in (
            ("unit", self.unit, unit),
            ("band", self.band, band),
            ("camera", self.camera, camera),
        ):
            if own != other and not (name == "camera" and not (own and other)):
                which = f" {self.name}" if self.name else ""
                return f"The templates{which} are of {name} {own!r}, the visit of {other!r}."
        return ""

    def of(self, detector: int, shape: tuple[int, int]) -> DetectorTemplate | None:
        """Template of a detector whose images have this shape; None where there is none."""
        one = self.detectors.get(detector)
        return one if one is not None and one.shape in {None, shape} else None


def cells_at_superpixels(cells: NDArray[np.float32], grid: SuperpixelGrid) -> NDArray[np.float64]:
    """(gy, gx) means over superpixels of a map of cells that is linear between their centres."""
    rows, columns = (
        (edges[:-1, None] + (np.arange(_SAMPLES) + 0.5) * (np.diff(edges) / _SAMPLES)[:, None])
        .astype(np.int64)
        .ravel()
        for edges in (grid.y_edges, grid.x_edges)
    )
    ny, nx = grid.image_shape
    whole = interpolated(cells, grid.image_shape, range(ny), range(nx))[np.ix_(rows, columns)]
    gy, gx = grid.shape
    means: NDArray[np.float64] = whole.reshape(gy, _SAMPLES, gx, _SAMPLES).mean(axis=(1, 3), dtype=np.float64)
    return means
