"""The first row of a binary table (FITS standard 4.0, section 7.3)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import VisitFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile, Hdu

__all__ = ["read_row"]

_TYPES = {"L": "S1", "A": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_DESCRIPTORS = {"P": ">i4", "Q": ">i8"}
_FORM = re.compile(r"(\d{0,9})([PQ]?)([LABIJKED])")
_DIM = re.compile(r"\( *\d{1,9} *(, *\d{1,9} *)*\)$")


def read_row(file: FitsFile, hdu: Hdu) -> dict[str, NDArray[Any]]:
    """Arrays of the first row of a table by the name of their column, in native byte order.

    Booleans are bool and text is uint8; TSCAL and TZERO are not applied.

    Raises
    ------
    VisitFileError
        When the HDU is no table with a row, or its columns do not fit its bytes.
    """

    def damaged(what: str) -> VisitFileError:
        return VisitFileError(
            f"{file.path}: extension {hdu.index} {hdu.name}: the table cannot be read: {what}; "
            "the file is damaged"
        )

    raw = hdu.raw
    width, rows = (raw.get(f"NAXIS{axis}", 0) for axis in (1, 2))
    if raw.get("XTENSION") != "BINTABLE" or (raw.get("BITPIX"), raw.get("NAXIS")) != (8, 2) or rows < 1:
        raise damaged("it has no rows of bytes")
    data = file.read(hdu)
    heap = raw.get("THEAP", width * rows)
    columns: dict[str, NDArray[Any]] = {}
    position = 0
    for number in range(1, raw.get("TFIELDS", 0) + 1):
        name, form, dim = (raw.get(f"{keyword}{number}") for keyword in ("TTYPE", "TFORM", "TDIM"))
        found = _FORM.match(form.strip()) if isinstance(form, str) else None
        if found is None:
            raise damaged(f"TFORM{number} is {getattr(form, 'text', form)!r}")
        repeat, start, dtype = int(found[1] or 1), position, np.dtype(_TYPES[found[3]])
        pointer = np.dtype(_DESCRIPTORS[found[2]]) if found[2] else None
        position += repeat * (2 * pointer.itemsize if pointer else dtype.itemsize)
        if position > width or (pointer and repeat > 1):
            raise damaged(f"column {number} does not fit into rows of {width} bytes")
        if pointer:
            # the row holds length and place of values that lie behind all rows
            repeat, place = np.frombuffer(data[start:position], pointer).tolist() if repeat else (0, 0)
            start = heap + place if isinstance(heap, int) else -1
        if repeat < 0 or start < 0 or start + repeat * dtype.itemsize > len(data):
            raise damaged(f"column {number} lies outside of it")
        values = np.frombuffer(data[start : start + repeat * dtype.itemsize], dtype)
        values = values == b"T" if found[3] == "L" else values.astype(dtype.newbyteorder("="))
        if isinstance(dim, str) and dim.strip() and not pointer:
            shape = [int(n) for n in dim.strip()[1:-1].split(",")] if _DIM.match(dim.strip()) else [-1]
            if math.prod(shape) != repeat:
                raise damaged(f"TDIM{number} {dim!r} is not that of {repeat} values")
            values = values.reshape(shape[::-1])
        columns[name.strip() if isinstance(name, str) else f"{number}"] = values
    return columns
