"""What a place to keep a campaign in can do, whether it is a folder of this machine or a bucket.

Each file is written whole or not at all, and can be written on condition that it is not there yet. That is
all that plan, run, markers and readers rely on, so none of them asks which kind of place it has.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Self

__all__ = ["Hold", "StoragePath", "holder", "parsed", "read_json", "writing"]

_STOPPING = {
    errno.ENOSPC: "there is no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "it is not a folder",
}


class Hold:
    """The lock of an output, while it is held."""

    lost = ""
    """Who took the lock away, and what to do; empty while it is ours."""


class StoragePath(ABC):
    """A file or folder of a campaign's output. ``str`` gives its path or address."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Last part of the path."""

    @property
    @abstractmethod
    def parent(self) -> Self:
        """Folder that it is in."""

    @abstractmethod
    def __truediv__(self, name: str) -> Self:
        """Return the place of that name in this folder; ``name`` may have several parts."""

    @abstractmethod
    def absolute(self) -> Self:
        """Return the same place by a name that holds in other processes."""

    @abstractmethod
    def read(self) -> bytes | None:
        """Content of the file; None where there is none."""

    @abstractmethod
    def read_part(self, offset: int, length: int) -> bytes | None:
        """Part of the file, shorter where the file ends before; None where there is none."""

    @abstractmethod
    def lines(self) -> Iterator[bytes]:
        """Go through the lines of a file that must be there, without holding all of them."""

    @abstractmethod
    def size(self) -> int | None:
        """Bytes of the file; None where there is none."""

    @abstractmethod
    def version_token(self) -> Hashable:
        """Return what changes when the file is made anew.

        Raises
        ------
        FileNotFoundError
            When there is none.
        """

    @abstractmethod
    def checksum(self) -> str:
        """CRC-32C of the file's bytes, 8 hexadecimal digits."""

    @abstractmethod
    def put(
        self, data: bytes | memoryview, *, durable: bool = False, scratch: StoragePath | None = None
    ) -> None:
        """Write a whole file in place of any that is there: readers see the old one or the new one.

        ``scratch`` is a folder for what is not yet whole, of the same file system; by default the file's own.
        """

    def put_parts(
        self, parts: Iterable[bytes], *, durable: bool = False, scratch: StoragePath | None = None
    ) -> None:
        """Write a file as `put` does, of parts that are made one after the other."""
        self.put(b"".join(parts), durable=durable, scratch=scratch)

    @abstractmethod
    def put_if_absent(self, data: bytes, *, durable: bool = False) -> bool:
        """Write a whole file unless it is there already; False where another writer came first."""

    @abstractmethod
    def put_lines(self, lines: Iterable[str]) -> None:
        """Write a file line by line, to stay; it may be seen before it is complete."""

    @abstractmethod
    def put_by(self, write: Callable[[Path], object]) -> None:
        """Write a file by a function that needs a local path."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names in the folder; none where there is no folder."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Bytes of the files in the folder, by name; none where there is no folder."""

    @abstractmethod
    def read_each(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """Contents of files in the folder, by name."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the file, if it is there."""

    @abstractmethod
    def remove_tree(self) -> None:
        """Remove the folder with all that is in it, as far as that can be done."""

    @abstractmethod
    def sync_tree(self) -> None:
        """Wait until all that the folder holds would outlive a power failure."""

    @abstractmethod
    def remove_partial(self) -> None:
        """Remove what killed writers of files in this folder left behind; nobody may be writing them."""

    @abstractmethod
    def zarr_store(self) -> Any:
        """Return what Zarr opens for the folder."""

    @abstractmethod
    def locked(self) -> AbstractContextManager[Hold]:
        """Hold the output for one coordinator.

        Raises
        ------
        OutputInUseError
            When another process holds it: which, where and since when.
        OutputError
            When the place cannot be written.
        """

    @abstractmethod
    def appended(self) -> AbstractContextManager[Path]:
        """Path of a local file, to which lines are added for a while; the place has them in the end."""

    @abstractmethod
    def local_directory(self) -> Path:
        """Local folder for what people look at: this one, or the current one where this is elsewhere."""

    def check_folder(self) -> None:  # noqa: B027 - only a folder of a machine can turn out to be a file
        """Refuse a file where a folder is meant.

        Raises
        ------
        OutputError
            When the place is a file.
        """

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.size() is not None


def read_json(place: StoragePath) -> Any:
    """Content of a JSON file; None where it is absent or not whole (as after a power failure)."""
    return parsed(place.read())


def parsed(data: bytes | None) -> Any:
    """Content of a JSON file that was read; None where it is absent or not whole."""
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return None


@contextmanager
def writing(place: StoragePath | Path) -> Iterator[None]:
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


def holder() -> str:
    """Who holds a lock, for people: this process."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"
