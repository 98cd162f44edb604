"""Memory and open files: what this machine has, and what is refused because it would not do."""

from __future__ import annotations

import resource
from typing import Any

import psutil

from skysub.errors import ClusterError, NotEnoughMemoryError, RecipeError

__all__ = ["allow_open_files", "memory_here", "not_enough", "parsed_bytes", "parsed_seconds", "walltime_text"]

_FILES_OF_WORKER = 12
"""Open files that this process needs for a worker process: pipes and connections (10 were seen)."""

_FILES = 64
"""Open files that it needs otherwise (21 were seen, and files of the store)."""

_USABLE = 0.9
"""Share of this machine's memory that workers may have."""


def allow_open_files(workers: int) -> None:
    """Make sure that this process may open the files that connections to so many workers need.

    Raises
    ------
    ClusterError
        When the system's limit is lower: connections would fail here and there, and be tried again for long.
    """
    number = _FILES + workers * _FILES_OF_WORKER
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= number:
        return
    if hard != resource.RLIM_INFINITY and hard < number:
        raise ClusterError(
            f"a process may open {soft} files here (ulimit -n), {number} are needed: raise the limit by "
            f"`ulimit -n {max(1024, number)}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def memory_here() -> float:
    """Bytes that workers of this machine may have together."""
    from distributed.system import MEMORY_LIMIT

    # the limit knows of containers, what is available of other processes
    return _USABLE * float(min(MEMORY_LIMIT, psutil.virtual_memory().available))


def not_enough(who: str, has: int, needs: int, cure: str) -> NotEnoughMemoryError:
    """Return the error of a worker that has too little memory."""
    has_gib, needs_gib = has / 2**30, needs / 2**30
    return NotEnoughMemoryError(
        f"{who} would have {has_gib:.2f} GiB of memory, units need {needs_gib:.2f} GiB: use {cure}"
    )


def parsed_bytes(memory: str | int) -> int:
    """Bytes that a profile's ``memory`` means; 0 for auto.

    Raises
    ------
    RecipeError
        When it is no size.
    """
    from dask.utils import parse_bytes

    if memory == "auto":
        return 0
    try:
        return int(parse_bytes(memory))
    except ValueError:
        raise RecipeError(f"cluster.memory must be auto or a size as '3 GiB', not {memory!r}") from None


def walltime_text(value: Any) -> Any:
    """Return a time as text, of which YAML may have made seconds: to it 10:00:00 is a number."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"


def parsed_seconds(text: str, key: str) -> float:
    """Seconds of a time as queues write it: ``MM``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM:SS``.

    Raises
    ------
    RecipeError
        When it is no such time.
    """
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        number = int(days) if dash else 0
    except ValueError:
        parts, number = [], -1
    if number < 0 or not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise RecipeError(f"cluster.{key} must be a time as 01:00:00 or 1-12:00:00, not {text!r}")
    if dash:
        parts = [*parts, 0, 0][:3]
    elif len(parts) == 1:
        parts = [0, *parts, 0]
    elif len(parts) == 2:
        parts = [0, *parts]
    hours, minutes, seconds = parts
    return 86400.0 * number + 3600 * hours + 60 * minutes + seconds
