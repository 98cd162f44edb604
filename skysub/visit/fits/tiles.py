"""Tiles of compressed images: RICE and gzip unpacked here, where a file has nothing unusual."""

from __future__ import annotations

import functools
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from skysub.visit.fits.file import Hdu

__all__ = ["DamagedTileError", "UnusualTileError", "unpack_tiles"]

_ALGORITHMS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2")
_DITHERS = {"NO_DITHER": -1, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}
_TYPES = {8: np.uint8, 16: np.int16, 32: np.int32, -32: np.float32}
_BYTES = {"B": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "L": 1, "A": 1}
_FORM = re.compile(r"(\d{0,6})([PQ]?)([A-Z])")
_GZIP = 16 + zlib.MAX_WBITS


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


def unpack_tiles(hdu: Hdu, data: NDArray[np.uint8]) -> NDArray[Any]:
    """Pixels of a tile-compressed image as it stores them, BSCALE and BZERO not applied.

    Parameters
    ----------
    data
        Bytes of the HDU's data.

    Returns
    -------
    pixels
        (ny, nx) float32, int32, int16 or uint8; what quantised tiles have as ZBLANK is NaN.

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
    out = np.empty((ny, nx), np.float32 if bitpix < 0 else np.int32)
    bits = out.view(np.int32)
    room = np.empty(high * wide, np.int32)
    heap = raw.get("THEAP", raw.get("NAXIS1") * raw.get("NAXIS2"))
    random = _random()
    for number, (y, x) in enumerate((y, x) for y in range(0, ny, high) for x in range(0, nx, wide)):
        place = out[y : y + high, x : x + wide]
        pixels = room[: place.size]
        length, start = (int(value) for value in packed.values[number])
        lossless = not quantised
        if length == 0 and gzipped is not None:
            length, start = (int(value) for value in gzipped.values[number])
            kind, lossless = "GZIP_1", True
        else:
            kind = algorithm
        start += heap
        if length <= 0:
            raise UnusualTileError
        if not 0 <= start <= start + length <= len(data):
            raise DamagedTileError(f"tile {number} lies outside of the data")
        if kind.startswith("RICE"):
            if not kernels.unrice(data, start, start + length, width, block, pixels):
                raise DamagedTileError(f"tile {number} ends before its last pixel")
        else:
            _gunzip(
                data[start : start + length],
                pixels,
                shuffled=kind == "GZIP_2",
                floats=lossless and bitpix < 0,
            )
        if lossless:
            kernels.to_integers(pixels, bits[y : y + high, x : x + wide])
        else:
            assert scales is not None
            assert zeros is not None
            kernels.to_floats(
                pixels,
                float(scales[number]),
                float(zeros[number]),
                _DITHERS[dither],
                number + seed,
                random,
                blank is not None,
                blank or 0,
                place,
            )
    return out.astype(_TYPES[bitpix], copy=False)


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


def _gunzip(packed: NDArray[np.uint8], pixels: NDArray[np.int32], *, shuffled: bool, floats: bool) -> None:
    """Unpack a tile to 32 bits a pixel; integers of 16 bits are widened."""
    from skysub.visit.fits import tile_kernels as kernels

    inflater = _inflater()(_GZIP)
    try:
        # never more than the largest pixels take
        unpacked = inflater.decompress(packed, 8 * pixels.size + 1)
    except Exception as error:
        raise DamagedTileError(f"gzip: {error}") from error
    if not inflater.eof:
        raise DamagedTileError("gzip: the stream is cut short, or holds more than its tile")
    if inflater.unused_data:
        raise UnusualTileError
    size, left = divmod(len(unpacked), pixels.size)
    if left or size not in ((4,) if floats else (2, 4)):
        raise UnusualTileError
    if shuffled:
        kernels.join_bytes(np.frombuffer(unpacked, np.uint8), pixels)
    else:
        pixels[:] = np.frombuffer(unpacked, f">i{size}")
