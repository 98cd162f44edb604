"""One detector of one visit: pixels, mask, variance, and what is known about them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.nddata import CCDData
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from skysub.background.amplifiers import Amplifier
    from skysub.visit.planes import MaskPlanes

__all__ = ["VisitImage"]


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitImage:
    """Image, mask and variance of one detector in one visit, with calibrations where there are any.

    Arrays are in native byte order, y before x; pixel (0, 0) is the lower left one and its centre has
    the coordinates (0, 0). NaN pixels are allowed and mean nothing is known there.

    Raises
    ------
    InvalidImageError
        When shapes or types of the arrays disagree.
    """

    image: NDArray[np.float32] = field(repr=False)
    """(ny, nx) float32, in ``unit``."""
    mask: NDArray[np.signedinteger] = field(repr=False)
    """(ny, nx) int32 (int64 where planes lie above bit 30); a pixel's set bits name what is wrong with it."""
    planes: MaskPlanes
    """The meaning of the mask's bits."""
    variance: NDArray[np.float32] | None = field(default=None, repr=False)
    """(ny, nx) float32, in ``unit`` squared; NaN where unknown. None where the file has none."""
    unit: str = "electron"
    """Unit of the pixels: "electron", "adu" or "nJy"; others as the file names them."""
    wcs: WCS | None = None
    """World coordinates of the array's own pixels (pixel (0, 0) is ``image[0, 0]``)."""
    psf: Any = None
    """Point-spread function, an object of `skysub.psf`, or None."""
    photo_calib: float | None = None
    """nJy per unit of the pixels; 1 for an image in nJy; None where unknown."""
    visit: int
    detector: int
    band: str = ""
    """Name of the filter band ("u", "g", "r", ...); empty where unknown."""
    exposure_time: float = float("nan")
    """Seconds; NaN where unknown."""
    gain: float | None = None
    """Electrons per adu; None where unknown or where it varies over the detector."""
    read_noise: float | None = None
    """Electrons; None where unknown."""
    xy0: tuple[int, int] = (0, 0)
    """(x, y) of ``image[0, 0]`` in the coordinates of the whole detector, pixel."""
    amplifiers: tuple[Amplifier, ...] = ()
    """Which pixels which amplifier read, in the image's own pixels (`skysub.Amplifier`: rows y before columns
    x); together they tile the image. Empty where unknown: the detector then counts as one."""
    header: Header | None = field(default=None, repr=False)
    """Header of the exposure as the file has it, for what has no field here."""
    path: str = ""
    """The file it was read from; empty where it was made in memory."""
    notes: tuple[str, ...] = ()
    """What was mended on reading, or must be known of the pixels, a sentence each; written as HISTORY."""

    def __post_init__(self) -> None:
        if self.image.ndim != 2:
            raise InvalidImageError(f"{self._who()}: the image must be (ny, nx), not {self.image.shape}")
        for name, kind in (("image", "f"), ("mask", "i"), ("variance", "f")):
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != self.image.shape:
                raise InvalidImageError(
                    f"{self._who()}: {name} has the shape {array.shape}, the image {self.image.shape}"
                )
            right = (np.float32,) if kind == "f" else (np.int32, np.int64)
            if array.dtype.type not in right or not array.dtype.isnative:
                names = " or ".join(np.dtype(t).name for t in right)
                raise InvalidImageError(
                    f"{self._who()}: {name} must be {names} in native byte order, not {array.dtype!r}"
                )

        if self.amplifiers:
            from skysub.background.amplifiers import do_tile

            if not do_tile(self.amplifiers, self.shape):
                boxes = ", ".join(f"{each.name} {each.section}" for each in self.amplifiers)
                raise InvalidImageError(
                    f"{self._who()}: the amplifiers {boxes} do not tile an image of {self.shape[0]} rows and "
                    f"{self.shape[1]} columns: each pixel must belong to one, and each have its own name; "
                    "leave them out where unknown"
                )

    def __repr__(self) -> str:
        parts = [f"visit={self.visit}", f"detector={self.detector}", f"band={self.band!r}"]
        parts += [f"shape={self.shape}", f"unit={self.unit!r}", f"planes={' '.join(self.planes.names)}"]
        known = [n for n in ("variance", "wcs", "psf", "photo_calib") if getattr(self, n) is not None]
        parts.append(f"known={' '.join(known) or 'pixels alone'}")
        if self.amplifiers:
            parts.append(f"amplifiers={len(self.amplifiers)}")
        if self.path:
            parts.append(f"path={self.path!r}")
        if self.notes:
            parts.append(f"notes={len(self.notes)}")
        return f"VisitImage({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from skysub.html import card, picture, thumbnail

        known = [n for n in ("variance", "wcs", "psf", "photo_calib") if getattr(self, n) is not None]
        rows = {
            "visit, detector": f"{self.visit}, {self.detector}",
            "band": self.band or "unknown",
            "shape": f"{self.shape[0]} x {self.shape[1]} pixels",
            "unit": self.unit,
            "mask planes": " ".join(self.planes.names),
            "known": " ".join(known) or "pixels alone",
        }
        rows |= {"file": self.path} if self.path else {}
        rows |= {"note": " ".join(self.notes)} if self.notes else {}
        return card("VisitImage", rows, [picture(thumbnail(self.image), "the image")])

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx), pixel."""
        return self.image.shape[0], self.image.shape[1]

    def bits(self, *names: str) -> int:
        """Value to test the mask against for any of the named planes.

        Planes that only files of another layout have are passed over (`skysub.visit.plane_table`).

        Raises
        ------
        MaskPlaneError
            When neither this image nor any layout has a plane of a name, with the nearest one.
        """
        return self.planes.bits_where_present(*names)

    def replace(self, **changes: Any) -> VisitImage:
        """Return the same visit image with some fields changed; arrays that are not changed are shared."""
        return dataclasses.replace(self, **changes)

    def to_ccddata(self, *, ignore: tuple[str, ...] = ("DETECTED", "DETECTED_NEGATIVE")) -> CCDData:
        """As astropy's CCDData, whose mask is one bool per pixel.

        Parameters
        ----------
        ignore
            Planes that do not mask a pixel; by default those that mark sources.

        Returns
        -------
        ccd
            ``data``, ``mask`` (True: any plane but the ignored ones is set), ``uncertainty`` (variance),
            ``unit``, ``wcs`` and ``meta``; pixels are shared, not copied.

        Raises
        ------
        MaskPlaneError
            When a name in ``ignore`` is no plane of any layout.
        """
        from skysub.visit.ccddata import as_ccddata

        self.bits(*ignore)
        masking = self.bits(*(name for name in self.planes if name not in ignore))
        cards: dict[str, int | str] = {"VISIT": self.visit, "DETECTOR": self.detector}
        if self.band:
            cards["BAND"] = self.band
        return as_ccddata(
            self.image,
            (self.mask & masking) != 0,
            variance=self.variance,
            unit=self.unit,
            wcs=self.wcs,
            header=self.header,
            cards=cards,
        )

    def _who(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}visit {self.visit} detector {self.detector}"
