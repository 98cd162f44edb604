"""A wish that whoever works on an output should stop, left in the output itself."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from skysub.campaign.store.storage_path import holder, writing

if TYPE_CHECKING:
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["StopRequest"]

_EVERY = 3.0
"""Seconds between two looks."""


class StopRequest:
    """The wish to stop, as one who works on an output sees it, or one who has it."""

    def __init__(self, output: StoragePath) -> None:
        self._output = output
        self._file = output / "stop.json"
        self._looked = time.monotonic()

    def make(self) -> None:
        """Ask whoever works on the output to finish the units in flight, and stop.

        Raises
        ------
        OutputError
            When the output cannot be written from here.
        """
        with writing(self._output):
            self._file.put(json.dumps({"asked_by": holder()}).encode())

    def clear(self) -> None:
        """Forget a wish that was meant for an earlier one."""
        self._file.remove()

    def is_made(self) -> bool:
        """Whether there is one; looked for every few seconds."""
        now = time.monotonic()
        if now - self._looked < _EVERY:
            return False
        self._looked = now
        return self._file.exists()
