"""What a header claims of its data, held against what a file and a machine can hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import psutil

from skysub.errors import LayoutError, VisitFileError

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards

__all__ = [
    "check_claims",
    "check_packed",
    "check_pixels",
    "check_room",
    "data_bytes",
    "no_room",
    "whole",
]

_LARGEST = 2**62
"""Bytes that no file reaches."""
_MOST_PIXELS = 2**31
"""Pixels of an image: twice a mosaic of 30,000 x 30,000."""
_MAX_RATIO = 8192
"""Pixels per byte of a tile-compressed image: more than any of the algorithms of FITS reaches."""
_PACKED_FREE = 256 * 2**20
_PACKED_RATIO = 2000
"""Bytes that a packed file may unpack to: so many, and so many per packed byte. Pixels have noise: even masks
of a single value beside them stay far below, while bzip2 reaches 45 million with zeros."""


def data_bytes(raw: Cards, where: str) -> int:
    """Bytes of an HDU's data, without padding (FITS standard 4.0, section 4.4.1.2).

    Raises
    ------
    LayoutError
        When a keyword that says so is no whole number, or more than a file can have; also when an image has
        parameters or groups (PCOUNT, GCOUNT), which only tables and random groups may.
    """
    bits = whole(raw, "BITPIX", where, allowed=(8, 16, 32, 64, -32, -64))
    axes = _axes(raw, "NAXIS", where)
    grouped = bool(axes) and axes[0] == 0 and raw.get("GROUPS") is True
    if grouped:
        axes = axes[1:]
    pcount = whole(raw, "PCOUNT", where, default=0)
    gcount = whole(raw, "GCOUNT", where, default=1)
    if (pcount, gcount) != (0, 1) and raw.get("XTENSION", "IMAGE") == "IMAGE" and not grouped:
        raise LayoutError(
            f"{where}: PCOUNT and GCOUNT are {pcount} and {gcount}, where an image has 0 and 1; "
            "the file is damaged"
        )
    return _limited(abs(bits) // 8 * gcount * (pcount + math.prod(axes)) if axes else 0, where)


def check_claims(raw: Cards, nbytes: int, where: str) -> None:
    """Refuse a tile-compressed image that claims more pixels than its bytes can hold.

    Raises
    ------
    LayoutError
        When ZBITPIX, ZNAXIS or one of the axes is missing or no sound number.
    VisitFileError
        When there are too few bytes.
    """
    whole(raw, "ZBITPIX", where, allowed=(8, 16, 32, 64, -32, -64))
    axes = _axes(raw, "ZNAXIS", where)
    if axes and _limited(math.prod(axes), where) > _MAX_RATIO * nbytes:
        raise VisitFileError(f"{where}: {nbytes} bytes cannot hold {tuple(axes[::-1])} pixels")


def check_pixels(shape: tuple[int, ...], where: str) -> None:
    """Refuse an image that no detector is as large as.

    Raises
    ------
    LayoutError
        When it has more than 2^31 pixels.
    """
    if math.prod(shape) > _MOST_PIXELS:
        raise LayoutError(
            f"{where}: an image of {shape} pixels is more than the {_MOST_PIXELS} that one detector may have"
        )


def check_packed(end: int, packed: int, where: str) -> None:
    """Refuse a packed file whose headers ask for far more than a packed file of pixels unpacks to.

    Parameters
    ----------
    end
        Byte up to which the file would have to be unpacked.
    packed
        Bytes of the packed file.

    Raises
    ------
    VisitFileError
        When it would unpack to 2,000 times its bytes and 256 MiB more.
    """
    if end > _PACKED_FREE + _PACKED_RATIO * packed:
        raise VisitFileError(
            f"{where}: {packed} packed bytes would unpack to more than {end}, which pixels never do; "
            "unpack it by hand if it is what it should be"
        )


def check_room(where: str, nbytes: int) -> None:
    """Refuse to ask for more memory than this machine has free.

    Raises
    ------
    VisitFileError
        When it has less.
    """
    # small requests are not worth a look
    if nbytes < _PACKED_FREE:
        return
    free = psutil.virtual_memory().available
    if nbytes > free:
        raise VisitFileError(
            no_room(where, f"{nbytes / 2**30:.2f} GiB more are needed, {free / 2**30:.2f} free")
        )


def no_room(where: str, why: str) -> str:
    """What a person reads where memory ends."""
    return f"{where}: there is not enough memory to read it ({why})"


def whole(
    cards: Cards,
    keyword: str,
    where: str,
    *,
    high: int = 2**40,
    allowed: tuple[int, ...] = (),
    default: int | None = None,
) -> int:
    """Value of a keyword that must be a whole number from 0 to ``high``, or one of those ``allowed``.

    Raises
    ------
    LayoutError
        When it is not.
    """
    value = cards.get(keyword, default)
    good = isinstance(value, int) and not isinstance(value, bool)
    if not good or (value not in allowed if allowed else not 0 <= value <= high):
        shown = "missing" if value is None else f"{getattr(value, 'text', value)!r}"
        raise LayoutError(f"{where}: {keyword} is {shown}, which no sound FITS file has; the file is damaged")
    return int(value)


def _axes(raw: Cards, keyword: str, where: str) -> list[int]:
    return [
        whole(raw, f"{keyword}{axis}", where) for axis in range(1, whole(raw, keyword, where, high=999) + 1)
    ]


def _limited(number: int, where: str) -> int:
    if number > _LARGEST:
        raise LayoutError(
            f"{where}: its axes ask for more than any file holds, about 10^{len(f'{number:x}') * 1.204:.0f}; "
            "the file is damaged"
        )
    return number
