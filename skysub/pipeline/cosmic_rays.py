"""Cosmic rays, found by astroscrappy's version of L.A.Cosmic (van Dokkum 2001, PASP 113, 1420)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import ConfigError
from skysub.sources.flags import COSMIC_RAY, IGNORED, SATURATED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.model import Background

__all__ = ["CosmicRayConfig", "find_cosmic_rays"]
_BLOCK = 32
"""The library is slow: it sees only blocks of so many pixels that hold a pixel sharper than a star,"""
_REACH = 4
"""with so many around them, for tracks that run on from there,"""
_MARGIN = 8
"""and so many more that only tell these what lies around them."""
_STRIP = 512
"""Rows for which the sky is evaluated at once."""
_LEAST_CONTRAST = 0.3


@dataclass(frozen=True, slots=True)
class CosmicRayConfig:
    """How cosmic rays are found.

    Parameters
    ----------
    sigma, neighbours, contrast
        Threshold in units of the noise; share of it for neighbours; and how much sharper than the PSF a
        cosmic ray must be (``sigclip``, ``sigfrac``, ``objlim`` of astroscrappy).
    iterations
        Of the search.
    interpolate
        Replace their pixels by what their neighbours say, and mark them INTRP as well.
    """

    sigma: float = 4.5
    neighbours: float = 0.3
    contrast: float = 5.0
    iterations: int = 2
    interpolate: bool = False

    def __post_init__(self) -> None:
        for name in ("sigma", "neighbours", "contrast"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be a positive number, not {getattr(self, name)!r}")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ConfigError(f"iterations must be a whole number of at least 1, not {self.iterations!r}")


def find_cosmic_rays(
    image: NDArray[np.float32],
    sky: Background,
    flags: NDArray[np.uint8],
    config: CosmicRayConfig,
    *,
    noise: float,
    fwhm: float,
) -> NDArray[np.float32]:
    """Flag pixels hit by cosmic rays, and return the image to go on with.

    Parameters
    ----------
    image
        (ny, nx) float32: pixels with their sky.
    sky
        About what the sky is.
    flags
        (ny, nx) uint8 of `skysub.sources.flags`: what is IGNORED or SATURATED is not judged; hit pixels get
        IGNORED and COSMIC_RAY in place.
    noise
        Per pixel of the sky, unit of the image.
    fwhm
        Of the PSF, pixel: decides how finely the contrast is judged.

    Returns
    -------
    image
        The image given, or with ``config.interpolate`` a copy whose hit pixels are interpolated.

    Raises
    ------
    ImportError
        When astroscrappy or threadpoolctl is not installed.
    """
    import astroscrappy
    from threadpoolctl import threadpool_limits

    from skysub.sources import kernels

    ny, nx = image.shape
    blocks = np.zeros((-(-ny // _BLOCK), -(-nx // _BLOCK)), bool)
    # a star is no sharper than this against its neighbours
    contrast = max(_LEAST_CONTRAST, 1.3 * (1 - math.exp(-4 * math.log(2) / fwhm**2)))
    unusable = IGNORED | SATURATED
    for start in range(0, ny, _STRIP):
        rows = slice(max(0, start - 1), min(ny, start + _STRIP + 1))
        kernels.sharp_blocks(
            image[rows],
            sky.evaluate(y=rows),
            flags[rows],
            unusable,
            noise,
            config.sigma,
            contrast,
            _BLOCK,
            rows.start,
            blocks,
        )
    clean = image.copy() if config.interpolate else image
    found: list[tuple[tuple[slice, ...], NDArray[np.bool_]]] = []
    with threadpool_limits(1, user_api="openmp"):
        for j, i in np.argwhere(blocks):
            inner = _window(j, i, _REACH, image.shape)
            outer = _window(j, i, _REACH + _MARGIN, image.shape)
            level = sky.evaluate(y=outer[0], x=outer[1])
            masked = ((flags[outer] & unusable) != 0) | ~np.isfinite(image[outer])
            judged = np.where(masked, level, image[outer])
            rays, cleaned = astroscrappy.detect_cosmics(
                judged,
                inmask=masked,
                inbkg=level,
                # noise of sky and of sources; the unit of the image serves as electrons
                invar=np.float32(noise) ** 2 + np.maximum(judged - level, 0),
                sigclip=config.sigma,
                sigfrac=config.neighbours,
                objlim=config.contrast,
                gain=1.0,
                readnoise=max(noise / 4, 1e-3),
                satlevel=np.inf,
                niter=config.iterations,
                cleantype="medmask",
                fsmode="convolve",
                psfmodel="gauss",
                psffwhm=fwhm,
            )
            here = tuple(
                slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
            )
            new = rays.astype(bool)[here] & ~masked[here]
            found.append((inner, new))
            if config.interpolate:
                clean[inner][new] = cleaned[here][new]
    # only now: blocks see each other's margins as they were
    for inner, new in found:
        flags[inner][new] |= IGNORED | COSMIC_RAY
    return clean


def _window(j: int, i: int, around: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Block (j, i) with some pixels around it, within the image."""
    return tuple(
        slice(max(0, n * _BLOCK - around), min(length, (n + 1) * _BLOCK + around))
        for n, length in zip((j, i), shape, strict=True)
    )
