"""Bits of the working plane of uint8 flags that detection and superpixel statistics share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import plain
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
    from skysub.sources import kernels

    flags = np.empty(mask.shape, np.uint8)
    # unsigned, so that a sign bit is a bit like the others
    planes = mask.view(f"u{mask.dtype.itemsize}")
    kind = planes.dtype.type

    def band(rows: range) -> None:
        cut = slice(rows.start, rows.stop)
        kernels.flag_pixels(plain(planes[cut]), kind(ignored), kind(saturated), flags[cut])

    in_threads(band, mask.shape[0], threads)
    return flags


def count_pixels(flags: NDArray[np.uint8], bits: tuple[int, ...], grid: SuperpixelGrid) -> NDArray[np.int64]:
    """Pixels of each superpixel that have any of ``bits[k]`` in their flags, (len(bits), gy, gx) int64."""
    from skysub.sources import kernels

    found = np.empty((len(bits), *grid.shape), np.int64)
    kernels.count_flagged(flags, np.array(bits, np.uint8), grid.y_edges, grid.x_edges, found)
    return found


def mark_planes(
    mask: NDArray[np.signedinteger],
    flags: NDArray[np.uint8],
    marks: dict[int, int],
    *,
    cleared: int,
    out: NDArray[np.signedinteger],
    threads: int = 1,
) -> None:
    """Mask planes with bits set where pixels have flags.

    Parameters
    ----------
    mask
        (ny, nx) integer mask planes.
    marks
        Bits of the mask by the flags, any of which sets them; one at least.
    cleared
        Bits of the mask that are cleared first.
    out
        Where the planes go, (ny, nx) C-contiguous; ``mask`` itself for instance.
    """
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

    in_threads(band, mask.shape[0], threads)
