"""Checksum of a whole file from the pieces in which it is read, so that it is read once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Tally"]

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, the coefficient of x^0 in the highest bit."""
_ONE = 1 << 31
"""The polynomial 1."""
_PIECE = 1 << 20
"""Bytes that are read at once of what was passed over."""


class Tally:
    """CRC-32C of bytes of a file by where they lie, whatever the order in which they are read."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, int], int] = {}

    def add(self, offset: int, data: bytes | NDArray[np.uint8]) -> None:
        """Take in bytes as they lie in the file from ``offset`` on."""
        if len(data):
            # longer pieces first where several begin at one place
            self._pieces[offset, -len(data)] = google_crc32c.value(data)

    def add_sum(self, offset: int, length: int, crc: int) -> None:
        """Take in the CRC-32C of bytes that lie in the file from ``offset`` on."""
        self._pieces[offset, -length] = crc

    def total(self, size: int, read: Callable[[int, int], bytes]) -> str:
        """CRC-32C of the whole file, 8 hexadecimal digits.

        Parameters
        ----------
        size
            Bytes of the file.
        read
            Reads so many bytes from an offset on: what was not taken in.
        """
        crc = position = 0
        for (offset, length), piece in sorted(self._pieces.items()):
            if offset < position:
                continue
            crc = _followed(_read_on(crc, position, offset, read), piece, -length)
            position = offset - length
        return f"{_read_on(crc, position, size, read):08x}"


def _read_on(crc: int, position: int, end: int, read: Callable[[int, int], bytes]) -> int:
    for start in range(position, end, _PIECE):
        crc = google_crc32c.extend(crc, read(start, min(_PIECE, end - start)))
    return crc


def _followed(first: int, second: int, length: int) -> int:
    """CRC of bytes followed by ``length`` others, from the CRCs of both: zeros shift the first one."""
    return _product(first, _power(length)) ^ second


@functools.lru_cache(maxsize=64)
def _power(length: int) -> int:
    """x^(8 length) modulo the polynomial."""
    square, power = _ONE >> 8, _ONE
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return power


def _product(a: int, b: int) -> int:
    """Product of two polynomials over two elements modulo that of the CRC."""
    product = 0
    while b:
        if b & _ONE:
            product ^= a
        b = (b << 1) & 0xFFFFFFFF
        a = (a >> 1) ^ (_POLYNOMIAL if a & 1 else 0)
    return product
