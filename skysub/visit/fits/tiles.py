"""Tiles of compressed images: RICE and gzip unpacked here, where a file has nothing unusual."""

from __future__ import annotations

import functools
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.row_blocks import sheet
from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from skysub.visit.fits.file import Hdu

__all__ = ["DamagedTileError", "UnusualTileError", "bytes_of_rows", "unpack_tiles"]

_ALGORITHMS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2")
_DITHERS = {"NO_DITHER": -1, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}
_TYPES = {8: np.uint8, 16: np.int16, 32: np.int32, -32: np.float32}
_BYTES = {"B": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "L": 1, "A": 1}
_FORM = re.compile(r"(\d{0,6})([PQ]?)([A-Z])")
_GZIP = 16 + zlib.MAX_WBITS
_BATCH = 1 << 18
"""Bytes from which tiles are put together at once: so many stay in the cache."""
_SHORT = 1024
"""Packed bytes of a tile up to which it is looked at whether the one before was the same."""


class UnusualTileError(Exception):
    """A tile is packed in a way that is not known here; astropy may know it."""


class DamagedTileError(ValueError):
    """A tile cannot be unpacked."""


@dataclass(frozen=True)
class _Column:
    """A column of the table of tiles, read from its rows."""

    values: NDArray[Any]
    """(rows,), or (rows, 2) int64: length and place of bytes in the heap."""
    kind: str


def bytes_of_rows(hdu: Hdu, data: NDArray[np.uint8], rows: range) -> range:
    """Bytes of an HDU's data that hold the tiles of some rows; the table of tiles must be there.

    Raises
    ------
    UnusualTileError, DamagedTileError
        As `unpack_tiles` does.
    """
    columns = _columns(hdu, data)
    packed = columns.get("COMPRESSED_DATA")
    if packed is None:
        raise UnusualTileError
    starts, stops = _extents(packed, columns.get("GZIP_COMPRESSED_DATA"), hdu, data)
    tiles = _tiles_of_rows(hdu, rows)
    own = slice(tiles.start, tiles.stop)
    return range(int(starts[own].min()), int(stops[own].max()))


