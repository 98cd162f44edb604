"""Calling compiled kernels: arrays in the one form they are compiled for, and compiled once a machine."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["first_on_machine", "for_kernels", "once"]

_logger = logging.getLogger("skysub")

_ready: set[str] = set()
_in_process = threading.Lock()


class _Writable:
    """The same memory through the array interface, said to be writable: numba compiles for that apart."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}
        self.array = array


def for_kernels(array: NDArray[Any]) -> NDArray[Any]:
    """C-contiguous array that kernels may take; they never write to what came through here."""
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable or not array.size else np.asarray(_Writable(array))


def once(kernels: Any, kind: str, first: Callable[[], None]) -> None:
    """Call ``first`` when kernels of this ``kind`` have not run in this process yet.

    The first process of a machine compiles them, while others that start with it wait and then load
    what it left in numba's cache; once that is there nobody waits. Where no folder for such notes can be
    had (see `_own_folder`), each process compiles for itself.
    """
    if kind in _ready:
        return
    with _in_process:
        if kind not in _ready:
            with _one_process(kernels, kind):
                first()
            _ready.add(kind)


@contextmanager
def _one_process(kernels: Any, kind: str) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not POSIX: processes that start together each compile
        yield
        return
    done = _note(Path(kernels.__file__), kind)
    if done is None:
        yield
        return
    try:
        file = done.open("a+b", buffering=0)
    except OSError:
        # a full disk: nothing that a unit should fail for
        yield
        return
    with file:
        if file.tell() == 0:
            _say_why_it_takes_time()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        if file.tell() == 0:
            with suppress(OSError):
                file.write(b"compiled")


def first_on_machine(kernels: Any, kind: str) -> bool:
    """Whether no process of this machine has asked the same before; False where no notes can be kept."""
    note = _note(Path(kernels.__file__), kind)
    try:
        if note is not None:
            note.open("xb").close()
    except OSError:
        return False
    return note is not None


def _note(source: Path, kind: str) -> Path | None:
    """File that tells that what ``source`` holds was compiled; None where it cannot be kept."""
    folder = _own_folder()
    if folder is None:
        return None
    key = f"{source}:{source.stat().st_mtime_ns}:{os.environ.get('NUMBA_CACHE_DIR')}:{kind}"
    return folder / hashlib.sha256(key.encode()).hexdigest()[:24]


@functools.cache
def _say_why_it_takes_time() -> None:
    _logger.warning(
        "skysub compiles its kernels for this machine, which happens once and takes up to half a minute"
    )


def _own_folder() -> Path | None:
    """Folder for notes between processes of this user; None where none can be had that is theirs alone.

    Its name can be foreseen, so others may have made a folder, file or link of that name to get in the way.
    """
    folder = Path(tempfile.gettempdir()) / f"skysub-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if private else None
