"""Which visits are meant: those of a condition as ``band = 'r'``, or whose files changed since a time."""

from __future__ import annotations

import operator
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from skysub.errors import RecipeError
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skysub.campaign.records import Exposure

__all__ = ["Selection", "parsed_condition", "parsed_since"]

_FIELDS: dict[str, Callable[[int, Mapping[int, Exposure]], Any]] = {
    "visit": lambda visit, _: visit,
    "band": lambda _, exposures: _first(exposures).band,
    "exposure_time": lambda _, exposures: _first(exposures).exposure_time,
    "detectors": lambda _, exposures: len(exposures),
}
"""What a condition may ask of a visit."""

_COMPARISONS = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_WORD = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|(?P<text>'[^']*'|"[^"]*")|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<sign><=|>=|!=|<>|==|[=<>(),]))"""
)

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Selection:
    """A choice of visits; what is left empty chooses all."""

    visits: frozenset[int] | None = None
    condition: str = ""
    """As `parsed_condition` reads it."""
    since: str = ""
    """As `parsed_since` reads it: visits of which a file changed since then."""

    def chooser(self) -> Callable[[int, Mapping[int, Exposure]], bool]:
        """Return what says whether a visit is meant, by its detectors.

        Raises
        ------
        RecipeError
            When condition or time cannot be read.
        """
        holds = parsed_condition(self.condition) if self.condition else None
        after = parsed_since(self.since) * 1e9 if self.since else None

        def is_meant(visit: int, exposures: Mapping[int, Exposure]) -> bool:
            return (
                (self.visits is None or visit in self.visits)
                and (after is None or any(each.mtime_ns >= after for each in exposures.values()))
                and (holds is None or holds(visit, exposures))
            )

        return is_meant

    def __str__(self) -> str:
        """Return the choice as people write it."""
        visits = "" if self.visits is None else f"visit {', '.join(map(str, sorted(self.visits)))}"
        since = f"changed since {self.since}" if self.since else ""
        return " and ".join(each for each in (visits, self.condition, since) if each) or "all visits"


def parsed_since(text: str) -> float:
    """Return the time that a date or an age means, in seconds since 1970.

    Dates are as 2026-11-28 and 2026-11-28T18:00:00Z, one without a zone is of this machine's; ages are as
    36h, 2d and 30min.

    Raises
    ------
    RecipeError
        When it is neither.
    """
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)", text.strip())
    if age:
        return time.time() - float(age[1]) * _UNITS[age[2]]
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except ValueError:
        raise RecipeError(
            "--since needs a date as 2026-11-28 or 2026-11-28T18:00:00Z, or an age as 36h or "
            f"2d, not {text!r}"
        ) from None


def parsed_condition(text: str) -> Callable[[int, Mapping[int, Exposure]], bool]:
    """Read a condition over visits.

    Fields are visit, band, exposure_time (seconds) and detectors (how many). They are compared by =, !=, <,
    <=, >, >= and ``in (...)`` with numbers and quoted texts; ``and``, ``or``, ``not`` and brackets join
    comparisons. A visit whose field is not known (an exposure time that no header tells) fulfils no
    comparison of it.

    Raises
    ------
    RecipeError
        When it cannot be read: where, and what is wrong.
    """
    reader = _Reader(text)
    holds = reader.either()
    reader.end()
    return holds


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[tuple[str, str]] = []
        place, end = 0, len(text.rstrip())
        while place < end:
            match = _WORD.match(text, place)
            if match is None:
                raise RecipeError(f"--select {text!r}: {text[place:].strip()[:20]!r} cannot be read")
            self._words.append((str(match.lastgroup), match[match.lastgroup or 0]))
            place = match.end()
        self._place = 0

    def either(self) -> Callable[[int, Mapping[int, Exposure]], bool]:
        sides = [self._both()]
        while self._took("or"):
            sides.append(self._both())
        return lambda visit, exposures: any(side(visit, exposures) for side in sides)

    def end(self) -> None:
        if self._place < len(self._words):
            self._refuse("and, or, or the end")

    def _both(self) -> Callable[[int, Mapping[int, Exposure]], bool]:
        sides = [self._one()]
        while self._took("and"):
            sides.append(self._one())
        return lambda visit, exposures: all(side(visit, exposures) for side in sides)

    def _one(self) -> Callable[[int, Mapping[int, Exposure]], bool]:
        if self._took("not"):
            inner = self._one()
            return lambda visit, exposures: not inner(visit, exposures)
        if self._took("("):
            inside = self.either()
            if not self._took(")"):
                self._refuse("a closing bracket")
            return inside
        return self._comparison()

    def _comparison(self) -> Callable[[int, Mapping[int, Exposure]], bool]:
        kind, name = self._next()
        if kind != "name":
            self._refuse("the name of a field", back=True)
        if name not in _FIELDS:
            known = list(_FIELDS)
            raise RecipeError(
                f"--select {self._text!r}: there is no field {name!r}{closest(name, known)}; fields are "
                f"{', '.join(known)}"
            )
        field = _FIELDS[name]
        if self._took("in"):
            return self._member(field, name)
        _, sign = self._next()
        if sign not in _COMPARISONS:
            self._refuse(f"one of {', '.join(_COMPARISONS)}, in", back=True)
        compare, value = _COMPARISONS[sign], self._value(name)

        def holds(visit: int, exposures: Mapping[int, Exposure]) -> bool:
            found = field(visit, exposures)
            return found is not None and bool(compare(found, value))

        return holds

    def _member(
        self, field: Callable[[int, Mapping[int, Exposure]], Any], name: str
    ) -> Callable[[int, Mapping[int, Exposure]], bool]:
        if not self._took("("):
            self._refuse("an opening bracket")
        values = {self._value(name)}
        while self._took(","):
            values.add(self._value(name))
        if not self._took(")"):
            self._refuse("a comma or a closing bracket")
        return lambda visit, exposures: field(visit, exposures) in values

    def _value(self, field: str) -> float | str:
        kind, word = self._next()
        if kind == "text" and field == "band":
            return word[1:-1]
        if kind == "number" and field != "band":
            return float(word) if re.search(r"[.eE]", word) else int(word)
        return self._refuse("a quoted text, as 'r'" if field == "band" else "a number", back=True)

    def _took(self, word: str) -> bool:
        if self._place < len(self._words):
            kind, there = self._words[self._place]
            if kind in {"name", "sign"} and there.lower() == word:
                self._place += 1
                return True
        return False

    def _next(self) -> tuple[str, str]:
        if self._place == len(self._words):
            self._refuse("more")
        self._place += 1
        return self._words[self._place - 1]

    def _refuse(self, wanted: str, *, back: bool = False) -> NoReturn:
        place = self._place - back
        there = repr(self._words[place][1]) if place < len(self._words) else "its end"
        raise RecipeError(f"--select {self._text!r}: {wanted} is wanted where {there} stands")


def _first(exposures: Mapping[int, Exposure]) -> Exposure:
    return next(iter(exposures.values()))
