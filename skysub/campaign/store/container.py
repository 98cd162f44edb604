"""The marker of a finished visit: all of its units in one file, of which single columns can be read.

First ten digits, the length of a header; then the header, JSON; then parts, which the header finds by offset
and length behind it: one column of each figure, and of each unit its record and what is heavy in it.
"""

from __future__ import annotations

import functools
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.records import FORMAT, Marker

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.store.place import Place

__all__ = ["Header", "column", "packed_visit", "read_header", "read_marker", "read_payload"]

_FIRST = 10
_GUESS = 1 << 15
"""Bytes that are read at first, in the hope that the header is in them."""


@dataclass(frozen=True)
class Header:
    """What a visit's marker says of its parts."""

    start: int
    """Where parts begin."""
    detectors: tuple[int | None, ...]
    columns: Mapping[str, Sequence[Any]]
    """Type, offset and length of each column."""
    records: Sequence[Sequence[int]]
    payloads: Sequence[Sequence[int]]
    missing: tuple[int, ...]
    """Detectors that a visit's unit did without."""
    key: str
    """Of a visit's unit."""


def packed_visit(markers: Sequence[Marker]) -> bytes:
    """Return the bytes of a visit's marker; the same markers give the same bytes."""
    parts: list[bytes] = []
    length = 0

    def add(data: bytes) -> list[int]:
        nonlocal length
        parts.append(data)
        length += len(data)
        return [length - len(data), len(data)]

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
    return b"%010d" % len(text) + text + b"".join(parts)


def read_header(place: Place) -> Header:
    """Read what a visit's marker says of its parts.

    Raises
    ------
    FileNotFoundError
        When there is none, or it is not whole (as after a power failure).
    """
    return _header(place, place.made())[0]


def column(place: Place, name: str) -> NDArray[Any] | list[Any] | None:
    """Values of one column, by unit: numbers (NaN: none), or words; None where there is no such column."""
    header, head = _header(place, place.made())
    where = header.columns.get(name)
    if where is None:
        return None
    kind, offset, length = where
    data = _part(place, header, head, offset, length)
    if kind == "json":
        values: list[Any] = json.loads(data)
        return values
    return np.frombuffer(data, kind).astype(kind[1:])


def read_marker(place: Place, number: int, *, payload: bool = False) -> Marker:
    """Read the marker of one unit by its place among the header's detectors.

    ``payload``: with what its products keep in the marker itself.
    """
    header, head = _header(place, place.made())
    values = _unzipped(_part(place, header, head, *header.records[number]))
    heavy = _unzipped(_part(place, header, head, *header.payloads[number])) if payload else {}
    return Marker.from_values(values, heavy)


def read_payload(place: Place, number: int) -> dict[str, Any]:
    """What the products of one unit keep in its marker."""
    header, head = _header(place, place.made())
    return _unzipped(_part(place, header, head, *header.payloads[number]))


@functools.lru_cache(maxsize=8)
def _header(place: Place, _made: Hashable) -> tuple[Header, bytes]:
    """Header, and the bytes behind it that came along."""
    head = place.read_part(0, _GUESS)
    try:
        if head is None:
            raise FileNotFoundError(f"{place}: there is no such marker")
        length = int(head[:_FIRST])
        start = _FIRST + length
        if len(head) < start:
            head = place.read_part(0, start) or b""
        fields = json.loads(head[_FIRST:start])
    except ValueError:
        raise FileNotFoundError(f"{place}: the marker is not whole") from None
    return Header(
        start=start,
        detectors=tuple(fields["detectors"]),
        columns=fields["columns"],
        records=fields["records"],
        payloads=fields["payloads"],
        missing=tuple(fields["missing"]),
        key=fields["key"],
    ), head[start:]


def _part(place: Place, header: Header, head: bytes, offset: int, length: int) -> bytes:
    if offset + length <= len(head):
        return head[offset : offset + length]
    return place.read_part(header.start + offset, length) or b""


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
