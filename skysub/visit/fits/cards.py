"""Header cards of FITS as text and as values, without astropy's cost per card or its warnings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from astropy.io.fits import Header

__all__ = ["CARD", "Cards", "Malformed"]

CARD = 80

_VALUE = re.compile(
    r"\s*(?:'(?P<text>(?:[^']|'')*)'|(?P<logical>[TF])(?=\s|/|$)|"
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[EDed][+-]?\d+)?)(?=\s|/|$)|(?P<nothing>(?=/|\s*$)))"
)

_KEYWORD = re.compile(r"[A-Z0-9_ -]+$")


@dataclass(frozen=True)
class Malformed:
    """The text of a card's value that is no FITS value."""

    text: str


class Cards:
    """Cards of one header: values by keyword, and the text they came from.

    A keyword that occurs more than once has its first value. A value that cannot be read is a
    `Malformed`, so that only who asks for it has to complain.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for card in self:
            keyword, value = _split(card)
            if value is not None and keyword not in values:
                values[keyword] = _parse(value)
        return values

    def __iter__(self) -> Iterator[str]:
        """Cards of 80 characters, END left out."""
        for start in range(0, len(self.text), CARD):
            yield self.text[start : start + CARD]

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._values

    def get(self, keyword: str, default: Any = None) -> Any:
        """Value of a keyword (int, float, bool, str, None where blank, or `Malformed`)."""
        return self._values.get(keyword, default)

    def keywords(self, prefix: str = "") -> list[str]:
        """Keywords that have a value and begin with ``prefix``, in order."""
        return [keyword for keyword in self._values if keyword.startswith(prefix)]

    def select(self, wanted: Callable[[str], bool]) -> Cards:
        """Those cards whose keyword is ``wanted``; a card that continues another stays with it."""
        kept, keep = [], False
        for card in self:
            if not card.startswith("CONTINUE"):
                keep = wanted(_split(card)[0])
            if keep:
                kept.append(card)
        return Cards("".join(kept))

    def over(self, other: Cards) -> Cards:
        """These cards, then the ones of ``other`` whose keyword is not among them (comments all stay)."""
        mine = set(self._values)
        return Cards(self.text + other.select(lambda keyword: keyword not in mine).text)

    def sound(self) -> Cards:
        """Only the cards that are good FITS, so that astropy neither warns nor fails on the rest."""
        bad: set[str] = {keyword for keyword in self._values if isinstance(self.get(keyword), Malformed)}
        kept, keep = [], False
        for card in self:
            keyword, value = _split(card)
            if keyword != "CONTINUE":
                commentary = keyword in {"", "COMMENT", "HISTORY"}
                named = _KEYWORD.match(keyword) is not None and keyword not in bad
                keep = commentary or (value is not None and named)
            if keep:
                kept.append(card)
        return Cards("".join(kept))

    def header(self) -> Header:
        """Cards as astropy has them, without those that are no good FITS."""
        from astropy.io.fits import Header

        return Header.fromstring(self.sound().text)


def _split(card: str) -> tuple[str, str | None]:
    """Keyword, and the text of the value with its comment; None where a card has no value."""
    if card.startswith("HIERARCH "):
        keyword, equals, value = card[9:].partition("=")
        return keyword.strip().upper(), value if equals else None
    return card[:8].rstrip(), card[10:] if card[8:10] == "= " else None


def _parse(value: str) -> Any:
    found = _VALUE.match(value)
    if found is None:
        return Malformed(value.strip())
    if found["text"] is not None:
        return found["text"].replace("''", "'").rstrip()
    if found["logical"] is not None:
        return found["logical"] == "T"
    number = found["number"]
    if number is None:
        return None
    if re.fullmatch(r"[+-]?\d{1,300}", number):
        return int(number)
    return float(number.upper().replace("D", "E"))
