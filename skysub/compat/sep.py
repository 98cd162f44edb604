"""`sep.Background`: SExtractor's background (Bertin & Arnouts 1996, A&AS 117, 393), on compiled threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.pixels import checked_image
from skysub.background.spline import SplineSurface
from skysub.background.threads import in_threads
from skysub.compat import kernels
from skysub.compat.cells import cell_edges, each_band, processors
from skysub.errors import ConfigError, InvalidImageError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Background"]


class Background:
    """Background and noise of an image, with the arguments and names of ``sep.Background``.

    Parameters
    ----------
    data
        (ny, nx) array of numbers, in any byte order. NaN is left out (sep lets it spread).
    mask, maskthresh
        (ny, nx) array; a pixel is left out where it is larger than ``maskthresh``.
    bw, bh
        Width and height of a cell, pixel.
    fw, fh
        Width and height of the median filter over cells.
    fthresh
        A cell is replaced by the median where it differs from it by at least this.
    threads
        Threads; all processors by default. The answer is the same.

    Raises
    ------
    InvalidImageError
        When data or mask are not (ny, nx) arrays of one shape.
    ConfigError
        When a size is no positive whole number.
    """

    def __init__(  # noqa: PLR0917 (sep takes all of them by position)
        self,
        data: Any,
        mask: Any = None,
        maskthresh: float = 0.0,
        bw: int = 64,
        bh: int = 64,
        fw: int = 3,
        fh: int = 3,
        fthresh: float = 0.0,
        *,
        threads: int | None = None,
    ) -> None:
        for name, size in (("bw", bw), ("bh", bh), ("fw", fw), ("fh", fh)):
            if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {size!r}")
        image = checked_image(np.asarray(data))
        self._threads = threads or processors()
        masked = np.empty((0, 0), np.uint8)
        if mask is not None:
            given = np.asarray(mask)
            if given.shape != image.shape:
                raise InvalidImageError(
                    f"Shape of the mask {given.shape} does not match that of the image {image.shape}"
                )
            masked = (given > maskthresh).view(np.uint8)
        self.shape: tuple[int, int] = (image.shape[0], image.shape[1])
        y_edges, x_edges = (cell_edges(n, int(size)) for n, size in zip(self.shape, (bh, bw), strict=True))
        level = np.empty((len(y_edges) - 1, len(x_edges) - 1))
        noise = np.empty_like(level)

        def measure(band: int, tiles: NDArray[Any], sizes: NDArray[np.int64]) -> None:
            kernels.histogram_modes(tiles, sizes, level[band], noise[band])

        each_band(image, masked, y_edges, x_edges, measure, threads=self._threads)
        level, noise = _filled(level, noise)
        level, noise = kernels.filtered(level, noise, int(fw) // 2, int(fh) // 2, float(fthresh))
        self.globalback = float(np.median(level))
        """Median of the cells' levels."""
        self.globalrms = float(np.median(noise))
        """Median of the cells' noise."""
        if self.globalrms <= 0:
            self.globalrms = float(np.median(noise[noise > 0])) if (noise > 0).any() else 1.0
        # sep counts a cell's middle from its lower border along y, and from its first pixel along x
        gy, gx = level.shape
        self._x_nodes, self._y_nodes = bw * (np.arange(gx) + 0.5) - 0.5, bh * (np.arange(gy) + 0.5)
        self._level, self._noise = self._surface(level), self._surface(noise)

    def __repr__(self) -> str:
        return (
            f"Background(shape={self.shape}, globalback={self.globalback:.6g}, "
            f"globalrms={self.globalrms:.4g})"
        )

    def back(self, dtype: DTypeLike = np.float64, copy: bool | None = None) -> NDArray[Any]:
        """Return the background at each pixel, (ny, nx) of ``dtype``."""
        del copy
        return self._over_image(self._level, dtype)

    def rms(self, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Return the noise at each pixel, (ny, nx) of ``dtype``."""
        return self._over_image(self._noise, dtype)

    def subfrom(self, data: NDArray[Any]) -> None:
        """Subtract the background from an array of the image's shape, in place.

        Raises
        ------
        InvalidImageError
            When it has another shape, or is no array of floating point that can be written to.
        """
        if not isinstance(data, np.ndarray) or data.shape != self.shape:
            raise InvalidImageError(f"subfrom needs an array of shape {self.shape}")
        if data.dtype.kind != "f" or not data.flags.writeable:
            raise InvalidImageError("subfrom works in place: it needs a writeable array of floating point")
        data -= self.back(np.float32)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self.back(np.float64 if dtype is None else dtype)

    def __rsub__(self, data: Any) -> NDArray[Any]:
        left: NDArray[Any] = np.asarray(data) - self.back(np.float32)
        return left

    def _surface(self, values: NDArray[np.float64]) -> SplineSurface:
        return SplineSurface(self._x_nodes, self._y_nodes, values, np.ones(values.shape, bool), "sextractor")

    def _over_image(self, surface: SplineSurface, dtype: DTypeLike) -> NDArray[Any]:
        out = np.empty(self.shape, dtype)

        def band(rows: range) -> None:
            part = out[rows.start : rows.stop]
            into = part if out.dtype == np.float32 else None
            made = surface.evaluate((rows.start, rows.stop), (0, self.shape[1]), out=into)
            if into is None:
                part[:] = made

        in_threads(band, self.shape[0], self._threads)
        return out


def _filled(
    level: NDArray[np.float64], noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cells without a value get the mean of their nearest ones that have one."""
    good = np.isfinite(level)
    if good.all():
        return level, noise
    if not good.any():
        return np.zeros_like(level), np.ones_like(noise)
    level, noise = level.copy(), noise.copy()
    y, x = np.nonzero(good)
    values, sigmas = level[good], noise[good]
    for j, i in np.argwhere(~good):
        distance = (y - j) ** 2 + (x - i) ** 2
        nearest = distance == distance.min()
        level[j, i], noise[j, i] = values[nearest].mean(), sigmas[nearest].mean()
    return level, noise
