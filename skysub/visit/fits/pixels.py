"""Pixels of one HDU: native byte order, float32 or a mask's integers, with one copy at most."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.row_blocks import sheet
from skysub.errors import ChecksumError, LayoutError, VisitFileError
from skysub.visit.fits.checksum import data_sum, fold
from skysub.visit.fits.tiles import DamagedTileError, UnusualTileError, bytes_of_rows, unpack_tiles
from skysub.visit.ingest import by_hand

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile, Hdu

__all__ = ["read_float", "read_integer", "read_vector", "verify_sums"]

_PIECE = 1 << 22
"""Bytes that are summed at once, a multiple of 4."""

_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_EXACT = 2**62
"""Beyond this are only the offsets of unsigned 64-bit integers, which neither double nor int64 would keep."""
_ALGORITHMS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
_SETTINGS: dict[str, tuple[int, ...]] = {"BLOCKSIZE": (32, 16), "BYTEPIX": (4, 1, 2, 8)}
"""What FITS allows for tiles of RICE_1."""
_MAX_RATIO = 8192
"""Pixels unpacked per packed byte: more than any of the algorithms of FITS reaches."""


def read_float(file: FitsFile, hdu: Hdu, *, verify: bool = True, axes: int = 2) -> NDArray[np.float32]:
    """Pixels as native float32, (ny, nx); scaled integers are scaled and BLANK becomes NaN.

    ``axes`` is the number of axes that the HDU must have.

    Raises
    ------
    LayoutError
        When the HDU is no image of so many axes.
    VisitFileError
        When its data are damaged.
    """
    pixels = _read(file, hdu, verify=verify, axes=axes)
    scale, zero = _number(file, hdu, "BSCALE", 1), _number(file, hdu, "BZERO", 0)
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            result: NDArray[np.float32] = pixels.astype(np.float32, copy=False)
            if (scale, zero) != (1, 0):
                result *= np.float32(scale)
                result += np.float32(zero)
        return result
    blank = _number(file, hdu, "BLANK", _number(file, hdu, "ZBLANK", None))
    # scaled in double, a band of rows at a time so that no double image is made
    result = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), 256):
        band = pixels[start : start + 256]
        result[start : start + 256] = band * float(scale) + zero
        if blank is not None:
            result[start : start + 256][band == blank] = np.nan
    return result


def read_integer(file: FitsFile, hdu: Hdu, *, verify: bool = True) -> NDArray[np.signedinteger]:
    """Pixels of a mask as native int32 or int64, (ny, nx).

    Raises
    ------
    LayoutError
        When the HDU is no image of two axes, or of floating point.
    VisitFileError
        When its data are damaged.
    """
    pixels = _read(file, hdu, verify=verify)
    if pixels.dtype.kind == "f":
        raise LayoutError(f"{_where(file, hdu)}: a mask must hold integers, not {pixels.dtype}")
    zero, scale = _number(file, hdu, "BZERO", 0), _number(file, hdu, "BSCALE", 1)
    if scale != 1 or zero != int(zero):
        raise LayoutError(
            f"{_where(file, hdu)}: the integers of a mask cannot have the scale {scale} + {zero}"
        )
    if zero:
        pixels = pixels.astype(np.int64) + int(zero)
        small = pixels.size == 0 or (pixels.min() >= -(2**31) and pixels.max() < 2**31)
        return pixels.astype(np.int32) if small else pixels
    return pixels if pixels.dtype in (np.int32, np.int64) else pixels.astype(np.int32)


def read_vector(file: FitsFile, hdu: Hdu) -> NDArray[np.float64]:
    """Values of an HDU of one axis, float64.

    Raises
    ------
    LayoutError
        When it has another number of axes.
    """
    if len(hdu.shape) != 1 or hdu.compressed or hdu.raw.get("XTENSION") != "IMAGE":
        raise LayoutError(f"{_where(file, hdu)}: this should be a vector, but its shape is {hdu.shape}")
    return np.frombuffer(file.read(hdu), _TYPES[hdu.raw.get("BITPIX")]).astype(np.float64)


def _read(file: FitsFile, hdu: Hdu, *, verify: bool, axes: int = 2) -> NDArray[Any]:
    plain = axes != 2 and len(hdu.shape) == axes and not hdu.compressed
    if not (hdu.is_image or plain) or 0 in hdu.shape:
        raise LayoutError(f"{_where(file, hdu)}: this is no image of {axes} axes (its shape is {hdu.shape})")
    rows = file.rows_of(hdu)
    if hdu.compressed:
        _check_tiles(file, hdu)
        return _unpack(file, hdu, verify=verify) if rows is None else _unpack_rows(file, hdu, rows)
    if rows is not None:
        return _read_rows(file, hdu, rows)
    if hdu.raw.get("BITPIX") not in (32, -32) or sys.byteorder != "little":
        data = file.read(hdu)
        if verify:
            _verify(file, hdu, data_sum(data))
        pixels = np.frombuffer(data, _TYPES[hdu.raw.get("BITPIX")]).reshape(hdu.shape)
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    from skysub.visit.fits import kernels

    sums: list[int] = []

    def swap(piece: NDArray[np.uint8]) -> None:
        # the sum comes for free with the change of byte order, which is done in place
        words = piece.view(np.uint32)
        sums.append(int(kernels.swap_and_sum(words, words)))

    data = file.read(hdu, swap)
    if verify:
        _verify(file, hdu, fold(sum(sums)))
    return data.view(np.float32 if hdu.raw.get("BITPIX") < 0 else np.int32).reshape(hdu.shape)


def _read_rows(file: FitsFile, hdu: Hdu, rows: range) -> NDArray[Any]:
    """Some rows; their sum is not that of all, so it is left to `verify_sums`."""
    kind = np.dtype(_TYPES[hdu.raw.get("BITPIX")])
    pixels = np.empty((len(rows), hdu.shape[1]), kind)
    file.read_part(hdu, rows.start * hdu.shape[1] * kind.itemsize, pixels.reshape(-1).view(np.uint8))
    return pixels.astype(kind.newbyteorder("="), copy=False)


def _unpack_rows(file: FitsFile, hdu: Hdu, rows: range) -> NDArray[Any]:
    """Some rows of tiles: of the HDU's data only the table and what these need is read."""
    table = hdu.raw.get("NAXIS1") * hdu.raw.get("NAXIS2")
    data = sheet((1, hdu.nbytes), np.dtype(np.uint8))[0]
    file.read_part(hdu, 0, data[:table])
    try:
        needed = bytes_of_rows(hdu, data, rows)
        file.read_part(hdu, needed.start, data[needed.start : needed.stop])
        return unpack_tiles(hdu, data, rows=rows)
    except DamagedTileError as error:
        raise VisitFileError(f"{_where(file, hdu)}: the tiles cannot be unpacked: {error}") from error
    except UnusualTileError:
        return _unpack_by_astropy(file, hdu)[rows.start : rows.stop]


