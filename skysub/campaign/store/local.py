"""Writing to disk that survives kill -9: whole files or none, first writer wins, checksums, and a lock."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

from skysub.campaign.store.folder_lock import locked
from skysub.campaign.store.storage_path import Hold, StoragePath
from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["LocalPath", "checksum", "put", "put_if_absent", "sync"]


class LocalPath(StoragePath):
    """A file or folder of this machine, or of a file system that the machines of a cluster share."""

    # text and no Path: a unit of work names forty places, each of which would be one
    __slots__ = ("_text",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._text = str(Path(path))

    def __repr__(self) -> str:
        return f"LocalPath({self._text!r})"

    def __str__(self) -> str:
        return self._text

    def __fspath__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalPath) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __truediv__(self, name: str) -> LocalPath:
        made = LocalPath.__new__(LocalPath)
        made._text = f"{self._text.rstrip('/')}/{name}" if self._text != "." else name
        return made

    @property
    def path(self) -> Path:
        """The same as a path."""
        return Path(self._text)

    @property
    def name(self) -> str:
        return self._text.rpartition("/")[2]

    @property
    def parent(self) -> LocalPath:
        return LocalPath(self.path.parent)

    def absolute(self) -> LocalPath:
        return LocalPath(self.path.absolute())

    def read(self) -> bytes | None:
        try:
            with open(self._text, "rb", buffering=0) as file:  # noqa: PTH123
                return file.readall()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_part(self, offset: int, length: int) -> bytes | None:
        try:
            with open(self._text, "rb", buffering=0) as file:  # noqa: PTH123
                return os.pread(file.fileno(), length, offset)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from file

    def size(self) -> int | None:
        try:
            return os.stat(self._text).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def version_token(self) -> tuple[int, int]:
        made = os.stat(self._text)
        return made.st_mtime_ns, made.st_ino

    def checksum(self) -> str:
        return checksum(self.path)

    def put(
        self, data: bytes | memoryview, *, durable: bool = False, scratch: StoragePath | None = None
    ) -> None:
        self.put_parts((data,), durable=durable, scratch=scratch)

    def put_parts(
        self,
        parts: Iterable[bytes | memoryview],
        *,
        durable: bool = False,
        scratch: StoragePath | None = None,
    ) -> None:
        put(
            self.path,
            parts,
            durable=durable,
            scratch=scratch.path if isinstance(scratch, LocalPath) else None,
        )
        if durable:
            sync(self.path)

    def put_if_absent(self, data: bytes, *, durable: bool = False) -> bool:
        first = put_if_absent(self.path, data, durable=durable)
        if durable:
            sync(self.path)
        return first

    def put_lines(self, lines: Iterable[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w") as file:
            for line in lines:
                file.write(line + "\n")
        sync(self.path)

    def put_by(self, write: Callable[[Path], object]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write(self.path)

    def names(self) -> list[str]:
        try:
            return os.listdir(self._text)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self) -> dict[str, int]:
        found = {}
        try:
            with os.scandir(self._text) as entries:
                for entry in entries:
                    # one that goes meanwhile is none
                    with suppress(FileNotFoundError):
                        if entry.is_file():
                            found[entry.name] = entry.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def read_each(self, names: Iterable[str]) -> dict[str, bytes | None]:
        return {name: (self / name).read() for name in names}

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._text)  # noqa: PTH108

    def remove_tree(self) -> None:
        shutil.rmtree(self._text, ignore_errors=True)

    def sync_tree(self) -> None:
        for folder, _, names in os.walk(self.path):
            for name in names:
                sync(Path(folder, name))

    def check_folder(self) -> None:
        _check_folder(self.path)

    def remove_partial(self) -> None:
        for leftover in self.path.glob("*.partial"):
            leftover.unlink(missing_ok=True)

    def zarr_store(self) -> str:
        return str(self.path)

    @contextmanager
    def locked(self) -> Iterator[Hold]:
        with locked(self.path) as hold:
            yield hold

    @contextmanager
    def appended(self) -> Iterator[Path]:
        yield self.path

    def local_directory(self) -> Path:
        return self.path


def put(
    path: Path, parts: Iterable[bytes | memoryview], *, durable: bool = False, scratch: Path | None = None
) -> None:
    """Write a whole file in place of any that is there: readers see the old one or the new one.

    ``parts`` are its bytes, in order; ``scratch`` is a folder for what is not yet whole, of the same file
    system; by default the file's own.
    """
    temporary = _temporary(path, parts, durable=durable, scratch=scratch)
    if scratch is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(path)


def put_if_absent(path: Path, data: bytes, *, durable: bool = False) -> bool:
    """Write a whole file unless it is there already; False where another writer came first."""
    temporary = _temporary(path, (data,), durable=durable)
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


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder: choose another output")


def _temporary(
    path: Path, parts: Iterable[bytes | memoryview], *, durable: bool, scratch: Path | None = None
) -> Path:
    folder = scratch or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
