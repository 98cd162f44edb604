"""Pictures of few colours as PNG (ISO/IEC 15948), one byte per pixel and a palette."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from skysub.report.colour import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["data_url", "indexed", "png", "true_colour_png"]

NOTHING = LEVELS
"""Place in the palette of what is transparent."""


def indexed(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Places in a palette of 255 colours that spans ``low`` to ``high``; NaN is the transparent place."""
    width = high - low if high > low else 1.0
    with np.errstate(invalid="ignore"):
        places = np.clip(np.rint((values - low) * ((LEVELS - 1) / width)), 0, LEVELS - 1)
    return np.where(np.isfinite(values), places, NOTHING).astype(np.uint8)


def png(places: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Encode a picture.

    Parameters
    ----------
    places
        (ny, nx) uint8 places in the palette; row 0 is drawn at the bottom.
    palette
        (n, 3) uint8 sRGB, n at most 256. Place 255 of a palette that is shorter is transparent.
    """
    ny, nx = places.shape
    rows = np.zeros((ny, nx + 1), np.uint8)
    rows[:, 1:] = places[::-1]
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, 3, 0, 0, 0)),
        (b"PLTE", colours.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    ]
    if len(palette) <= NOTHING:
        chunks.insert(2, (b"tRNS", b"\xff" * NOTHING + b"\x00"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def true_colour_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture of (ny, nx, 3) uint8 sRGB; row 0 is drawn at the bottom."""
    ny, nx, _ = pixels.shape
    rows = np.zeros((ny, 3 * nx + 1), np.uint8)
    rows[:, 1:] = pixels[::-1].reshape(ny, 3 * nx)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def data_url(places: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Encode a picture as a ``data:`` URL."""
    return "data:image/png;base64," + base64.b64encode(png(places, palette)).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
