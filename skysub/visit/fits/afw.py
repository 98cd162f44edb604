"""LSST afw exposures: IMAGE, MASK and VARIANCE, planes named by MP_ cards; also what this package writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skysub.errors import InvalidImageError, LayoutError
from skysub.visit.fits.assemble import assemble, visit_header
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.psf import find_psf
from skysub.visit.ingest import by_hand
from skysub.visit.planes import MaskPlanes

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.file import FitsFile, Hdu
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["LAYOUT", "extras", "only", "planes_of_cards"]

_NAME = "LSST afw exposure"


def _recognise(file: FitsFile) -> bool:
    """Whether afw's own cards, or two planes of its three, say that this is an exposure."""
    exposure = any(key in file.primary.cards for key in ("EXPINFO_V", "AR_HDU"))
    return exposure or sum(bool(file.named(name)) for name in ("IMAGE", "MASK", "VARIANCE")) >= 2


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header: an exposure holds one detector.

    Raises
    ------
    LayoutError
        When there is no MASK or VARIANCE, a plane has no bit, or visit or detector are unknown.
    """
    image = only(file, "IMAGE")
    mask = only(file, "MASK")
    only(file, "VARIANCE")
    return [
        visit_header(
            file,
            ingest,
            layout=_NAME,
            image=image,
            planes=planes_of_cards(f"{file.path}: extension {mask.index} MASK", mask.cards),
            cards=file.primary.cards.over(image.cards),
            visit=("VISIT", "EXPID", "VISITID"),
            detector=("DETECTOR", "DETNUM", "CCDNUM"),
        )
    ]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read image, mask and variance, and what `extras` finds.

    Raises
    ------
    LayoutError
        When planes disagree, or the variance or the PSF is bad.
    """
    mask, variance = only(file, "MASK"), only(file, "VARIANCE")
    return assemble(file, header, ingest, masks=[mask], variance=variance, **extras(file, header))


def extras(file: FitsFile, header: VisitHeader) -> dict[str, Any]:
    """Fields of a visit image that this package's own writer keeps: calibration and PSF.

    Raises
    ------
    LayoutError
        When the PSF that the file has is damaged or of a later version.
    """
    calibration = header.cards.get("PHOTCAL")
    good = isinstance(calibration, (int, float)) and not isinstance(calibration, bool) and calibration > 0
    psf = {"psf": find_psf(file, header.cards)}
    return psf | ({"photo_calib": float(calibration)} if good else {})


def only(file: FitsFile, name: str) -> Hdu:
    """The one HDU of a name.

    Raises
    ------
    LayoutError
        When there is none, or several.
    """
    found = file.named(name)
    if len(found) == 1:
        return found[0]
    have = ", ".join(hdu.name for hdu in file.hdus[1:] if hdu.name) or "none with a name"
    what = f"there are {len(found)} {name} extensions" if found else f"there is no {name} extension"
    raise LayoutError(
        f"{file.path}: this looks like an LSST exposure, but {what} (extensions: {have}); "
        f"say what is what by {by_hand('image', 'mask', 'variance')}"
    )


def planes_of_cards(where: str, cards: Cards) -> MaskPlanes:
    """Planes that MP_<NAME> cards give.

    Raises
    ------
    LayoutError
        When there are none, or one has no bit of its own.
    """
    found = {keyword[3:]: cards.get(keyword) for keyword in cards.keywords("MP_")}
    if not found:
        raise LayoutError(
            f"{where}: no MP_ card names a mask plane; "
            f"give them by {by_hand('image', 'mask', planes='{...}')}"
        )
    for name, bit in found.items():
        if isinstance(bit, bool) or not isinstance(bit, int) or not 0 <= bit <= 31:
            shown = getattr(bit, "text", bit)
            raise LayoutError(
                f"{where}: MP_{name} is {shown!r}, where the bit of the plane should stand (0 to 31)"
            )
    try:
        return MaskPlanes(found)
    except InvalidImageError as error:
        raise LayoutError(f"{where}: {error}") from error


LAYOUT = Layout(_NAME, _recognise, _headers, _read)
