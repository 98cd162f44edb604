"""What the number of a visit says of itself."""

from __future__ import annotations

import datetime as dt

__all__ = ["date_of", "day_of_visit", "split_visit"]

_SEQUENCES = 100_000
"""LSST's numbers of visits are 100,000 times the day, as eight digits, plus a sequence."""


def day_of_visit(visit: int) -> int | None:
    """Day of observation YYYYMMDD in a visit's thirteen digits; None where it has none."""
    day, _ = split_visit(visit)
    return None if date_of(day) is None else day


def split_visit(visit: int) -> tuple[int, int]:
    """What stands before the last five digits of a visit's number, and these."""
    return divmod(visit, _SEQUENCES)


def date_of(day: int) -> dt.date | None:
    """Date of eight digits YYYYMMDD; None where they are none of 1900 to 2199."""
    year, rest = divmod(day, 10_000)
    month, number = divmod(rest, 100)
    if not 1900 <= year < 2200:
        return None
    try:
        return dt.date(year, month, number)
    except ValueError:
        return None
