"""Kernels of PSFs compiled by one process of a machine, while others that start with it wait."""

from __future__ import annotations

import numpy as np

from skysub.background.compiled import once
from skysub.psf.model import fit_psf
from skysub.psf.stars import cut_stamps

__all__ = ["compile_once"]

_SHAPE = (160, 160)
_SIZE = 27


def compile_once() -> None:
    """Compile or load the kernels that measure stars and fit a PSF to them."""
    from skysub.psf import kernels

    once(kernels, "psf", _work_on_little)


def _work_on_little() -> None:
    y, x = (axis.ravel().astype(np.float64) for axis in np.mgrid[20:150:30, 20:150:30])
    rows, columns = np.indices(_SHAPE)
    image = np.zeros(_SHAPE, np.float32)
    for at_y, at_x in zip(y, x, strict=True):
        image += 1e4 * np.exp(-((rows - at_y) ** 2 + (columns - at_x) ** 2) / 8)
    stars, _ = cut_stamps(image, np.zeros(_SHAPE, bool), x, y, np.ones(len(x)), size=_SIZE)
    fit_psf(stars, shape=_SHAPE, order=0)
