"""What a person sees while a campaign runs, and what its log file keeps."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from skysub.campaign.records import who
from skysub.text import LogFormat, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skysub.campaign.unit import Receipt

__all__ = ["LOG", "Progress", "logged", "named", "span"]

LOG = logging.getLogger("skysub.campaign")


class Progress:
    """Count units as they finish and show a line of it: live on a terminal, now and then elsewhere.

    Parameters
    ----------
    step
        Name of the step that is shown.
    total
        Units to do.
    stream
        Where to; None shows nothing.
    """

    def __init__(self, step: str, total: int, stream: TextIO | None) -> None:
        self.done = 0
        self.failed = 0
        """Units, and visits whose results could not be put together."""
        self.failed_units = 0
        self.waiting = 0
        """Units that wait for one that failed."""
        self.seconds_of: Counter[str] = Counter()
        self._step = step
        self._total = total
        self._stream = stream
        self._live = stream is not None and stream.isatty()
        self._began = time.monotonic()
        self._shown = 0.0
        self._width = 0

    @property
    def over(self) -> int:
        """Units that are done, failed, or wait for one that failed."""
        return self.done + self.failed_units + self.waiting

    @property
    def remaining(self) -> int:
        """Units that are neither."""
        return max(0, self._total - self.over)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def count(self, receipt: Receipt) -> None:
        """Count a finished unit; those that put a visit together count where they fail."""
        if receipt.state == "failed":
            self.failed += 1
            self.failed_units += not receipt.closing
            self.say(f"{named(receipt)} failed: {receipt.message}")
        elif not receipt.closing:
            self.done += 1
        self.seconds_of.update(dict(receipt.timings))
        if time.monotonic() - self._shown > (0.2 if self._live else 10):
            self.show()

    def say(self, message: str) -> None:
        """Print a line above the live one."""
        if self._stream is not None:
            self._clear()
            print(printable(message), file=self._stream, flush=True)

    def show(self) -> None:
        """Show where the campaign stands."""
        self._shown = time.monotonic()
        if self._stream is None:
            return
        line = self._line()
        if self._live:
            self._clear()
            self._stream.write(line)
            self._width = len(line)
            self._stream.flush()
        else:
            print(line, file=self._stream, flush=True)

    def end(self) -> None:
        """Leave the last line standing."""
        self.show()
        if self._live and self._stream is not None:
            print(file=self._stream, flush=True)
            self._width = 0

    def stages(self, most: int = 5) -> str:
        """Shares of the stages that cost most, for people."""
        whole = sum(self.seconds_of.values())
        if not whole:
            return ""
        return ", ".join(f"{name} {100 * s / whole:.0f} %" for name, s in self.seconds_of.most_common(most))

    def _line(self) -> str:
        over = self.over
        parts = [f"{self._step}: {self.done} of {self._total} done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.waiting:
            parts.append(f"{self.waiting} waiting for these")
        if over and self.elapsed:
            rate = over / self.elapsed
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min")
            parts.append(f"{span((self._total - over) / rate)} left")
        if stages := self.stages(3):
            parts.append(stages)
        return " | ".join(parts)

    def _clear(self) -> None:
        if self._live and self._width and self._stream is not None:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class _PatientHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Pass over it: a full disk must not end in tracebacks about the log."""


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append what this campaign and Dask have to say to a file; Dask's noise leaves the terminal."""
    # its first import sets up logging of its own
    import distributed  # noqa: F401

    ours, dasks = (_PatientHandler(path, encoding="utf-8") for _ in range(2))
    for handler in (ours, dasks):
        handler.setFormatter(LogFormat())
    dasks.setLevel(logging.WARNING)
    dask = logging.getLogger("distributed")
    before = (LOG.level, LOG.propagate, dask.propagate, list(dask.handlers))
    LOG.setLevel(logging.INFO)
    LOG.propagate = dask.propagate = False
    LOG.addHandler(ours)
    dask.handlers = [dasks]
    try:
        yield
    finally:
        LOG.removeHandler(ours)
        LOG.level, LOG.propagate, dask.propagate, dask.handlers = before
        ours.close()
        dasks.close()


def named(receipt: Receipt) -> str:
    """Name what a receipt is about, for people."""
    name = who(receipt.visit, receipt.detector)
    return f"{name}, put together," if receipt.closing else name


def span(seconds: float) -> str:
    """Duration for people: "12 s", "3 min 20 s", "5 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
