"""What a measurement of sources gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SourceMeasurements"]


@dataclass(frozen=True, eq=False)
class SourceMeasurements:
    """Sources of one image and where their light lies.

    Rows are sorted by position, y before x, in three groups: sources (``isPrimary``), the blends that some
    of them were taken from (``deblend_nChild`` above 0), and places of empty sky (``sky_source``).
    """

    columns: dict[str, NDArray[Any]]
    """(n,) float64, float32, int32 or bool by name. The names are those of DP1's Source table; fluxes and
    their errors are in counts, positions in pixels (the centre of the first pixel is 0, 0), moments in pixels
    squared. NaN where something could not be measured, which a flag of the same name tells."""
    detected: NDArray[np.bool_]
    """(ny, nx): pixels of footprints, grown as the configuration says."""
    too_crowded: NDArray[np.bool_]
    """(ny, nx): pixels of regions where sources were left out because there were too many."""
    model: NDArray[np.float32]
    """(ny, nx) float32, counts: light of all sources as it was fit."""
    flags: dict[str, str] = field(default_factory=dict)
    """What is missing or doubtful: a short name, and a sentence for people."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""

    def __len__(self) -> int:
        return len(self.columns["x"])

    def __repr__(self) -> str:
        primary = int(np.count_nonzero(self.columns["isPrimary"]))
        return (
            f"SourceMeasurements({primary} sources, {len(self)} rows, flags={' '.join(self.flags) or 'none'})"
        )
