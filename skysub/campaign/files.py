"""Writing that survives kill -9: whole files or none, first writer wins, checksums, and a lock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import google_crc32c

from skysub.errors import OutputError, OutputInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["checksum", "locked", "put", "put_if_absent", "read_json", "sync", "writing"]

_STOPPING = {
    errno.ENOSPC: "there is no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "it is not a folder",
}


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the errors of a place that cannot be written into `OutputError`, with what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError) or error.errno not in _STOPPING:
            raise
        raise OutputError(
            f"{place} cannot be written: {_STOPPING[error.errno]}. What is done is safe: "
            "mend it and start the same command again"
        ) from None


def put(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a whole file in place of any that is there: readers see the old one or the new one."""
    temporary = _temporary(path, data, durable=durable)
    temporary.replace(path)


def put_if_absent(path: Path, data: bytes, *, durable: bool = False) -> bool:
    """Write a whole file unless it is there already; False where another writer came first."""
    temporary = _temporary(path, data, durable=durable)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
            raise
        # a file system without links: rename is as whole, and a second writer's bytes are the same
        temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)
    return True


def read_json(path: Path) -> Any:
    """Content of a JSON file; None where it is absent or not whole (as after a power failure)."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def checksum(path: Path) -> str:
    """CRC-32C of a file's bytes, 8 hexadecimal digits."""
    total = 0
    with path.open("rb", buffering=0) as file:
        # pieces that stay in cache; one buffer for all
        piece = memoryview(bytearray(1 << 20))
        while count := file.readinto(piece):
            total = google_crc32c.extend(total, bytes(piece[:count]))
    return f"{total:08x}"


def sync(path: Path) -> None:
    """Wait until a file and its name are on the disk."""
    for each, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(each, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a campaign's output for one coordinator; the lock dies with the process, however it dies.

    Raises
    ------
    OutputInUseError
        When another process holds it: which, where and since when.
    OutputError
        When the folder cannot be made or written.
    """
    path = folder / "lock"
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, not a folder: choose another output")
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputInUseError(
                f"{folder} is in use by {_holder(path)}: wait for it, stop it, or choose another output"
            ) from None
        with writing(folder):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {_now()}".encode())
        yield
        with suppress(OSError):
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _temporary(path: Path, data: bytes, *, durable: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _holder(path: Path) -> str:
    with suppress(OSError):
        text = path.read_text().strip()
        if text:
            return text
    return "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
