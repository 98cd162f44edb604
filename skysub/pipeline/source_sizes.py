"""How large sources are, from the light in their apertures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["HALF_LIGHT", "exponential_sizes", "large_sizes"]

HALF_LIGHT = 1.6783469900166605
"""Half-light radius of an exponential profile in units of its scale: (1 + s) exp(-s) = 1/2."""
_SMALLEST, _LARGEST, _SIZES = 0.8, 70.0, 56
"""Scales that are tried, pixel, at even steps of their logarithm: of a larger one most of the light lies
beyond the largest aperture, and what is fit is no longer told from a slope of neighbours."""
_CHUNK = 4096
_BLOCK = 8
"""Edge of the blocks from which profiles of large sources are taken, pixel."""
_RINGS = np.array([0.0, *np.geomspace(6.0, 420.0, 22)])
"""Radii of the rings of such a profile, pixel."""
_WIDEST = 250.0
"""Largest scale of such a profile, pixel."""
_NO_EXPONENTIAL = 0.1
"""Share of its light by which a source differs from the profile that is fit to it."""
_OWN = 3.0
"""Half-light radii within which light is a large source's own."""


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


def large_sizes(
    image: NDArray[np.float32],
    noise: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    core: NDArray[np.float64],
    flux: NDArray[np.float64],
    radius: NDArray[np.float64],
    sky_error: NDArray[np.float64],
    smallest: float = 10.0,
    most: int = 400,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fluxes and half-light radii, those of large sources from their profiles out to 420 pixels.

    Medians of blocks in rings are fit by a round exponential profile and a constant. Sources are taken from
    the brightest core on; one that lies within three half-light radii of one that was taken is a part of it.

    Parameters
    ----------
    image
        (ny, nx) float32, background subtracted; NaN where nothing is known.
    noise
        Of a pixel, unit of the image.
    x, y, core, flux, radius, sky_error
        (n,): places, fluxes of cores, and what `exponential_sizes` was given and has found.
    smallest, most
        Half-light radius from which a source is large, pixel; and how many are looked at.

    Returns
    -------
    flux, radius
        (n,) float64: as given where a source is not large.
    """
    flux, radius = flux.copy(), radius.copy()
    chosen = np.nonzero(np.isfinite(radius) & (radius >= smallest) & np.isfinite(x) & np.isfinite(y))[0]
    if not len(chosen):
        return flux, radius
    blocks, known = _blocks(image)
    taken: list[int] = []
    for k in chosen[np.argsort(-core[chosen], kind="stable")][:most]:
        others = np.array(taken, np.int64)
        if (np.hypot(x[others] - x[k], y[others] - y[k]) < _OWN * radius[others]).any():
            continue
        found = _profile(blocks, known, float(x[k]), float(y[k]), noise=noise, sky_error=float(sky_error[k]))
        if found is not None:
            flux[k], radius[k] = found
        taken.append(int(k))
    return flux, radius


def _blocks(image: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of blocks, and how many pixels of each are known."""
    ny, nx = image.shape
    y_starts, x_starts = np.arange(0, ny, _BLOCK), np.arange(0, nx, _BLOCK)
    good = np.isfinite(image)

    def sums(values: NDArray[np.float32] | NDArray[np.bool_]) -> NDArray[np.float64]:
        rows = np.add.reduceat(values, y_starts, axis=0, dtype=np.float64)
        return np.add.reduceat(rows, x_starts, axis=1)

    known = sums(good)
    total = sums(np.where(good, image, np.float32(0)))
    return np.divide(total, known, out=np.full(known.shape, np.nan), where=known > 0), known


def _profile(
    blocks: NDArray[np.float64],
    known: NDArray[np.float64],
    x: float,
    y: float,
    *,
    noise: float,
    sky_error: float,
) -> tuple[float, float] | None:
    """Flux and half-light radius from a profile; None where there is no light to fit."""
    by, bx = blocks.shape
    reach = _RINGS[-1]
    rows = slice(max(0, int((y - reach) // _BLOCK)), min(by, int((y + reach) // _BLOCK) + 1))
    columns = slice(max(0, int((x - reach) // _BLOCK)), min(bx, int((x + reach) // _BLOCK) + 1))
    block_y = np.arange(rows.start, rows.stop) * _BLOCK + (_BLOCK - 1) / 2 - y
    block_x = np.arange(columns.start, columns.stop) * _BLOCK + (_BLOCK - 1) / 2 - x
    ring = np.searchsorted(_RINGS, np.hypot(block_y[:, None], block_x[None, :]), side="right") - 1
    values, counts = blocks[rows, columns], known[rows, columns]
    used = np.isfinite(values) & (counts >= _BLOCK * _BLOCK / 4) & (ring < len(_RINGS) - 1)
    ring, values = ring[used], values[used]
    order = np.argsort(ring, kind="stable")
    ring, values = ring[order], values[order]
    edges = np.searchsorted(ring, np.arange(len(_RINGS)))
    seen = np.nonzero(np.diff(edges) > 0)[0]
    if len(seen) < 5:
        return None
    medians = np.array([np.median(values[edges[k] : edges[k + 1]]) for k in seen])
    # the median of n values scatters by 1.25 times the error of their mean
    errors = 1.2533 * noise / _BLOCK / np.sqrt(np.diff(edges)[seen])
    weights = 1 / (errors**2 + (_NO_EXPONENTIAL * medians) ** 2)
    scales = np.geomspace(_SMALLEST, _WIDEST, 2 * _SIZES)
    t = _RINGS[None, :] / scales[:, None]
    area = np.pi * np.diff(_RINGS**2)
    profiles = (np.diff(1 - (1 + t) * np.exp(-t), axis=1) / area)[:, seen]
    prior = 1 / sky_error**2 if sky_error > 0 else 1e30
    ff, fb = np.einsum("r,sr->s", weights, profiles**2), np.einsum("r,sr->s", weights, profiles)
    bb, ba = weights.sum() + prior, float((weights * medians).sum())
    fa = np.einsum("r,sr->s", weights * medians, profiles)
    own, light = ff - fb**2 / bb, fa - fb * ba / bb
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where((light > 0) & (own > 0), light**2 / own, -np.inf)
    best = int(np.argmax(gain))
    if not np.isfinite(gain[best]):
        return None
    return float(light[best] / own[best]), float(HALF_LIGHT * scales[best])
