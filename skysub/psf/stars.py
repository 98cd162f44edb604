"""Stars that a PSF is made from: chosen by brightness, isolation and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.rows import over_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Moments", "Stars", "adaptive_moments", "choose_stars", "cut_stamps"]

_ITERATIONS = 30
_FRACTION_NEAR_LOCUS = 0.1
"""Stars lie within this share of the locus' size, or three of its own scatters where that is more."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments under a Gaussian weight of the object's own size and shape, each (n,) float64."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """Centre, pixel of the stamp."""
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: NDArray[np.float64]
    """Pixel squared; those of a Gaussian are its covariance. NaN where they did not converge."""

    @property
    def size(self) -> NDArray[np.float64]:
        """Determinant radius (xx yy - xy^2)^(1/4), pixel: the sigma of a round Gaussian."""
        with np.errstate(invalid="ignore"):
            size: NDArray[np.float64] = np.maximum(self.xx * self.yy - self.xy**2, 0) ** 0.25
        return size

    @property
    def ellipticity(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(e1, e2) = (xx - yy, 2 xy) / (xx + yy)."""
        trace = self.xx + self.yy
        return (self.xx - self.yy) / trace, 2 * self.xy / trace


@dataclass(frozen=True, eq=False)
class Stars:
    """Chosen stars: their stamps, places and noise."""

    stamps: NDArray[np.float64]
    """(n, s, s) float64, background subtracted, unit of the image; 0 where a pixel is not good."""
    good: NDArray[np.bool_]
    """(n, s, s) bool: pixels that are known, and belong to no neighbour."""
    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    """(n,) pixel of the image at each stamp's first pixel."""
    moments: Moments
    noise: NDArray[np.float64]
    """(n,) standard deviation per pixel, unit of the image."""

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def x(self) -> NDArray[np.float64]:
        """Centres, pixel of the image."""
        return self.x0 + self.moments.x

    @property
    def y(self) -> NDArray[np.float64]:
        """Centres, pixel of the image."""
        return self.y0 + self.moments.y

    def keep(self, chosen: NDArray[np.bool_]) -> Stars:
        """Return some of the stars."""
        m = self.moments
        return Stars(
            stamps=self.stamps[chosen],
            good=self.good[chosen],
            x0=self.x0[chosen],
            y0=self.y0[chosen],
            moments=Moments(m.x[chosen], m.y[chosen], m.xx[chosen], m.xy[chosen], m.yy[chosen]),
            noise=self.noise[chosen],
        )


def cut_stamps(
    image: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    noise: NDArray[np.float64],
    *,
    size: int,
) -> tuple[Stars, NDArray[np.bool_]]:
    """Stamps of ``size`` x ``size`` pixels (odd) around places whose stamps lie inside the image.

    Parameters
    ----------
    image
        (ny, nx) float32, background subtracted.
    unusable
        (ny, nx) bool: pixels that are not known.
    x, y, noise
        (n,) centres in pixels, and noise per pixel there.

    Returns
    -------
    stars, inside
        Stars with their moments; and (n,) bool which of the places they are.
    """
    half = size // 2
    ny, nx = image.shape
    column, row = np.round(x).astype(np.int64) - half, np.round(y).astype(np.int64) - half
    inside = (column >= 0) & (row >= 0) & (column + size <= nx) & (row + size <= ny)
    column, row = column[inside], row[inside]
    # by rows, as the image may lie in blocks of these
    order = np.argsort(row, kind="stable")
    corners = np.stack([row[order], column[order]], axis=1)
    parts = over_rows(
        _cut,
        (image, unusable),
        spans=np.stack([corners[:, 0], corners[:, 0] + size], axis=1),
        corners=corners,
        size=size,
    )
    stamps, good = np.empty((len(row), size, size)), np.empty((len(row), size, size), bool)
    stamps[order] = np.concatenate([np.empty((0, size, size)), *(part[0] for part in parts)])
    good[order] = ~np.concatenate([np.empty((0, size, size), bool), *(part[1] for part in parts)])
    good &= np.isfinite(stamps)
    stamps = np.where(good, stamps, 0.0)
    stars = Stars(
        stamps=stamps, good=good, x0=column, y0=row, moments=adaptive_moments(stamps), noise=noise[inside]
    )
    return stars, inside


def _cut(
    units: range,
    image: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    *,
    corners: NDArray[np.int64],
    size: int,
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Windows of both planes from corners (n, 2), row before column."""
    del threads
    windows = [
        (slice(y, y + size), slice(x, x + size)) for y, x in corners[units.start : units.stop].tolist()
    ]
    return (
        np.array([image[w] for w in windows], np.float64).reshape(-1, size, size),
        np.array([unusable[w] for w in windows], bool).reshape(-1, size, size),
    )


def adaptive_moments(stamps: NDArray[np.float64]) -> Moments:
    """Moments under a Gaussian weight that is fit to them (Bernstein & Jarvis 2002, AJ 123, 583).

    Parameters
    ----------
    stamps
        (n, s, s) float64, background subtracted; the object lies near the centre.
    """
    from skysub.psf import kernels

    m = np.empty((5, len(stamps)))
    kernels.adaptive_moments(for_kernels(stamps), _ITERATIONS, *m)
    return Moments(*m)


def choose_stars(stars: Stars, flux: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Stars among candidates: those near the size at which bright candidates crowd.

    Parameters
    ----------
    stars
        Candidates with their moments.
    flux
        (n,) by which the brighter candidates count more in finding the locus.

    Returns
    -------
    chosen
        (n,) bool.
    """
    size = stars.moments.size
    known = np.isfinite(size) & (size > 0.5)
    if known.sum() < 3:
        return known
    # a galaxy is never smaller than a star: the locus is the densest size, small ones first
    order = np.sort(size[known])
    weights = np.interp(order, *_sorted(size[known], np.sqrt(np.maximum(flux[known], 0))))
    width = max(0.03 * float(np.median(order)), 0.02)
    density = np.array([np.sum(weights * np.exp(-0.5 * ((order - s) / width) ** 2)) for s in order])
    # ties lean to the small side
    locus = order[np.argmax(density * (order / order[0]) ** -0.5)]
    near = np.abs(size - locus) < _FRACTION_NEAR_LOCUS * locus
    scatter = 1.4826 * float(np.median(np.abs(size[known & near] - np.median(size[known & near]))))
    allowed = max(_FRACTION_NEAR_LOCUS / 2 * locus, min(3 * scatter, _FRACTION_NEAR_LOCUS * locus))
    chosen: NDArray[np.bool_] = known & (np.abs(size - np.median(size[known & near])) < allowed)
    return chosen


def _sorted(
    keys: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.argsort(keys, kind="stable")
    return keys[order], values[order]
