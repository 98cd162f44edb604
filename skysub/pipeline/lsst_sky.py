"""The flow of LSST's Data Preview 1: four layers of background, plain detection between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.estimate import fit_background
from skysub.background.model import BackgroundList
from skysub.background.superpixels import SuperpixelGrid
from skysub.sources.flags import NOT_SKY, SOURCE
from skysub.sources.lsst import detect_as_lsst
from skysub.sources.noise import pixel_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.pipeline.timing import Stopwatch

__all__ = ["LSST_DETECTIONS", "LsstSky", "find_sky_as_lsst"]

LSST_DETECTIONS = ((10.0, 5.0), (10.0, 5.0), (5.0, 1.0))
"""Threshold and multiplier of the detections before the second, third and fourth layer."""


@dataclass(frozen=True, eq=False)
class LsstSky:
    """Layers of background, and the plane of detected pixels that the last was measured without."""

    layers: BackgroundList
    detected: NDArray[np.bool_]
    """(ny, nx) bool, sources of the last detection."""
    edge: int
    """Width of the border that the last detection could not reach, pixel."""


def find_sky_as_lsst(
    image: NDArray[np.float32],
    variance: NDArray[np.float32] | None,
    flags: NDArray[np.uint8],
    background: BackgroundConfig,
    *,
    fwhm: float,
    stopwatch: Stopwatch,
    threads: int = 1,
) -> LsstSky:
    """Background layers of an image, each fit to what the ones before have left.

    Parameters
    ----------
    image
        (ny, nx) float32 with its sky.
    variance
        (ny, nx) float32; None: the noise is measured from neighbouring pixels.
    flags
        (ny, nx) uint8 of `skysub.sources.flags`; SOURCE is set in place.
    fwhm
        Of the Gaussian that LSST assumes before the PSF is known, pixel.

    Raises
    ------
    NoUsableSuperpixelsError
        When a layer cannot be fit, and why.
    """
    if variance is None:
        variance = _measured_variance(image, flags, background)
    with stopwatch("statistics and fit"):
        first = fit_background(image, (flags, NOT_SKY), background, threads=threads)
    layers = [first]
    residual = np.asarray(first.subtract_from(image, threads=threads), np.float32)
    detected, edge = np.zeros(image.shape, bool), 0
    for threshold, multiplier in LSST_DETECTIONS:
        with stopwatch("mask"):
            flags &= np.uint8(~SOURCE & 0xFF)
            detected, negative, edge = detect_as_lsst(
                residual,
                variance,
                flags,
                threshold=threshold,
                multiplier=multiplier,
                fwhm=fwhm,
                threads=threads,
            )
            flags[detected | negative] |= SOURCE
        with stopwatch("statistics and fit"):
            layer = fit_background(residual, (flags, NOT_SKY), background, threads=threads)
        layers.append(layer)
        layer.subtract_from(residual, threads=threads, out=residual)
    return LsstSky(layers=BackgroundList(layers), detected=detected, edge=edge)


def _measured_variance(
    image: NDArray[np.float32], flags: NDArray[np.uint8], background: BackgroundConfig
) -> NDArray[np.float32]:
    grid = SuperpixelGrid.over((image.shape[0], image.shape[1]), background)
    noise = pixel_noise(image, flags, grid).astype(np.float32)
    return np.repeat(np.repeat(noise**2, np.diff(grid.y_edges), 0), np.diff(grid.x_edges), 1)
