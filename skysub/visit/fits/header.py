"""What headers say about a visit: identity, unit, origin, world coordinates; read without pixels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from skysub.errors import LayoutError, UnknownEntryError
from skysub.text import printable
from skysub.visit.fits.cards import Cards, Malformed
from skysub.visit.ingest import by_hand

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from skysub.visit.ingest import IngestMap
    from skysub.visit.planes import MaskPlanes

__all__ = [
    "Lookup",
    "VisitHeader",
    "Window",
    "find_origin",
    "find_wcs",
    "known_unit",
    "same_as_square",
    "wcs_cards",
]

_UNITS = {
    "adu": "adu", "dn": "adu", "count": "adu", "counts": "adu", "ct": "adu",
    "electron": "electron", "electrons": "electron", "e-": "electron", "e": "electron",
    "njy": "nJy", "nanojansky": "nJy", "nanomaggy": "nanomaggy", "nmgy": "nanomaggy",
}  # fmt: skip
_MOST = 10**18
"""What numbers of visits and detectors stay below: tables keep them in 64 bits."""
_LONGEST_BAND = 60
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*$")
_WCS_KEYWORD = re.compile(
    r"(WCSAXES|RADESYS|RADECSYS|EQUINOX|EPOCH|LONPOLE|LATPOLE|"
    r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA)[12]|(CD|PC)[12]_[12]|PC00[12]00[12]|P[VS][12]_\d{1,2}|"
    r"[AB]P?_ORDER|[AB]P?_\d_\d|[AB]_DMAX)$"
)
_WCS_WORD = re.compile(r"(RADESYS|RADECSYS|CTYPE[12]|CUNIT[12])$")
_WCS_FRAME = ("RADESYS", "RADECSYS", "EQUINOX", "EPOCH")
_SIP_KEYWORD = re.compile(r"[AB]P?_(ORDER|\d_\d|DMAX)$")


@dataclass(eq=False)
class Window:
    """Some rows of an image that is not read as a whole, and what was seen of their variance."""

    shape: tuple[int, int]
    """(ny, nx) of the whole image, pixel."""
    rows: range
    own: range
    """Those whose variance is looked at."""
    unmasked: int = 0
    """Unmasked pixels;"""
    without_variance: int = 0
    """those of them that have no positive finite variance,"""
    first: tuple[int, int, float] | None = None
    """and the first of these: y, x and what it has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitHeader:
    """What the header of one detector's file says, without its pixels; it travels between processes."""

    path: str
    layout: str
    """Name of the layout that the file was recognised as."""
    extension: int
    """Number of the HDU that holds the image."""
    visit: int
    detector: int
    band: str
    """Empty where unknown."""
    shape: tuple[int, int]
    """(ny, nx), pixel."""
    unit: str
    exposure_time: float
    """Seconds; NaN where unknown."""
    gain: float | None
    """Electrons per adu."""
    read_noise: float | None
    """Electrons."""
    xy0: tuple[int, int]
    planes: MaskPlanes
    cards: Cards = field(repr=False)
    """Cards of the exposure: the primary header's, and the image's where it inherits from it."""
    rows: Window | None = None
    """Which rows of the image are to be read; None: all."""
    bare: bool = False
    """Whether the visit image is to be made without header and world coordinates, which take time."""

    @property
    def who(self) -> str:
        """File, visit and detector, as errors name them."""
        return f"{self.path}: visit {self.visit} detector {self.detector}"


