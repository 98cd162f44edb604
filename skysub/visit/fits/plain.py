"""Plain FITS: one image, alone or with a bad-pixel mask (BPM) as observatories' pipelines write it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skysub.errors import AmbiguousImageError
from skysub.visit.fits.assemble import check_shape, finish, noise_model, nothing_known, visit_header
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.ingest import by_hand
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.file import FitsFile, Hdu
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["NAME", "headers", "read", "recognise"]

NAME = "plain FITS"

_MASK_NAMES = ("BPM", "MASK", "DQ")
_NOISE_NAMES = ("VARIANCE", "VAR", "WEIGHT", "WHT", "IVAR", "ERR", "ERROR", "UNCERT", "SIGMA")
_LCO_BITS = {2: "SAT", 8: "CR"}
"""What LCO's pipeline adds to the camera's own mask of bad pixels (bpm.py and cosmic.py of banzai)."""


def recognise(file: FitsFile) -> bool:
    """Whether any HDU holds an image."""
    return any(hdu.is_image for hdu in file.hdus)


def headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header: the file's one image.

    Raises
    ------
    LayoutError
        When there are several images to choose from, or visit or detector are unknown.
    """
    image, _ = _image_and_mask(file)
    cards = image.cards.over(file.primary.cards) if image.index else image.cards
    visit, detector = _lco_identity(cards)
    return [
        visit_header(
            file,
            ingest,
            layout=NAME,
            image=image,
            planes=AFW_PLANES,
            cards=cards,
            visit=("VISIT", "EXPID", "EXPNUM"),
            detector=("DETECTOR", "DETNUM", "CCDNUM", "CCDID", "CHIPID"),
            known_visit=visit,
            known_detector=detector,
        )
    ]


def read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read image and mask; variance from gain and read noise where both are known.

    Raises
    ------
    LayoutError
        When the mask has another shape than the image.
    """
    hdu, bad = _image_and_mask(file)
    image = read_float(file, hdu, verify=ingest.verify)
    mask = nothing_known(image)
    if bad is not None:
        check_shape(header, bad)
        values = read_integer(file, bad, verify=ingest.verify)
        lco = header.cards.get("ORIGIN") == "LCOGT"
        known = sum(_LCO_BITS) if lco else 0
        mask[(values & ~known) != 0] |= AFW_PLANES.bits("BAD")
        for bit, name in _LCO_BITS.items() if lco else ():
            mask[(values & bit) != 0] |= AFW_PLANES.bits(name)
    return finish(header, ingest, image=image, mask=mask, variance=noise_model(header, image))


def _image_and_mask(file: FitsFile) -> tuple[Hdu, Hdu | None]:
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


def _lco_identity(cards: Cards) -> tuple[int | None, int | None]:
    """LCO numbers exposures by camera and day, and names cameras by two letters and a number."""
    day, frame, camera = cards.get("DAY-OBS"), cards.get("FRAMENUM"), cards.get("INSTRUME")
    named = re.fullmatch(r"[a-z]+(\d+)", camera) if isinstance(camera, str) else None
    dated = isinstance(day, str) and re.fullmatch(r"\d{8}", day) and type(frame) is int and frame >= 0
    if cards.get("ORIGIN") != "LCOGT" or named is None or not dated:
        return None, None
    return int(day) * 10000 + frame, int(named[1])
