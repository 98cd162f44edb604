"""Whether an image's sky has been subtracted already, as far as its header says so."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards

__all__ = ["SKY_CARD", "sky_is_gone"]

SKY_CARD = "SKYSUB"
"""Card of files that this package writes: T where their sky has been subtracted."""

_SAYS_SO = re.compile(
    r"(SKY_?SUB(TR?|BED)?|SUB_?SKY|(BACK|BKGD?|BKGR|BG|BGD)_?SUB(TR?)?|SUB_?(BACK|BKG|BG)|"
    r"S_BKDSUB|S_SKYSUB|DESSKYSB)$"
)
"""Cards of this package, IRAF, SWarp, THELI, DES, JWST and others that say whether the sky was subtracted."""
_NO = {
    "", "0", "F", "FALSE", "N", "NO", "NONE", "N/A", "NA", "NOT", "OFF", "OMIT", "OMITTED", "SKIP", "SKIPPED",
    "INCOMPLETE", "PERFORM", "UNKNOWN", "NOT DONE",
}  # fmt: skip
"""Values that say that it was not (PERFORM is a plan)."""
_FAR_BELOW = 0.25
"""Median of the pixels, in units of the number in such a card, below which that was subtracted."""
_HISTORY = re.compile(
    r"\b(sky|background)( (level|model))?( (was|has been|is))?[ -](subtracted|removed)\b", re.IGNORECASE
)
_NOT_IN_HISTORY = re.compile(r"\b(not|no|without|to be|before)\b", re.IGNORECASE)


def sky_is_gone(cards: Cards, *, layout: str = "", level: float = math.nan) -> str:
    """Why an image's sky must be taken to have been subtracted; empty where nothing says so.

    Looked at are cards that say it in so many words, LSST's BGMEAN and BUNIT of a calibrated visit image, the
    schema of lsst.images, SDSS's corrected frames, JWST's and Hubble's cards, and HISTORY.

    Parameters
    ----------
    cards
        Of the image and of what it inherits from.
    layout
        Name of the layout that the file was recognised as.
    level
        Median of the pixels. A number in such a card may be the sky that was subtracted or, as in DECam's
        files, one that was not: it was if the pixels lie far below it.
    """
    for keyword in cards.keywords():
        value = cards.get(keyword)
        if not _SAYS_SO.match(keyword):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value != 1:
            if abs(level) < _FAR_BELOW * abs(value):
                return f"{keyword} = {value:g}, and the median of the pixels is {level:.4g}"
        elif _is_yes(value):
            return f"{keyword} = {_shown(value)}"
    if layout == "SDSS frame":
        return "an SDSS corrected frame, from which SDSS has subtracted its model of the sky"
    # AstroDrizzle leaves the sky in *_flt, where it notes it as well, and takes it off in *_drz
    if cards.get("DRIZCORR") == "COMPLETE" and "NDRIZIM" in cards and cards.get("MDRIZSKY"):
        return f"MDRIZSKY = {_shown(cards.get('MDRIZSKY'))} in a drizzled image"
    if "BGMEAN" in cards and "BGVAR" in cards:
        return "BGMEAN and BGVAR, which LSST writes once the background is subtracted"
    model = cards.get("DATAMODL")
    if isinstance(model, str) and "visit_image" in model.lower().replace("-", "_"):
        return f"DATAMODL = {_shown(model)}, LSST's visit images, whose sky is subtracted"
    unit = cards.get("BUNIT")
    lsst = layout.startswith(("LSST", "lsst")) or "EXPINFO_V" in cards
    if lsst and isinstance(unit, str) and unit.strip().lower() == "njy":
        return "BUNIT = 'nJy' of an LSST exposure: calibrated visit images have no sky"
    for card in cards:
        told = card.startswith(("HISTORY", "COMMENT")) and _HISTORY.search(card)
        if told and not _NOT_IN_HISTORY.search(card):
            return f"HISTORY: {card[8:].strip()}"
    return ""


def _is_yes(value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value == 1
    text = getattr(value, "text", value)
    return isinstance(text, str) and text.strip().upper() not in _NO


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return repr(getattr(value, "text", value))
