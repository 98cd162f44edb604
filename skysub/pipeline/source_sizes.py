"""How large sources are, from the light in their apertures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["HALF_LIGHT", "exponential_sizes"]

HALF_LIGHT = 1.6783469900166605
"""Half-light radius of an exponential profile in units of its scale: (1 + s) exp(-s) = 1/2."""
_SMALLEST, _LARGEST, _SIZES = 0.8, 70.0, 56
"""Scales that are tried, pixel, at even steps of their logarithm: of a larger one most of the light lies
beyond the largest aperture, and what is fit is no longer told from a slope of neighbours."""
_CHUNK = 4096


def exponential_sizes(
    columns: Mapping[str, NDArray[np.float64]],
    radii: Mapping[str, float],
    sky_error: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Total fluxes and half-light radii of round exponential profiles fit to aperture fluxes.

    The light in the rings between apertures is fit by a profile and a constant: a background that is off by a
    constant, as one is that has taken light of the source, neither shrinks nor swells it. The constant has a
    normal prior about zero.

    Parameters
    ----------
    columns
        Aperture fluxes (n,) by name and their errors by the name with "Err"; NaN where an aperture is not
        complete, which ends what is used of a source.
    radii
        Radius of each aperture's circle, pixel, rising.
    sky_error
        (n,) standard deviation of the constant, unit of the fluxes per pixel.

    Returns
    -------
    flux, radius
        (n,) float64: total flux, and half-light radius in pixels; NaN where no light can be fit.
    """
    names = list(radii)
    edges = np.array([0.0, *(radii[name] for name in names)])
    area = np.pi * np.diff(edges**2)
    scales = np.geomspace(_SMALLEST, _LARGEST, _SIZES)
    t = edges[None, :] / scales[:, None]
    profiles = np.diff(1 - (1 + t) * np.exp(-t), axis=1)
    n = len(sky_error)
    flux, radius = np.full(n, np.nan), np.full(n, np.nan)
    for start in range(0, n, _CHUNK):
        rows = slice(start, min(start + _CHUNK, n))
        data = np.stack([np.asarray(columns[name][rows], np.float64) for name in names], axis=1)
        errors = np.stack([np.asarray(columns[f"{name}Err"][rows], np.float64) for name in names], axis=1)
        flux[rows], radius[rows] = _fit(
            data, errors, area=area, profiles=profiles, scales=scales, sky_error=sky_error[rows]
        )
    return flux, radius


def _fit(
    data: NDArray[np.float64],
    errors: NDArray[np.float64],
    *,
    area: NDArray[np.float64],
    profiles: NDArray[np.float64],
    scales: NDArray[np.float64],
    sky_error: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rings = np.diff(data, axis=1, prepend=0.0)
    variance = np.diff(errors**2, axis=1, prepend=0.0)
    # an aperture that is not complete ends the ones that can be used
    good = np.logical_and.accumulate(np.isfinite(rings) & np.isfinite(variance) & (errors > 0), axis=1)
    # of rings that share noise the variance is not the difference, and never below a share of the larger one
    variance = np.maximum(variance, 0.05 * errors**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        w = np.where(good, 1 / variance, 0.0)
        prior = np.where(sky_error > 0, 1 / sky_error**2, 1e30)
    a = np.where(good, rings, 0.0)
    # normal equations of flux f and constant b, for each scale; einsum keeps the bits of one thread
    ff = np.einsum("nr,sr->ns", w, profiles**2)
    fb = np.einsum("nr,sr->ns", w * area, profiles)
    bb = (w * area**2).sum(axis=1)[:, None] + prior[:, None]
    fa = np.einsum("nr,sr->ns", w * a, profiles)
    ba = (w * a * area).sum(axis=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        own, light = ff - fb**2 / bb, fa - fb * ba / bb
        gain = np.where((light > 0) & (own > 0), light**2 / own, -np.inf)
    best = np.argmax(gain, axis=1)
    each = np.arange(len(best))
    found = np.isfinite(gain[each, best]) & (good.sum(axis=1) >= 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        flux = np.where(found, light[each, best] / own[each, best], np.nan)
    return flux, np.where(found, HALF_LIGHT * scales[best], np.nan)
