"""Bytes of HDUs: cards, data, CHECKSUM and DATASUM; the same input gives the same bytes."""

from __future__ import annotations

import os
import re
import tempfile
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError, VisitFileError
from skysub.visit.fits.cards import CARD, Cards
from skysub.visit.fits.checksum import data_sum, encode_checksum, fold
from skysub.visit.fits.file import BLOCK, FitsFile
from skysub.visit.fits.remote import is_remote, put

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = [
    "Block",
    "card",
    "cards",
    "gzip_tiles",
    "history",
    "kept_cards",
    "plain_image",
    "rice_tiles",
    "write_blocks",
]

_BITPIX = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}
_TFORM = {"b1": "L", "i8": "K", "f8": "D"}
_ROWS_PER_JOB = 128
_CHUNK = 1 << 18
"""Values of an array whose bytes are turned at once: whole words of a sum, within a core's cache."""
_GZIP_LEVEL = 1
"""Pixels are noise: higher levels take three times as long and save two per cent."""


@dataclass(frozen=True, eq=False)
class Block:
    """Structural cards of one HDU and its data."""

    text: str
    data: bytes | NDArray[Any]
    """Bytes as they lie in the file, or an array in native byte order, turned while it is written."""

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes


def card(keyword: str, value: Any, comment: str = "") -> str:
    """One card of 80 characters; a keyword of more than 8 becomes a HIERARCH card.

    Raises
    ------
    InvalidImageError
        When keyword and value do not fit into a card.
    """
    if isinstance(value, (bool, np.bool_)):
        shown = f"{'T' if value else 'F':>20}"
    elif isinstance(value, (int, np.integer)):
        shown = f"{int(value):>20}"
    elif isinstance(value, (float, np.floating)):
        # seventeen digits where they are needed: they may run past the 20 columns of fixed format
        shown = f"{repr(float(value)).upper():>20}"
    else:
        shown = "'" + str(value).replace("'", "''").ljust(8) + "'"
    long = len(keyword) > 8
    text = f"HIERARCH {keyword} = {shown.strip()}" if long else f"{keyword:8}= {shown}"
    plain = all(32 <= ord(letter) < 127 for letter in text)
    if len(text) > CARD or not plain or not re.fullmatch(r"[A-Z0-9_ -]+", keyword):
        raise InvalidImageError(f"{keyword} = {value!r} does not fit into a FITS card")
    if comment and len(text) + 3 < CARD:
        text = f"{text:30} / {comment}"
    return text[:CARD].ljust(CARD)


def cards(values: Mapping[str, Any]) -> str:
    """Cards of all values that are not None; a tuple is a value and its comment."""
    pairs = {key: value if isinstance(value, tuple) else (value, "") for key, value in values.items()}
    return "".join(card(key, value, comment) for key, (value, comment) in pairs.items() if value is not None)


def history(sentences: Iterable[str]) -> str:
    """HISTORY cards of sentences, as many as each needs; what is no printable ASCII becomes "?"."""
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, CARD - 8)]
    return "".join(f"HISTORY {line}".ljust(CARD) for line in lines).encode("ascii", "replace").decode("ascii")


def plain_image(array: NDArray[Any] | None, *, primary: bool = False) -> Block:
    """HDU of an uncompressed image; None is one without data."""
    first = {"SIMPLE": True} if primary else {"XTENSION": "IMAGE"}
    shape = () if array is None else array.shape
    bitpix = 8 if array is None else _BITPIX[array.dtype.str[1:]]
    values = first | {"BITPIX": bitpix, "NAXIS": len(shape)}
    values |= {f"NAXIS{i}": length for i, length in enumerate(reversed(shape), 1)}
    values |= {"EXTEND": True} if primary else {"PCOUNT": 0, "GCOUNT": 1}
    return Block(cards(values), b"" if array is None else array)


def table_row(columns: Mapping[str, NDArray[Any]]) -> Block:
    """HDU of a binary table of one row, an array of booleans, int64 or float64 per column."""
    values: dict[str, Any] = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 0, "NAXIS2": 1}
    values |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(columns)}
    data = b""
    for number, (name, array) in enumerate(columns.items(), 1):
        values |= {f"TTYPE{number}": name, f"TFORM{number}": f"{array.size}{_TFORM[array.dtype.str[1:]]}"}
        if array.ndim > 1:
            values[f"TDIM{number}"] = f"({','.join(str(length) for length in reversed(array.shape))})"
        stored = (
            np.where(array, b"T", b"F")
            if array.dtype == bool
            else array.astype(array.dtype.newbyteorder(">"))
        )
        data += stored.tobytes()
    values["NAXIS1"] = len(data)
    return Block(cards(values), data)


