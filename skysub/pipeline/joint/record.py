"""What the joint fit of a visit takes of each detector, and what of it is sky."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError
from skysub.pipeline.joint.focal_plane import directions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.model import Background
    from skysub.pipeline.calibrate_image import CalibrateImageResult
    from skysub.visit.image import VisitImage

__all__ = ["DetectorRecord", "SkyFacts", "facts_of", "record_of"]

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class SkyFacts:
    """What a calibrated detector keeps for the joint fit beside its background: small arrays and numbers."""

    visit: int
    detector: int
    good: NDArray[np.int64]
    """(gy, gx) pixels of each superpixel that the source mask left."""
    extrapolated: NDArray[np.bool_] | None = None
    """(gy, gx): where the detector's own fit is not supported by sky; None where unknown."""
    correction: float = 0.0
    """What was added to the level of the detector's own fit, unit of the image;"""
    correction_error: float = 0.0
    """and its standard deviation."""
    structure: float = 0.0
    """Rms of structure on scales of 16 pixels and more that the detector's own fit left, unit of the
    image."""
    light: float = 0.0
    """From 0 to 1: how sure it is that there is light as large as superpixels (`RobustFit.one_sided`)."""
    masked: float = 0.0
    """Share of the pixels that the source mask took."""
    amplifiers: tuple[Box, ...] = ()
    """Boxes (y0, y1, x0, x1) of amplifiers, pixel, ends excluded; empty where unknown."""
    place: NDArray[np.float64] | None = None
    """(2, 3): focal-plane position, pixel, is place @ (1, x, y); rows are x and y. None where unknown."""
    directions: NDArray[np.float64] | None = None
    """(9, 3) unit vectors on the sky of 3 x 3 points of the detector (`directions_of`), to derive the
    place from; None where there are no world coordinates."""
    unit: str = "electron"
    band: str = ""
    camera: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectorRecord(SkyFacts):
    """Superpixel statistics of one detector, and what is known about them.

    Raises
    ------
    InvalidImageError
        When shapes disagree, naming visit and detector.
    """

    background: Background
    """The detector's own background, level corrections included: grid, statistics and fit. Its model is
    what a visit falls back on."""

    def __post_init__(self) -> None:
        who = f"visit {self.visit} detector {self.detector}"
        shape = self.background.grid.shape
        for name in ("good", "extrapolated"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise InvalidImageError(
                    f"{who}: {name} has the shape {array.shape}, the grid of superpixels {shape}"
                )
        if self.place is not None and (self.place.shape != (2, 3) or not np.isfinite(self.place).all()):
            raise InvalidImageError(f"{who}: place must be a finite array of (2, 3), not {self.place!r}")
        ny, nx = self.background.shape
        for box in self.amplifiers:
            y0, y1, x0, x1 = box
            if not (0 <= y0 < y1 <= ny and 0 <= x0 < x1 <= nx):
                raise InvalidImageError(
                    f"{who}: the amplifier (y0, y1, x0, x1) = {box} does not lie on an image of {ny} x {nx}"
                )

    @classmethod
    def of(cls, facts: SkyFacts, background: Background) -> DetectorRecord:
        """Return the record of a detector from what was kept of it."""
        given = {each.name: getattr(facts, each.name) for each in dataclasses.fields(SkyFacts)}
        return cls(**given, background=background)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the image, pixel."""
        return self.background.shape

    def replace(self, **changes: Any) -> DetectorRecord:
        """Return the same record with some fields changed."""
        return dataclasses.replace(self, **changes)


def record_of(
    result: CalibrateImageResult,
    *,
    amplifiers: tuple[Box, ...] = (),
    place: NDArray[np.float64] | None = None,
    camera: str = "",
) -> DetectorRecord:
    """Return the record of a calibrated image, for `skysub.visit_background`.

    Parameters
    ----------
    amplifiers
        Boxes (y0, y1, x0, x1) of amplifiers in pixels of the image; those of the image by default.
    place
        Affine place on the focal plane; derived from the image's world coordinates by default.
    camera
        Name of the camera: detectors of others are not fit together. By default the header's INSTRUME.

    Raises
    ------
    InvalidImageError
        When the result is of the flow of LSST, which keeps no record of its sky.
    """
    facts = facts_of(result, amplifiers=amplifiers, place=place, camera=camera)
    if facts is None:
        image = result.preliminary_visit_image
        raise InvalidImageError(
            f"visit {image.visit} detector {image.detector}: a joint fit needs images calibrated with "
            "flow='default'; the flow of LSST keeps no mask statistics"
        )
    return DetectorRecord.of(facts, result.preliminary_visit_image_background[0])


def facts_of(
    result: CalibrateImageResult,
    *,
    amplifiers: tuple[Box, ...] = (),
    place: NDArray[np.float64] | None = None,
    camera: str = "",
) -> SkyFacts | None:
    """Return what a calibrated image keeps for `record_of`; None for the flow of LSST, which has none."""
    image, sky = result.preliminary_visit_image, result.sky
    if sky is None:
        return None
    if not amplifiers:
        amplifiers = tuple((*each.y, *each.x) for each in image.amplifiers)
    return SkyFacts(
        visit=image.visit,
        detector=image.detector,
        good=sky.mask.good,
        extrapolated=sky.fit.extrapolated,
        correction=sky.corrections.total,
        correction_error=sky.corrections.uncertainty,
        structure=sky.structure,
        light=sky.fit.one_sided,
        masked=sky.mask.masked,
        amplifiers=amplifiers,
        place=place,
        directions=None if image.wcs is None else directions_of(image.wcs, image.shape),
        unit=image.unit,
        band=image.band,
        camera=camera or _camera_of(image),
    )


def _camera_of(image: VisitImage) -> str:
    name = None if image.header is None else image.header.get("INSTRUME")
    return name.strip() if isinstance(name, str) else ""
