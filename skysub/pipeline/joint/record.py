"""What the joint fit of a visit takes of each detector, and what of it is sky."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.background.model import Background
    from skysub.pipeline.calibrate_image import CalibrateImageResult

__all__ = ["DetectorRecord", "record_of"]

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectorRecord:
    """Superpixel statistics of one detector, and what is known about them.

    Raises
    ------
    InvalidImageError
        When shapes disagree, naming visit and detector.
    """

    visit: int
    detector: int
    background: Background
    """The detector's own background, level corrections included: grid, statistics and fit. Its model is what a
    visit falls back on."""
    good: NDArray[np.int64]
    """(gy, gx) pixels of each superpixel that the source mask left."""
    believed: NDArray[np.float64] | None = None
    """(gy, gx) weights that the detector's own fit gave its superpixels; None where unknown."""
    correction: float = 0.0
    """What was added to the level of the detector's own fit, unit of the image;"""
    correction_error: float = 0.0
    """and its standard deviation."""
    structure: float = 0.0
    """Rms of structure on scales of 16 pixels and more that the detector's own fit left, unit of the image."""
    light: float = 0.0
    """From 0 to 1: how sure it is that there is light as large as superpixels (`RobustFit.one_sided`)."""
    masked: float = 0.0
    """Share of the pixels that the source mask took."""
    extrapolated: NDArray[np.bool_] | None = None
    """(gy, gx): where the detector's own fit is not supported by sky; None where unknown."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Flags of the detector's calibration."""
    amplifiers: tuple[Box, ...] = ()
    """Boxes (y0, y1, x0, x1) of amplifiers, pixel, ends excluded; empty where unknown."""
    place: NDArray[np.float64] | None = None
    """(2, 3): focal-plane position, pixel, is place @ (1, x, y); rows are x and y. None where unknown."""
    wcs: Any = None
    """World coordinates to derive the place from; None where there are none."""
    unit: str = "electron"
    band: str = ""
    camera: str = ""

    def __post_init__(self) -> None:
        who = f"visit {self.visit} detector {self.detector}"
        shape = self.background.grid.shape
        for name in ("good", "believed", "extrapolated"):
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
    """Return the record of a calibrated image.

    Parameters
    ----------
    amplifiers
        Boxes (y0, y1, x0, x1) of amplifiers in pixels of the image; none where unknown.
    place
        Affine place on the focal plane; derived from the image's world coordinates by default.

    Raises
    ------
    InvalidImageError
        When the result is of the flow of LSST, which keeps no record of its sky.
    """
    image, sky = result.preliminary_visit_image, result.sky
    if sky is None:
        raise InvalidImageError(
            f"visit {image.visit} detector {image.detector}: a joint fit needs images calibrated with "
            "flow='default'; the flow of LSST keeps no mask statistics"
        )
    background = result.preliminary_visit_image_background[0]
    return DetectorRecord(
        visit=image.visit,
        detector=image.detector,
        background=background,
        good=sky.mask.good,
        believed=sky.fit.weights,
        correction=sky.corrections.total,
        correction_error=sky.corrections.uncertainty,
        structure=sky.structure,
        light=sky.fit.one_sided,
        masked=sky.mask.masked,
        extrapolated=sky.fit.extrapolated,
        flags=dict(result.flags),
        amplifiers=amplifiers,
        place=place,
        wcs=image.wcs,
        unit=image.unit,
        band=image.band,
        camera=camera,
    )
