"""Footprints: connected significant light, and which sources share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.sources.detect import grown, runs_above

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["Blends"]


@dataclass(frozen=True, eq=False)
class Blends:
    """Which footprint each source lies in."""

    label: NDArray[np.int64]
    """(n,) of sources; -1 where a source lies in none."""
    area: NDArray[np.float64]
    """(footprints,) pixels, not grown."""
    members: NDArray[np.int64]
    """(footprints,) number of sources."""
    detected: NDArray[np.bool_]
    """(ny, nx): footprints, grown."""

    @classmethod
    def of(  # noqa: PLR0917
        cls,
        values: NDArray[np.float32],
        y: NDArray[np.float64],
        x: NDArray[np.float64],
        frame: Frame,
        psf: PsfTable,
        config: MeasurementConfig,
    ) -> Blends:
        """Footprints of a map of significance, and the sources (n,) at (y, x) in them."""
        runs = runs_above(values, config.threshold, config.threshold)
        length = (runs.stop - runs.start).astype(np.float64)
        area = np.bincount(runs.label, weights=length, minlength=runs.footprints)
        ny, nx = frame.shape
        row, column = (np.clip(np.rint(a).astype(np.int64), 0, n - 1) for a, n in ((y, ny), (x, nx)))
        keys = runs.y.astype(np.int64) * nx + runs.start
        if len(keys):
            at = np.searchsorted(keys, row * nx + column, side="right") - 1
            inside = (at >= 0) & (runs.y[at] == row) & (column < runs.stop[at])
            label = np.where(inside, runs.label[at].astype(np.int64), -1)
        else:
            label = np.full(len(y), -1, np.int64)
        radius = np.full(runs.footprints, float(int(config.grow * psf.sigma + 0.5)))
        return cls(
            label=label,
            area=area.astype(np.float64),
            members=np.bincount(label[label >= 0], minlength=runs.footprints),
            detected=grown(runs, radius, frame.shape),
        )
