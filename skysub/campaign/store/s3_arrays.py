"""What Zarr opens in a bucket, over the same requests as everything else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from skysub.campaign.store.s3_object import S3Object

__all__ = ["BucketStore"]


class BucketStore(Store):
    """Objects below one address, as Zarr's store; each request in a thread, several at once.

    Parameters
    ----------
    folder
        Where the store begins.
    read_only
        Refuse to write.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, folder: S3Object, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def __repr__(self) -> str:
        return f"BucketStore({str(self._folder)!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BucketStore)
            and self._folder == other._folder
            and self.read_only == other.read_only
        )

    def __hash__(self) -> int:
        return hash((self._folder, self.read_only))

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        """Return the same store, read-only or not."""
        return BucketStore(self._folder, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of an object; None where there is none."""
        data = await asyncio.to_thread((self._folder / key).read_range, _words(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of several objects."""
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        return await asyncio.to_thread((self._folder / key).size) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        self._check_writable()
        await asyncio.to_thread((self._folder / key).put, value.to_bytes())

    async def delete(self, key: str) -> None:
        """Remove an object."""
        self._check_writable()
        await asyncio.to_thread((self._folder / key).remove)

    async def list(self) -> AsyncIterator[str]:
        """Go through all keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Go through the keys that begin with ``prefix``."""
        start = len((self._folder / "x").key) - 1
        for key in await asyncio.to_thread(lambda: list(self._folder.all_keys())):
            if key[start:].startswith(prefix):
                yield key[start:]

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Go through the names in a folder."""
        inner = prefix.strip("/")
        for name in await asyncio.to_thread((self._folder / inner if inner else self._folder).names):
            yield name


def _words(span: ByteRequest | None) -> str | None:
    if isinstance(span, RangeByteRequest):
        return f"bytes={span.start}-{span.end - 1}"
    if isinstance(span, OffsetByteRequest):
        return f"bytes={span.offset}-"
    return f"bytes=-{span.suffix}" if isinstance(span, SuffixByteRequest) else None