class Lookup:
    """Values that the cards of one exposure give, with what the user mapped by hand before them."""

    def __init__(self, path: str, cards: Cards, ingest: IngestMap) -> None:
        self.path = path
        self.cards = cards
        self._ingest = ingest
        found = re.search(ingest.filename, PurePosixPath(path).name) if ingest.filename else None
        if ingest.filename and found is None:
            raise LayoutError(f"{path}: the name does not match the ingest's filename {ingest.filename!r}")
        self._from_name = found.groupdict() if found else {}

    def whole(self, name: str, *keywords: str, default: int | None = None) -> int:
        """A whole number that must be there: ``visit`` or ``detector``.

        Raises
        ------
        LayoutError
            When it is nowhere, or no whole number from 0 to 1e18.
        """
        mapped = getattr(self._ingest, name)
        if isinstance(mapped, int):
            return self._as_whole(name, "the mapping", mapped)
        if mapped is not None:
            keywords, default = (mapped.upper(),), None
        elif self._from_name.get(name):
            return self._as_whole(name, "the file's name", self._from_name[name])
        for keyword in keywords:
            value = self.cards.get(keyword)
            # instruments also keep serial numbers of other kinds under these keywords
            number = isinstance(value, (int, float)) or _whole(value) is not None
            if mapped is not None or number:
                return self._as_whole(name, keyword, value)
        if default is not None:
            return self._as_whole(name, "what else the file says of itself", default)
        raise UnknownEntryError(
            f"{self.path}: the header does not say the {name} ({', '.join(keywords)} looked for); "
            f"say where it is, or what it is: {by_hand(name)}",
            name,
        )

    def number(self, name: str, *keywords: str) -> float | None:
        """A finite number that is not negative, or None where there is none.

        Raises
        ------
        LayoutError
            When a keyword that was mapped by hand is missing or no number.
        """
        mapped = getattr(self._ingest, name)
        if isinstance(mapped, (int, float)):
            return float(mapped)
        for keyword in (mapped.upper(),) if mapped else keywords:
            value = self.cards.get(keyword)
            if isinstance(value, str) and _NUMBER.match(value):
                value = float(value)
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
            if good and math.isfinite(value) and value >= 0:
                return float(value)
            if mapped:
                raise LayoutError(f"{self.path}: {keyword}, mapped as the {name}, is {_shown(value)}")
        return None

    def band(self, *keywords: str, known: str = "") -> str:
        """The band, or an empty word; one ``known`` otherwise stands above headers, not above mappings.

        Raises
        ------
        LayoutError
            When a keyword that was mapped by hand is missing or no word, or the band is far too long.
        """
        mapped = self._ingest.band
        if known and mapped is None:
            return self._as_band(known)
        if mapped and mapped.startswith("="):
            return self._as_band(mapped[1:])
        if not mapped and self._from_name.get("band"):
            return self._as_band(self._from_name["band"])
        for keyword in (mapped.upper(),) if mapped else keywords:
            value = self.cards.get(keyword)
            if isinstance(value, str) and value.strip():
                return value.split()[0]
            if mapped:
                raise LayoutError(
                    f"{self.path}: {keyword}, mapped as the band, is {_shown(value)}; "
                    f"a word that is the band itself has = before it: band='={mapped}'"
                )
        return ""

    def _as_band(self, text: str) -> str:
        """Return a band that did not come from a card, in characters that cards and terminals can have."""
        band = printable(text)
        if len(band) > _LONGEST_BAND:
            raise LayoutError(
                f"{self.path}: the band has {len(band)} characters, {_LONGEST_BAND} at most are allowed: "
                f"{band[:20]!r}..."
            )
        return band

    def unit(self, image: Cards, *, default: str = "adu") -> str:
        """Unit of the pixels, from BUNIT; ``default`` where it is missing or blank."""
        stated: Any = self._ingest.unit
        if stated is None:
            stated = image.get("BUNIT", self.cards.get("BUNIT"))
            if stated is None or (isinstance(stated, str) and not stated.strip()):
                return default
        return known_unit(self.path, stated)

    def _as_whole(self, name: str, source: str, value: Any) -> int:
        number = _whole(value)
        if number is None:
            raise UnknownEntryError(
                f"{self.path}: the {name}, from {source}, is {_shown(value)}, not a whole number from 0 to "
                f"{_MOST:.0e}; say where it is, or what it is: {by_hand(name)}",
                name,
                _shown(value),
            )
        return number


def known_unit(path: str, stated: Any) -> str:
    """Name of a unit as this package writes it.

    Raises
    ------
    LayoutError
        When neither this package nor astropy knows it.
    """
    if isinstance(stated, str):
        ours = _UNITS.get(stated.strip().lower())
        if ours is not None:
            return ours
        if _unit(stated) is not None:
            return stated.strip()
    raise UnknownEntryError(
        f"{path}: BUNIT is {_shown(stated)}, which is no unit that is known; give it by {by_hand('unit')}",
        "unit",
        _shown(stated),
    )


def same_as_square(stated: str, unit: str) -> bool:
    """Whether a variance's unit is the square of the image's; true where either is unknown."""
    variance, image = _unit(stated), _unit({"nanomaggy": "3.631e-6 Jy"}.get(unit, unit))
    return variance is None or image is None or variance.physical_type == (image**2).physical_type


