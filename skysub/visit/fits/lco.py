"""Las Cumbres Observatory: an image with the mask that its pipeline, banzai, writes beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skysub.visit.fits.assemble import finish, noise_model, nothing_known, visit_header
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.pixels import read_float
from skysub.visit.fits.plain import DETECTOR_KEYWORDS, VISIT_KEYWORDS, image_and_mask, stored_mask
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["LAYOUT"]

_NAME = "LCO frame"

_BITS = {2: "SAT", 8: "CR"}
"""What the pipeline adds to the camera's own mask of bad pixels (bpm.py and cosmic.py of banzai)."""


def _recognise(file: FitsFile) -> bool:
    return any(
        hdu.is_image and hdu.cards.over(file.primary.cards).get("ORIGIN") == "LCOGT" for hdu in file.hdus
    )


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    image, _ = image_and_mask(file)
    cards = image.cards.over(file.primary.cards) if image.index else image.cards
    visit, detector = _identity(cards)
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
            known_visit=visit,
            known_detector=detector,
        )
    ]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read image and mask; variance from gain and read noise where both are known."""
    hdu, bad = image_and_mask(file)
    image = read_float(file, hdu, verify=ingest.verify)
    mask = nothing_known(image)
    if bad is not None:
        values = stored_mask(file, header, bad, verify=ingest.verify)
        mask[(values & ~sum(_BITS)) != 0] |= AFW_PLANES.bits("BAD")
        for bit, name in _BITS.items():
            mask[(values & bit) != 0] |= AFW_PLANES.bits(name)
    return finish(header, ingest, image=image, mask=mask, variance=noise_model(header, image))


def _identity(cards: Cards) -> tuple[int | None, int | None]:
    """LCO numbers exposures by camera and day, and names cameras by two letters and a number."""
    day, frame, camera = cards.get("DAY-OBS"), cards.get("FRAMENUM"), cards.get("INSTRUME")
    named = re.fullmatch(r"[a-z]+(\d+)", camera) if isinstance(camera, str) else None
    dated = isinstance(day, str) and re.fullmatch(r"\d{8}", day) and type(frame) is int and frame >= 0
    if named is None or not dated:
        return None, None
    return int(day) * 10000 + frame, int(named[1])


LAYOUT = Layout(_NAME, _recognise, _headers, _read)
