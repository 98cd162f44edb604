"""What is measured: pixels in the one form kernels take, which of them are known, and the noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import InvalidImageError
from skysub.sources.noise import pixel_noise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig

__all__ = ["SATURATED", "UNUSABLE", "Frame"]

UNUSABLE, SATURATED = np.uint8(1), np.uint8(2)
"""Bits of `Frame.state`: no light is known of a pixel; its light is too little."""
_LARGEST = 1e15
"""Counts of a pixel beyond which squares leave the range of float32: no light."""
_TOO_FEW = 16
"""Pixels along an axis below which no noise is measured from neighbours."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image ready to be measured."""

    image: NDArray[np.float32]
    """(ny, nx): counts, background subtracted; 0 where a pixel is unusable."""
    variance: NDArray[np.float32]
    """(ny, nx): counts squared; where the image had none that can be, that of the sky near by."""
    state: NDArray[np.uint8]
    """(ny, nx): `UNUSABLE` and `SATURATED`."""
    grid: SuperpixelGrid
    noise: NDArray[np.float64]
    """(gy, gx): standard deviation of a pixel of sky in each cell, counts."""
    flags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        image: Any,
        variance: Any,
        mask: Any,
        planes: Mapping[str, int],
        config: MeasurementConfig,
        *,
        gain: float | None = None,
    ) -> Frame:
        """Check and convert what a caller has.

        Raises
        ------
        InvalidImageError
            When image, variance and mask are not of one shape (ny, nx), or not numbers.
        """
        flags: dict[str, str] = {}
        pixels = _plane(image, "image")
        ny, nx = pixels.shape
        state = np.zeros((ny, nx), np.uint8)
        if mask is not None:
            marks = np.asarray(mask)
            if marks.shape != pixels.shape or marks.dtype.kind not in "iub":
                raise InvalidImageError(
                    f"the mask is {marks.dtype} of shape {marks.shape}; it must be integers of the image's "
                    f"shape {pixels.shape}"
                )
            state[(marks & _bits(planes, config.unusable)) != 0] |= UNUSABLE
            state[(marks & _bits(planes, (config.saturated,))) != 0] |= SATURATED
        with np.errstate(invalid="ignore"):
            state[~(np.abs(pixels) < _LARGEST)] |= UNUSABLE
        unusable = (state & UNUSABLE) != 0
        pixels[unusable] = 0
        cell = config.noise_cell
        grid = SuperpixelGrid.of_counts((ny, nx), gy=-(-ny // cell), gx=-(-nx // cell))
        given = None if variance is None else _plane(variance, "variance")
        if given is not None and given.shape != pixels.shape:
            raise InvalidImageError(
                f"the variance has shape {given.shape}, the image {pixels.shape}; they must be the same"
            )
        noise = _noise(pixels, given, state, grid, flags)
        return cls(
            image=pixels,
            variance=_repaired(given, pixels, noise, grid, unusable, flags, gain),
            state=state,
            grid=grid,
            noise=noise,
            flags=flags,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.image.shape
        return ny, nx

    def noise_at(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Noise of a pixel of sky at places (n,), counts."""
        gy, gx = self.grid.shape
        row = np.clip(np.searchsorted(self.grid.y_edges, y, side="right") - 1, 0, gy - 1)
        column = np.clip(np.searchsorted(self.grid.x_edges, x, side="right") - 1, 0, gx - 1)
        return np.asarray(self.noise[row, column], np.float64)

    def variance_at(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance of the pixel at each of some places (n,), counts squared."""
        ny, nx = self.shape
        row = np.clip(np.rint(y), 0, ny - 1).astype(int)
        column = np.clip(np.rint(x), 0, nx - 1).astype(int)
        return np.asarray(self.variance[row, column], np.float64)


def _plane(values: Any, name: str) -> NDArray[np.float32]:
    """Copy of a plane as native float32."""
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise InvalidImageError(
            f"the {name} is {array.dtype} of shape {array.shape}; it must be numbers of shape (ny, nx)"
        )
    if not array.size:
        raise InvalidImageError(f"the {name} has no pixels: its shape is {array.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        copy: NDArray[np.float32] = np.array(array, np.float32, order="C")
    return copy


def _bits(planes: Mapping[str, int], names: tuple[str, ...]) -> int:
    return sum(1 << int(planes[name]) for name in names if name in planes)


def _noise(
    pixels: NDArray[np.float32],
    variance: NDArray[np.float32] | None,
    state: NDArray[np.uint8],
    grid: SuperpixelGrid,
    flags: dict[str, str],
) -> NDArray[np.float64]:
    """Noise of sky by cell: of the stated variance the lower quartile, for sources have more."""
    noise = np.full(grid.shape, np.nan)
    if variance is not None:
        for a in range(grid.shape[0]):
            rows = slice(grid.y_edges[a], grid.y_edges[a + 1])
            for b in range(grid.shape[1]):
                columns = slice(grid.x_edges[b], grid.x_edges[b + 1])
                cell = variance[rows, columns][::3, ::3]
                good = cell[(state[rows, columns][::3, ::3] == 0) & (cell > 0) & (cell < _LARGEST**2)]
                if good.size:
                    noise[a, b] = np.sqrt(np.partition(good, good.size // 4)[good.size // 4])
    known = np.isfinite(noise)
    if not known.any():
        flags["variance_unknown"] = "the variance says nothing; noise was measured on the pixels"
        noise = _measured(pixels, state, grid)
        known = np.isfinite(noise)
    if not known.any():
        flags["noise_unknown"] = "no noise can be measured: all pixels are unusable, or all are equal"
        return noise
    noise[~known] = np.median(noise[known])
    return noise


def _measured(
    pixels: NDArray[np.float32], state: NDArray[np.uint8], grid: SuperpixelGrid
) -> NDArray[np.float64]:
    if min(pixels.shape) >= _TOO_FEW:
        return pixel_noise(pixels, state, grid)
    good = pixels[state == 0]
    if good.size < 2:
        return np.full(grid.shape, np.nan)
    deviation = 1.4826 * float(np.median(np.abs(good - np.median(good))))
    return np.full(grid.shape, deviation if deviation > 0 else np.nan)


def _repaired(  # noqa: PLR0917
    variance: NDArray[np.float32] | None,
    pixels: NDArray[np.float32],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    unusable: NDArray[np.bool_],
    flags: dict[str, str],
    gain: float | None,
) -> NDArray[np.float32]:
    known = np.where(np.isfinite(noise), noise, 0.0)
    if variance is None:
        variance = np.zeros(unusable.shape, np.float32)
    with np.errstate(invalid="ignore"):
        bad = ~((variance > 0) & (variance < _LARGEST**2))
    count = int(np.count_nonzero(bad & ~unusable))
    if count and "variance_unknown" not in flags:
        flags["variance_repaired"] = (
            f"{count} usable pixels had no variance above 0; they were given that of the sky near by"
        )
    if bad.any():
        rows, columns = np.nonzero(bad)
        a = np.searchsorted(grid.y_edges, rows, side="right") - 1
        b = np.searchsorted(grid.x_edges, columns, side="right") - 1
        variance[rows, columns] = (known**2)[a, b]
        if gain is not None and gain > 0:
            variance[rows, columns] += np.maximum(pixels[rows, columns], 0) / np.float32(gain)
    return variance
