"""Which mask planes the pixels of a source have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.visit.plane_table import lsst_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["pixel_flags"]

_PLANES = {
    "bad": "BAD",
    "cr": "CR",
    "edge": "EDGE",
    "interpolated": "INTRP",
    "nodata": "NO_DATA",
    "saturated": "SAT",
    "suspect": "SUSPECT",
}
"""Plane of a flag, by its afw name; lsst.images may have another for it."""
_AT_CENTRE = ("cr", "interpolated", "saturated", "suspect")
_CENTRE = 1
"""A centre is 3 x 3 pixels."""


def pixel_flags(  # noqa: PLR0917
    mask: NDArray[Any] | None,
    planes: Mapping[str, int],
    unusable: NDArray[np.bool_],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    radius: NDArray[np.int64],
) -> dict[str, NDArray[np.bool_]]:
    """Columns pixelFlags_* of sources (n,) at (y, x): planes within ``radius`` pixels, and at the centre.

    Parameters
    ----------
    unusable
        (ny, nx): pixels whose light is not known; at a source they count as nodata.
    """
    from skysub.measurement import flag_kernels

    n = len(y)
    shape = unusable.shape
    marks = np.zeros(shape, np.int64) if mask is None else np.asarray(mask)
    if marks.dtype not in {np.dtype(np.int32), np.dtype(np.int64)}:
        marks = marks.astype(np.int64)
    around, centre = np.zeros((2, n), np.int64)
    lost = np.zeros(n, np.bool_)
    marks = for_kernels(marks)
    flag_kernels.collect_bits(marks, unusable.view(np.uint8), y, x, radius, _CENTRE, around, centre, lost)
    columns = {}
    for flag, plane in _PLANES.items():
        bits = sum(1 << int(planes[name]) for name in {plane, lsst_name(plane)} if name in planes)
        columns[f"pixelFlags_{flag}"] = (around & bits) != 0
        if flag in _AT_CENTRE:
            columns[f"pixelFlags_{flag}Center"] = (centre & bits) != 0
    columns["pixelFlags_nodata"] |= lost
    ny, nx = shape
    off = ~((y >= -0.5) & (y < ny - 0.5) & (x >= -0.5) & (x < nx - 0.5))
    columns["pixelFlags_offimage"] = off
    reach = radius.astype(np.float64)
    cut = (y - reach < -0.5) | (x - reach < -0.5) | (y + reach > ny - 0.5) | (x + reach > nx - 0.5)
    columns["pixelFlags_edge"] |= cut | off
    return columns
