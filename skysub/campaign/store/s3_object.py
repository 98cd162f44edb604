"""Requests on one object of a bucket, or on the objects below one address."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.s3_client import AbsentError, ChangedError, DamagedAnswerError, request
from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

__all__ = ["S3Object"]


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object, or all objects whose keys begin alike; ``key`` is empty for a whole bucket."""

    bucket: str
    key: str

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the object or folder of an ``s3://BUCKET/KEY`` address.

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

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """Last part of the key, or the bucket."""
        return self.key.rpartition("/")[2] or self.bucket

    @property
    def parent(self) -> Self:
        """Folder that it is in."""
        return type(self)(self.bucket, self.key.rpartition("/")[0])

    def read(self) -> bytes | None:
        """Bytes of the object; None where there is none."""
        return self.read_range(None)

    def read_range(self, span: str | None) -> bytes | None:
        """Part of the object's bytes by HTTP's words, such as "bytes=0-99"; None where there is no object."""
        if span is not None:

            def fetch(s3: Any, at: dict[str, str]) -> bytes:
                answer = s3.get_object(**at, Range=span)
                # an answer without is none of S3's, or broke off
                answer["ETag"]
                data: bytes = answer["Body"].read()
                return data

            try:
                part: bytes = self.ask("read", fetch)
            except AbsentError:
                return None
            return part
        try:
            data: bytes = self.get()["Body"]
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
        pieces: list[bytes] = []
        found = self.stream(pieces.clear, pieces.append)
        return {**found, "Body": b"".join(pieces)}

    def stream(self, begin: Callable[[], object], take: Callable[[bytes], object]) -> dict[str, Any]:
        """Read the object piece by piece; returns the server's answer about it, without its ``Body``.

        Bytes that are not those which the server has are asked for again.

        Parameters
        ----------
        begin
            Called when the first piece comes, or comes once more.
        take
            Called with each piece.

        Raises
        ------
        AbsentError
            When there is no object.
        """
        seen: set[str] = set()

        def fetch(s3: Any, at: dict[str, str]) -> dict[str, Any]:
            begin()
            answer = s3.get_object(**at)
            stated = _md5(answer)
            found = hashlib.md5(usedforsecurity=False)
            for piece in answer.pop("Body").iter_chunks(1 << 20):
                take(piece)
                if stated:
                    found.update(piece)
            made = found.hexdigest()
            # a server whose tags are not such sums sends the same bytes again
            if stated not in {"", made} and made not in seen:
                seen.add(made)
                raise DamagedAnswerError("the bytes do not have the MD5 that the server states")
            # the lock tells its owner, and its age, by these
            return {**answer, "ETag": answer["ETag"], "LastModified": answer["LastModified"]}

        found: dict[str, Any] = self.ask("read", fetch)
        return found

    def size(self) -> int | None:
        """Number of bytes; None where there is no object."""
        try:
            return int(self.head()["ContentLength"])
        except AbsentError:
            return None

    def put(self, data: bytes | memoryview) -> None:
        """Write the object, in place of any that is there."""
        self._put(data)

    def put_if(self, data: bytes, **condition: str) -> str | None:
        """Write the object where the condition (IfNoneMatch, IfMatch) holds; returns its tag, or None.

        None may also mean that a first attempt, whose answer was lost, has written it.
        """
        try:
            return self._put(data, **condition)
        except (ChangedError, AbsentError):
            return None

    def remove(self) -> None:
        """Remove the object, if it is there."""
        # a server that says so where there is none
        with suppress(AbsentError):
            self.ask("written", lambda s3, at: s3.delete_object(**at))

    def names(self) -> list[str]:
        """Names of objects and folders in the folder."""
        files, folders = self._listed()
        return [*files, *folders]

    def sizes(self) -> dict[str, int]:
        """Bytes of the objects in the folder, by name."""
        return self._listed()[0]

    def all_keys(self) -> Iterator[str]:
        """Go through the keys of all objects in the folder, however deep."""
        for page in self._pages():
            yield from (each["Key"] for each in page.get("Contents", ()))

    def ask(self, doing: str, act: Callable[..., Any]) -> Any:
        """Make a request, as `skysub.campaign.store.s3_client.request` does.

        ``act`` takes the client, and bucket and key by the names that its methods have for them.
        """
        at = {"Bucket": self.bucket, "Key": self.key}
        return request(lambda s3: act(s3, at), str(self), doing)

    def head(self) -> Any:
        """Return what the server says of the object without its bytes.

        Raises
        ------
        AbsentError
            When there is no object.
        """

        def look(s3: Any, at: dict[str, str]) -> dict[str, Any]:
            answer: dict[str, Any] = s3.head_object(**at)
            # an answer that breaks off in its headers is a good one for botocore
            return answer | {name: answer[name] for name in ("ETag", "LastModified", "ContentLength")}

        return self.ask("read", look)

    def _put(self, data: bytes | memoryview, **more: str) -> str:
        body = bytes(data)
        return str(self.ask("written", lambda s3, at: s3.put_object(**at, Body=body, **more)["ETag"]))

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
            page = self.ask(
                "read",
                lambda s3, at, more=dict(more): _whole_page(
                    s3.list_objects_v2(Bucket=at["Bucket"], Prefix=self._prefix, **more)
                ),
            )
            yield page
            if not page["IsTruncated"]:
                return
            more["ContinuationToken"] = page["NextContinuationToken"]


def _whole_page(page: dict[str, Any]) -> dict[str, Any]:
    """Make sure that a page of a listing says whether another follows: a cut one would look like the last."""
    return {**page, "NextContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else page


def _md5(answer: dict[str, Any]) -> str:
    """MD5 that a whole object has by its tag; empty where something better was checked, or the tag is none.

    Tags of objects that were put in parts, or are encrypted by other keys than the server's, are other sums.
    """
    tag = str(answer["ETag"]).strip('"')
    checked = "ChecksumAlgorithm" in answer["ResponseMetadata"]
    other = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "AES256") != "AES256"
    return tag if not checked and not other and re.fullmatch("[0-9a-f]{32}", tag) else ""