def gzip_tiles(array: NDArray[Any], *, threads: int = 1) -> Block:
    """HDU of an image compressed without loss, row by row, by GZIP_2 (bytes shuffled, then gzip)."""
    ny, nx = array.shape
    size = array.dtype.itemsize

    def pack(start: int) -> list[bytes]:
        rows = np.ascontiguousarray(array[start : start + _ROWS_PER_JOB]).astype(
            array.dtype.newbyteorder(">")
        )
        shuffled = np.ascontiguousarray(rows.view(np.uint8).reshape(len(rows), nx, size).transpose(0, 2, 1))
        packed = []
        for row in shuffled:
            packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
            packed.append(packer.compress(row) + packer.flush())
        return packed

    with ThreadPoolExecutor(threads) as pool:
        tiles = [tile for job in pool.map(pack, range(0, ny, _ROWS_PER_JOB)) for tile in job]
    lengths = np.array([len(tile) for tile in tiles], np.int64)
    table = np.stack([lengths, np.cumsum(lengths) - lengths], axis=1)
    wide = int(lengths.sum()) >= 2**31
    floating = array.dtype.kind == "f"
    values = {
        "XTENSION": "BINTABLE",
        "BITPIX": 8,
        "NAXIS": 2,
        "NAXIS1": 16 if wide else 8,
        "NAXIS2": ny,
        "PCOUNT": int(lengths.sum()),
        "GCOUNT": 1,
        "TFIELDS": 1,
        "TTYPE1": "COMPRESSED_DATA",
        "TFORM1": f"1{'Q' if wide else 'P'}B({lengths.max()})",
        "ZIMAGE": True,
        "ZTENSION": "IMAGE",
        "ZBITPIX": _BITPIX[array.dtype.str[1:]],
        "ZNAXIS": 2,
        "ZNAXIS1": nx,
        "ZNAXIS2": ny,
        "ZPCOUNT": 0,
        "ZGCOUNT": 1,
        "ZTILE1": nx,
        "ZTILE2": 1,
        "ZCMPTYPE": "GZIP_2",
        "ZQUANTIZ": "NONE" if floating else None,
    }
    return Block(cards(values), b"".join([table.astype(">i8" if wide else ">i4").tobytes(), *tiles]))


def rice_tiles(array: NDArray[np.float32], scale: float) -> Block:
    """HDU of an image quantised in steps of ``scale`` with subtractive dither, row by row, by RICE_1.

    NaN and infinite pixels come back as NaN. The dither's seed follows from the pixels.
    """
    from astropy.io.fits import CompImageHDU, HDUList, PrimaryHDU

    finite = array if np.isfinite(array).all() else np.where(np.isfinite(array), array, np.float32(np.nan))
    hdu = CompImageHDU(
        finite,
        compression_type="RICE_1",
        tile_shape=(1, array.shape[1]),
        # negative: an absolute step, not one relative to a tile's noise
        quantize_level=-scale,
        quantize_method=2,
        dither_seed=1 + data_sum(np.ascontiguousarray(finite).data.cast("B")) % 10000,
    )
    stream = BytesIO()
    HDUList([PrimaryHDU(), hdu]).writeto(stream)
    file = FitsFile("", stream, stream.seek(0, os.SEEK_END))
    made = file.hdus[1]
    text = made.raw.select(lambda keyword: keyword not in {"EXTNAME", "CHECKSUM", "DATASUM"}).text
    return Block(text, bytes(file.read(made)))


def write_blocks(path: str | os.PathLike[str], blocks: Iterable[tuple[Block, str]]) -> None:
    """Write HDUs with further cards each; the file appears at ``path`` when it is complete.

    Raises
    ------
    VisitFileError
        When it cannot be written.
    """
    name = os.fspath(path)
    place = Path(name)
    try:
        if is_remote(name):
            # a stream to a store that is closed early would leave half an object
            with tempfile.NamedTemporaryFile(prefix="skysub-") as whole:
                _emit(whole, blocks)
                whole.flush()
                put(whole.name, name)
            return
        handle, partial = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent or None)
        try:
            with os.fdopen(handle, "wb") as stream:
                _emit(stream, blocks)
            # mkstemp makes it private; a product is readable as other new files are
            Path(partial).chmod(0o666 & ~_umask())
            Path(partial).replace(place)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except VisitFileError:
        raise
    except OSError as error:
        raise VisitFileError(f"{name}: cannot be written: {error.strerror or error}") from error


def _emit(stream: Any, blocks: Iterable[tuple[Block, str]]) -> None:
    for block, more in blocks:
        start = stream.tell()
        # the sums are known when the data are written; they take as much room whatever they are
        stream.write(_head(block.text + more, 0))
        total = _write_data(stream, block.data)
        stream.write(b"\0" * (-block.nbytes % BLOCK))
        end = stream.tell()
        stream.seek(start)
        stream.write(_head(block.text + more, total))
        stream.seek(end)


def _head(text: str, total: int) -> bytes:
    """Header with its sums, for data of the sum ``total``."""
    text += card("DATASUM", str(total))
    head = _padded(text + card("CHECKSUM", "0" * 16))
    # a sum over a card does not know the order of its words, and the placeholder is aligned as the value
    return _padded(text + card("CHECKSUM", encode_checksum(fold(data_sum(head) + total))))


def _write_data(stream: Any, data: bytes | NDArray[Any]) -> int:
    """Write the bytes of a data unit and return their sum; arrays go through a buffer of a few megabytes."""
    if isinstance(data, bytes):
        stream.write(data)
        return data_sum(data) if data else 0
    flat = np.ascontiguousarray(data).reshape(-1)
    total = 0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        turned = chunk.astype(chunk.dtype.newbyteorder(">"))
        total += data_sum(turned.data.cast("B"))
        stream.write(turned.data)
    return fold(total)


def _padded(text: str) -> bytes:
    text += "END"
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def kept_cards(text: str, dropped: re.Pattern[str]) -> str:
    """Good cards of a header, without those whose keyword matches."""
    return Cards(text).sound().select(lambda keyword: not dropped.match(keyword)).text
