"""A FITS file as its HDUs: where each lies and what its header says; bytes are read when asked for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import re
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from skysub.errors import LayoutError, VisitFileError, VisitFileNotFoundError
from skysub.visit.fits.cards import CARD, Cards
from skysub.visit.fits.remote import is_remote, open_remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["BLOCK", "FitsFile", "Hdu", "open_fits"]

BLOCK = 2880
_GZIP = b"\x1f\x8b"
_MAX_HEADER = 4000 * BLOCK
_MAX_HDUS = 2000
_END = b"END".ljust(CARD)
_DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
_TABLE = re.compile(
    r"(ZIMAGE|ZCMPTYPE|ZQUANTIZ|ZDITHER0|ZSCALE|ZZERO|ZBLANK|ZTENSION|ZSIMPLE|ZEXTEND|ZBLOCKED|ZHECKSUM|ZDATASUM|"
    r"ZBITPIX|ZPCOUNT|ZGCOUNT|(ZNAXIS|ZTILE|ZNAME|ZVAL|TTYPE|TFORM|TUNIT|TDIM)\d*|THEAP|TFIELDS|CHECKSUM|DATASUM|"
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|EXTEND)$"
)


@dataclass(frozen=True, eq=False)
class Hdu:
    """One header-data unit of a file."""

    index: int
    """Number in the file, the primary being 0."""
    raw: Cards
    """Header as it lies in the file (that of a binary table where the image is tile-compressed)."""
    cards: Cards
    """Header of the image."""
    offset: int
    """Byte at which the data begin."""
    nbytes: int
    """Bytes of data, without padding."""
    compressed: bool
    """Whether this is a tile-compressed image."""

    @property
    def name(self) -> str:
        """EXTNAME in capitals (EXTTYPE where there is none); empty where there is neither."""
        for keyword in ("EXTNAME", "EXTTYPE"):
            value = self.cards.get(keyword)
            if isinstance(value, str) and value.strip():
                return value.strip().upper()
        return ""

    @property
    def kind(self) -> str:
        """EXTTYPE in capitals, by which afw marks its planes; EXTNAME where there is none."""
        value = self.cards.get("EXTTYPE")
        return value.strip().upper() if isinstance(value, str) and value.strip() else self.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image, y before x; empty where there are no data."""
        naxis = self.cards.get("NAXIS", 0)
        return tuple(int(self.cards.get(f"NAXIS{i}", 0)) for i in range(naxis, 0, -1))

    @property
    def is_image(self) -> bool:
        """Whether this holds an image of two axes."""
        table = self.raw.get("XTENSION") in {"BINTABLE", "TABLE", "A3DTABLE"} and not self.compressed
        return not table and len(self.shape) == 2


