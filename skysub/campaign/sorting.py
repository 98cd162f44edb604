"""Units in the order of a plan, kept on disk meanwhile: a million take little more memory than a thousand."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from typing import TYPE_CHECKING

import numpy as np

from skysub.campaign.store.runs import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SortedUnits"]


class SortedUnits:
    """Units that come in any order and are gone through by visit and detector, as often as wanted.

    They lie in a temporary file without a name; memory holds three numbers of each. Of one visit and
    detector, those that came first are first.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        weakref.finalize(self, self._file.close)
        self._visits, self._detectors, self._offsets = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Unit]:
        for i in np.lexsort((self._detectors, self._visits)):
            self._file.seek(self._offsets[i])
            yield Unit.from_json(self._file.readline())

    def add(self, unit: Unit) -> None:
        """Keep a unit."""
        self._visits.append(unit.visit)
        self._detectors.append(unit.detector)
        self._offsets.append(self._file.seek(0, 2))
        self._file.write(unit.to_json().encode() + b"\n")
