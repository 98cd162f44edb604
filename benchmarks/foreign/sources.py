"""Galaxies and stars: their counts, places and profiles, drawn by GalSim without noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import galsim
import numpy as np

if TYPE_CHECKING:
    from foreign.kinds import Kind

__all__ = ["Catalogue", "SourcePlanes", "add_stamp", "draw_catalogue", "make_psf", "render"]

DETECTED = 5.0
"""Matched-filter signal over noise above which a source counts as detected."""
_ALONE = 60.0
"""That above which a source is drawn for itself; below, profile and place are rounded to a small bank's."""
_PARAMETERS = galsim.GSParams(
    folding_threshold=1e-2, maxk_threshold=5e-3, kvalue_accuracy=1e-4, maximum_fft_size=16384
)
_GALAXIES_AT_24 = 22.0
"""Per arcmin2 and magnitude."""
_MARGIN = 40
"""Sources lie up to this far beyond the frame, pixel."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Sources of a scene, each array (n,)."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    """Electrons."""
    radius: np.ndarray
    """Half-light radius before seeing, pixel; 0 for a star."""
    sersic: np.ndarray
    axis_ratio: np.ndarray
    angle: np.ndarray
    """Degrees."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class SourcePlanes:
    """(ny, nx) float32 light of sources that are detected, and of those too faint for it, electron."""

    detected: np.ndarray
    undetected: np.ndarray
    count: tuple[int, int]
    """Sources in either plane."""


def make_psf(kind: Kind) -> galsim.GSObject:
    """PSF of flux 1, lengths in pixels."""
    if kind.beta is None:
        return galsim.Kolmogorov(fwhm=kind.fwhm, gsparams=_PARAMETERS)
    return galsim.Moffat(beta=kind.beta, fwhm=kind.fwhm, gsparams=_PARAMETERS)


