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
    from collections.abc import Callable, Mapping

    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.file import FitsFile, Hdu
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["LAYOUT", "masked_image", "one_header"]

_NAME = "plain FITS"

_MASK_NAMES = ("BPM", "MASK", "DQ")
_NOISE_NAMES = ("VARIANCE", "VAR", "WEIGHT", "WHT", "IVAR", "ERR", "ERROR", "UNCERT", "SIGMA")


def _recognise(file: FitsFile) -> bool:
    """Whether any HDU holds an image."""
    return any(hdu.is_image for hdu in file.hdus)


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    return [one_header(file, ingest, layout=_NAME)]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    return masked_image(file, header, ingest, bits={})


def one_header(
    file: FitsFile,
    ingest: IngestMap,
    *,
    layout: str,
    identity: Callable[[Cards], tuple[int | None, int | None]] = lambda _: (None, None),
) -> VisitHeader:
    """Header of the file's one image.

    Parameters
    ----------
    identity
        Visit and detector of cards that have no keyword for them; None where it does not know.

    Raises
    ------
    LayoutError
        When there are several images to choose from, or visit or detector are unknown.
    """
    image, _ = _image_and_mask(file)
    cards = image.cards.over(file.primary.cards) if image.index else image.cards
    visit, detector = identity(cards)
    return visit_header(
        file,
        ingest,
        layout=layout,
        image=image,
        planes=AFW_PLANES,
        cards=cards,
        visit=("VISIT", "EXPID", "EXPNUM"),
        detector=("DETECTOR", "DETNUM", "CCDNUM", "CCDID", "CHIPID"),
        known_visit=visit,
        known_detector=detector,
    )


def masked_image(
    file: FitsFile, header: VisitHeader, ingest: IngestMap, *, bits: Mapping[int, str]
) -> VisitImage:
    """Read image and mask; variance from gain and read noise where both are known.

    Parameters
    ----------
    bits
        Planes by their bits in the mask as it is stored; any other bit is BAD.

    Raises
    ------
    LayoutError
        When the mask has another shape than the image.
    """
    hdu, stored = _image_and_mask(file)
    image = read_float(file, hdu, verify=ingest.verify)
    mask = nothing_known(image)
    if stored is not None:
        check_shape(header, stored)
        values = read_integer(file, stored, verify=ingest.verify)
        mask[(values & ~sum(bits)) != 0] |= AFW_PLANES.bits("BAD")
        for bit, name in bits.items():
            mask[(values & bit) != 0] |= AFW_PLANES.bits(name)
    return finish(header, ingest, image=image, mask=mask, variance=noise_model(header, image))


def _image_and_mask(file: FitsFile) -> tuple[Hdu, Hdu | None]:
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
