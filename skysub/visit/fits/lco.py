"""Las Cumbres Observatory: an image with the mask that its pipeline, banzai, writes beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skysub.visit.fits.layout import Layout
from skysub.visit.fits.plain import masked_image, one_header

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
    return [one_header(file, ingest, layout=_NAME, identity=_identity)]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    return masked_image(file, header, ingest, bits=_BITS)


def _identity(cards: Cards) -> tuple[int | None, int | None]:
    """LCO numbers exposures by camera and day, and names cameras by two letters and a number."""
    day, frame, camera = cards.get("DAY-OBS"), cards.get("FRAMENUM"), cards.get("INSTRUME")
    named = re.fullmatch(r"[a-z]+(\d+)", camera) if isinstance(camera, str) else None
    dated = isinstance(day, str) and re.fullmatch(r"\d{8}", day) and type(frame) is int and frame >= 0
    if named is None or not dated:
        return None, None
    return int(day) * 10000 + frame, int(named[1])


LAYOUT = Layout(_NAME, _recognise, _headers, _read)
