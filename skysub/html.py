"""What a notebook shows of an object: a small table, and pictures in grey."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["card", "picture", "thumbnail"]

_STYLE = "font-family:sans-serif;font-size:0.9em;line-height:1.35"
_EDGE = 256
_LEAST = 128
"""Pixels on the screen that the longer side of a picture has at least."""


def card(title: str, rows: Mapping[str, Any], pictures: Iterable[str] = ()) -> str:
    """HTML of an object: its title, pictures as ``data:`` URLs or whole elements, and named values.

    All text is escaped.
    """
    drawn = "".join(pictures)
    lines = "".join(
        f'<tr><th style="text-align:left;padding:0 1em 0 0">{html.escape(str(name))}</th>'
        f'<td style="text-align:left;padding:0">{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return (
        f'<div style="{_STYLE}"><b>{html.escape(title)}</b>'
        f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{drawn}'
        f'<table style="border:none">{lines}</table></div></div>'
    )


def picture(values: NDArray[Any], about: str, *, low: float | None = None, high: float | None = None) -> str:
    """Element with a picture of (ny, nx) values in grey, row 0 at the bottom, NaN in the middle grey.

    Parameters
    ----------
    about
        What it shows, for people who do not see it.
    low, high
        Values that are black and white; quantiles of 1 and 99 per cent by default.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ""
    ends = np.percentile(finite, [1, 99])
    low, high = float(ends[0]) if low is None else low, float(ends[1]) if high is None else high
    with np.errstate(invalid="ignore", over="ignore"):
        grey = np.clip((values.astype(np.float64) - low) * (255 / ((high - low) or 1.0)), 0, 255)
    shades: NDArray[np.uint8] = np.where(np.isfinite(values), grey, 128).astype(np.uint8)
    ny, nx = shades.shape
    scale = max(1, -(-_LEAST // max(ny, nx)))
    url = "data:image/png;base64," + base64.b64encode(_png(shades)).decode()
    return (
        f'<img src="{url}" alt="{html.escape(about, quote=True)}" width="{nx * scale}" height="{ny * scale}" '
        'style="image-rendering:pixelated">'
    )


def thumbnail(image: NDArray[Any], edge: int = _EDGE) -> NDArray[np.float64]:
    """Means of square cells of an image, the longer side of ``edge`` at most; NaN is left out."""
    cell = -(-max(image.shape) // edge)
    ny, nx = (n // cell * cell for n in image.shape)
    # a few rows and columns of each cell tell enough
    step = max(1, cell // 4)
    cells = (
        image[:ny, :nx].reshape(ny // cell, cell, nx // cell, cell)[:, ::step, :, ::step].astype(np.float64)
    )
    good = np.isfinite(cells)
    count = good.sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(good, cells, 0).sum(axis=(1, 3)) / count
    return mean


def _png(grey: NDArray[np.uint8]) -> bytes:
    ny, nx = grey.shape
    rows = np.zeros((ny, nx + 1), np.uint8)
    rows[:, 1:] = grey[::-1]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
