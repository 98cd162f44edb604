"""Numbers of sources: unique over a survey, and the same in every rerun.

A number is 63 bits of a positive int64, from the highest on: release, visit, detector, and a counter of the
detector's sources by position. Sorted numbers are therefore sorted by visit and detector.

A visit takes 32 bits. A number below 2^31 stands as it is. LSST's thirteen digits YYYYMMDDNNNNN (day of
observation and sequence) do not fit: they are written as days since 2000-01-01 (14 bits) and sequence (17
bits), with the highest bit set so that the two kinds never meet.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import ConfigError, SourceIdError
from skysub.measurement.visit_numbers import date_of, split_visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SourceIds"]

_BITS = 63
_VISIT_BITS = 32
_CALENDAR = 1 << (_VISIT_BITS - 1)
_SEQUENCE_BITS, _DAY_BITS = 17, 14
_FIRST_DAY = dt.date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class SourceIds:
    """How numbers of sources are made of release, visit, detector and counter.

    Parameters
    ----------
    release
        Number of the release, from 0: two releases of one survey share no number.
    release_bits, detector_bits, counter_bits
        Bits of each, 31 in all; the defaults allow for 16 releases, 256 detectors and 524,288 sources of a
        detector. A survey keeps its choice: numbers of another one are others.
    """

    release: int = 0
    release_bits: int = 4
    detector_bits: int = 8
    counter_bits: int = 19

    def __post_init__(self) -> None:
        bits = (self.release_bits, self.detector_bits, self.counter_bits)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in (self.release, *bits)):
            raise ConfigError(f"release and bits of source ids must be whole numbers from 0, not {self}")
        if sum(bits) != _BITS - _VISIT_BITS:
            raise ConfigError(
                f"release_bits, detector_bits and counter_bits must add up to {_BITS - _VISIT_BITS}, not "
                f"{' + '.join(map(str, bits))} = {sum(bits)}"
            )
        if self.release >> self.release_bits:
            raise ConfigError(
                f"release {self.release} does not fit into {self.release_bits} bits: use up to "
                f"{(1 << self.release_bits) - 1}, or more release_bits"
            )

    def first(self, visit: int, detector: int) -> int:
        """Number of a detector's first source; the others follow it one by one.

        Raises
        ------
        SourceIdError
            When visit or detector does not fit.
        """
        if not 0 <= detector < 1 << self.detector_bits:
            raise SourceIdError(
                f"visit {visit} detector {detector}: ids of sources have room for detectors 0 to "
                f"{(1 << self.detector_bits) - 1}; give more detector_bits (and fewer counter_bits)"
            )
        number = (self.release << _VISIT_BITS) | _packed(visit)
        return ((number << self.detector_bits) | detector) << self.counter_bits

    def of(self, visit: int, detector: int, count: int) -> NDArray[np.int64]:
        """Numbers (count,) int64 of the sources of a detector, in the order of their counter.

        Raises
        ------
        SourceIdError
            When visit, detector or the count does not fit.
        """
        first = self.first(visit, detector)
        if count > 1 << self.counter_bits:
            raise SourceIdError(
                f"visit {visit} detector {detector}: {count} sources do not fit into ids: there is room for "
                f"{1 << self.counter_bits} of a detector; give more counter_bits"
            )
        return first + np.arange(count, dtype=np.int64)

    def taken_apart(self, number: int) -> tuple[int, int, int, int]:
        """Release, visit, detector and counter of a number."""
        counter = number & ((1 << self.counter_bits) - 1)
        number >>= self.counter_bits
        detector = number & ((1 << self.detector_bits) - 1)
        number >>= self.detector_bits
        return number >> _VISIT_BITS, _unpacked(number & ((1 << _VISIT_BITS) - 1)), detector, counter


def _packed(visit: int) -> int:
    if 0 <= visit < _CALENDAR:
        return visit
    day, sequence = split_visit(visit)
    date = date_of(day)
    if date is None or not 0 <= (date - _FIRST_DAY).days < 1 << _DAY_BITS:
        raise SourceIdError(
            f"visit {visit}: ids of sources have room for visits 0 to {_CALENDAR - 1}, and for those of "
            "thirteen digits that begin with a day YYYYMMDD from 2000-01-01 to 2044-11-08; number this "
            "visit otherwise (an IngestMap's visit)"
        )
    return _CALENDAR | ((date - _FIRST_DAY).days << _SEQUENCE_BITS) | sequence


def _unpacked(packed: int) -> int:
    if packed < _CALENDAR:
        return packed
    days, sequence = divmod(packed - _CALENDAR, 1 << _SEQUENCE_BITS)
    date = _FIRST_DAY + dt.timedelta(days=days)
    return int(f"{date:%Y%m%d}{sequence:05d}")
