"""Exponential disks as a Moffat PSF of beta 3 shows them, tabulated over radius."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PROFILE_SIZES", "profile_tables"]

PROFILE_SIZES: NDArray[np.float64] = np.geomspace(0.1, 40.0, 64)
"""Effective radii that field galaxies may have, pixel, rising."""

RADII = 512
REACH = 9.0
"""A table goes out to this many effective radii of the disk and blurred core together."""


@functools.lru_cache(maxsize=4)
def profile_tables(
    psf_scale: float, sizes: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Surface brightness of disks of unit flux, blurred by a PSF of scale radius ``psf_scale`` pixel.

    ``sizes`` are the disks' effective radii, pixel.

    Both profiles are mixtures of Gaussians: exp(-r) is the integral of exp(-t r^2) with the density
    exp(-1 / 4t) / (2 sqrt(pi) t^1.5), and (1 + r^2)^-3 that with t^2 exp(-t) / 2. The convolution of
    two mixtures is the mixture of all pairs, with variances added.

    Returns
    -------
    tables
        (n_sizes, n_radii + 1) float64, per pixel, at radii ``steps[size] * k``; the last one is 0.
    steps
        (n_sizes,) float64, pixel.
    """
    disk_weight, disk_variance = _exponential_mixture()
    psf_weight, psf_variance = _moffat_mixture()
    weight = (disk_weight[:, None] * psf_weight[None, :]).ravel()
    steps = REACH * np.hypot(np.array(sizes), psf_scale) / RADII
    tables = np.zeros((len(sizes), RADII + 1))
    for table, size, step in zip(tables, sizes, steps, strict=True):
        scale = size / 1.67835
        variance = (scale**2 * disk_variance[:, None] + psf_scale**2 * psf_variance[None, :]).ravel()
        r2 = (np.arange(RADII) * step) ** 2
        density = weight / (2 * np.pi * variance)
        table[:RADII] = np.einsum("g,gr->r", density, np.exp(-0.5 * r2[None, :] / variance[:, None]))
    return tables, steps


def _exponential_mixture() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    log_t = np.linspace(np.log(4e-3), np.log(3e4), 26)
    t = np.exp(log_t)
    return _normalised(np.exp(-0.25 / t) / np.sqrt(t) / t), 0.5 / t


def _moffat_mixture() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    log_t = np.linspace(np.log(1e-3), np.log(14.0), 20)
    t = np.exp(log_t)
    return _normalised(t**2 * np.exp(-t)), 0.5 / t


def _normalised(flux: NDArray[np.float64]) -> NDArray[np.float64]:
    weight: NDArray[np.float64] = flux / flux.sum()
    return weight
