"""A shard of a Zarr array made of its pixels at once, byte for byte what Zarr writes.

Zarr hands each chunk through several tasks and copies; here chunks are compressed one after the other, each
with its CRC-32C, and put together with their index (Zarr v3, sharding_indexed 1.0). Only chunks that the
detector reaches into are gone through, so one much larger in the same array costs it no more than the places
of an index.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["ShardFormat", "encoded_row", "joined_shard", "shard_parts"]

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_INDEX = [_BYTES, _CRC]
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_ABSENT = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class ShardFormat:
    """How the shards of an array are laid out, where that is as skysub makes them."""

    shard: tuple[int, ...]
    """Shape of a shard: that of the largest detector, rounded up to whole chunks."""
    chunk: tuple[int, ...]
    """Shape of a chunk."""
    compressor: tuple[str, int, int, int, int] | None
    """Of Blosc: codec, level, kind of shuffle, sizes of its blocks and of an element; None: none."""
    dtype: np.dtype[Any]
    fill: Any

    @classmethod
    def of(cls, array: Any) -> ShardFormat | None:
        """Layout of a Zarr array; None where its shards are made in another way."""
        codecs = array.metadata.to_dict()["codecs"]
        sharding = codecs[0].get("configuration", {})
        inner = [dict(codec) for codec in sharding.get("codecs", ())]
        if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed" or len(inner) < 2:
            return None
        if inner[0] != _BYTES or inner.pop() != _CRC:
            return None
        index = [dict(codec) for codec in sharding["index_codecs"]]
        if index != _INDEX or sharding.get("index_location") != "end" or array.dtype.itemsize == 1:
            return None
        compressor = None
        if len(inner) > 1:
            blosc = inner[1].get("configuration", {})
            if len(inner) > 2 or inner[1]["name"] != "blosc" or blosc.get("shuffle") not in _SHUFFLES:
                return None
            names = blosc["cname"], blosc["clevel"], _SHUFFLES[blosc["shuffle"]]
            compressor = (*names, blosc["blocksize"], blosc["typesize"])
        return cls(
            shard=tuple(array.shards),
            chunk=tuple(sharding["chunk_shape"]),
            compressor=compressor,
            dtype=array.dtype.newbyteorder("<"),
            fill=array.fill_value,
        )


def shard_parts(layout: ShardFormat, block: NDArray[Any]) -> Iterator[bytes]:
    """Make the bytes of the shard that holds a whole block; of one of filling alone, an index.

    No more than a chunk is held at a time: memory for a whole shard would have to be asked of the system each
    time, which takes as long as compressing it.

    Parameters
    ----------
    block
        Pixels of the rank of the array or of its last axes, from their beginning on; where a shard reaches
        beyond them it holds the fill value.
    """
    block = block.astype(layout.dtype, copy=False)[(np.newaxis,) * (len(layout.chunk) - block.ndim)]
    counts = tuple(length // edge for length, edge in zip(layout.shard, layout.chunk, strict=True))
    reached = tuple(-(-length // edge) for length, edge in zip(block.shape, layout.chunk, strict=True))
    # the order goes by bits of all places that there are, so those that are reached keep theirs
    places = _reached(counts, reached)
    yield from _joined(counts, ((place, _encoded(layout, block, place)) for place in places))


def encoded_row(layout: ShardFormat, block: NDArray[Any]) -> list[bytes]:
    """Encoded chunks of a row of them, from its pixels (edge, nx); empty where there is filling alone."""
    block = block.astype(layout.dtype, copy=False)[(np.newaxis,) * (len(layout.chunk) - block.ndim)]
    row = (0,) * (len(layout.chunk) - 1)
    return [_encoded(layout, block, (*row, i)) for i in range(-(-block.shape[-1] // layout.chunk[-1]))]


def joined_shard(
    layout: ShardFormat, rows: int, columns: int, read: Callable[[int, int], bytes]
) -> Iterator[bytes]:
    """Make the bytes of a shard, as `shard_parts` does, of chunks that were encoded before.

    Parameters
    ----------
    rows, columns
        Of chunks that the detector reaches into.
    read
        From row and column of a chunk to what `encoded_row` made of it.
    """
    counts = tuple(length // edge for length, edge in zip(layout.shard, layout.chunk, strict=True))
    reached = (*(1 for _ in counts[:-2]), rows, columns)
    yield from _joined(counts, ((place, read(*place[-2:])) for place in _reached(counts, reached)))


def _encoded(layout: ShardFormat, block: NDArray[Any], place: tuple[int, ...]) -> bytes:
    """Bytes of the chunk at a place of a block of pixels; none where it is filling alone."""
    from numcodecs.blosc import compress

    cut = tuple(slice(i * edge, (i + 1) * edge) for i, edge in zip(place, layout.chunk, strict=True))
    chunk = np.ascontiguousarray(block[cut])
    if chunk.shape != layout.chunk:
        padded = np.full(layout.chunk, layout.fill, layout.dtype)
        padded[tuple(slice(length) for length in chunk.shape)] = chunk
        chunk = padded
    if _is_filling(chunk, layout.fill):
        return b""
    if layout.compressor is None:
        return chunk.tobytes()
    name, level, shuffle, size, width = layout.compressor
    compressed: bytes = compress(chunk, name.encode(), level, shuffle, size, typesize=width)
    return compressed


def _joined(counts: tuple[int, ...], chunks: Iterable[tuple[tuple[int, ...], bytes]]) -> Iterator[bytes]:
    """Chunks with their checksums one after the other, and their index."""
    index = np.full((*counts, 2), _ABSENT, "<u8")
    end = 0
    for place, part in chunks:
        if not part:
            continue
        yield part
        yield google_crc32c.value(part).to_bytes(4, "little")
        index[place] = end, len(part) + 4
        end += len(part) + 4
    listed = index.tobytes()
    yield listed
    yield google_crc32c.value(listed).to_bytes(4, "little")


def _is_filling(chunk: NDArray[Any], fill: Any) -> bool:
    """Whether all is the fill value: by bits where that is zero, and NaN whatever its bits."""
    flat = chunk.reshape(-1)
    # nearly always the first pixel tells
    if fill != fill:  # noqa: PLR0124
        return bool(np.isnan(flat[0])) and bool(np.isnan(flat).all())
    if flat[0] != fill:
        return False
    if fill == 0:
        return not flat.view(np.uint8).any()
    return bool((flat == fill).all())


@functools.lru_cache(maxsize=64)
def _reached(counts: tuple[int, ...], reached: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [
        place for place in _morton_order(counts) if all(i < n for i, n in zip(place, reached, strict=True))
    ]


@functools.lru_cache(maxsize=16)
def _morton_order(counts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Places of chunks in the order in which Zarr writes them: bits of all axes in turns, last bits first."""
    bits = [(count - 1).bit_length() for count in counts]

    def code(place: tuple[int, ...]) -> int:
        out = position = 0
        for bit in range(max(bits)):
            for axis, number in enumerate(place):
                if bit < bits[axis]:
                    out |= (number >> bit & 1) << position
                    position += 1
        return out

    return sorted(product(*(range(count) for count in counts)), key=code)
