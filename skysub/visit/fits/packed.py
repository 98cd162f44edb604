"""Files packed as a whole by gzip, bzip2 or xz, unpacked piece by piece and no further than is asked for."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import IO, TYPE_CHECKING, Any

from skysub.visit.fits.claims import check_room

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Unpacking", "packing"]

_MARK = 6
"""Bytes of the longest mark."""
_PIECE = 1 << 17
"""Bytes unpacked at once."""
_DICTIONARY = 256 * 2**20
"""Memory that xz may take: four times what its largest preset needs, while a file may ask for gigabytes."""


class _Gzip:
    """Unpacker of gzip by the methods that those of bz2 and lzma have."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_KINDS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY),
}


def packing(first: bytes) -> bytes:
    """Mark of the packing that the first bytes of a file show; empty where it is not packed."""
    return next((mark for mark in _KINDS if first.startswith(mark)), b"")


class Unpacking:
    """A packed file as a stream that can be read and moved in; its end is known only once it is reached.

    Parameters
    ----------
    name
        The file, for messages.
    plain
        The packed bytes.
    keep
        Whether all that was passed is kept in memory, so that the stream can go back. Without it only what
        lies ahead can be read.
    """

    def __init__(self, name: str, plain: IO[bytes], *, keep: bool) -> None:
        self._name = name
        self._plain = plain
        self._keep = keep
        self._plain.seek(0)
        self._input = self._plain.read(_PIECE)
        self._make = _KINDS[packing(self._input)]
        self._unpacker = self._make()
        self._ended = False
        self._kept = bytearray()
        self._ahead = b""
        self._at = 0
        self._position = 0

    @property
    def unpacked(self) -> int:
        """Bytes unpacked so far."""
        return len(self._kept) if self._keep else self._at

    def seek(self, position: int) -> int:
        """Go to a place; without ``keep`` what lies between is unpacked and let go of."""
        if not self._keep and position < self._at:
            raise io.UnsupportedOperation("this stream does not go back")
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes from here on; fewer at the end alone."""
        if self._keep:
            self._fill(self._position + size)
            data = bytes(self._kept[self._position : self._position + size])
        else:
            self._pass(self._position)
            pieces = []
            while size and (piece := self._take(size)):
                pieces.append(piece)
                self._at += len(piece)
                size -= len(piece)
            data = b"".join(pieces)
        self._position += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        """Fill memory from here on, of a stream that is kept; returns how many bytes it was given."""
        self._fill(self._position + len(view))
        with memoryview(self._kept) as kept:
            size = max(0, min(len(view), len(kept) - self._position))
            view[:size] = kept[self._position : self._position + size]
        self._position += size
        return size

    def reached(self, position: int) -> bool:
        """Whether there are so many bytes; unpacks that far."""
        if self._keep:
            self._fill(position)
        else:
            self._pass(position)
        return self.unpacked >= position

    def _fill(self, end: int) -> None:
        missing = end - len(self._kept)
        if missing > _PIECE:
            check_room(self._name, missing)
        while len(self._kept) < end:
            piece = self._take(min(_PIECE, end - len(self._kept)))
            if not piece:
                return
            self._kept += piece

    def _pass(self, position: int) -> None:
        while self._at < position:
            piece = self._take(min(_PIECE, position - self._at))
            if not piece:
                return
            self._at += len(piece)

    def _take(self, size: int) -> bytes:
        """Next bytes, one at least; none at the end."""
        while not self._ended:
            if self._unpacker.eof:
                self._begin_next()
                continue
            data: bytes = self._unpacker.decompress(self._input, size)
            self._input = b""
            if data:
                return data
            if self._unpacker.needs_input and not self._unpacker.eof:
                self._input = self._plain.read(_PIECE)
                if not self._input:
                    raise EOFError("the packed file ends before its end was marked")
        return b""

    def _begin_next(self) -> None:
        """Turn to the next of several packed streams; what is none, such as padding, is the end."""
        rest = self._unpacker.unused_data.lstrip(b"\0")
        while not rest and (more := self._plain.read(_PIECE)):
            rest = more.lstrip(b"\0")
        if len(rest) < _MARK:
            rest += self._plain.read(_MARK)
        mark = packing(rest)
        if not mark or _KINDS[mark] is not self._make:
            self._ended = True
            return
        self._unpacker, self._input = self._make(), rest
