"""Checksums that the files of a campaign carry with them, so that every read finds a damaged byte.

A JSON file, or a line of one, is an object whose first key is ``crc32c``: the CRC-32C of the text without
that key. ``zarr.json`` has it among its attributes, of its content in one fixed spelling, since Zarr knows no
other key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import google_crc32c

from skysub.errors import DamagedError

if TYPE_CHECKING:
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["CURE", "damage", "read_sealed", "sealed", "sealed_metadata", "unsealed", "unsealed_metadata"]

CURE = "the same `skysub run` with --verify makes it again"
"""What heals a store."""

_FIRST = b'{"crc32c":"'
_TEXT = len(_FIRST) + 10


def damage(place: StoragePath, what: str, of: str = "") -> DamagedError:
    """Return the error for a file of a store that is not what was written; ``of``: whose results it holds."""
    return DamagedError(f"{place} {what}{f' ({of})' if of else ''}: {CURE}")


def sealed(text: bytes) -> bytes:
    """Return the text of a JSON object that is not empty, with its checksum as first key."""
    return b'%b%08x",%b' % (_FIRST, google_crc32c.value(text), text[1:])


def unsealed(data: bytes) -> dict[str, Any] | None:
    """Return the object that was `sealed`; None where it is not as it was written."""
    text = b"{" + data[_TEXT:]
    if data[:_TEXT] != b'%b%08x",' % (_FIRST, google_crc32c.value(text)):
        return None
    try:
        values: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return values


def read_sealed(place: StoragePath, of: str = "") -> dict[str, Any] | None:
    """Content of a sealed file; None where it is absent, or empty (as after a power failure).

    Raises
    ------
    DamagedError
        When it is not as it was written.
    """
    data = place.read()
    if not data:
        return None
    values = unsealed(data)
    if values is None:
        raise damage(place, "is damaged", of)
    return values


def sealed_metadata(data: bytes) -> bytes:
    """Return the content of a ``zarr.json`` with its checksum among the attributes."""
    values = json.loads(data)
    values["attributes"] = {**values.get("attributes", {}), "crc32c": _of_metadata(values)}
    return json.dumps(values, indent=2).encode()


def unsealed_metadata(data: bytes) -> dict[str, Any] | None:
    """Return what a ``zarr.json`` says; None where it is not as `sealed_metadata` made it."""
    try:
        values = json.loads(data)
        attributes = values["attributes"]
        crc = attributes.pop("crc32c")
        same: bool = crc == _of_metadata(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return values if same else None


def _of_metadata(values: dict[str, Any]) -> str:
    attributes = values.get("attributes", {})
    text = json.dumps({**values, "attributes": attributes}, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(text.encode()):08x}"
