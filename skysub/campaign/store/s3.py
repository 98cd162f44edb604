"""A campaign in a bucket: an object appears when it is complete, so whole files cost nothing here."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any

import google_crc32c

from skysub.campaign.store.s3_client import AbsentError
from skysub.campaign.store.s3_object import S3Object
from skysub.campaign.store.storage_path import Hold, StoragePath
from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from skysub.campaign.store.s3_arrays import BucketStore

__all__ = ["S3Path"]

_AT_ONCE = 16
"""Small objects that are read at once."""

_LOG_EVERY = 30.0
"""Seconds between copies of a log that grows: what a killed coordinator's log may lack."""


class S3Path(S3Object, StoragePath):
    """A file or folder of a campaign in a bucket."""

    __slots__ = ()

    def absolute(self) -> S3Path:
        return self

    def lines(self) -> Iterator[bytes]:
        with TemporaryFile() as file:

            def begin() -> None:
                file.seek(0)
                file.truncate()

            try:
                self.stream(begin, file.write)
            except AbsentError:
                raise FileNotFoundError(f"{self}: there is no such object") from None
            file.seek(0)
            yield from file

    def version_token(self) -> tuple[str, str]:
        try:
            head = self.head()
        except AbsentError:
            raise FileNotFoundError(f"{self}: there is no such object") from None
        return str(head["ETag"]), str(head["LastModified"])

    def checksum(self) -> str:
        total = 0

        def begin() -> None:
            nonlocal total
            total = 0

        def take(piece: bytes) -> None:
            nonlocal total
            total = google_crc32c.extend(total, piece)

        try:
            self.stream(begin, take)
        except AbsentError:
            raise FileNotFoundError(f"{self}: there is no such object") from None
        return f"{total:08x}"

    def read_part(self, offset: int, length: int) -> bytes | None:
        return self.read_range(f"bytes={offset}-{offset + length - 1}")

    def put(
        self,
        data: bytes | memoryview,
        *,
        durable: bool = False,  # noqa: ARG002
        scratch: StoragePath | None = None,  # noqa: ARG002
    ) -> None:
        # an answer means that it is safe
        super().put(data)

    def put_if_absent(self, data: bytes, *, durable: bool = False) -> bool:  # noqa: ARG002
        return self.put_if(data, IfNoneMatch="*") is not None

    def put_lines(self, lines: Iterable[str]) -> None:
        with TemporaryFile() as file:
            file.writelines(f"{line}\n".encode() for line in lines)

            def send(s3: Any, at: dict[str, str]) -> None:
                file.seek(0)
                s3.put_object(**at, Body=file)

            self.ask("written", send)

    def put_by(self, write: Callable[[Path], object]) -> None:
        with TemporaryDirectory(prefix="skysub-") as folder:
            local = Path(folder) / self.name
            write(local)
            self.put(local.read_bytes())

    def read_each(self, names: Iterable[str]) -> dict[str, bytes | None]:
        wanted = list(names)
        if len(wanted) < 2:
            return {name: (self / name).read() for name in wanted}
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
            return dict(zip(wanted, pool.map(lambda name: (self / name).read(), wanted), strict=True))

    def remove_tree(self) -> None:
        keys = list(self.all_keys())
        for start in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[start : start + 1000]]
            self.ask(
                "written",
                lambda s3, at, objects=objects: s3.delete_objects(
                    Bucket=at["Bucket"], Delete={"Objects": objects, "Quiet": True}
                ),
            )

    def sync_tree(self) -> None:
        # what an object store has acknowledged, it keeps
        pass

    def remove_partial(self) -> None:
        # nothing of an object is there before all of it
        pass

    def zarr_store(self) -> BucketStore:
        from skysub.campaign.store.s3_arrays import BucketStore

        return BucketStore(self)

    @contextmanager
    def locked(self) -> Iterator[Hold]:
        from skysub.campaign.store.s3_lock import locked

        with locked(self / "lock", self) as hold:
            yield hold

    @contextmanager
    def appended(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="skysub-") as folder:
            local = Path(folder) / self.name
            local.write_bytes(self.read() or b"")
            over = threading.Event()
            copier = threading.Thread(target=self._copy_now_and_then, args=(local, over), daemon=True)
            copier.start()
            try:
                yield local
            finally:
                over.set()
                copier.join()

    def local_directory(self) -> Path:
        return Path()

    def _copy_now_and_then(self, local: Path, over: threading.Event) -> None:
        copied = local.stat().st_size
        ending = False
        while not ending:
            ending = over.wait(_LOG_EVERY)
            if local.stat().st_size != copied:
                # what keeps the output from being written ends the work, which says so
                with suppress(OutputError):
                    data = local.read_bytes()
                    self.put(data)
                    copied = len(data)
