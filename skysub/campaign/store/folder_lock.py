"""The lock of a campaign in a folder, which holds between machines that share the folder as well.

On a file system of one machine it is the system's own lock (flock), which dies with its process. Whether that
reaches other machines on NFS, Lustre and their like depends on how they are mounted. There the owner also
writes the lock again every few seconds, as in a bucket: a successor takes over one that was not renewed for
long, by the clock of the file server alone, and looks again whether the lock is its own before it begins.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skysub.campaign.store import owner as owners
from skysub.campaign.store.storage_path import Hold, parsed, writing
from skysub.errors import OutputError, OutputInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["locked", "spans_machines"]

_LOG = logging.getLogger("skysub.campaign")

_SETTLE = 2.0
"""Seconds after which a lock that two machines took at once belongs to the one that wrote last."""

_OF_ONE_MACHINE = frozenset(
    "bcachefs btrfs ext2 ext3 ext4 f2fs jfs overlay ramfs rootfs tmpfs xfs zfs".split()  # noqa: SIM905 - a table
)
"""Types of file systems that no other machine sees, unless it asks this one."""


@contextmanager
def locked(folder: Path) -> Iterator[Hold]:
    """Hold a campaign's output for one coordinator, until the end of the block.

    Raises
    ------
    OutputInUseError
        When another process holds it: which, where and since when.
    OutputError
        When the folder cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder: choose another output")
    path = folder / "lock"
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            raise OutputError(f"{folder} cannot be made there: choose another output") from None
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _flock(handle, folder, path)
        held = _Owner(folder, path, handle)
        with writing(folder):
            held.take()
        beating = threading.Thread(target=held.beat, daemon=True)
        beating.start()
        try:
            yield held.hold
        finally:
            held.over.set()
            beating.join()
            held.release()
    finally:
        os.close(handle)


def spans_machines(folder: Path) -> bool:
    """Whether other machines may have the folder mounted, by the type of its file system."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return True
    path, kind, depth = str(folder.resolve()), "", -1
    for line in mounts:
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        if len(point) >= depth and (point in {"/", path} or path.startswith(f"{point}/")):
            kind, depth = after.split()[0], len(point)
    return kind not in _OF_ONE_MACHINE


class _Owner:
    def __init__(self, folder: Path, path: Path, handle: int) -> None:
        self.hold = Hold()
        self.over = threading.Event()
        self._folder, self._path, self._handle = folder, path, handle
        self._token = uuid.uuid4().hex
        self._content = owners.owner(self._token)
        self._beats = 0
        self._shared = spans_machines(folder)

    def take(self) -> None:
        """Write the lock, once it is known that no other machine's process holds it."""
        if self._shared:
            self._wait_for_others()
        self._write()
        if self._shared:
            time.sleep(_SETTLE)
            now = _read(self._path)
            if now.get("token") != self._token:
                raise _in_use(self._folder, now)

    def beat(self) -> None:
        """Renew the lock every few seconds, until it is over or lost."""
        while not self.over.wait(owners.BEAT):
            # while the folder is away nobody else can take the lock either
            with suppress(OSError):
                now = _read(self._path)
                if now and now.get("token") != self._token:
                    self.hold.lost = (
                        f"{self._folder} is not held by this process any more, but by "
                        f"{now.get('holder', 'another process')}: this one was not heard of for too long. "
                        "What is done is safe"
                    )
                    return
                self._write()

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        with suppress(OSError):
            if _read(self._path).get("token") == self._token:
                os.ftruncate(self._handle, 0)

    def _wait_for_others(self) -> None:
        """See whether an owner on another machine is alive: it renews the lock within `STALE`.

        Raises
        ------
        OutputInUseError
            When it is.
        """
        first = _read(self._path)
        if not first or owners.is_alive(first, set()) is False:
            return
        told = False
        while (age := self._age()) < owners.STALE:
            now = _read(self._path)
            if not now:
                return
            if now != first:
                raise _in_use(self._folder, now, age)
            if not told:
                _LOG.warning("%s: waiting to see whether %s is alive", self._folder, first.get("holder"))
                told = True
            time.sleep(min(1.0, owners.BEAT / 5))
        _LOG.warning("%s: taking over from %s, which is gone", self._folder, first.get("holder"))

    def _age(self) -> float:
        """Seconds since the lock was written, by the clock of the file server."""
        clock = self._folder / f".{self._token}.clock"
        clock.write_bytes(b"")
        try:
            return clock.stat().st_mtime - os.stat(self._path).st_mtime
        finally:
            clock.unlink()

    def _write(self) -> None:
        self._beats += 1
        data = json.dumps({**self._content, "beats": self._beats}).encode()
        # of one length or longer, so that a reader never sees the end of an earlier owner's
        os.pwrite(self._handle, data, 0)
        os.ftruncate(self._handle, len(data))
        if self._shared:
            os.fsync(self._handle)


def _flock(handle: int, folder: Path, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(folder, _read(path)) from None
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}:
            raise
        # a file system without such locks: what is written must do


def _read(path: Path) -> dict[str, Any]:
    """Content of the lock; empty where nobody holds it. One that is being written is read again."""
    for _ in range(3):
        data = path.read_bytes()
        content = parsed(data)
        if not data or isinstance(content, dict):
            return content or {}
        time.sleep(0.01)
    return {}


def _in_use(folder: Path, content: dict[str, Any], age: float | None = None) -> OutputInUseError:
    heard = "" if age is None else f", heard of {max(0.0, age):.0f} s ago"
    return OutputInUseError(
        f"{folder} is in use by {content.get('holder', 'another process')}{heard}: wait for it, stop it, or "
        "choose another output"
    )
