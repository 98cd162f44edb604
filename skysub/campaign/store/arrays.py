"""The Zarr arrays of a run: made at full length before work starts, then filled one whole shard at a time.

Each chunk has a CRC-32C (Zarr's codec), each ``zarr.json`` its own, and what is all fill value is written as
well: so a damaged byte and a missing file are both found by whoever reads.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore, StorePath

from skysub.background.rows import Plane
from skysub.campaign.store.backgrounds import FIELDS
from skysub.campaign.store.block_shards import Written, write_in_blocks
from skysub.campaign.store.seals import damage, sealed_metadata, unsealed_metadata
from skysub.campaign.store.shards import ShardFormat, shard_parts
from skysub.errors import DamagedError, OutputError, SkysubError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.store.storage_path import StoragePath

__all__ = [
    "CHUNK",
    "PLANES",
    "background_rows",
    "check_arrays",
    "chunk_edge",
    "chunk_place",
    "create_backgrounds",
    "create_images",
    "encoded",
    "pixel_codecs",
    "read_block",
    "read_plane",
    "shard_place",
    "write_background_rows",
    "write_plane",
]

CHUNK = 512
"""Edge of a chunk inside a shard, pixel, about: a window is read without the rest, the whole as fast."""

_WITH_COORDINATES = {"visit", "detector", "y", "x"}

PLANES = {"image": ("float32", float("nan")), "mask": ("int32", 0), "variance": ("float32", float("nan"))}
"""Pixel arrays, their type and what stands where nothing was written."""


def create_images(
    store: StoragePath,
    product: str,
    *,
    planes: Sequence[str],
    visits: Sequence[int],
    detectors: Sequence[int],
    shape: tuple[int, int],
    compression: str,
    unit: str,
) -> list[StoragePath]:
    """Make the pixel arrays (visit, detector, y, x) of a product, with nothing in them.

    ``unit`` is that of all the pixels; empty where they have several. What is there already and sound stays,
    so this also makes again what was lost; returns the files that were written.
    """
    made: dict[str, Any] = {}
    group = _group(made, product, visits=visits, detectors=detectors)
    ny, nx = shape
    for name, length in (("y", ny), ("x", nx)):
        _coordinate(group, name, range(length), units="pixel")
    units = {"image": unit, "variance": f"{unit}**2" if unit else ""}
    chunk = tuple(chunk_edge(length) for length in shape)
    shard = tuple(-(-length // edge) * edge for length, edge in zip(shape, chunk, strict=True))
    for name in planes:
        dtype, fill = PLANES[name]
        group.create_array(
            name,
            shape=(len(visits), len(detectors), ny, nx),
            dtype=dtype,
            chunks=(1, 1, *chunk),
            shards=(1, 1, *shard),
            compressors=pixel_codecs(compression, mask=name == "mask"),
            fill_value=fill,
            dimension_names=("visit", "detector", "y", "x"),
            # one folder of shards: folders of one file each would be three times as many inodes
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"units": units[name]} if units.get(name) else {},
        )
    return _put_lost(store, made)


def create_backgrounds(
    store: StoragePath,
    product: str,
    *,
    visits: Sequence[int],
    detectors: Sequence[int],
    layers: int,
    grid: tuple[int, int],
    terms: int,
    unit: str,
) -> list[StoragePath]:
    """Make the arrays (visit, detector, layer, ...) of a background, one chunk per visit.

    What is there already and sound stays; returns the files that were written.
    """
    units = dict.fromkeys(("mean", "error", "coefficients"), unit) | {"covariance": f"{unit}**2"}
    made: dict[str, Any] = {}
    group = _group(made, product, visits=visits, detectors=detectors)
    sizes = {"gy": grid[0], "gx": grid[1], "term": terms, "term_2": terms}
    for name, (dtype, dimensions) in FIELDS.items():
        inner = (len(detectors), layers, *(sizes[each] for each in dimensions))
        group.create_array(
            name,
            shape=(len(visits), *inner),
            dtype=dtype,
            chunks=(1, *inner),
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
            fill_value=float("nan") if dtype.startswith("float") else 0,
            dimension_names=("visit", "detector", "layer", *dimensions),
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"units": units[name]} if unit and name in units else {},
        )
    return _put_lost(store, made)


def write_plane(
    store: StoragePath,
    product: str,
    name: str,
    index: tuple[int, int],
    pixels: NDArray[Any] | Plane,
    *,
    durable: bool = False,
    scratch: StoragePath | None = None,
) -> dict[str, Any]:
    """Write one detector's pixels as one whole shard; returns the shard's size and checksum.

    ``scratch`` is a folder for what is not yet whole.
    """
    array = _array_to_fill(store / product / name)
    layout = ShardFormat.of(array)
    shard = shard_place(store, product, name, index)
    if isinstance(pixels, Plane):
        if layout is None or scratch is None:
            raise TypeError(f"shards of {name} are made in another way, so an image in blocks has none")
        return write_in_blocks(layout, pixels, shard, scratch=scratch, durable=durable)
    if layout is not None:
        parts = shard_parts(layout, pixels)
    else:
        whole = np.full(array.shape[2:], PLANES[name][1], PLANES[name][0])
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        parts = iter((encoded(array, index, whole).tobytes(),))
    written = Written()
    shard.put_parts(map(written.add, parts), durable=durable, scratch=scratch)
    return written.said


def read_plane(
    store: StoragePath,
    product: str,
    name: str,
    index: tuple[int, int],
    shape: tuple[int, int],
    *,
    of: str = "",
) -> NDArray[Any]:
    """Pixels (ny, nx) of one detector, without the padding that larger detectors need.

    Raises
    ------
    DamagedError
        When they are not as they were written, or gone; ``of`` is whose they are, for people.
    """
    array = _array(store / product / name)
    shard = shard_place(store, product, name, index)
    _check_there(shard, of)
    return _read(array, (*index, slice(0, shape[0]), slice(0, shape[1])), shard, of)


def read_block(array: StoragePath, index: tuple[int, ...], *, of: str = "") -> NDArray[Any]:
    """Part of an array by whole numbers, slices and lists of places of its first axes, as Zarr's ``oindex``.

    It is padded as the store has it; NaN or 0 where nothing was written.

    Raises
    ------
    DamagedError
        When it is not as it was written.
    """
    return _read(_array(array).oindex, index, array, of)


def shard_place(store: StoragePath, product: str, name: str, index: tuple[int, int]) -> StoragePath:
    """Path that holds one detector's pixels."""
    return store / product / name / f"c.{index[0]}.{index[1]}.0.0"


