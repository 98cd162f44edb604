"""The Zarr arrays of a run: made at full length before work starts, then filled one whole shard at a time."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore, StorePath

from skysub.campaign.store.backgrounds import FIELDS
from skysub.campaign.store.records import pixels_checksum
from skysub.campaign.store.shards import ShardFormat, encoded_shard

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.store.place import Place

__all__ = [
    "CHUNK",
    "PLANES",
    "background_rows",
    "create_backgrounds",
    "create_images",
    "read_block",
    "read_plane",
    "shard_place",
    "write_background_rows",
    "write_plane",
]

CHUNK = 512
"""Edge of a chunk inside a shard, pixel, about: a window is read without the rest, the whole as fast."""

PLANES = {"image": ("float32", float("nan")), "mask": ("int32", 0), "variance": ("float32", float("nan"))}
"""Pixel arrays, their type and what stands where nothing was written."""


def create_images(
    store: Place,
    product: str,
    *,
    planes: Sequence[str],
    visits: Sequence[int],
    detectors: Sequence[int],
    shape: tuple[int, int],
    compression: str,
    unit: str,
) -> None:
    """Make the pixel arrays (visit, detector, y, x) of a product, with nothing in them.

    ``unit`` is that of all the pixels; empty where they have several.
    """
    group = _group(store, product, visits=visits, detectors=detectors)
    ny, nx = shape
    for name, length in (("y", ny), ("x", nx)):
        _coordinate(group, name, range(length), units="pixel")
    units = {"image": unit, "variance": f"{unit}**2" if unit else ""}
    chunk = tuple(_chunk_edge(length) for length in shape)
    shard = tuple(-(-length // edge) * edge for length, edge in zip(shape, chunk, strict=True))
    for name in planes:
        dtype, fill = PLANES[name]
        group.create_array(
            name,
            shape=(len(visits), len(detectors), ny, nx),
            dtype=dtype,
            chunks=(1, 1, *chunk),
            shards=(1, 1, *shard),
            compressors=_codec(compression, mask=name == "mask"),
            fill_value=fill,
            dimension_names=("visit", "detector", "y", "x"),
            # one folder of shards: folders of one file each would be three times as many inodes
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"units": units[name]} if units.get(name) else {},
        )


def create_backgrounds(
    store: Place,
    product: str,
    *,
    visits: Sequence[int],
    detectors: Sequence[int],
    layers: int,
    grid: tuple[int, int],
    terms: int,
    unit: str,
) -> None:
    """Make the arrays (visit, detector, layer, ...) of a background, one chunk per visit."""
    units = dict.fromkeys(("mean", "error", "coefficients"), unit) | {"covariance": f"{unit}**2"}
    group = _group(store, product, visits=visits, detectors=detectors)
    sizes = {"gy": grid[0], "gx": grid[1], "term": terms, "term_2": terms}
    for name, (dtype, dimensions) in FIELDS.items():
        inner = (len(detectors), layers, *(sizes[each] for each in dimensions))
        group.create_array(
            name,
            shape=(len(visits), *inner),
            dtype=dtype,
            chunks=(1, *inner),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
            fill_value=float("nan") if dtype.startswith("float") else 0,
            dimension_names=("visit", "detector", "layer", *dimensions),
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"units": units[name]} if unit and name in units else {},
        )


def write_plane(
    store: Place,
    product: str,
    name: str,
    index: tuple[int, int],
    pixels: NDArray[Any],
    *,
    durable: bool = False,
    scratch: Place | None = None,
) -> dict[str, Any]:
    """Write one detector's pixels as one whole shard; returns the shard's size and checksum.

    ``scratch`` is a folder for what is not yet whole.
    """
    array = _array(store / product / name)
    shape = array.shape[2:]
    if pixels.shape != shape:
        whole = np.full(shape, PLANES[name][1], PLANES[name][0])
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        pixels = whole
    data = _encoded(array, index, pixels)
    shard = shard_place(store, product, name, index)
    if data is None:
        # nothing but the fill value: Zarr keeps no file for that
        shard.remove()
        return {"bytes": 0, "crc32c": ""}
    shard.put(data.data, durable=durable, scratch=scratch)
    return {"bytes": data.nbytes, "crc32c": pixels_checksum(data)}


def read_plane(
    store: Place, product: str, name: str, index: tuple[int, int], shape: tuple[int, int]
) -> NDArray[Any]:
    """Pixels (ny, nx) of one detector, without the padding that larger detectors need."""
    array = _array(store / product / name)
    return np.asarray(array[(*index, slice(0, shape[0]), slice(0, shape[1]))])


def read_block(array: Place, index: tuple[int, int]) -> NDArray[Any]:
    """One detector's part of an array, padded as the store has it."""
    return np.asarray(_array(array)[index])


