"""A campaign in a bucket: an object appears when it is complete, so whole files cost nothing here."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any

import google_crc32c

from skysub.campaign.places import Hold, Place
from skysub.campaign.s3_client import AbsentError, ChangedError, request
from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from skysub.campaign.s3_arrays import BucketStore

__all__ = ["S3Place"]

_AT_ONCE = 16
"""Small objects that are read at once."""

_LOG_EVERY = 30.0
"""Seconds between copies of a log that grows: what a killed coordinator's log may lack."""


@dataclass(frozen=True, slots=True)
class S3Place(Place):
    """An object, or all objects whose keys begin alike; ``key`` is empty for a whole bucket."""

    bucket: str
    key: str

    @classmethod
    def at(cls, url: str) -> S3Place:
        """Return the place of an ``s3://BUCKET/KEY`` address.

        Raises
        ------
        OutputError
            When it names no bucket.
        """
        bucket, _, key = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise OutputError(f"{url} names no bucket: write s3://BUCKET/PREFIX")
        return cls(bucket, "/".join(part for part in key.split("/") if part))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def __truediv__(self, name: str) -> S3Place:
        return S3Place(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2] or self.bucket

    def absolute(self) -> S3Place:
        return self

    def read(self) -> bytes | None:
        return self.read_range(None)

    def read_range(self, span: str | None) -> bytes | None:
        """Part of the object's bytes by HTTP's words, such as "bytes=0-99"; None where there is no object."""
        more = {} if span is None else {"Range": span}
        try:
            data: bytes = self._ask("read", lambda s3, at: s3.get_object(**at, **more)["Body"].read())
        except AbsentError:
            return None
        return data

    def get(self) -> dict[str, Any]:
        """Return the server's answer about the object, its ``Body`` read.

        Raises
        ------
        AbsentError
            When there is no object.
        """

        def fetch(s3: Any, at: dict[str, str]) -> dict[str, Any]:
            answer = s3.get_object(**at)
            return {**answer, "Body": answer["Body"].read()}

        found: dict[str, Any] = self._ask("read", fetch)
        return found

    def lines(self) -> Iterator[bytes]:
        with TemporaryFile() as file:

            def fetch(s3: Any, at: dict[str, str]) -> None:
                file.seek(0)
                file.truncate()
                for piece in s3.get_object(**at)["Body"].iter_chunks(1 << 20):
                    file.write(piece)

            try:
                self._ask("read", fetch)
            except AbsentError:
                raise FileNotFoundError(f"{self}: there is no such object") from None
            file.seek(0)
            yield from file

    def size(self) -> int | None:
        try:
            return int(self._head()["ContentLength"])
        except AbsentError:
            return None

    def made(self) -> tuple[str, str]:
        try:
            head = self._head()
        except AbsentError:
            raise FileNotFoundError(f"{self}: there is no such object") from None
        return str(head["ETag"]), str(head["LastModified"])

    def checksum(self) -> str:
        def fetch(s3: Any, at: dict[str, str]) -> int:
            total = 0
            for piece in s3.get_object(**at)["Body"].iter_chunks(1 << 20):
                total = google_crc32c.extend(total, piece)
            return total

        try:
            return f"{self._ask('read', fetch):08x}"
        except AbsentError:
            raise FileNotFoundError(f"{self}: there is no such object") from None

    def put(self, data: bytes | memoryview, *, durable: bool = False) -> None:  # noqa: ARG002
        # an answer means that it is safe
        self._put(data)

    def put_if_absent(self, data: bytes, *, durable: bool = False) -> bool:  # noqa: ARG002
        return self.put_if(data, IfNoneMatch="*") is not None

    def put_if(self, data: bytes, **condition: str) -> str | None:
        """Write the object where the condition (IfNoneMatch, IfMatch) holds; returns its tag, or None.

        None may also mean that a first attempt, whose answer was lost, has written it.
        """
        try:
            return self._put(data, **condition)
        except (ChangedError, AbsentError):
            return None

    def put_lines(self, lines: Iterable[str]) -> None:
        with TemporaryFile() as file:
            file.writelines(f"{line}\n".encode() for line in lines)

            def send(s3: Any, at: dict[str, str]) -> None:
                file.seek(0)
                s3.put_object(**at, Body=file)

            self._ask("written", send)

    def put_by(self, write: Callable[[Path], object]) -> None:
        with TemporaryDirectory(prefix="skysub-") as folder:
            local = Path(folder) / self.name
            write(local)
            self._put(local.read_bytes())

    def names(self) -> list[str]:
        files, folders = self._listed()
        return [*files, *folders]

    def sizes(self) -> dict[str, int]:
        return self._listed()[0]

    def read_each(self, names: Iterable[str]) -> dict[str, bytes | None]:
        wanted = list(names)
        if len(wanted) < 2:
            return {name: (self / name).read() for name in wanted}
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
            return dict(zip(wanted, pool.map(lambda name: (self / name).read(), wanted), strict=True))

    def remove(self) -> None:
        # a server that says so where there is none
        with suppress(AbsentError):
            self._ask("written", lambda s3, at: s3.delete_object(**at))

    def remove_tree(self) -> None:
        keys = list(self.all_keys())
        for start in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[start : start + 1000]]
            self._ask(
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

    def all_keys(self) -> Iterator[str]:
        """Go through the keys of all objects in the folder, however deep."""
        for page in self._pages():
            yield from (each["Key"] for each in page.get("Contents", ()))

    def zarr_store(self) -> BucketStore:
        from skysub.campaign.s3_arrays import BucketStore

        return BucketStore(self)

    @contextmanager
    def locked(self) -> Iterator[Hold]:
        from skysub.campaign.s3_lock import locked

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

    def nearby(self) -> Path:
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
                    self._put(data)
                    copied = len(data)

    def _ask(self, doing: str, act: Callable[..., Any]) -> Any:
        at = {"Bucket": self.bucket, "Key": self.key}
        return request(lambda s3: act(s3, at), str(self), doing)

    def _head(self) -> Any:
        return self._ask("read", lambda s3, at: s3.head_object(**at))

    def _put(self, data: bytes | memoryview, **more: str) -> str:
        body = bytes(data)
        return str(self._ask("written", lambda s3, at: s3.put_object(**at, Body=body, **more)["ETag"]))

    def _listed(self) -> tuple[dict[str, int], list[str]]:
        """Files in the folder with their bytes, and folders in it."""
        files: dict[str, int] = {}
        folders: list[str] = []
        start = len(self._prefix)
        for page in self._pages(Delimiter="/"):
            files.update({each["Key"][start:]: each["Size"] for each in page.get("Contents", ())})
            folders += [each["Prefix"][start:-1] for each in page.get("CommonPrefixes", ())]
        # consoles mark a folder by an empty object of its name
        files.pop("", None)
        return files, folders

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def _pages(self, **more: str) -> Iterator[Any]:
        while True:
            page = self._ask(
                "read",
                lambda s3, at, more=dict(more): s3.list_objects_v2(
                    Bucket=at["Bucket"], Prefix=self._prefix, **more
                ),
            )
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]
