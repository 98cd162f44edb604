"""Plain FITS: one image, alone or with a bad-pixel mask (BPM) as observatories' pipelines write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.errors import AmbiguousImageError
from skysub.visit.fits.assemble import check_shape, finish, noise_model, nothing_known, visit_header
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.ingest import by_hand
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile, Hdu
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["DETECTOR_KEYWORDS", "LAYOUT", "VISIT_KEYWORDS", "image_and_mask", "stored_mask"]

_NAME = "plain FITS"

_MASK_NAMES = ("BPM", "MASK", "DQ")
_NOISE_NAMES = ("VARIANCE", "VAR", "WEIGHT", "WHT", "IVAR", "ERR", "ERROR", "UNCERT", "SIGMA")
VISIT_KEYWORDS = ("VISIT", "EXPID", "EXPNUM")
DETECTOR_KEYWORDS = ("DETECTOR", "DETNUM", "CCDNUM", "CCDID", "CHIPID")


def _recognise(file: FitsFile) -> bool:
    """Whether any HDU holds an image."""
    return any(hdu.is_image for hdu in file.hdus)


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header: the file's one image.

    Raises
    ------
    LayoutError
        When there are several images to choose from, or visit or detector are unknown.
    """
    image, _ = image_and_mask(file)
    cards = image.cards.over(file.primary.cards) if image.index else image.cards
    return [
        visit_header(
            file,
            ingest,
            layout=_NAME,
            image=image,
            planes=AFW_PLANES,
            cards=cards,
            visit=VISIT_KEYWORDS,
            detector=DETECTOR_KEYWORDS,
        )
    ]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read image and mask; variance from gain and read noise where both are known.

    Raises
    ------
    LayoutError
        When the mask has another shape than the image.
    """
    hdu, bad = image_and_mask(file)
    image = read_float(file, hdu, verify=ingest.verify)
    mask = nothing_known(image)
    if bad is not None:
        mask[stored_mask(file, header, bad, verify=ingest.verify) != 0] |= AFW_PLANES.bits("BAD")
    return finish(header, ingest, image=image, mask=mask, variance=noise_model(header, image))


def stored_mask(file: FitsFile, header: VisitHeader, hdu: Hdu, *, verify: bool) -> NDArray[np.signedinteger]:
    """Mask as it is stored; it raises `LayoutError` when it has another shape than the image."""
    check_shape(header, hdu)
    return read_integer(file, hdu, verify=verify)


def image_and_mask(file: FitsFile) -> tuple[Hdu, Hdu | None]:
    """The one image and, where there is one, its mask; `AmbiguousImageError` where it is not known which."""
    images = [hdu for hdu in file.hdus if hdu.is_image]
    masks = [hdu for hdu in images if hdu.name in _MASK_NAMES]
    images = [hdu for hdu in images if hdu.name not in (*_MASK_NAMES, *_NOISE_NAMES)]
    named = [hdu for hdu in images if hdu.name in {"SCI", "IMAGE"}]
    chosen = images if len(images) == 1 else named
    if len(chosen) != 1 or len(masks) > 1:
        have = ", ".join(f"{hdu.index} {hdu.name or '(no name)'}" for hdu in file.hdus if hdu.is_image)
        raise AmbiguousImageError(
            f"{file.path}: this is no layout that is known, and it is not plain which image is meant "
            f"(images in: {have}); say so by {by_hand('image')}",
            tuple(hdu.index for hdu in images),
        )
    return chosen[0], masks[0] if masks else None


LAYOUT = Layout(_NAME, _recognise, _headers, _read)
