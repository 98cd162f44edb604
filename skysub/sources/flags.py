"""Bits of the working plane of uint8 flags that detection and superpixel statistics share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.rows import made_rows, over_rows, rows_between
from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = [
    "COSMIC_RAY",
    "EXTENDED",
    "IGNORED",
    "NOT_SKY",
    "SATURATED",
    "SOURCE",
    "count_pixels",
    "mark_planes",
    "share_flagged",
    "working_flags",
]

IGNORED = 1
"""The pixel's value says nothing: bad, cosmic ray, no data."""
SATURATED = 2
"""The value is light, but not all of it: kept in detection, left out of the sky."""
SOURCE = 4
"""In the grown footprint of a source."""
EXTENDED = 8
"""In faint extended light, found after smoothing."""
COSMIC_RAY = 16
"""Hit by a cosmic ray; always with IGNORED."""
_STRIP = 64
NOT_SKY = IGNORED | SATURATED | SOURCE | EXTENDED


def working_flags(
    mask: NDArray[np.integer], *, ignored: int, saturated: int, threads: int = 1
) -> NDArray[np.uint8]:
    """Flags of an image from its mask planes.

    Parameters
    ----------
    mask
        (ny, nx) integer mask planes.
    ignored, saturated
        Bits of the planes whose pixels become IGNORED and SATURATED.

    Returns
    -------
    flags
        (ny, nx) uint8 of IGNORED and SATURATED.
    """
    flags: NDArray[np.uint8] = made_rows(
        _flag, (mask,), np.uint8, kept=True, threads=threads, ignored=ignored, saturated=saturated
    )
    return flags


def count_pixels(flags: NDArray[np.uint8], bits: tuple[int, ...], grid: SuperpixelGrid) -> NDArray[np.int64]:
    """Pixels of each superpixel that have any of ``bits[k]`` in their flags, (len(bits), gy, gx) int64."""
    counted = over_rows(_count, (flags,), spans=rows_between(grid.y_edges), bits=bits, grid=grid)
    found: NDArray[np.int64] = np.concatenate(counted, axis=1)
    return found


def share_flagged(flags: NDArray[np.uint8], bits: int, *, step: int) -> float:
    """Share of the pixels of every so many rows that have any of ``bits`` in their flags."""
    rows = np.arange(0, len(flags), step)
    counted = over_rows(
        _count_in_rows, (flags,), spans=np.stack([rows, rows + 1], axis=1), bits=bits, step=step
    )
    return float(sum(counted) / (len(rows) * flags.shape[1]))


def mark_planes(
    mask: NDArray[np.signedinteger],
    flags: NDArray[np.uint8],
    marks: dict[int, int],
    *,
    cleared: int,
    dtype: Any = None,
    out: NDArray[np.signedinteger] | None = None,
    threads: int = 1,
) -> Any:
    """Return mask planes with bits set where pixels have flags.

    Parameters
    ----------
    mask
        (ny, nx) integer mask planes, an array or a `Plane` as ``flags`` are.
    marks
        Bits of the mask by the flags, any of which sets them; one at least.
    cleared
        Bits of the mask that are cleared first.
    dtype
        Of new planes; by default that of ``mask``.
    out
        Where the planes go, (ny, nx) C-contiguous; ``mask`` itself for instance.
    """
    kind = mask.dtype if dtype is None else dtype
    return made_rows(_mark, (mask, flags), kind, out=out, threads=threads, marks=marks, cleared=cleared)


def _mark(
    rows: range,
    out: NDArray[np.signedinteger],
    mask: NDArray[np.signedinteger],
    flags: NDArray[np.uint8],
    *,
    marks: dict[int, int],
    cleared: int,
    threads: int,
) -> None:
    from skysub.sources import paint_kernels as kernels

    kind = out.dtype.type

    def band(rows: range) -> None:
        # strip by strip, so that what was copied is still in cache when bits are set
        for top in range(rows.start, rows.stop, _STRIP):
            cut = slice(top, min(top + _STRIP, rows.stop))
            if out is not mask:
                out[cut] = mask[cut]
            kept = ~cleared
            for flag, bits in marks.items():
                kernels.set_bits(flags[cut], flag, kind(bits), kind(kept), out[cut])
                kept = -1

    in_threads(band, rows, threads)


def _flag(
    rows: range,
    flags: NDArray[np.uint8],
    mask: NDArray[np.integer],
    *,
    ignored: int,
    saturated: int,
    threads: int,
) -> None:
    from skysub.sources import kernels

    # unsigned, so that a sign bit is a bit like the others
    planes = mask.view(f"u{mask.dtype.itemsize}")
    kind = planes.dtype.type

    def band(rows: range) -> None:
        cut = slice(rows.start, rows.stop)
        kernels.flag_pixels(for_kernels(planes[cut]), kind(ignored), kind(saturated), flags[cut])

    in_threads(band, rows, threads)


def _count(
    units: range, flags: NDArray[np.uint8], *, bits: tuple[int, ...], grid: SuperpixelGrid, threads: int
) -> NDArray[np.int64]:
    from skysub.sources import kernels

    del threads
    found = np.empty((len(bits), len(units), grid.shape[1]), np.int64)
    y_edges = grid.y_edges[units.start : units.stop + 1]
    kernels.count_flagged(flags, np.array(bits, np.uint8), y_edges, grid.x_edges, found)
    return found


def _count_in_rows(units: range, flags: NDArray[np.uint8], *, bits: int, step: int, threads: int) -> int:
    del threads
    return int(np.count_nonzero(flags[units.start * step : (units.stop - 1) * step + 1 : step] & bits))
