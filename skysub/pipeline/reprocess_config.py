"""Settings of the final image and the table of its sources."""

from __future__ import annotations

from dataclasses import dataclass, field

from skysub.measurement.config import MeasurementConfig
from skysub.measurement.ids import SourceIds
from skysub.pipeline.over_subtraction import OverSubtractionConfig
from skysub.visit.plane_table import planes_with
from skysub.visit.planes import check_plane_names

__all__ = ["ReprocessVisitImageConfig"]


@dataclass(frozen=True, slots=True)
class ReprocessVisitImageConfig:
    """How a visit image is calibrated and measured.

    Parameters
    ----------
    measurement
        How sources are found and measured.
    ids
        How sources are numbered; ``ids.release`` is the number of the release.
    over_subtraction
        When a source is flagged as one whose light the background has taken.
    sky_ignored
        Mask planes whose pixels are no sky in the figures of the background-subtracted pixels (LSST's list).
    """

    measurement: MeasurementConfig = field(default_factory=MeasurementConfig)
    ids: SourceIds = field(default_factory=SourceIds)
    over_subtraction: OverSubtractionConfig = field(default_factory=OverSubtractionConfig)
    sky_ignored: tuple[str, ...] = planes_with("not_sky")

    def __post_init__(self) -> None:
        check_plane_names("sky_ignored", self.sky_ignored)
