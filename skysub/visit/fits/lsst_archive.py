"""Write visit images as archives of lsst.images, by lsst.images itself (the extra ``lsst``)."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from skysub._version import __version__
from skysub.errors import ConfigError, InvalidImageError, MissingPackageError, VisitFileError, how_to_install
from skysub.visit.fits.write import Compression, described_plane

if TYPE_CHECKING:
    from skysub.visit.image import VisitImage

__all__ = ["write_lsst_images"]

_STAMP = 8.0
"""Half-width of the stamp of a Gaussian PSF, in its sigma."""
_ABOUT_PSF = (
    "Gaussian of the model's second moments in the middle of the detector; skysub export without --format "
    "writes the model itself"
)
_ABOUT_CAMERA = (
    "what skysub knows of a camera: places on the focal plane are pixels of this very detector, there are "
    "no amplifiers"
)


def write_lsst_images(
    visit_image: VisitImage, path: str | os.PathLike[str], *, compression: Compression = "lossless"
) -> Literal["VisitImage", "MaskedImage"]:
    """Write a file that ``lsst.images.VisitImage.read``, or at least ``MaskedImage.read``, opens.

    lsst.images asks more of a VisitImage than many files know: a unit, world coordinates, a filter and a PSF.
    Where one of them is missing the file holds a MaskedImage. Pixels, masks and variance have the same bits
    in either, but for ``"lossy16"``; a variance that is not known is NaN.

    The PSF is a Gaussian, as lsst.images has no kind that could hold a `skysub.psf.model.MoffatPsf`: its
    sigma is the determinant radius of the model in the middle of the detector. The metadata of the file say
    so.

    Parameters
    ----------
    visit_image
        What to write; with ``photo_calib``, the photometric scaling is a constant of nJy per unit.
    path
        Local path; a file there is replaced when the new one is complete.
    compression
        ``"lossless"`` (GZIP_2), ``"lossy16"`` (lsst.images' own lossy default), or ``"none"``.

    Returns
    -------
    str
        Which of the two was written.

    Raises
    ------
    MissingPackageError
        Without lsst.images, which needs Python 3.12.
    ConfigError
        When ``compression`` is none of these.
    InvalidImageError
        When lsst.images refuses the image.
    VisitFileError
        When the file cannot be written.
    """
    if compression not in get_args(Compression):
        raise ConfigError(
            f"compression must be one of {', '.join(get_args(Compression))}, not {compression!r}"
        )
    try:
        from lsst.images import fits
    except ImportError as error:
        raise MissingPackageError(
            f"lsst.images is needed to write its files, and Python 3.12 for it; {how_to_install('lsst')}"
        ) from error
    who = f"visit {visit_image.visit} detector {visit_image.detector}"
    try:
        made = _visit_image(visit_image) or _masked_image(visit_image, _projection(visit_image, None))
    except (TypeError, ValueError) as error:
        raise InvalidImageError(f"{who}: lsst.images cannot hold this image: {error}") from error
    options = _compression_options(compression)
    place = Path(path)
    # lsst.images writes no file that is there, and reads none that is not complete
    scratch = place.with_name(f".{place.name}.{os.getpid()}.fits")
    try:
        fits.write(made, str(scratch), compression_options=options, compression_seed=1)
        scratch.replace(place)
    except OSError as error:
        raise VisitFileError(f"{place}: cannot be written: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)
    return "VisitImage" if type(made).__name__ == "VisitImage" else "MaskedImage"


def _compression_options(compression: Compression) -> Any:
    from lsst.images.fits import FitsCompressionOptions

    lossless = FitsCompressionOptions.DEFAULT
    floats = {"lossless": lossless, "lossy16": FitsCompressionOptions.LOSSY, "none": None}[compression]
    return {"image": floats, "variance": floats, "mask": None if compression == "none" else lossless}


def _metadata(visit_image: VisitImage) -> dict[str, Any]:
    said: dict[str, Any] = {"skysub.version": __version__}
    said |= {f"skysub.note{number}": note for number, note in enumerate(visit_image.notes, 1)}
    return said


def _masked_image(visit_image: VisitImage, projection: Any) -> Any:
    from lsst.images import Image, MaskedImage

    x0, y0 = visit_image.xy0
    unit = _unit(visit_image)
    variance = visit_image.variance
    if variance is None:
        variance = np.full(visit_image.shape, np.nan, np.float32)
    return MaskedImage(
        Image(visit_image.image, yx0=(y0, x0), unit=unit),
        mask=_mask(visit_image),
        variance=Image(variance, yx0=(y0, x0), unit=None if unit is None else unit**2),
        sky_projection=projection,
        metadata=_metadata(visit_image),
    )


def _mask(visit_image: VisitImage) -> Any:
    from lsst.images import Mask, MaskPlane, MaskSchema

    x0, y0 = visit_image.xy0
    described = {name: described_plane(visit_image.planes, name) for name in visit_image.planes.names}
    mask = Mask(
        schema=MaskSchema([MaskPlane(name, text) for name, text in described.values()]),
        yx0=(y0, x0),
        shape=visit_image.shape,
    )
    for ours, (theirs, _) in described.items():
        mask.set(theirs, (visit_image.mask & visit_image.bits(ours)) != 0)
    return mask


def _unit(visit_image: VisitImage) -> Any:
    from astropy.units import Unit

    try:
        return Unit(visit_image.unit)
    except ValueError:
        return None


def _projection(visit_image: VisitImage, frame: Any) -> Any:
    from lsst.images import Box, GeneralFrame, SkyProjection

    if visit_image.wcs is None:
        return None
    from astropy.units import pix

    x0, y0 = visit_image.xy0
    ny, nx = visit_image.shape
    return SkyProjection.from_fits_wcs(
        visit_image.wcs,
        frame or GeneralFrame(unit=pix),
        pixel_bounds=Box.factory[y0 : y0 + ny, x0 : x0 + nx],
        x0=x0,
        y0=y0,
    )


def _visit_image(visit_image: VisitImage) -> Any | None:
    """Return lsst.images' VisitImage, or None where something that it needs is not known."""
    # of a MoffatPsf it is the determinant radius in the middle
    sigma = float(getattr(visit_image.psf, "sigma", math.nan))
    unit = _unit(visit_image)
    known = visit_image.wcs is not None and visit_image.band and unit is not None and math.isfinite(sigma)
    if not known:
        return None
    from lsst.images import VisitImage as LsstVisitImage
    from lsst.images.psfs import GaussianPointSpreadFunction

    detector = _detector(visit_image)
    plain = _masked_image(visit_image, _projection(visit_image, detector.frame))
    stamp = 2 * math.ceil(_STAMP * sigma) + 1
    about = {"skysub.psf": _ABOUT_PSF, "skysub.camera": _ABOUT_CAMERA}
    return LsstVisitImage(
        plain.image,
        mask=plain.mask,
        variance=plain.variance,
        obs_info=_observation(visit_image),
        photometric_scaling=_scaling(visit_image),
        psf=GaussianPointSpreadFunction(sigma, bounds=plain.bbox, stamp_size=stamp),
        detector=detector,
        band=visit_image.band,
        metadata=_metadata(visit_image) | about,
    )


def _scaling(visit_image: VisitImage) -> Any:
    """Photometric scaling of lsst.images: nJy per count, applied already where the image is in nJy."""
    if visit_image.photo_calib is None or visit_image.unit == "nJy":
        return None
    from astropy.units import Unit
    from lsst.images import Box
    from lsst.images.fields import ChebyshevField

    x0, y0 = visit_image.xy0
    ny, nx = visit_image.shape
    return ChebyshevField(
        Box.factory[y0 : y0 + ny, x0 : x0 + nx],
        np.array([[visit_image.photo_calib]]),
        unit=Unit("nJy") / Unit(visit_image.unit),
    )


def _instrument(visit_image: VisitImage) -> str:
    header = visit_image.header
    return str((header.get("INSTRUME") if header is not None else None) or "unknown").strip()


def _observation(visit_image: VisitImage) -> Any:
    from astro_metadata_translator import makeObservationInfo
    from astropy.units import second

    header = visit_image.header
    stated = header.get("FILTER") if header is not None else None
    known: dict[str, Any] = {
        "instrument": _instrument(visit_image),
        "visit_id": visit_image.visit,
        "detector_num": visit_image.detector,
        "physical_filter": str(stated).strip()
        if isinstance(stated, str) and stated.strip()
        else visit_image.band,
    }
    if math.isfinite(visit_image.exposure_time):
        known["exposure_time"] = visit_image.exposure_time * second
    return makeObservationInfo(**known)


def _detector(visit_image: VisitImage) -> Any:
    """Return the least that lsst.images calls a detector: its pixels are the focal plane."""
    from astropy.wcs.utils import proj_plane_pixel_scales
    from lsst.images import Box
    from lsst.images.cameras import (
        CameraFrameSetSerializationModel,
        Detector,
        DetectorAttributes,
        DetectorType,
        Orientation,
    )
    from starlink import Ast

    x0, y0 = visit_image.xy0
    ny, nx = visit_image.shape
    number = visit_image.detector
    scale = math.radians(float(np.mean(proj_plane_pixel_scales(visit_image.wcs))))
    pixels = "Unit(1)=pix,Unit(2)=pix"
    corners = f"Bottom(1)={x0},Top(1)={x0 + nx},Bottom(2)={y0},Top(2)={y0 + ny}"
    frames = Ast.FrameSet(Ast.Frame(2, f"Ident=FOCAL_PLANE,{pixels}"))
    frames.addframe(1, Ast.ZoomMap(2, scale), Ast.Frame(2, "Ident=FIELD_ANGLE,Unit(1)=rad,Unit(2)=rad"))
    frames.addframe(1, Ast.UnitMap(2), Ast.Frame(2, f"Ident=DETECTOR_{number},{pixels},{corners}"))
    camera = CameraFrameSetSerializationModel(instrument=_instrument(visit_image), ast=str(frames))
    attributes = DetectorAttributes(
        name=str(number),
        id=number,
        type=DetectorType.SCIENCE,
        serial="unknown",
        bbox=Box.factory[y0 : y0 + ny, x0 : x0 + nx],
        orientation=Orientation(focal_plane_x=0.0, focal_plane_y=0.0, focal_plane_z=0.0),
        pixel_size=1.0,
        physical_type="unknown",
    )
    # the archive is asked for nothing by a frame set
    return Detector(attributes, [], camera.deserialize(None), visit=visit_image.visit)