def draw_catalogue(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> Catalogue:
    """Galaxies by counts that grow by ``slope`` and end at ``end``, and stars."""
    ny, nx = (n + 2 * _MARGIN for n in shape)
    area = ny * nx * (kind.pixel / 60) ** 2

    def magnitudes(per_area: float, slope: float, bright: float, end: float) -> np.ndarray:
        # per_area: of counts at 24; the cumulative counts inverted
        low, high = (10 ** (slope * (m - 24)) for m in (bright, end))
        n = rng.poisson(area * per_area * (high - low) / (slope * math.log(10)))
        return 24 + np.log10(rng.uniform(low, high, n)) / slope

    galaxies = magnitudes(kind.density * _GALAXIES_AT_24, kind.slope, 17.0, kind.end)
    stars = magnitudes(kind.stars * 6 * 0.18 * math.log(10) * 10 ** (-0.18 * 0.5), 0.18, 13.5, 26.0)
    n = len(galaxies)
    y, x = _places(kind, (ny, nx), n, rng)
    # sizes of galaxies fall with their brightness, by about a factor of two over 2.5 magnitudes
    radius = 0.26 * 10 ** (-0.12 * (galaxies - 25)) * np.exp(rng.normal(0, 0.35, n)) / kind.pixel
    sersic = rng.choice([1.0, 1.5, 2.5, 4.0], n, p=[0.6, 0.15, 0.15, 0.1])
    dots = np.zeros(len(stars))
    magnitude = np.concatenate([galaxies, stars])
    return Catalogue(
        x=np.concatenate([x, rng.uniform(0, nx, len(stars))]) - _MARGIN,
        y=np.concatenate([y, rng.uniform(0, ny, len(stars))]) - _MARGIN,
        flux=10 ** (0.4 * (kind.zero_point - magnitude)),
        radius=np.concatenate([np.clip(radius, 0.3, 60), dots]),
        sersic=np.concatenate([sersic, dots + 1]),
        axis_ratio=np.concatenate([np.clip(rng.normal(0.65, 0.2, n), 0.2, 1), dots + 1]),
        angle=np.concatenate([rng.uniform(0, 180, n), dots]),
    )


def _places(
    kind: Kind, shape: tuple[int, int], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """y and x of galaxies: anywhere, or in groups whose density falls as 1/r out to 40 arcsec."""
    y, x = rng.uniform(0, shape[0], n), rng.uniform(0, shape[1], n)
    member = rng.random(n) < kind.clustering
    if member.any():
        groups = max(3, int(shape[0] * shape[1] * (kind.pixel / 60) ** 2 / 0.25))
        richness = rng.pareto(2.5, groups) + 0.2
        group = rng.choice(groups, int(member.sum()), p=richness / richness.sum())
        far = rng.uniform(0, 40 / kind.pixel, len(group))
        angle = rng.uniform(0, 2 * np.pi, len(group))
        y[member] = rng.uniform(0, shape[0], groups)[group] + far * np.sin(angle)
        x[member] = rng.uniform(0, shape[1], groups)[group] + far * np.cos(angle)
    return y, x


def render(catalogue: Catalogue, kind: Kind, shape: tuple[int, int], sigma: float) -> SourcePlanes:
    """Light of all sources; ``sigma`` is the noise per pixel (electron) that decides which are detected."""
    bank = _Bank(make_psf(kind), kind.fwhm)
    planes = [np.zeros(shape, np.float32), np.zeros(shape, np.float32)]
    count = [0, 0]
    for k in range(len(catalogue)):
        flux = float(catalogue.flux[k])
        key = bank.key(catalogue, k)
        signal = flux * bank.sharpness(key) / sigma
        faint = signal < DETECTED
        count[faint] += 1
        x, y = float(catalogue.x[k]), float(catalogue.y[k])
        if signal < _ALONE:
            stamp, iy, ix = bank.stamp(key, y, x)
        else:
            stamp, iy, ix = bank.alone(catalogue, k, faintest=0.02 * sigma)
        add_stamp(planes[faint], flux, stamp, iy, ix)
    return SourcePlanes(detected=planes[0], undetected=planes[1], count=(count[0], count[1]))


def add_stamp(plane: np.ndarray, flux: float, stamp: np.ndarray, iy: int, ix: int) -> None:
    """Add flux times a stamp of odd size centred on pixel (iy, ix), as far as it lies in the frame."""
    half_y, half_x = stamp.shape[0] // 2, stamp.shape[1] // 2
    y0, x0 = max(0, iy - half_y), max(0, ix - half_x)
    y1, x1 = min(plane.shape[0], iy + half_y + 1), min(plane.shape[1], ix + half_x + 1)
    if y0 < y1 and x0 < x1:
        cut = stamp[y0 - iy + half_y : y1 - iy + half_y, x0 - ix + half_x : x1 - ix + half_x]
        plane[y0:y1, x0:x1] += np.float32(flux) * cut


@dataclass(eq=False)
class _Bank:
    """Stamps of flux 1 by rounded profile and place, each drawn when first asked for."""

    psf: galsim.GSObject
    fwhm: float
    stamps: dict = field(default_factory=dict)
    sharp: dict = field(default_factory=dict)

    def key(self, catalogue: Catalogue, k: int) -> tuple:
        """Rounded (radius, n, axis ratio, angle)."""
        radius = catalogue.radius[k]
        if radius == 0:
            return (0.0, 1.0, 1.0, 0.0)
        step = math.log(1.35)
        rounded = math.exp(round(math.log(radius) / step) * step)
        sersic = 1.0 if catalogue.sersic[k] < 2 else 2.5
        # below half the PSF the shape is not seen
        if rounded < 0.3 * self.fwhm:
            return (rounded, 1.0, 1.0, 0.0)
        ratio = 0.45 if catalogue.axis_ratio[k] < 0.6 else 0.8
        return (rounded, sersic, ratio, 45.0 * (round(catalogue.angle[k] / 45) % 4))

    def sharpness(self, key: tuple) -> float:
        """Root of the sum of squares of the profile: signal over noise of flux 1 in white noise of 1."""
        if key not in self.sharp:
            stamp, _, _ = self.stamp(key, 0.0, 0.0)
            self.sharp[key] = float(np.sqrt(np.sum(stamp.astype(np.float64) ** 2)))
        return self.sharp[key]

    def stamp(self, key: tuple, y: float, x: float) -> tuple[np.ndarray, int, int]:
        """Stamp and its central pixel, places rounded to half a pixel."""
        y2, x2 = round(2 * y), round(2 * x)
        iy, ix = y2 // 2, x2 // 2
        place = (*key, y2 % 2, x2 % 2)
        if place not in self.stamps:
            self.stamps[place] = self._drawn(key, 0.5 * (y2 % 2), 0.5 * (x2 % 2), largest=60)
        return self.stamps[place], iy, ix

    def alone(self, catalogue: Catalogue, k: int, *, faintest: float) -> tuple[np.ndarray, int, int]:
        """Stamp of one source's own profile at its own place."""
        y, x = float(catalogue.y[k]), float(catalogue.x[k])
        iy, ix = round(y), round(x)
        if catalogue.radius[k] == 0:
            # out to where the wings of the PSF are lost in the noise
            r = np.geomspace(2 * self.fwhm, 700, 60)
            wings = catalogue.flux[k] * np.array([self.psf.xValue(float(v), 0.0) for v in r])
            seen = r[wings > faintest]
            size = 2 * math.ceil(float(seen[-1]) if len(seen) else 2 * self.fwhm) + 1
            return _normalised(self.psf, size, y - iy, x - ix), iy, ix
        own = (catalogue.radius[k], catalogue.sersic[k], catalogue.axis_ratio[k], catalogue.angle[k])
        return self._drawn(own, y - iy, x - ix, largest=400), iy, ix

    def _drawn(self, key: tuple, dy: float, dx: float, *, largest: int) -> np.ndarray:
        radius, sersic, ratio, angle = (float(v) for v in key)
        profile, reach = self.psf, 3.0 * self.fwhm + 2
        if radius > 0:
            galaxy = galsim.Sersic(n=sersic, half_light_radius=radius, gsparams=_PARAMETERS)
            galaxy = galaxy.shear(q=ratio, beta=angle * galsim.degrees)
            profile = galsim.Convolve(galaxy, self.psf, gsparams=_PARAMETERS)
            reach += (5 if sersic < 2 else 9) * radius
        return _normalised(profile, 2 * min(largest, math.ceil(reach)) + 1, dy, dx)


def _normalised(profile: galsim.GSObject, size: int, dy: float, dx: float) -> np.ndarray:
    """(size, size) float32 of sum 1: what a stamp cuts off lies within it instead."""
    image = profile.drawImage(nx=size, ny=size, scale=1.0, offset=(dx, dy), method="no_pixel")
    stamp = np.maximum(image.array, 0)
    return stamp / stamp.sum(dtype=np.float64).astype(np.float32)