def chunk_place(store: StoragePath, product: str, name: str, visit_index: int) -> StoragePath:
    """Path that holds one visit's part of an array of a background."""
    rank = 3 + len(FIELDS[name][1])
    return store / product / name / ".".join(("c", str(visit_index), *("0" for _ in range(rank - 1))))


def check_arrays(store: StoragePath, product: str, names: Sequence[str]) -> None:
    """Look whether metadata and coordinates of a product's group are as they were written; no data are read.

    Raises
    ------
    DamagedError
        When they are not.
    """
    for place in (store, store / product, *(store / product / name for name in names)):
        _metadata(place / "zarr.json")
    axes = dict.fromkeys(
        axis for name in names for axis in _array(store / product / name).metadata.dimension_names
    )
    for axis in axes:
        # those of a background's grid have no coordinates
        if axis in _WITH_COORDINATES:
            place = store / product / axis
            array = _array(place)
            chunk = place / "c/0"
            _check_there(chunk, "")
            _read(array, (slice(None),), chunk, "")


def write_background_rows(
    store: StoragePath,
    product: str,
    visit_index: int,
    rows: dict[int, list[dict[str, NDArray[Any]]]],
    *,
    durable: bool = False,
    scratch: StoragePath | None = None,
) -> set[int]:
    """Write one visit's backgrounds as one chunk of each array.

    Parameters
    ----------
    rows
        By index of the detector: the arrays of each layer.
    scratch
        A folder for what is not yet whole.

    Returns
    -------
    unfit
        Indices of detectors with more layers, superpixels or terms than the arrays have room for; they
        are not written.
    """
    arrays = {name: _array_to_fill(store / product / name) for name in FIELDS}
    rooms = {name: array.shape[2:] for name, array in arrays.items()}
    unfit = {index for index, layers in rows.items() if not _fits(layers, rooms)}
    for name, array in arrays.items():
        block: NDArray[Any] = np.full(array.shape[1:], array.fill_value, array.dtype)
        for index in rows.keys() - unfit:
            for number, layer in enumerate(rows[index]):
                inner = tuple(slice(0, length) for length in layer[name].shape)
                block[index, number][inner] = layer[name]
        data = encoded(array, (visit_index,), block)
        chunk_place(store, product, name, visit_index).put(data.data, durable=durable, scratch=scratch)
    return unfit


