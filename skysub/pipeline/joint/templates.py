"""What many visits say of each detector: its offset, and sky frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.layered import interpolated
from skysub.pipeline.joint.votes import OffsetPrior

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["DetectorTemplate", "VisitTemplates", "cells_at_superpixels"]

_SAMPLES = 8
"""Points along each axis by which cells are averaged over a superpixel."""


@dataclass(frozen=True, eq=False)
class DetectorTemplate:
    """Of one detector."""

    constant: float = 0.0
    """Offset that does not depend on the sky, unit of the image,"""
    proportional: float = 0.0
    """and the part of the sky's level that is added."""
    deviation: float = 0.0
    """Standard deviation of a visit's offset about those two, unit of the image."""
    frames: NDArray[np.float32] | None = None
    """(K, cy, cx) float32: sky frames, unit of the image for a scale of 1; None where there are none."""


@dataclass(frozen=True, eq=False)
class VisitTemplates:
    """Templates of a camera in one band."""

    detectors: Mapping[int, DetectorTemplate]
    visits: int
    """Visits they were made of."""
    frames: int = 0
    """Number K of sky frames."""
    unit: str = "electron"
    band: str = ""
    camera: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)

    def offset_priors(self, level: float) -> dict[int, OffsetPrior]:
        """Offsets that are expected at a sky of this level, by detector."""
        return {
            number: OffsetPrior(one.constant + one.proportional * level, one.deviation)
            for number, one in self.detectors.items()
            if one.deviation > 0
        }

    def why_not(self, *, unit: str, band: str, camera: str) -> str:
        """Why these cannot be used for such a visit; empty where they can."""
        for name, own, other in (
            ("unit", self.unit, unit),
            ("band", self.band, band),
            ("camera", self.camera, camera),
        ):
            if own != other:
                return f"The templates are of {name} {own!r}, the visit of {other!r}."
        return ""

    def frames_of(self, detector: int) -> NDArray[np.float32] | None:
        """(K, cy, cx) sky frames of a detector; None where there are none."""
        one = self.detectors.get(detector)
        return None if one is None or not self.frames else one.frames


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