def _tiles_of_rows(hdu: Hdu, rows: range) -> range:
    ny, nx = hdu.shape
    high, wide = min(hdu.raw.get("ZTILE2", 1), ny), min(hdu.raw.get("ZTILE1", nx), nx)
    across = -(-nx // wide)
    return range(rows.start // high * across, -(-rows.stop // high) * across)


def unpack_tiles(
    hdu: Hdu, data: NDArray[np.uint8], *, rows: range | None = None, threads: int = 1
) -> NDArray[Any]:
    """Pixels of a tile-compressed image as it stores them, BSCALE and BZERO not applied.

    Parameters
    ----------
    data
        Bytes of the HDU's data.
    rows
        Which rows to unpack; None: all. Of the data only the table and their tiles must be there.
    threads
        Threads to share the tiles among.

    Returns
    -------
    pixels
        (rows, nx) float32, int32, int16 or uint8; what quantised tiles have as ZBLANK is NaN.

    Raises
    ------
    UnusualTileError
        When the image is packed in a way that is not known here.
    DamagedTileError
        When its bytes are no such tiles.
    """
    from skysub.visit.fits import tile_kernels as kernels

    raw = hdu.raw
    bitpix, algorithm = raw.get("ZBITPIX"), raw.get("ZCMPTYPE")
    columns = _columns(hdu, data)
    packed = columns.get("COMPRESSED_DATA")
    quantised = "ZSCALE" in columns
    dither = raw.get("ZQUANTIZ", "NO_DITHER") if quantised else "NO_DITHER"
    if (
        bitpix not in _TYPES
        or algorithm not in _ALGORITHMS
        or packed is None
        or packed.kind != "B"
        or dither not in _DITHERS
        or (bitpix < 0 and not quantised and algorithm.startswith("RICE"))
        or (bitpix > 0 and quantised)
    ):
        raise UnusualTileError
    gzipped = columns.get("GZIP_COMPRESSED_DATA")
    blank = _blank(hdu, columns, quantised=quantised)
    scales, zeros = (columns[name].values if quantised else None for name in ("ZSCALE", "ZZERO"))
    seed = raw.get("ZDITHER0", 0)
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise UnusualTileError
    settings = {raw.get(f"ZNAME{i}"): raw.get(f"ZVAL{i}") for i in range(1, 10) if f"ZVAL{i}" in raw}
    # checked to be among a few, which 32.0 is
    width, block = 8 * int(settings.get("BYTEPIX", 4)), int(settings.get("BLOCKSIZE", 32))
    if width not in {8, 16, 32}:
        raise UnusualTileError

    ny, nx = hdu.shape
    high, wide = min(raw.get("ZTILE2", 1), ny), min(raw.get("ZTILE1", nx), nx)
    # integers are put together as int32, and cut to what the image holds at the end
    kind = np.dtype(np.float32 if bitpix < 0 else np.int32)
    out = np.empty((ny, nx), kind) if rows is None else sheet((ny, nx), kind)
    place = (out.view(np.int32), out.view(np.float32))
    scaling = np.zeros((0, 2)) if scales is None or zeros is None else np.column_stack([scales, zeros])
    numbers = np.array([_DITHERS[dither], seed, blank is not None, blank or 0], np.int64)
    scaled = (quantised, numbers, scaling, _random())

    starts, stops = _extents(packed, gzipped, hdu, data)
    tiles = len(starts)
    wanted = range(tiles) if rows is None else _tiles_of_rows(hdu, rows)
    # tiles that could not be quantised are kept as they are, packed by gzip
    kept = np.zeros(tiles, bool) if gzipped is None else packed.values[:tiles, 0] == 0
    bad: list[int] = []
    if algorithm.startswith("RICE"):
        stops_here = np.where(kept, starts, stops)

        def unrice(tiles: range) -> None:
            ends = (starts, stops_here, tiles.start, tiles.stop)
            damaged = kernels.unpack_rice(data, *ends, width, block, high, wide, *scaled, *place)
            if damaged >= 0:
                bad.append(damaged)

        in_threads(unrice, wanted, threads)
        if bad:
            raise DamagedTileError(f"tile {min(bad)} ends before its last pixel")
    else:
        sizes = (4,) if bitpix < 0 and not quantised else (2, 4)
        unpacker = _Inflated(data, starts, stops, (ny, nx), (high, wide), sizes)

        def inflate(tiles: range) -> None:
            shuffled = algorithm == "GZIP_2"
            for batch in unpacker.batches(tiles, ~kept):
                kernels.unpack_bytes(*batch, shuffled, high, wide, *scaled, *place)

        in_threads(inflate, wanted, threads)
    if kept.any():
        sizes = (4,) if bitpix < 0 else (2, 4)
        unpacker = _Inflated(data, starts, stops, (ny, nx), (high, wide), sizes)
        for batch in unpacker.batches(wanted, kept):
            kernels.unpack_bytes(*batch, False, high, wide, False, *scaled[1:], *place)
    chosen = out if rows is None else out[rows.start : rows.stop].copy()
    return chosen.astype(_TYPES[bitpix], copy=False)


def _extents(
    packed: _Column, gzipped: _Column | None, hdu: Hdu, data: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First byte of each tile in the data, and the one past its last."""
    lengths, starts = packed.values.T
    if gzipped is not None:
        lengths = np.where(packed.values[:, 0] == 0, gzipped.values[:, 0], lengths)
        starts = np.where(packed.values[:, 0] == 0, gzipped.values[:, 1], starts)
    if (lengths <= 0).any():
        raise UnusualTileError
    heap = hdu.raw.get("THEAP", hdu.raw.get("NAXIS1") * hdu.raw.get("NAXIS2"))
    if type(heap) is not int:
        raise UnusualTileError
    # each compared by itself, so that no sum can overflow
    size = len(data) - heap
    inside = (starts >= 0) & (starts <= size) & (lengths <= size - np.clip(starts, 0, max(size, 0)))
    if size < 0 or heap < 0 or not inside.all():
        raise DamagedTileError(f"tile {int(np.argmin(inside))} lies outside of the data")
    return starts + heap, starts + heap + lengths


@dataclass(frozen=True)
class _Inflated:
    """Tiles packed by gzip, unpacked in batches of neighbours."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    shape: tuple[int, int]
    tile: tuple[int, int]
    sizes: tuple[int, ...]
    """Bytes that an integer may have."""

    def batches(
        self, tiles: range, chosen: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.uint8], int, int, int]]:
        """Bytes of tiles, the first of them, the one past the last, and bytes of an integer."""
        (ny, nx), (high, wide) = self.shape, self.tile
        across = -(-nx // wide)
        parts: list[bytes] = []
        first = size = room = 0
        before: tuple[int, bytes] = (0, b"")
        unpacked = b""
        for tile in tiles:
            if not chosen[tile]:
                continue
            y, x = tile // across * high, tile % across * wide
            pixels = min(high, ny - y) * min(wide, nx - x)
            packed = self.data[self.starts[tile] : self.stops[tile]]
            # rows of a mask are often alike
            this = (pixels, packed.tobytes()) if len(packed) < _SHORT else (0, b"")
            if this[0] == 0 or this != before:
                unpacked = _gunzip(packed, pixels)
            before = this
            found, left = divmod(len(unpacked), pixels)
            if left or found not in self.sizes:
                raise UnusualTileError
            if parts and (found != size or tile != first + len(parts) or room > _BATCH):
                yield np.frombuffer(bytearray().join(parts), np.uint8), first, first + len(parts), size
                parts = []
            if not parts:
                first, size, room = tile, found, 0
            parts.append(unpacked)
            room += len(unpacked)
        if parts:
            yield np.frombuffer(bytearray().join(parts), np.uint8), first, first + len(parts), size


def _columns(hdu: Hdu, data: NDArray[np.uint8]) -> dict[str, _Column]:
    """Columns of the table by name."""
    raw = hdu.raw
    width, rows = raw.get("NAXIS1"), raw.get("NAXIS2")
    table = data[: width * rows].reshape(rows, width)
    columns: dict[str, _Column] = {}
    position = 0
    for number in range(1, raw.get("TFIELDS", 0) + 1):
        name, form = raw.get(f"TTYPE{number}"), raw.get(f"TFORM{number}")
        match = _FORM.match(form.strip()) if isinstance(form, str) else None
        if match is None or match[3] not in _BYTES or not isinstance(name, str) or f"TSCAL{number}" in raw:
            raise UnusualTileError
        repeat, pointer, kind = int(match[1] or 1), match[2], match[3]
        size = {"": _BYTES[kind], "P": 8, "Q": 16}[pointer]
        if repeat != 1 or position + size > width:
            raise UnusualTileError
        values = np.ascontiguousarray(table[:, position : position + size])
        if pointer:
            values = values.view(">i4" if pointer == "P" else ">i8").astype(np.int64)
        elif kind in {"J", "E", "D"}:
            values = values.view({"J": ">i4", "E": ">f4", "D": ">f8"}[kind])[:, 0]
        columns[name.strip().upper()] = _Column(values, kind)
        position += size
    known = {"ZSCALE", "ZZERO", "COMPRESSED_DATA", "GZIP_COMPRESSED_DATA"}
    doubles = [columns[name] for name in ("ZSCALE", "ZZERO") if name in columns]
    if not columns.keys() <= known or len(doubles) == 1 or any(column.kind != "D" for column in doubles):
        raise UnusualTileError
    if any(columns[name].values.ndim != 2 for name in known & columns.keys() if "DATA" in name):
        raise UnusualTileError
    return columns


def _blank(hdu: Hdu, columns: dict[str, _Column], *, quantised: bool) -> int | None:
    """Integer that stands for NaN in quantised tiles; one for all of them."""
    blank = hdu.raw.get("ZBLANK", hdu.cards.get("BLANK"))
    if blank is None:
        return None
    if type(blank) is not int or "ZBLANK" in columns or (hdu.raw.get("ZBITPIX") < 0 and not quantised):
        raise UnusualTileError
    return blank if quantised and -(2**31) <= blank < 2**31 else None


@functools.cache
def _random() -> NDArray[np.float32]:
    from skysub.visit.fits import tile_kernels

    return tile_kernels.dither_table()


@functools.cache
def _inflater() -> Callable[[int], Any]:
    """Decompressor of gzip: that of isal where it is installed, which is called alike, else Python's."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.decompressobj
    made: Callable[[int], Any] = isal_zlib.decompressobj
    return made


def _gunzip(packed: NDArray[np.uint8], pixels: int) -> bytes:
    """Bytes of a tile of so many pixels."""
    inflater = _inflater()(_GZIP)
    try:
        # never more than the largest pixels take
        unpacked: bytes = inflater.decompress(packed, 8 * pixels + 1)
    except Exception as error:
        raise DamagedTileError(f"gzip: {error}") from error
    if not inflater.eof:
        raise DamagedTileError("gzip: the stream is cut short, or holds more than its tile")
    if inflater.unused_data:
        raise UnusualTileError
    return unpacked
