"""CHECKSUM and DATASUM of FITS (FITS standard 4.0, appendix J)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.fits.cards import Cards

__all__ = ["data_sum", "encode_checksum", "fold", "header_holds"]

_UNSET = ("", "0" * 16)
"""What stands for a sum that is not known: the standard's blank, and the zeros that tools begin with."""


def fold(total: int) -> int:
    """Sum of 32-bit words with end-around carry, from their plain sum."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def data_sum(data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> int:
    """FITS sum of the bytes of a data unit; bytes missing from the last word count as zero."""
    from skysub.visit.fits import kernels

    flat = np.frombuffer(data, np.uint8)
    whole = flat.size // 4 * 4
    words = flat[:whole].view(np.uint32)
    total = int(kernels.sum_words(words)) if sys.byteorder == "little" else int(words.sum(dtype=np.uint64))
    rest = bytes(flat[whole:])
    return fold(total + int.from_bytes(rest.ljust(4, b"\0"), "big") if rest else total)


def encode_checksum(total: int) -> str:
    """Complement of an HDU's sum as the 16 letters and digits of a CHECKSUM card."""
    complement = ~total & 0xFFFFFFFF
    encoded = bytearray(16)
    for i in range(4):
        byte = complement >> (24 - 8 * i) & 0xFF
        letters = [byte // 4 + byte % 4 + 48, *[byte // 4 + 48] * 3]
        # opposite steps keep the sum while punctuation is avoided
        while any(58 <= letter <= 64 or 91 <= letter <= 96 for letter in letters):
            for j in (0, 2):
                if any(58 <= letter <= 64 or 91 <= letter <= 96 for letter in letters[j : j + 2]):
                    letters[j] += 1
                    letters[j + 1] -= 1
        for j, letter in enumerate(letters):
            encoded[4 * j + i] = letter
    return (encoded[-1:] + encoded[:-1]).decode("ascii")


def header_holds(head: bytes, cards: Cards) -> bool | None:
    """Whether a header has the sum that its CHECKSUM states; None where it does not state one.

    CHECKSUM makes the sum of header and data minus zero. The data's part is DATASUM, so that they need not
    be read; a header without it, or with a blank or unset CHECKSUM, cannot be told.

    Parameters
    ----------
    head
        The header as it lies in the file, with END and padding.
    cards
        Its cards.
    """
    stated, data = cards.get("CHECKSUM"), cards.get("DATASUM")
    if stated is None or data is None or stated in _UNSET or data in _UNSET:
        return None
    if not isinstance(data, str) or not data.strip().isdecimal() or not isinstance(stated, str):
        return False
    # few bytes, for which the compiled loop need not be loaded
    words = np.frombuffer(head, ">u4")
    return fold(int(words.sum(dtype=np.uint64)) + int(data)) in {0, 0xFFFFFFFF}
