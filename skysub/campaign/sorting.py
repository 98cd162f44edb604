"""Exposures in the order of a plan, kept on disk meanwhile: a million take little memory."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from typing import TYPE_CHECKING

import numpy as np

from skysub.campaign.records import Exposure, VisitPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SortedExposures", "Spool"]


class SortedExposures:
    """Exposures that come in any order and are gone through by visit and detector, as often as wanted.

    They lie in a temporary file without a name; memory holds three numbers of each. Of one visit and
    detector, those that came first are first.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        weakref.finalize(self, self._file.close)
        self._visits, self._detectors, self._offsets = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Exposure]:
        for i in np.lexsort((self._detectors, self._visits)):
            self._file.seek(self._offsets[i])
            yield Exposure.from_json(self._file.readline())

    def add(self, exposure: Exposure) -> None:
        """Keep an exposure."""
        self._visits.append(exposure.visit)
        self._detectors.append(exposure.detector)
        self._offsets.append(self._file.seek(0, 2))
        self._file.write(exposure.to_json().encode() + b"\n")


class Spool:
    """Plans of visits, written one after the other and read as often as wanted, on disk."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        weakref.finalize(self, self._file.close)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[VisitPlan]:
        position = 0
        while True:
            # others may read in between
            self._file.seek(position)
            line = self._file.readline()
            if not line:
                return
            position += len(line)
            yield VisitPlan.from_json(line)

    def add(self, line: str) -> None:
        """Keep the plan of a visit, as its `to_json` gives it."""
        self._file.seek(0, 2)
        self._file.write(line.encode() + b"\n")
        self._count += 1
