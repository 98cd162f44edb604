"""Statistics of superpixels: mean, median or iterative clipped mean of the good pixels of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.compiled import for_kernels, once
from skysub.background.rows import over_rows, rows_between
from skysub.background.superpixels import SuperpixelStatistics
from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["superpixel_statistics"]

_TILES_BYTES = 2 << 20


def superpixel_statistics(
    image: NDArray[np.floating],
    mask: NDArray[np.integer],
    bits: int,
    grid: SuperpixelGrid,
    config: BackgroundConfig,
    *,
    model: NDArray[np.float64] | None = None,
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
    model
        Monomial coefficients of a polynomial that is subtracted from the pixels first
        (`skysub.background.chebyshev.monomial_coefficients`); the statistics are those of the residual. A
        gradient then neither widens the clip nor shifts the mean of a superpixel that is partly masked.
    threads
        Bands of superpixels are shared among as many threads; the answer is the same.
    """
    parts = over_rows(
        _of_rows,
        (image, mask),
        spans=rows_between(grid.y_edges),
        threads=threads,
        bits=bits,
        grid=grid,
        config=config,
        model=model,
    )
    mean, error, count = (np.concatenate(each) for each in zip(*parts, strict=True))
    return SuperpixelStatistics(mean=mean, error=error, count=count)


def _of_rows(
    units: range,
    image: NDArray[np.floating],
    mask: NDArray[np.unsignedinteger],
    *,
    bits: int,
    grid: SuperpixelGrid,
    config: BackgroundConfig,
    model: NDArray[np.float64] | None,
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Mean, error and count of some rows of superpixels."""
    gy, gx = len(units), grid.shape[1]
    mean = np.empty((gy, gx), np.float32)
    error = np.empty((gy, gx), np.float32)
    count = np.empty((gy, gx), np.int32)

    def bands(rows: range) -> None:
        scratch = _Scratch(image.dtype, grid)
        highest = int(np.diff(grid.y_edges).max())
        residual = np.empty((0 if model is None else highest, image.shape[1]), image.dtype)
        for row in rows:
            y = slice(int(grid.y_edges[row]), int(grid.y_edges[row + 1]))
            pixels, planes = for_kernels(image[y]), for_kernels(mask[y].view(f"u{mask.itemsize}"))
            if model is not None:
                left = residual[: len(pixels)]
                evaluation_kernels.subtract(pixels, y.start, 0, *grid.image_shape, model, left)
                pixels = left
            for first, last in scratch.groups:
                x_edges = grid.x_edges[first : last + 1]
                scratch.gather(pixels, planes, bits, x_edges)
                cut = (row - units.start, slice(first, last))
                into = (mean[cut], error[cut], count[cut])
                scratch.statistics(first, np.diff(x_edges) * len(pixels), config, into)

    from skysub.background import evaluation_kernels, kernels

    once(kernels, f"statistics {image.dtype} {mask.dtype} {model is None}", lambda: bands(units[:1]))
    in_threads(bands, units, threads)
    return mean, error, count


class _Scratch:
    """Room for the tiles of a group of superpixels side by side, about the size of a core's cache."""

    def __init__(self, dtype: np.dtype[Any], grid: SuperpixelGrid) -> None:
        from skysub.background import kernels
        from skysub.background.quartile_kernels import LANES

        self._kernels = kernels
        widest, highest = int(np.diff(grid.x_edges).max()), int(np.diff(grid.y_edges).max())
        size = widest * highest + LANES + kernels.BLOCK
        gx = grid.shape[1]
        per_group = max(1, min(gx, _TILES_BYTES // (size * dtype.itemsize)))
        self.groups = [(first, min(first + per_group, gx)) for first in range(0, gx, per_group)]
        self._row = np.zeros(per_group * widest + LANES, dtype)
        self._tiles = np.empty((per_group, size), dtype)
        self._nan = dtype.type(np.nan)
        self._above = np.full((gx, 3), np.nan)

    def gather(
        self,
        pixels: NDArray[np.floating],
        planes: NDArray[np.unsignedinteger],
        bits: int,
        x_edges: NDArray[np.int64],
    ) -> None:
        """Fill the tiles from a band of rows, those of superpixels with edges ``x_edges``."""
        self._kernels.gather(
            pixels,
            planes,
            planes.dtype.type(bits),
            planes.size > 0,
            x_edges,
            self._nan,
            self._row,
            self._tiles,
        )

    def statistics(
        self,
        first: int,
        sizes: NDArray[np.int64],
        config: BackgroundConfig,
        into: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]],
    ) -> None:
        """Statistics of the tiles, of ``sizes`` pixels each, ``first`` the column of the first superpixel."""
        self._kernels.band_statistics(
            self._tiles,
            sizes,
            {"meanclip": self._kernels.MEANCLIP, "mean": self._kernels.MEAN, "median": self._kernels.MEDIAN}[
                config.statistic
            ],
            config.clip_sigma,
            config.clip_passes,
            self._above[first:],
            *into,
        )
