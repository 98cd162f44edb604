"""A progress bar on standard error that also reads well in a log file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["Progress"]


class Progress:
    """Shows how many of how many are done: one line redrawn on a terminal, a line per tenth elsewhere."""

    def __init__(self, what: str, *, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._redraw = self._stream.isatty()
        self._began = time.monotonic()
        self._tenth = -1

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        elapsed = time.monotonic() - self._began
        line = f"{self._what}: {done} of {total}, {elapsed:.0f} s"
        if 0 < done < total:
            line += f", {elapsed * (total - done) / done:.0f} s left"
        if self._redraw:
            filled = 24 * done // max(total, 1)
            self._stream.write(f"\r[{'#' * filled}{'.' * (24 - filled)}] {line}\x1b[K")
            if done == total:
                self._stream.write("\n")
        else:
            tenth = 10 * done // max(total, 1)
            if tenth == self._tenth:
                return
            self._tenth = tenth
            self._stream.write(line + "\n")
        self._stream.flush()
