"""Kernels of this package compiled by one process of a machine, while others that start with it wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.compiled import once
from skysub.background.superpixels import SuperpixelGrid
from skysub.sources.flags import SOURCE, mark_planes, working_flags
from skysub.sources.lsst import detect_as_lsst
from skysub.sources.mask import DARKEST_LEFT, SourceMaskConfig, mask_sources
from skysub.sources.noise import pixel_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["compile_once"]

_SHAPE = (96, 128)


def compile_once(dtype: np.dtype[Any]) -> None:
    """Compile or load the kernels of source masks for images with mask planes of ``dtype``."""
    from skysub.sources import run_kernels

    once(run_kernels, f"sources {dtype}", lambda: _work_on_little(dtype))


def _work_on_little(dtype: np.dtype[Any]) -> None:
    from skysub.sources import kernels

    image = _star_on_noise()
    planes = np.zeros(_SHAPE, dtype)
    flags = working_flags(planes, ignored=1, saturated=2)
    grid = SuperpixelGrid.of_counts(_SHAPE, gy=2, gx=2)
    noise, level = pixel_noise(image, flags, grid), np.zeros((1, 1))
    for fallback_level in (0, DARKEST_LEFT):
        mask_sources(
            image,
            flags,
            level,
            noise,
            grid,
            config=SourceMaskConfig(),
            fwhm=4.0,
            fallback_level=fallback_level,
        )
    blocks = np.zeros((1, 1), bool)
    kernels.sharp_blocks(image, image, flags, 1, 1.0, 5.0, 0.5, max(_SHAPE), 0, blocks)
    detect_as_lsst(image, np.ones(_SHAPE, np.float32), flags, threshold=5.0, multiplier=1.0, fwhm=4.0)
    mark_planes(planes, flags, {SOURCE: 4}, cleared=4, out=np.empty_like(planes))


def _star_on_noise() -> NDArray[np.float32]:
    image: NDArray[np.float32] = np.random.default_rng(1).standard_normal(_SHAPE, np.float32)
    image[50:53, 60:63] += 100
    return image