class FitsFile:
    """An open FITS file. Headers are read on opening, data by `read`."""

    def __init__(self, path: str, stream: IO[bytes], size: int) -> None:
        self.path = path
        self._stream = stream
        self._size = size
        self._failures = _failures(path)
        self.hdus = list(self._walk())

    @property
    def primary(self) -> Hdu:
        """The first HDU."""
        return self.hdus[0]

    def named(self, name: str) -> list[Hdu]:
        """HDUs whose EXTNAME or EXTTYPE is ``name`` (any case), in order."""
        wanted = name.strip().upper()
        return [hdu for hdu in self.hdus[1:] if wanted in {hdu.name, hdu.kind}]

    def find(self, extension: str | int) -> Hdu:
        """HDU by name or number.

        Raises
        ------
        LayoutError
            When there is none; the message lists those there are.
        """
        if isinstance(extension, int):
            if 0 <= extension < len(self.hdus):
                return self.hdus[extension]
        elif found := self.named(extension):
            return found[0]
        have = ", ".join(f"{hdu.index} {hdu.name or '(no name)'}" for hdu in self.hdus)
        raise LayoutError(f"{self.path}: there is no extension {extension!r}; there are: {have}")

    def read(self, hdu: Hdu) -> NDArray[np.uint8]:
        """Bytes of an HDU's data, without padding, read once into memory of their own."""
        # not a bytearray: NumPy does not fill the memory first, and asks for large pages
        data = np.empty(hdu.nbytes, np.uint8)
        view, done = data.data, 0
        try:
            self._stream.seek(hdu.offset)
            while done < len(view):
                got = self._stream.readinto(view[done:])  # type: ignore[attr-defined]
                if not got:
                    break
                done += got
        except self._failures as error:
            raise VisitFileError(f"{self.path}: cannot read extension {hdu.index}: {error}") from error
        if done < len(view):
            raise self._truncated(hdu.offset + len(view), hdu.offset + done)
        return data

    def read_alone(self, hdu: Hdu) -> bytes:
        """Bytes of an HDU with header and padding, as the file of this extension alone."""
        text = hdu.raw.sound().text + "END"
        head = text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")
        return b"".join((head, self.read(hdu).data, b"\0" * (-hdu.nbytes % BLOCK)))

    def _walk(self) -> Iterator[Hdu]:
        position = 0
        for index in range(_MAX_HDUS):
            raw = self._header(index, position)
            if raw is None:
                return
            text, offset = raw
            hdu = self._hdu(index, text, offset)
            yield hdu
            position = offset + -(-hdu.nbytes // BLOCK) * BLOCK
            # padding counts: a file cut there may have lost the extensions behind it
            if position > self._size:
                raise self._truncated(position, self._size)
            if position == self._size:
                return
        raise VisitFileError(f"{self.path}: more than {_MAX_HDUS} extensions; is this one visit's file?")

    def _header(self, index: int, position: int) -> tuple[str, int] | None:
        """Text of the header at a position and the byte after it; None at the end of the file."""
        first = b"SIMPLE  =" if index == 0 else b"XTENSION="
        blocks: list[bytes] = []
        try:
            self._stream.seek(position)
            while len(blocks) * BLOCK < _MAX_HEADER:
                block = self._stream.read(BLOCK)
                if not blocks and not block.startswith(first):
                    if index and not block.strip(b"\0 "):
                        return None
                    raise VisitFileError(self._not_fits(index, block))
                if len(block) < BLOCK:
                    raise self._truncated(position + (len(blocks) + 1) * BLOCK, self._size)
                blocks.append(block)
                end = next((i for i in range(0, BLOCK, CARD) if block[i : i + CARD] == _END), None)
                if end is not None:
                    data = b"".join(blocks)[: (len(blocks) - 1) * BLOCK + end]
                    # FITS allows printable ASCII alone; other bytes stand in comments of real files
                    text = "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in data)
                    return text, position + len(blocks) * BLOCK
        except self._failures as error:
            if isinstance(error, VisitFileError):
                raise
            raise VisitFileError(f"{self.path}: cannot be unpacked: {error}") from error
        raise VisitFileError(f"{self.path}: the header of extension {index} has no END card; it is damaged")

    def _hdu(self, index: int, text: str, offset: int) -> Hdu:
        raw = Cards(text)
        where = f"{self.path}: extension {index}"
        nbytes = _whole(raw, "BITPIX", where, allowed=(8, 16, 32, 64, -32, -64))
        naxis = _whole(raw, "NAXIS", where, high=999)
        axes = [_whole(raw, f"NAXIS{i}", where) for i in range(1, naxis + 1)]
        if axes and axes[0] == 0 and raw.get("GROUPS") is True:
            axes = axes[1:]
        pcount = _whole(raw, "PCOUNT", where, default=0)
        gcount = _whole(raw, "GCOUNT", where, default=1)
        nbytes = abs(nbytes) // 8 * gcount * (pcount + math.prod(axes)) if axes else 0
        # astropy loops over as many columns as a header claims
        _whole(raw, "TFIELDS", where, high=999, default=0)
        compressed = raw.get("ZIMAGE") is True
        cards = raw
        if compressed:
            znaxis = _whole(raw, "ZNAXIS", where, high=999)
            _whole(raw, "ZBITPIX", where, allowed=(8, 16, 32, 64, -32, -64))
            for i in range(1, znaxis + 1):
                _whole(raw, f"ZNAXIS{i}", where)
            cards = _image_cards(raw)
        return Hdu(index=index, raw=raw, cards=cards, offset=offset, nbytes=nbytes, compressed=compressed)

    def _not_fits(self, index: int, block: bytes) -> str:
        if index:
            return (
                f"{self.path}: what follows extension {index - 1} is no FITS extension; the file is damaged"
            )
        if not block:
            return f"{self.path}: the file is empty; is it still being written?"
        return f"{self.path}: this is no FITS file (it begins with {block[:16]!r})"

    def _truncated(self, needed: int, have: int) -> VisitFileError:
        return VisitFileError(
            f"{self.path}: the file ends after {have} bytes where its headers ask for {needed}: "
            "it is truncated or still being written; wait for it or fetch it again"
        )


@contextmanager
def open_fits(path: str | os.PathLike[str], *, headers_only: bool = False) -> Iterator[FitsFile]:
    """Open a FITS file for reading, plain or packed by gzip, bzip2 or xz, local or at a URL.

    Packed files are unpacked in memory. URLs (``s3://``, ``https://``, ...) go through fsspec.

    Parameters
    ----------
    path
        Local path or URL.
    headers_only
        Whether no pixels will be read: of a file packed by gzip only the part up to the last header is then
        unpacked, a little at a time.

    Raises
    ------
    VisitFileNotFoundError
        When there is no such file.
    VisitFileError
        When it is a directory, empty, truncated, damaged, or no FITS file.
    """
    name = os.fspath(path)
    with _stream(name) as plain:
        file = _headers_of_gzip(name, plain) if headers_only else None
        if file is None:
            try:
                stream = _unpacked(plain)
                size = stream.seek(0, io.SEEK_END)
            except _failures(name) as error:
                raise VisitFileError(f"{name}: cannot be unpacked: {error}") from error
            file = FitsFile(name, stream, size)
        yield file


@contextmanager
def _stream(name: str) -> Iterator[IO[bytes]]:
    if not is_remote(name) and Path(name).is_dir():
        raise VisitFileError(f"{name}: this is a directory; give the FITS files in it")
    try:
        stream = open_remote(name) if is_remote(name) else Path(name).open("rb", buffering=0)  # noqa: SIM115 (closed below)
    except VisitFileError:
        raise
    except FileNotFoundError as error:
        raise VisitFileNotFoundError(f"{name}: there is no such file") from error
    except OSError as error:
        raise VisitFileError(f"{name}: cannot be opened: {error.strerror or error}") from error
    with stream:
        yield stream


def _failures(name: str) -> tuple[type[Exception], ...]:
    """What reading may raise through no fault of ours; of a store that is anything."""
    return (Exception,) if is_remote(name) else _DAMAGED


def _headers_of_gzip(name: str, plain: IO[bytes]) -> FitsFile | None:
    """File whose pixels stay packed; None where it is not packed by gzip, or only a whole look will tell.

    gzip ends with the unpacked size. Where that does not fit the headers, the file is cut short, made of
    several parts, larger than 4 GiB or damaged.
    """
    try:
        plain.seek(0)
        if plain.read(len(_GZIP)) != _GZIP:
            return None
        plain.seek(-4, io.SEEK_END)
        size = int.from_bytes(plain.read(4), "little")
        plain.seek(0)
        return FitsFile(name, cast("IO[bytes]", gzip.GzipFile(fileobj=plain)), size)
    # errors of ours are among them
    except _failures(name):
        return None


def _unpacked(plain: IO[bytes]) -> IO[bytes]:
    plain.seek(0)
    magic = plain.read(6)
    plain.seek(0)
    if magic.startswith(_GZIP):
        return io.BytesIO(gzip.GzipFile(fileobj=plain).read())
    if magic.startswith(b"BZh"):
        return io.BytesIO(bz2.BZ2File(plain).read())
    if magic.startswith(b"\xfd7zXZ"):
        return io.BytesIO(lzma.LZMAFile(plain).read())
    return plain


def _image_cards(raw: Cards) -> Cards:
    """Header of the image that a tile-compressed table holds (FITS standard 4.0, section 10)."""
    structure = [f"{'XTENSION':8}= {chr(39)}IMAGE   {chr(39)}"]
    keywords = ["BITPIX", "NAXIS", *(f"NAXIS{i}" for i in range(1, raw.get("ZNAXIS") + 1))]
    structure += [f"{keyword:8}= {raw.get('Z' + keyword):>20}" for keyword in keywords]
    unnamed = raw.get("EXTNAME") == "COMPRESSED_IMAGE"

    def of_image(keyword: str) -> bool:
        return not _TABLE.match(keyword) and not (unnamed and keyword == "EXTNAME")

    rest = raw.select(of_image).text
    return Cards("".join(card.ljust(CARD) for card in structure) + rest)


def _whole(
    cards: Cards,
    keyword: str,
    where: str,
    *,
    high: int = 2**40,
    allowed: tuple[int, ...] = (),
    default: int | None = None,
) -> int:
    value = cards.get(keyword, default)
    good = isinstance(value, int) and not isinstance(value, bool)
    if not good or (value not in allowed if allowed else not 0 <= value <= high):
        shown = "missing" if value is None else f"{getattr(value, 'text', value)!r}"
        raise LayoutError(f"{where}: {keyword} is {shown}, which no sound FITS file has; the file is damaged")
    return int(value)