def background_rows(
    store: StoragePath, product: str, visit_index: int, detector_index: int, *, of: str = ""
) -> dict[str, NDArray[Any]]:
    """Arrays (layer, ...) of one detector, padded as the store has them.

    Raises
    ------
    DamagedError
        When they are not as they were written, or gone; ``of`` is whose they are, for people.
    """
    made = []
    for name in FIELDS:
        chunk = chunk_place(store, product, name, visit_index)
        _check_there(chunk, of)
        made.append(chunk.version_token())
    # a visit's chunks are read once for all of its detectors, which are asked for one after the other
    try:
        rows = _kept_rows(store, product, visit_index, tuple(made))
    except DamagedError:
        # once more, for an error that says whose they are
        rows = _visit_rows(store, product, visit_index, of)
    return {name: array[detector_index].copy() for name, array in rows.items()}


def chunk_edge(length: int) -> int:
    """Edge within a factor of two of CHUNK that cuts a detector's side evenly, or nearly so.

    A shard that is larger than the detector is filled up by Zarr, which costs a copy of all pixels.
    """
    pieces = range(max(1, -(-length // (2 * CHUNK))), max(1, 2 * length // CHUNK) + 1)
    edges = [-(-length // n) for n in pieces]
    return min(edges, key=lambda edge: (-length % edge, abs(math.log(edge / CHUNK))))


def _fits(layers: list[dict[str, NDArray[Any]]], rooms: dict[str, tuple[int, ...]]) -> bool:
    return all(
        len(layers) <= room[0] and all(n <= most for n, most in zip(layer[name].shape, room[1:], strict=True))
        for layer in layers
        for name, room in rooms.items()
    )


def _group(
    made: dict[str, Any], product: str, *, visits: Sequence[int], detectors: Sequence[int]
) -> zarr.Group:
    root = zarr.open_group(MemoryStore(made), mode="a", zarr_format=3)
    group = root.require_group(product)
    for name, values in (("visit", visits), ("detector", detectors)):
        _coordinate(group, name, values)
    return group


def _coordinate(group: zarr.Group, name: str, values: Sequence[int], **attributes: Any) -> None:
    array = group.create_array(
        name,
        shape=(len(values),),
        dtype="int64",
        chunks=(max(1, len(values)),),
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
        dimension_names=(name,),
        attributes=dict(attributes),
    )
    array[:] = np.asarray(values, np.int64)


def _put_lost(store: StoragePath, made: dict[str, Any]) -> list[StoragePath]:
    """Write the files of arrays that hold nothing yet, but for those that are there and sound."""
    written = []
    files = {key: value.to_bytes() for key, value in made.items()}
    for key, data in files.items():
        place = store / key
        there = place.read()
        if place.name == "zarr.json":
            if there is None or unsealed_metadata(there) is None:
                place.put(sealed_metadata(data))
                written.append(place)
        elif there != data:
            # of a coordinate: with the metadata that it was made by
            metadata = f"{key.rpartition('/c/')[0]}/zarr.json"
            (store / metadata).put(sealed_metadata(files[metadata]))
            place.put(data)
            written.append(place)
    return written


def pixel_codecs(compression: str, *, mask: bool) -> list[Any]:
    """Codecs of the chunks of a pixel array: those of a recipe's ``compression``, and a checksum."""
    if compression == "none" and not mask:
        return [Crc32cCodec()]
    # masks shrink a hundredfold at no cost, so they are compressed in any case
    cname: Literal["lz4", "zstd"] = "zstd" if compression == "zstd" else "lz4"
    return [BloscCodec(cname=cname, clevel=1, shuffle="bitshuffle"), Crc32cCodec()]


@functools.lru_cache(maxsize=4)
def _kept_rows(
    store: StoragePath, product: str, visit_index: int, _made: Hashable
) -> dict[str, NDArray[Any]]:
    return _visit_rows(store, product, visit_index, "")


def _visit_rows(store: StoragePath, product: str, visit_index: int, of: str) -> dict[str, NDArray[Any]]:
    return {
        name: _read(
            _array(store / product / name), (visit_index,), chunk_place(store, product, name, visit_index), of
        )
        for name in FIELDS
    }


def _read(array: Any, index: tuple[Any, ...], place: StoragePath, of: str) -> NDArray[Any]:
    try:
        return np.asarray(array[index])
    except SkysubError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise damage(place, "is damaged", of) from error
    # codecs raise errors of all kinds on bytes that are not theirs
    except Exception as error:
        raise damage(place, "is damaged", of) from error


def _check_there(place: StoragePath, of: str) -> None:
    """Refuse what Zarr would take for the fill value: a file that is gone, or empty."""
    size = place.size()
    if not size:
        raise damage(place, "is gone" if size is None else "is empty", of)


def _array(place: StoragePath) -> Any:
    metadata = place / "zarr.json"
    try:
        # a store made anew at the same place is another one
        return _opened(place, metadata.version_token())
    except FileNotFoundError:
        raise damage(metadata, "is gone") from None


def _array_to_fill(place: StoragePath) -> Any:
    """Array of a run that is under way.

    Raises
    ------
    OutputError
        When its metadata are gone or damaged, which no other unit would survive.
    """
    try:
        return _array(place)
    except DamagedError as error:
        raise OutputError(f"{error}; it was removed or damaged under this run") from None


def _metadata(place: StoragePath) -> dict[str, Any]:
    data = place.read()
    if data is None:
        raise damage(place, "is gone")
    values = unsealed_metadata(data)
    if values is None:
        raise damage(place, "is damaged")
    return values


@functools.lru_cache(maxsize=64)
def _opened(place: StoragePath, _made: Hashable) -> Any:
    _metadata(place / "zarr.json")
    return zarr.open_array(place.zarr_store(), mode="r", zarr_format=3)


def encoded(array: Any, index: tuple[int, ...], block: NDArray[Any]) -> NDArray[np.uint8]:
    """Bytes of the one shard or chunk of a Zarr array that holds a whole block.

    ``index`` are its places along the first axes, ``block`` has the others.
    """
    kept: dict[str, Any] = {}
    place = StorePath(MemoryStore(kept))
    sink = zarr.Array(zarr.AsyncArray(array.metadata, place, config={"write_empty_chunks": True}))
    # as a slice of the array's own rank: a whole shard is then taken as it is, without a copy
    sink[tuple(slice(each, each + 1) for each in index)] = block[(np.newaxis,) * len(index)]
    encoded: NDArray[np.uint8] = kept.popitem()[1].as_numpy_array().view(np.uint8)
    return encoded