def verify_sums(file: FitsFile) -> None:
    """Compare the data of all HDUs with their DATASUM, where they state one, without holding them.

    Raises
    ------
    ChecksumError
        When they differ.
    VisitFileError
        When the file cannot be read.
    """
    for hdu in file.hdus:
        if not isinstance(hdu.raw.get("DATASUM"), str):
            continue
        total, piece = 0, np.empty(_PIECE, np.uint8)
        for start in range(0, hdu.nbytes, _PIECE):
            part = piece[: min(_PIECE, hdu.nbytes - start)]
            file.read_part(hdu, start, part)
            total = fold(total + data_sum(part))
        _verify(file, hdu, total)


def _verify(file: FitsFile, hdu: Hdu, total: int) -> None:
    stated = hdu.raw.get("DATASUM")
    if isinstance(stated, str) and stated.strip().isdigit() and int(stated) != total:
        raise ChecksumError(
            f"{_where(file, hdu)}: the data do not have the DATASUM that the header states: the file is "
            "damaged, or was changed without it; fetch it again, or read it with "
            f"{by_hand(verify=False)}"
        )


def _check_tiles(file: FitsFile, hdu: Hdu) -> None:
    """Refuse tiles that cannot be what the header says before memory is set aside for them."""
    raw, shape = hdu.raw, hdu.shape
    # of what it does not know, the decoder supposes something and warns
    kind = raw.get("ZCMPTYPE"), raw.get("ZTENSION", "IMAGE")
    if kind[0] not in _ALGORITHMS or kind[1] != "IMAGE":
        raise LayoutError(f"{_where(file, hdu)}: ZCMPTYPE and ZTENSION are {kind}: no tiles that are known")
    settings = {raw.get(f"ZNAME{i}"): raw.get(f"ZVAL{i}") for i in range(1, 10) if f"ZVAL{i}" in raw}
    for name, allowed in _SETTINGS.items():
        # the decoder believes them, and may leave its memory
        value = settings.get(name, allowed[0])
        if value not in allowed or isinstance(value, bool):
            raise LayoutError(
                f"{_where(file, hdu)}: {name} of the tiles is {getattr(value, 'text', value)!r}; "
                "the file is damaged"
            )
    tile = [raw.get(f"ZTILE{i}", shape[-1] if i == 1 else 1) for i in range(1, 3)]
    if not all(isinstance(edge, int) and edge > 0 for edge in tile):
        raise LayoutError(f"{_where(file, hdu)}: ZTILE1 and ZTILE2 are {tile}; the file is damaged")
    tiles = -(-shape[1] // tile[0]) * -(-shape[0] // tile[1])
    if tiles != raw.get("NAXIS2"):
        raise VisitFileError(
            f"{_where(file, hdu)}: {raw.get('NAXIS2')} tiles where an image of {shape} needs {tiles}; "
            "the file is damaged"
        )
    if shape[0] * shape[1] > _MAX_RATIO * hdu.nbytes or tile[0] * tile[1] > 4 * shape[0] * shape[1] + 4096:
        raise VisitFileError(f"{_where(file, hdu)}: {hdu.nbytes} bytes cannot hold {shape} pixels")


def _unpack(file: FitsFile, hdu: Hdu, *, verify: bool) -> NDArray[Any]:
    """Pixels of tiles as the image stores them, BSCALE and BZERO not applied."""
    data = file.read(hdu)
    if verify:
        _verify(file, hdu, data_sum(data))
    try:
        return unpack_tiles(hdu, data, threads=file.threads)
    except DamagedTileError as error:
        raise VisitFileError(f"{_where(file, hdu)}: the tiles cannot be unpacked: {error}") from error
    except UnusualTileError:
        del data
        return _unpack_by_astropy(file, hdu)


def _unpack_by_astropy(file: FitsFile, hdu: Hdu) -> NDArray[Any]:
    """Pixels of tiles that only astropy knows."""
    from astropy.io.fits import BinTableHDU, CompImageHDU

    data = file.read_alone(hdu)
    try:
        with np.errstate(all="ignore"):
            table = BinTableHDU.fromstring(data)
            unpacked: NDArray[Any] = CompImageHDU(bintable=table, do_not_scale_image_data=True).data
    # whatever a damaged tile makes a decoder raise
    except Exception as error:
        raise VisitFileError(f"{_where(file, hdu)}: the tiles cannot be unpacked: {error!r}") from error
    if unpacked is None or unpacked.shape != hdu.shape:
        raise VisitFileError(f"{_where(file, hdu)}: the tiles do not unpack to {hdu.shape}")
    return unpacked.astype(unpacked.dtype.newbyteorder("="), copy=False)


def _number(file: FitsFile, hdu: Hdu, keyword: str, default: float | None) -> Any:
    value = hdu.cards.get(keyword, hdu.raw.get(keyword, default))
    if value is None:
        return default
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) < _EXACT:
        raise LayoutError(
            f"{_where(file, hdu)}: {keyword} is {getattr(value, 'text', value)!r}, no number that pixels "
            "can be scaled by (unsigned integers of 64 bits are not read)"
        )
    return value


def _where(file: FitsFile, hdu: Hdu) -> str:
    return f"{file.path}: extension {hdu.index} {hdu.name}".rstrip()
