"""From HDUs to a visit image: the steps that all layouts share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import LayoutError
from skysub.visit.amplifiers import find_amplifiers
from skysub.visit.fits.claims import check_pixels
from skysub.visit.fits.header import Lookup, VisitHeader, find_origin, find_wcs, same_as_square
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.image import VisitImage
from skysub.visit.ingest import by_hand
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.file import FitsFile, Hdu
    from skysub.visit.fits.header import Window
    from skysub.visit.ingest import IngestMap
    from skysub.visit.planes import MaskPlanes

__all__ = [
    "PLANES_PER_HDU",
    "assemble",
    "check_shape",
    "check_variance",
    "finish",
    "lost_variance",
    "noise_model",
    "nothing_known",
    "visit_header",
    "weight_to_variance",
]


_ROWS = 256
"""Rows that are looked at together."""
PLANES_PER_HDU = 31
"""Bits of one mask HDU that lsst.images uses; further planes go into a further HDU."""


def visit_header(
    file: FitsFile,
    ingest: IngestMap,
    *,
    layout: str,
    image: Hdu,
    planes: MaskPlanes,
    cards: Cards,
    visit: tuple[str, ...],
    detector: tuple[str, ...],
    known_visit: int | None = None,
    known_detector: int | None = None,
    known_band: str = "",
    known_exposure_time: Any = None,
    gain_keywords: tuple[str, ...] = ("GAIN",),
    read_noise_keywords: tuple[str, ...] = ("RDNOISE", "READNOIS"),
    default_unit: str = "adu",
) -> VisitHeader:
    """Header of the image in one HDU; ``visit`` and ``detector`` are the keywords to look at.

    Raises
    ------
    LayoutError
        When the HDU is no image, or visit, detector, unit or origin cannot be known.
    """
    if not image.is_image or 0 in image.shape:
        raise LayoutError(f"{file.path}: extension {image.index} {image.name} is no image of two axes")
    check_pixels(image.shape, f"{file.path}: extension {image.index} {image.name}".rstrip())
    lookup = Lookup(file.path, cards, ingest)
    exposure_time = lookup.number("exposure_time", "EXPTIME", "EXPOSURE", "SHUTTIME")
    if exposure_time is None and isinstance(known_exposure_time, (int, float)) and known_exposure_time >= 0:
        exposure_time = float(known_exposure_time)
    return VisitHeader(
        path=file.path,
        layout=layout,
        extension=image.index,
        visit=lookup.whole("visit", *visit, default=known_visit),
        detector=lookup.whole("detector", *detector, default=known_detector),
        band=lookup.band("BAND", "FILTER", "FILTBAND", known=known_band),
        shape=(image.shape[0], image.shape[1]),
        unit=lookup.unit(image.cards, default=default_unit),
        exposure_time=math.nan if exposure_time is None else exposure_time,
        gain=lookup.number("gain", *gain_keywords),
        read_noise=lookup.number("read_noise", *read_noise_keywords),
        xy0=find_origin(file.path, image.cards),
        planes=planes,
        cards=cards,
    )


def assemble(
    file: FitsFile, header: VisitHeader, ingest: IngestMap, *, masks: list[Hdu], variance: Hdu, **more: Any
) -> VisitImage:
    """Read the planes of an LSST layout; several masks where one integer is too small for all.

    Raises
    ------
    LayoutError
        When planes disagree in shape or unit, the mask has bits without a name, or the variance is bad.
    """
    for hdu in (*masks, variance):
        check_shape(header, hdu)
    stated = variance.cards.get("BUNIT")
    if isinstance(stated, str) and ingest.unit is None and not same_as_square(stated, header.unit):
        raise LayoutError(
            f"{header.who}: the unit of the variance, {stated!r}, is not the square of the image's, "
            f"{header.unit!r}; is it a standard deviation or a weight?"
        )
    image = read_float(file, file.hdus[header.extension], verify=ingest.verify)
    mask = read_integer(file, masks[0], verify=ingest.verify)
    for index, hdu in enumerate(masks[1:], 1):
        mask = mask | (
            read_integer(file, hdu, verify=ingest.verify).astype(np.int64) << PLANES_PER_HDU * index
        )
    known = variance.cards.get("VARKNOWN") is not False
    values = read_float(file, variance, verify=ingest.verify) if known else None
    return finish(header, ingest, image=image, mask=mask, variance=values, **more)


def finish(
    header: VisitHeader,
    ingest: IngestMap,
    *,
    image: NDArray[np.float32],
    mask: NDArray[np.signedinteger],
    variance: NDArray[np.float32] | None,
    notes: tuple[str, ...] = (),
    **more: Any,
) -> VisitImage:
    """Make the visit image of its arrays, once they hold nothing that would mislead.

    A few unmasked pixels without a positive finite variance are masked, in place, and noted.

    Raises
    ------
    LayoutError
        When the mask has bits without a name, more than a few such pixels have no variance, or amplifiers
        that the user has given do not tile the image.
    """
    from skysub.visit.fits import kernels

    mask = _named_bits(header, mask)
    planes = header.planes
    if variance is not None:
        window = header.rows
        own = slice(None) if window is None else _within(window)
        unmasked, bad, place = kernels.count_bad_variance(variance[own].reshape(-1), mask[own].reshape(-1))
        first = None
        if bad:
            y, x = divmod(int(place), header.shape[1])
            first = (y + (0 if window is None else window.own.start), x, float(variance[own][y, x]))
        if window is None:
            check_variance(header, ingest, unmasked=int(unmasked), bad=int(bad), first=first)
        else:
            # whether that is too many all rows together tell
            window.unmasked, window.without_variance, window.first = int(unmasked), int(bad), first
        if bad or window is not None:
            planes = planes.with_plane("BAD", "NO_DATA")
            lost = ~((variance > 0) & (variance < np.inf)) & (mask == 0)
            mask = mask.astype(planes.dtype, copy=False)
            mask[lost] |= mask.dtype.type(planes.bits("BAD", "NO_DATA"))
            variance[lost] = np.nan
            notes += (lost_variance(int(bad), int(unmasked)),) if window is None else ()
    fields: dict[str, Any] = {"photo_calib": 1.0 if header.unit == "nJy" else None}
    if not header.bare:
        fields |= {"wcs": find_wcs(header.who, header.cards), "header": header.cards.header()}
    return VisitImage(
        image=image,
        mask=mask,
        planes=planes,
        variance=variance,
        unit=header.unit,
        visit=header.visit,
        detector=header.detector,
        band=header.band,
        exposure_time=header.exposure_time,
        gain=header.gain,
        read_noise=header.read_noise,
        xy0=header.xy0,
        amplifiers=() if header.rows is not None else find_amplifiers(header, ingest.amplifiers),
        path=header.path,
        notes=notes,
        **(fields | more),
    )


def check_variance(
    header: VisitHeader,
    ingest: IngestMap,
    *,
    unmasked: int,
    bad: int,
    first: tuple[int, int, float] | None,
) -> None:
    """Refuse an image of which too many unmasked pixels have no variance; ``first``: y, x and what it has.

    Raises
    ------
    LayoutError
        When they are.
    """
    if first is not None and bad > ingest.bad_variance * unmasked:
        y, x, value = first
        raise LayoutError(
            f"{header.who}: {bad} of {unmasked} unmasked pixels have no positive finite variance, "
            f"the first {value} at x={x}, y={y}: is the variance what it should be? "
            f"If so, allow a larger part by {by_hand('bad_variance')}"
        )


def _within(window: Window) -> slice:
    return slice(window.own.start - window.rows.start, window.own.stop - window.rows.start)


def lost_variance(bad: int, unmasked: int) -> str:
    """What is noted of unmasked pixels without variance."""
    return f"{bad} of {unmasked} unmasked pixels had no positive finite variance: now BAD and NO_DATA"


def check_shape(header: VisitHeader, hdu: Hdu) -> None:
    """Refuse a plane whose shape is not the image's.

    Raises
    ------
    LayoutError
        When it is another, with both.
    """
    if hdu.shape != header.shape:
        raise LayoutError(
            f"{header.who}: extension {hdu.index} {hdu.name} has the shape {hdu.shape}, "
            f"the image {header.shape}"
        )


def nothing_known(image: NDArray[np.float32]) -> NDArray[np.int32]:
    """Mask of the afw planes for an image that comes without one: NO_DATA where it is not finite."""
    mask = np.zeros(image.shape, np.int32)
    for start in range(0, len(image), _ROWS):
        band = np.isfinite(image[start : start + _ROWS])
        if not band.all():
            mask[start : start + _ROWS][~band] = AFW_PLANES.bits("NO_DATA")
    return mask


def weight_to_variance(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Variance from inverse variance, in place; NaN where the weight is not a positive number."""
    with np.errstate(all="ignore"):
        weight[~(weight > 0)] = np.nan
        np.divide(np.float32(1), weight, out=weight)
        # a weight of infinity, or so small that its inverse is
        weight[~((weight > 0) & (weight < np.inf))] = np.nan
    return weight