def find_origin(path: str, cards: Cards) -> tuple[int, int]:
    """(x, y) of pixel (0, 0): from the linear WCS 'A', else LTV1 and LTV2, else (0, 0).

    Raises
    ------
    LayoutError
        When the cards that are there are not numbers.
    """
    if cards.get("CTYPE1A") == "LINEAR" and cards.get("CTYPE2A") == "LINEAR":
        values = [
            _finite(path, cards, f"CRVAL{i}A", 0) - (_finite(path, cards, f"CRPIX{i}A", 1) - 1)
            for i in (1, 2)
        ]
    elif {cards.get("LTM1_1", 1), cards.get("LTM2_2", 1)} == {1}:
        values = [-_finite(path, cards, f"LTV{i}", 0) for i in (1, 2)]
    else:
        # a binned image has no origin in whole pixels of the detector
        values = [0, 0]
    return round(values[0]), round(values[1])


def find_wcs(path: str, cards: Cards) -> WCS | None:
    """Celestial coordinates of the array's pixels, or None where the header has none.

    Raises
    ------
    LayoutError
        When the header has coordinates that cannot be understood.
    """
    if not isinstance(cards.get("CTYPE1"), str) or not cards.get("CTYPE1").strip():
        return None
    from astropy.wcs import WCS

    chosen = wcs_cards(cards)
    wrong = [keyword for keyword in chosen.keywords() if not _fits_keyword(keyword, chosen.get(keyword))]
    # what astropy cannot use it leaves out with a warning: harmless for the frame, otherwise another place
    for keyword in wrong:
        if keyword not in _WCS_FRAME:
            raise LayoutError(
                f"{path}: {keyword} is {_shown(chosen.get(keyword))}, "
                "which is of no use for world coordinates"
            )
    chosen = chosen.select(lambda keyword: keyword not in wrong)
    try:
        header = chosen.header()
        for old, new in (("RADECSYS", "RADESYS"), ("EPOCH", "EQUINOX")):
            if old in header:
                header.setdefault(new, header.pop(old))
        # repairs would warn; what they repair is done above, left out, or harmless
        wcs = WCS(header, naxis=2, fix=False)
        wcs.wcs.set()
    except Exception as error:
        raise LayoutError(f"{path}: the world coordinates cannot be understood: {error}") from error
    return wcs if wcs.has_celestial else None


def wcs_cards(cards: Cards) -> Cards:
    """Cards that describe the celestial coordinates."""
    sip = str(cards.get("CTYPE1")).rstrip().endswith("-SIP")

    def wanted(keyword: str) -> bool:
        # SIP coefficients without -SIP in CTYPE are leftovers of other software
        return _WCS_KEYWORD.match(keyword) is not None and (sip or not _SIP_KEYWORD.match(keyword))

    return cards.sound().select(wanted)


def _finite(path: str, cards: Cards, keyword: str, default: float) -> float:
    value = cards.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**31:
        raise LayoutError(f"{path}: {keyword} is {_shown(value)}, where the image's origin should stand")
    return float(value)


def _fits_keyword(keyword: str, value: Any) -> bool:
    if _WCS_WORD.match(keyword):
        return isinstance(value, str)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> int | None:
    """Whole number that a value is, however it is written (77, 77.0, "77."); None where it is none."""
    if isinstance(value, str):
        found = re.fullmatch(r"0*([0-9]{1,18})(\.0*)?", value.strip())
        return int(found[1]) if found else None
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST
    # of a larger number with a point it is not known which whole one was meant
    if not good or (isinstance(value, float) and not (value.is_integer() and value < 2**53)):
        return None
    return int(value)


def _shown(value: Any) -> str:
    if value is None:
        return "missing or blank"
    return repr(value.text if isinstance(value, Malformed) else value)


def _unit(text: str) -> Any:
    from astropy.units import Unit

    lowered = text.strip().lower()
    for plain, name in (("electrons", "electron"), ("counts", "adu"), ("dn", "adu")):
        if lowered.startswith(plain):
            text = name + text.strip()[len(plain) :]
    try:
        return Unit(text.replace("ADU", "adu"))
    except (ValueError, TypeError):
        return None
