"""The marker of a finished visit: all of its units in one file, of which single columns can be read.

First ten digits, the length of a header, and eight, its CRC-32C; then the header, JSON; then parts, which
the header finds by offset and length behind it, and whose CRC-32C it has: one column of each figure, and of
each unit its record and what is heavy in it. All that is read is compared with its checksum.
"""

from __future__ import annotations

import functools
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from skysub.campaign.records import FORMAT, Marker, who
from skysub.campaign.store.seals import damage

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Header", "column", "packed_visit", "read_header", "read_marker", "read_payload"]

_DIGITS = 10
_FIRST = _DIGITS + 8
_GUESS = 1 << 15
"""Bytes that are read at first, in the hope that the header is in them."""


@dataclass(frozen=True)
class Header:
    """What a visit's marker says of its parts."""

    start: int
    """Where parts begin."""
    detectors: tuple[int | None, ...]
    columns: Mapping[str, Sequence[Any]]
    """Type, offset, length and checksum of each column."""
    records: Sequence[Sequence[int]]
    """Offset, length and checksum of each unit's record; payloads likewise."""
    payloads: Sequence[Sequence[int]]
    missing: tuple[int, ...]
    """Detectors that a visit's unit did without."""
    key: str
    """Of a visit's unit."""
    visit: int

    def whose(self, number: int) -> str:
        """Name the unit of a place among the detectors, for people."""
        return who(self.visit, self.detectors[number])


def packed_visit(markers: Sequence[Marker]) -> bytes:
    """Return the bytes of a visit's marker; the same markers give the same bytes."""
    parts: list[bytes] = []
    length = 0

    def add(data: bytes) -> list[int]:
        nonlocal length
        parts.append(data)
        length += len(data)
        return [length - len(data), len(data), google_crc32c.value(data)]

    names = dict.fromkeys(name for marker in markers for name in marker.figures)
    columns: dict[str, list[Any]] = {}
    for name in names:
        kind, data = _column_bytes([marker.figures.get(name) for marker in markers])
        columns[f"figures.{name}"] = [kind, *add(data)]
    for name, values in (
        ("seconds", [marker.seconds for marker in markers]),
        ("flags", [",".join(marker.flags) for marker in markers]),
        ("peak_memory", [marker.peak_memory for marker in markers]),
    ):
        kind, data = _column_bytes(values)
        columns[name] = [kind, *add(data)]
    records = [add(_zipped(marker.as_json(payload=False))) for marker in markers]
    payloads = [add(_zipped(dict(marker.payload))) for marker in markers]
    first = markers[0]
    header = {
        "format": FORMAT,
        "step": first.step,
        "visit": first.visit,
        "detectors": [marker.detector for marker in markers],
        "missing": list(first.missing),
        "key": first.key if first.detector is None else "",
        "columns": columns,
        "records": records,
        "payloads": payloads,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"%010d%08x" % (len(text), google_crc32c.value(text)) + text + b"".join(parts)


def read_header(place: StoragePath) -> Header:
    """Read what a visit's marker says of its parts.

    Raises
    ------
    FileNotFoundError
        When there is none, or it is empty (as after a power failure).
    DamagedError
        When it is not as it was written; every reader of a visit's marker raises that.
    """
    return _header(place, place.version_token())[0]


def column(place: StoragePath, name: str) -> NDArray[Any] | list[Any] | None:
    """Values of one column, by unit: numbers (NaN: none), or words; None where there is no such column."""
    header, head = _header(place, place.version_token())
    where = header.columns.get(name)
    if where is None:
        return None
    kind, *where = where
    data = _part(place, header, head, where, who(header.visit))
    if kind == "json":
        values: list[Any] = json.loads(data)
        return values
    return np.frombuffer(data, kind).astype(kind[1:])


def read_marker(place: StoragePath, number: int, *, payload: bool = False) -> Marker:
    """Read the marker of one unit by its place among the header's detectors.

    ``payload``: with what its products keep in the marker itself.
    """
    header, head = _header(place, place.version_token())
    whose = header.whose(number)
    values = _unzipped(_part(place, header, head, header.records[number], whose))
    heavy = _unzipped(_part(place, header, head, header.payloads[number], whose)) if payload else {}
    return Marker.from_values(values, heavy)


def read_payload(place: StoragePath, number: int) -> dict[str, Any]:
    """What the products of one unit keep in its marker."""
    header, head = _header(place, place.version_token())
    return _unzipped(_part(place, header, head, header.payloads[number], header.whose(number)))


@functools.lru_cache(maxsize=8)
def _header(place: StoragePath, _made: Hashable) -> tuple[Header, bytes]:
    """Header, and the bytes behind it that came along."""
    head = place.read_part(0, _GUESS)
    if not head:
        raise FileNotFoundError(f"{place}: there is no such marker")
    try:
        start = _FIRST + int(head[:_DIGITS])
        crc = int(head[_DIGITS:_FIRST], 16)
    except ValueError:
        start, crc = _FIRST, -1
    if len(head) < start:
        head = place.read_part(0, start) or b""
    text = head[_FIRST:start]
    if google_crc32c.value(text) != crc:
        raise damage(place, "is damaged", f"visit {place.name.partition('.')[0]}")
    fields = json.loads(text)
    return Header(
        start=start,
        detectors=tuple(fields["detectors"]),
        columns=fields["columns"],
        records=fields["records"],
        payloads=fields["payloads"],
        missing=tuple(fields["missing"]),
        key=fields["key"],
        visit=fields["visit"],
    ), head[start:]


def _part(place: StoragePath, header: Header, head: bytes, where: Sequence[int], whose: str) -> bytes:
    offset, length, crc = where
    if offset + length <= len(head):
        data = head[offset : offset + length]
    else:
        data = place.read_part(header.start + offset, length) or b""
    if google_crc32c.value(data) != crc:
        raise damage(place, "is damaged", whose)
    return data


def _column_bytes(values: list[Any]) -> tuple[str, bytes]:
    if all(type(value) is int and abs(value) < 2**63 for value in values):
        return "<i8", np.array(values, "<i8").tobytes()
    if all(
        value is None or (isinstance(value, (int, float)) and type(value) is not bool) for value in values
    ):
        return "<f8", np.array([np.nan if value is None else value for value in values], "<f8").tobytes()
    return "json", json.dumps(values, separators=(",", ":")).encode()


def _zipped(values: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 1)


def _unzipped(data: bytes) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(zlib.decompress(data))
    return values
