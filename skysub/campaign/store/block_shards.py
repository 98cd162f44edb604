"""Shards of an image in blocks: chunks are encoded where their pixels are, and put together by one task.

Encoded chunks wait in files beside what is not yet whole, a file for each row of them, so that a shard may be
larger than the memory of whoever writes it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from skysub.background.rows import Plane, over_rows, rows_between
from skysub.campaign.store.shards import ShardFormat, encoded_row, joined_shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Written", "write_in_blocks"]


class Written:
    """Size and checksum of what is written part by part."""

    def __init__(self) -> None:
        self._bytes, self._crc = 0, 0

    def add(self, part: bytes) -> bytes:
        """Take in a part, and return it."""
        self._bytes += len(part)
        self._crc = google_crc32c.extend(self._crc, part)
        return part

    @property
    def said(self) -> dict[str, Any]:
        """What a marker says of it."""
        return {"bytes": self._bytes, "crc32c": f"{self._crc:08x}"}


def write_in_blocks(
    layout: ShardFormat, pixels: Plane, shard: StoragePath, *, scratch: StoragePath, durable: bool
) -> dict[str, Any]:
    """Write a plane of an image as one whole shard; returns the shard's size and checksum."""
    ny = pixels.shape[0]
    edges = np.append(np.arange(0, ny, layout.chunk[-2]), ny)
    name = f"{shard.name}.{uuid.uuid4().hex}"
    try:
        encoded = over_rows(
            _encode,
            (pixels,),
            spans=rows_between(edges),
            layout=layout,
            edges=edges,
            scratch=scratch,
            name=name,
        )
        sizes = [row for part in encoded for row in part]

        def read(row: int, column: int) -> bytes:
            size = sizes[row][column]
            if not size:
                return b""
            data = _file_of(scratch, name, row).read_part(sum(sizes[row][:column]), size)
            if data is None or len(data) != size:
                raise FileNotFoundError(f"{scratch}: chunks of {shard} are gone")
            return data

        written = Written()
        parts = joined_shard(layout, len(sizes), len(sizes[0]), read)
        shard.put_parts(map(written.add, parts), durable=durable, scratch=scratch)
    finally:
        for row in range(len(edges) - 1):
            _file_of(scratch, name, row).remove()
    return written.said


def _encode(
    units: range,
    pixels: NDArray[Any],
    *,
    layout: ShardFormat,
    edges: NDArray[np.int64],
    scratch: StoragePath,
    name: str,
    threads: int,
) -> list[list[int]]:
    """Bytes of each chunk in some rows of chunks, which go into a file a row."""
    del threads
    sizes = []
    for row in units:
        chunks = encoded_row(layout, pixels[edges[row] : edges[row + 1]])
        _file_of(scratch, name, row).put_parts(chunks)
        sizes.append([len(chunk) for chunk in chunks])
    return sizes


def _file_of(scratch: StoragePath, name: str, row: int) -> StoragePath:
    return scratch / f"{name}.{row}.part"
