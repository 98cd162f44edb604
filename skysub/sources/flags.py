"""Bits of the working plane of uint8 flags that detection and superpixel statistics share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COSMIC_RAY", "EXTENDED", "IGNORED", "NOT_SKY", "SATURATED", "SOURCE", "working_flags"]

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

    def band(rows: range) -> None:
        cut = slice(rows.start, rows.stop)
        kernels.flag_pixels(mask[cut], ignored, saturated, flags[cut])

    in_threads(band, mask.shape[0], threads)
    return flags
