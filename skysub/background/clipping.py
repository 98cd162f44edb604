"""Statistics of superpixels: mean, median or iterative clipped mean of the good pixels of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.superpixels import SuperpixelStatistics
from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["superpixel_statistics"]

_CODES = {"meanclip": 0, "mean": 1, "median": 2}


def superpixel_statistics(
    image: NDArray[np.floating],
    mask: NDArray[np.integer],
    bits: int,
    grid: SuperpixelGrid,
    config: BackgroundConfig,
    *,
    threads: int = 1,
) -> SuperpixelStatistics:
    """Statistics of each superpixel of an image.

    The rules are LSST afw's (Statistics.cc): the first clip is centred on the median with 0.7413 times
    the interquartile range as standard deviation, later ones on the last clipped mean and variance;
    every pass starts again from all good pixels; the clip keeps pixels on its bounds; quartiles are
    interpolated linearly; the error is that of the last pass' mean.

    Parameters
    ----------
    image
        (ny, nx) native float32 or float64. Non-finite pixels are left out.
    mask, bits
        (ny, nx) integer, or (0, 0) for none; a pixel with ``mask & bits`` is left out.
    threads
        Bands of superpixels are shared among as many threads; the answer is the same.
    """
    from skysub.background import kernels

    gy, gx = grid.shape
    mean = np.empty((gy, gx), np.float32)
    error = np.empty((gy, gx), np.float32)
    count = np.empty((gy, gx), np.int32)
    code = _CODES[config.statistic]

    def band(rows: range) -> None:
        kernels.superpixel_statistics(
            image,
            mask,
            bits,
            grid.y_edges[rows.start : rows.stop + 1],
            grid.x_edges,
            code,
            config.clip_sigma,
            config.clip_passes,
            mean[rows.start : rows.stop],
            error[rows.start : rows.stop],
            count[rows.start : rows.stop],
        )

    in_threads(band, gy, threads)
    return SuperpixelStatistics(mean=mean, error=error, count=count)