def noise_model(header: VisitHeader, image: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Variance of photon and read noise, from gain and read noise; None where one is unknown.

    Photon noise is that of the pixel itself, so it only holds while the sky is in the image. NaN where
    the image is NaN.
    """
    if header.gain is None or header.read_noise is None or header.unit not in {"adu", "electron"}:
        return None
    gain = header.gain if header.unit == "adu" else 1.0
    if gain <= 0 or header.read_noise <= 0:
        return None
    variance: NDArray[np.float32] = np.maximum(image, np.float32(0))
    variance *= np.float32(1 / gain)
    variance += np.float32((header.read_noise / gain) ** 2)
    return variance


def _named_bits(header: VisitHeader, mask: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
    """Refuse a mask with set bits that no plane names; widen one whose sign bit is a plane."""
    from skysub.visit.fits import kernels

    union = int(kernels.union_of_bits(mask.reshape(-1))) & (2 ** (8 * mask.itemsize) - 1)
    unnamed = union & ~header.planes.bits(*header.planes)
    if unnamed:
        bits = ", ".join(str(bit) for bit in range(unnamed.bit_length()) if unnamed >> bit & 1)
        raise LayoutError(
            f"{header.who}: mask pixels have the bits {bits} set, which the header gives no plane to; "
            f"name them by {by_hand('image', 'mask', planes='{...}')}"
        )
    if mask.dtype == np.int32 and header.planes.dtype == np.int64:
        wide: NDArray[np.signedinteger] = mask.astype(np.int64) & 0xFFFFFFFF
        return wide
    return mask
