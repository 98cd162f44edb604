"""Mask planes: which bit of a mask has which meaning, asked for by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from skysub.errors import ConfigError, InvalidImageError, MaskPlaneError
from skysub.visit.plane_table import KNOWN_PLANES, PLANES, our_name

__all__ = ["AFW_PLANES", "MAX_BIT", "MaskPlanes", "check_plane_names"]

MAX_BIT = 62
"""Highest bit of a plane: the sign of a 64-bit mask is never one."""


class MaskPlanes(Mapping[str, int]):
    """Names of the planes of a mask, and the bit of each; never changes.

    It is a mapping from name to bit number. The bits of a name differ from file to file, so code asks
    ``planes.bits("BAD", "SAT")`` and never writes a number.

    Parameters
    ----------
    planes
        Bit number (0 to 62) by name.

    Raises
    ------
    InvalidImageError
        When a name is empty, a bit is out of range, or two planes share a bit.
    """

    __slots__ = ("_bit_of",)
    _bit_of: dict[str, int]

    def __init__(self, planes: Mapping[str, int]) -> None:
        bit_of: dict[str, int] = {}
        name_of: dict[int, str] = {}
        for name, bit in planes.items():
            if not isinstance(name, str) or not name:
                raise InvalidImageError(f"the name of a mask plane must be a word, not {name!r}")
            if isinstance(bit, bool) or not isinstance(bit, (int, np.integer)) or not 0 <= bit <= MAX_BIT:
                raise InvalidImageError(f"mask plane {name} must have a bit from 0 to {MAX_BIT}, not {bit!r}")
            if bit in name_of:
                raise InvalidImageError(f"mask planes {name_of[int(bit)]} and {name} share bit {bit}")
            bit_of[name] = int(bit)
            name_of[int(bit)] = name
        object.__setattr__(self, "_bit_of", bit_of)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"mask planes never change; use with_plane to add one (not {name} = {value!r})")

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskPlanes, (dict(self._bit_of),)

    def __getitem__(self, name: str) -> int:
        return self._bit_of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bit_of)

    def __len__(self) -> int:
        return len(self._bit_of)

    def __hash__(self) -> int:
        return hash(frozenset(self._bit_of.items()))

    def __repr__(self) -> str:
        return f"MaskPlanes({self._bit_of})"

    def _repr_html_(self) -> str:
        from skysub.html import card

        return card("MaskPlanes", {name: f"bit {self[name]}, value {1 << self[name]}" for name in self.names})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the planes, by rising bit."""
        return tuple(sorted(self._bit_of, key=self._bit_of.__getitem__))

    @property
    def dtype(self) -> np.dtype[np.signedinteger]:
        """Smallest type of a mask that holds all planes without its sign: int32, or int64."""
        return np.dtype(np.int32 if max(self._bit_of.values(), default=0) < 31 else np.int64)

    def bits(self, *names: str) -> int:
        """Value that a mask is tested against for any of the named planes: ``mask & planes.bits("SAT")``.

        Raises
        ------
        MaskPlaneError
            When there is no plane of a name; `bits_where_present` passes over such names.
        """
        total = 0
        for name in names:
            if name not in self._bit_of:
                known = ", ".join(self.names) or "none"
                raise MaskPlaneError(
                    f"there is no mask plane {name}{_nearest(name, self)}; the planes are: {known}"
                )
            total |= 1 << self._bit_of[name]
        return total

    def bits_where_present(self, *names: str) -> int:
        """Like `bits`, but planes that files of another layout have and these do not are passed over.

        Raises
        ------
        MaskPlaneError
            When a name is neither one of these planes nor in `KNOWN_PLANES`: it is misspelt.
        """
        for name in names:
            if name not in self._bit_of and name not in KNOWN_PLANES:
                raise MaskPlaneError(
                    f"no file has a mask plane {name}{_nearest(name, {*self._bit_of, *KNOWN_PLANES})}; "
                    f"the planes here are: {', '.join(self.names) or 'none'}"
                )
        return self.bits(*(name for name in names if name in self._bit_of))

    def with_plane(self, *names: str) -> MaskPlanes:
        """Return the same planes and, for each new name, one more at the lowest free bit.

        Raises
        ------
        InvalidImageError
            When all bits are taken.
        """
        bit_of = dict(self._bit_of)
        for name in names:
            if name not in bit_of:
                taken = set(bit_of.values())
                bit_of[name] = next(bit for bit in range(MAX_BIT + 2) if bit not in taken)
        return MaskPlanes(bit_of)


AFW_PLANES = MaskPlanes({plane.name: plane.bit for plane in PLANES if plane.bit is not None})
"""The planes that LSST's afw starts from; files add more, at bits of their own."""


def check_plane_names(setting: str, names: Iterable[str]) -> None:
    """Refuse names that are `KNOWN_PLANES` misspelt, before any file is read.

    Names that are near none of them may be planes of a file's own: `MaskPlanes.bits_where_present` judges
    those when it has the file's.

    Raises
    ------
    ConfigError
        With the name that was probably meant.
    """
    if isinstance(names, str):
        raise ConfigError(f"{setting} must be a list of mask planes, not the word {names!r}")
    for name in names:
        # BAD2 is a numbered plane of its own rather than a slip
        numbered = any(letter.isdigit() for letter in name)
        hint = "" if name in KNOWN_PLANES or numbered else _nearest(name, KNOWN_PLANES, cutoff=0.8)
        if hint:
            raise ConfigError(f"{setting}: there is no mask plane {name}{hint}")


def _nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"; did you mean X?"`` where a known name is near, else nothing."""
    import difflib

    ours = our_name(name.upper())
    near = (
        [ours]
        if ours != name.upper()
        else difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=cutoff)
    )
    return f"; did you mean {near[0]}?" if near else ""
