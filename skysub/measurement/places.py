"""Places on the sky of places on a detector, and how the sky's axes run there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = ["local_axes", "sky_places"]

_STEP = 0.5
"""Pixels to each side over which derivatives are taken."""


def sky_places(
    wcs: WCS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension and declination (n,) of places (n,), degrees; NaN where a place is or has none."""
    ra, dec = np.full(len(x), np.nan), np.full(len(x), np.nan)
    known = np.isfinite(x) & np.isfinite(y)
    if known.any():
        ra[known], dec[known] = wcs.all_pix2world(x[known], y[known], 0)
    return ra, dec


def local_axes(
    wcs: WCS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """How places on the sky move with those on a detector, degrees per pixel, (n,) each.

    Returns
    -------
    axes
        ``axes[0]``: of right ascension times cos(dec) with x and with y; ``axes[1]``: of declination.
        Derivatives are taken in the tangent plane, so that they hold at the poles as well.
    """
    ra, dec = (np.radians(angle) for angle in sky_places(wcs, x, y))
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)])
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    along = []
    for dx, dy in ((_STEP, 0.0), (0.0, _STEP)):
        moved = _direction(wcs, x + dx, y + dy) - _direction(wcs, x - dx, y - dy)
        along.append([np.degrees((axis * moved).sum(axis=0)) / (2 * _STEP) for axis in (east, north)])
    return (along[0][0], along[1][0]), (along[0][1], along[1][1])


def _direction(wcs: WCS, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (3, n)."""
    ra, dec = (np.radians(angle) for angle in sky_places(wcs, x, y))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
