"""A FITS file as its HDUs: where each lies and what its header says; bytes are read when asked for."""

from __future__ import annotations

import io
import lzma
import math
import os
import re
import stat
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads
from skysub.errors import ChecksumError, LayoutError, SkysubError, VisitFileError, VisitFileNotFoundError
from skysub.visit.fits.cards import CARD, Cards
from skysub.visit.fits.checksum import header_holds
from skysub.visit.fits.claims import check_claims, check_packed, check_room, data_bytes, no_room, whole
from skysub.visit.fits.packed import Unpacking, packing
from skysub.visit.fits.remote import is_remote, open_remote
from skysub.visit.ingest import by_hand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from skysub.visit.fits.header import Window
    from skysub.visit.fits.tally import Tally

__all__ = ["BLOCK", "FitsFile", "Hdu", "open_fits"]

BLOCK = 2880
_GZIP = b"\x1f\x8b"
_MAX_HEADER = 4000
"""Blocks of one header, and a quarter of those of all headers of a file."""
_MAX_HDUS = 2000
_PIECE = 1 << 20
"""Bytes of data that are read at once."""
_END = b"END".ljust(CARD)
_ASCII = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))
_DAMAGED: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    MemoryError,
)
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
    """An open FITS file. Headers are read on opening, data by `read`.

    Parameters
    ----------
    path
        For messages.
    stream
        The bytes, unpacked.
    size
        Number of them. Of those that are being unpacked: the number that the file states, with which
        nothing is unpacked behind the last header; None where it states none, or all is to be looked at.
    packed
        Bytes of the packed file; 0 where it is not packed.
    verify
        Compare headers with their CHECKSUM, where they have one, and DATASUM.
    threads
        Threads to share the reading of pixels among.
    tally
        Takes in what is read of a file that is not packed.
    """

    def __init__(
        self,
        path: str,
        stream: IO[bytes] | Unpacking,
        size: int | None,
        *,
        packed: int = 0,
        verify: bool = True,
        threads: int = 1,
        tally: Tally | None = None,
    ) -> None:
        self.path = path
        self.threads = threads
        self.window: Window | None = None
        """Rows of planes of the image's shape that are read of them; None: all."""
        self._tally = tally
        self._stream = stream
        self._size = size
        self._packed = packed
        self._verify = verify
        self._failures = _failures(path)
        self._blocks = 0
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

    def read(self, hdu: Hdu, each: Callable[[NDArray[np.uint8]], object] | None = None) -> NDArray[np.uint8]:
        """Bytes of an HDU's data, without padding, read once into memory of their own.

        ``each`` is called on one piece after the other while it is in the processor's cache: a multiple of 4
        bytes, but for the last. Where the file has threads that is in any order, and several at a time.
        """
        where = f"{self.path}: extension {hdu.index}"
        check_room(where, hdu.nbytes + (8 * math.prod(hdu.shape) if hdu.compressed else 0))
        try:
            # not a bytearray: NumPy does not fill the memory first, and asks for large pages
            data = np.empty(hdu.nbytes, np.uint8)
        except MemoryError as error:
            raise VisitFileError(no_room(where, str(error))) from error
        # a file can be read in several places at a time, a stream of something else cannot
        plain = isinstance(self._stream, io.FileIO)
        short: list[int] = []

        def read_pieces(pieces: range) -> None:
            for start in range(pieces.start * _PIECE, min(pieces.stop * _PIECE, hdu.nbytes), _PIECE):
                piece = data[start : start + _PIECE]
                done = self._fill(hdu.offset + start, piece)
                if done < len(piece):
                    short.append(start + done)
                    return
                if self._tally is not None:
                    self._tally.add(hdu.offset + start, piece)
                if each is not None:
                    each(piece)

        try:
            in_threads(read_pieces, -(-hdu.nbytes // _PIECE), self.threads if plain else 1)
        except self._failures as error:
            raise VisitFileError(f"{self.path}: cannot read extension {hdu.index}: {error}") from error
        if short:
            raise self._truncated(hdu.offset + hdu.nbytes, hdu.offset + min(short))
        return data

    def rows_of(self, hdu: Hdu) -> range | None:
        """Rows of a plane that are wanted, where that is not all of them."""
        window = self.window
        return None if window is None or window.shape != hdu.shape else window.rows

    def read_part(self, hdu: Hdu, start: int, piece: NDArray[np.uint8]) -> None:
        """Fill a piece with bytes of an HDU's data from ``start`` on.

        Raises
        ------
        VisitFileError
            When the file ends before.
        """
        try:
            done = self._fill(hdu.offset + start, piece)
        except self._failures as error:
            raise VisitFileError(f"{self.path}: cannot read extension {hdu.index}: {error}") from error
        if done < len(piece):
            raise self._truncated(hdu.offset + hdu.nbytes, hdu.offset + start + done)

    def checksum(self) -> str | None:
        """CRC-32C of the whole file, 8 hexadecimal digits; None where it is packed or has no tally."""
        if self._tally is None or self._size is None or not isinstance(self._stream, io.FileIO):
            return None
        handle = self._stream.fileno()
        return self._tally.total(self._size, lambda offset, count: os.pread(handle, count, offset))

    def read_alone(self, hdu: Hdu) -> bytes:
        """Bytes of an HDU with header and padding, as the file of this extension alone."""
        text = hdu.raw.sound().text + "END"
        head = text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")
        return b"".join((head, self.read(hdu).data, b"\0" * (-hdu.nbytes % BLOCK)))

    def _fill(self, offset: int, piece: NDArray[np.uint8]) -> int:
        """Read into a piece from a place on; returns how many bytes there were."""
        view, done = piece.data, 0
        if isinstance(self._stream, io.FileIO):
            handle = self._stream.fileno()
            while done < len(view) and (got := os.preadv(handle, [view[done:]], offset + done)):
                done += got
            return done
        self._stream.seek(offset)
        while done < len(view) and (got := self._stream.readinto(view[done:])):  # type: ignore[union-attr]
            done += got
        return done

    def _walk(self) -> Iterator[Hdu]:
        position = 0
        for index in range(_MAX_HDUS):
            found = self._header(index, position)
            if found is None:
                return
            head, text, offset = found
            hdu = self._hdu(index, text, offset)
            if self._verify and header_holds(head, hdu.raw) is False:
                raise ChecksumError(
                    f"{self.path}: the header of extension {index} {hdu.name} does not have the CHECKSUM "
                    "that it states: the file is damaged, or was changed without it; fetch it again, or read "
                    f"it with {by_hand(verify=False)}"
                )
            yield hdu
            position = offset + -(-hdu.nbytes // BLOCK) * BLOCK
            if self._is_over(position):
                return
        raise VisitFileError(f"{self.path}: more than {_MAX_HDUS} extensions; is this one visit's file?")

    def _is_over(self, position: int) -> bool:
        """Whether the file ends here as far as that is known already.

        Raises
        ------
        VisitFileError
            When it ended before: padding counts, as a file cut there may have lost the extensions behind it.
        """
        if self._size == position:
            return True
        if isinstance(self._stream, Unpacking):
            # the size that a packed file states is that of its last part, and of that the last 32 bits
            check_packed(position, self._packed, self.path)
            try:
                reached = self._stream.reached(position)
            except SkysubError:
                raise
            except self._failures as error:
                raise _cannot_be_unpacked(self.path, error) from error
            if not reached:
                raise self._truncated(position, self._stream.unpacked)
        elif self._size is not None and position > self._size:
            raise self._truncated(position, self._size)
        return False

    def _header(self, index: int, position: int) -> tuple[bytes, str, int] | None:
        """Header at a position, as bytes and as text, and the byte after it; None at the end of the file."""
        first = b"SIMPLE  =" if index == 0 else b"XTENSION="
        blocks: list[bytes] = []
        try:
            self._stream.seek(position)
            while len(blocks) < _MAX_HEADER and self._blocks < 4 * _MAX_HEADER:
                block = self._stream.read(BLOCK)
                if not blocks and not block.startswith(first):
                    if index and not block.strip(b"\0 "):
                        return None
                    raise VisitFileError(self._not_fits(index, block))
                if len(block) < BLOCK:
                    start = position + len(blocks) * BLOCK
                    raise self._truncated(start + BLOCK, start + len(block))
                blocks.append(block)
                self._blocks += 1
                end = next((i for i in range(0, BLOCK, CARD) if block[i : i + CARD] == _END), None)
                if end is not None:
                    head = b"".join(blocks)
                    # FITS allows printable ASCII alone; other bytes stand in comments of real files
                    text = head[: (len(blocks) - 1) * BLOCK + end].translate(_ASCII).decode("ascii")
                    return head, text, position + len(head)
        except self._failures as error:
            if isinstance(error, SkysubError):
                raise
            raise _cannot_be_unpacked(self.path, error) from error
        raise VisitFileError(f"{self.path}: the header of extension {index} has no END card; it is damaged")

    def _hdu(self, index: int, text: str, offset: int) -> Hdu:
        raw = Cards(text)
        where = f"{self.path}: extension {index}"
        nbytes = data_bytes(raw, where)
        # astropy loops over as many columns as a header claims
        whole(raw, "TFIELDS", where, high=999, default=0)
        compressed = raw.get("ZIMAGE") is True
        cards = raw
        if compressed:
            check_claims(raw, nbytes, where)
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
def open_fits(
    path: str | os.PathLike[str],
    *,
    headers_only: bool = False,
    verify: bool = True,
    threads: int = 1,
    tally: Tally | None = None,
) -> Iterator[FitsFile]:
    """Open a FITS file for reading, plain or packed by gzip, bzip2 or xz, local or at a URL.

    Packed files are unpacked in memory, as far as their headers say that they go. URLs (``s3://``,
    ``https://``, ...) go through fsspec.

    Parameters
    ----------
    path
        Local path or URL.
    headers_only
        Whether no pixels will be read: nothing of a packed file is then kept in memory, and one packed by
        gzip is unpacked up to its last header alone.
    verify
        Compare headers with their CHECKSUM, where they have one, and DATASUM.
    threads, tally
        As `FitsFile` has them.

    Raises
    ------
    VisitFileNotFoundError
        When there is no such file.
    VisitFileError
        When it is no regular file, empty, truncated, damaged, or no FITS file, or would need more memory
        than there is.
    """
    name = os.fspath(path)
    with _stream(name) as plain:
        yield _opened(name, plain, headers_only=headers_only, verify=verify, threads=threads, tally=tally)


def _opened(
    name: str, plain: IO[bytes], *, headers_only: bool, verify: bool, threads: int, tally: Tally | None
) -> FitsFile:
    try:
        mark = packing(plain.read(8))
        size = plain.seek(0, io.SEEK_END)
        if not mark:
            return FitsFile(name, plain, size, verify=verify, threads=threads, tally=tally)
        stated = None
        if headers_only and mark == _GZIP:
            plain.seek(-4, io.SEEK_END)
            stated = int.from_bytes(plain.read(4), "little")
        stream = Unpacking(name, plain, keep=not headers_only)
        return FitsFile(name, stream, stated, packed=size, verify=verify, threads=threads)
    except SkysubError:
        raise
    except _failures(name) as error:
        raise _cannot_be_unpacked(name, error) from error


@contextmanager
def _stream(name: str) -> Iterator[IO[bytes]]:
    try:
        if not is_remote(name):
            _check_regular(name)
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


def _check_regular(name: str) -> None:
    """Refuse what is no file of its own: reading a pipe would wait for ever, a device never end."""
    mode = os.stat(name).st_mode
    if stat.S_ISDIR(mode):
        raise VisitFileError(f"{name}: this is a directory; give the FITS files in it")
    if not stat.S_ISREG(mode):
        raise VisitFileError(f"{name}: this is a pipe, socket or device, no regular file")


def _cannot_be_unpacked(name: str, error: Exception) -> VisitFileError:
    return VisitFileError(f"{name}: cannot be unpacked: {error}")


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