def shard_place(store: Place, product: str, name: str, index: tuple[int, int]) -> Place:
    """Place that holds one detector's pixels; absent where they are all the fill value."""
    return store / product / name / f"c.{index[0]}.{index[1]}.0.0"


def write_background_rows(
    store: Place,
    product: str,
    visit_index: int,
    rows: dict[int, list[dict[str, NDArray[Any]]]],
    *,
    durable: bool = False,
) -> set[int]:
    """Write one visit's backgrounds as one chunk of each array.

    Parameters
    ----------
    rows
        By index of the detector: the arrays of each layer.

    Returns
    -------
    unfit
        Indices of detectors with more layers, superpixels or terms than the arrays have room for; they
        are not written.
    """
    arrays = {name: _array(store / product / name) for name in FIELDS}
    rooms = {name: array.shape[2:] for name, array in arrays.items()}
    unfit = {index for index, layers in rows.items() if not _fits(layers, rooms)}
    for name, array in arrays.items():
        block: NDArray[Any] = np.full(array.shape[1:], array.fill_value, array.dtype)
        for index in rows.keys() - unfit:
            for number, layer in enumerate(rows[index]):
                inner = tuple(slice(0, length) for length in layer[name].shape)
                block[index, number][inner] = layer[name]
        data = _encoded(array, (visit_index,), block)
        chunk = store / product / name / ".".join(("c", str(visit_index), *("0" for _ in block.shape)))
        if data is None:
            chunk.remove()
        else:
            chunk.put(data.data, durable=durable)
    return unfit


def background_rows(
    store: Place, product: str, visit_index: int, detector_index: int
) -> dict[str, NDArray[Any]]:
    """Arrays (layer, ...) of one detector, padded as the store has them."""
    means = store / product / "mean"
    chunk = means / ".".join(("c", str(visit_index), *("0" for _ in _array(means).shape[1:])))
    # a visit's chunk is read once for all of its detectors, which are asked for one after the other
    made = chunk.made() if chunk.exists() else None
    rows = _visit_rows(store / product, visit_index, made)
    return {name: array[detector_index].copy() for name, array in rows.items()}


def _chunk_edge(length: int) -> int:
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


def _group(store: Place, product: str, *, visits: Sequence[int], detectors: Sequence[int]) -> zarr.Group:
    root = zarr.open_group(store.zarr_store(), mode="a", zarr_format=3)
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
        dimension_names=(name,),
        attributes=dict(attributes),
    )
    array[:] = np.asarray(values, np.int64)


def _codec(compression: str, *, mask: bool) -> BloscCodec | None:
    if compression == "none" and not mask:
        return None
    # masks shrink a hundredfold at no cost, so they are compressed in any case
    cname: Literal["lz4", "zstd"] = "zstd" if compression == "zstd" else "lz4"
    return BloscCodec(cname=cname, clevel=1, shuffle="bitshuffle")


@functools.lru_cache(maxsize=2)
def _visit_rows(group: Place, visit_index: int, _made: Hashable) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(_array(group / name)[visit_index]) for name in FIELDS}


def _array(place: Place) -> Any:
    # a store made anew at the same place is another one
    return _opened(place, (place / "zarr.json").made())


@functools.lru_cache(maxsize=64)
def _opened(place: Place, _made: Hashable) -> Any:
    return zarr.open_array(place.zarr_store(), mode="r", zarr_format=3)


def _encoded(array: Any, index: tuple[int, ...], block: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Bytes of the one shard or chunk that holds a whole block; None where it is all the fill value."""
    layout = ShardFormat.of(array)
    if layout is not None:
        return encoded_shard(layout, block)
    kept: dict[str, Any] = {}
    sink = zarr.Array(zarr.AsyncArray(array.metadata, StorePath(MemoryStore(kept))))
    # as a slice of the array's own rank: a whole shard is then taken as it is, without a copy
    sink[tuple(slice(each, each + 1) for each in index)] = block[(np.newaxis,) * len(index)]
    return kept.popitem()[1].as_numpy_array().view(np.uint8) if kept else None
