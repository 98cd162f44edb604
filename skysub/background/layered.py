"""A background in parts: a polynomial, steps between amplifiers, and a map of small structure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.model import Background
from skysub.errors import InvalidImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LayeredBackground", "interpolated"]

_STRIP = 128

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class LayeredBackground(Background):
    """A `Background` whose polynomial is not all of it: steps and small structure are added to it.

    Raises
    ------
    InvalidImageError
        When the parts do not fit the detector.
    """

    boxes: tuple[Box, ...] = ()
    """Boxes (y0, y1, x0, x1) with a step of their own, pixel, ends excluded;"""
    steps: NDArray[np.float64] | None = None
    """(n,) what is added in each, unit of the image."""
    cells: NDArray[np.float32] | None = None
    """(cy, cx) float32 at the centres of cells that divide the image evenly, interpolated linearly between
    them and constant beyond the outermost, unit of the image; None where there is no small structure."""
    deviation: NDArray[np.float32] | None = None
    """(gy, gx) float32 standard deviation of the whole model at the centres of superpixels, unit of the
    image; None where that of the polynomial is all there is."""

    def __post_init__(self) -> None:
        count = 0 if self.steps is None else len(self.steps)
        if count != len(self.boxes):
            raise InvalidImageError(f"there are {len(self.boxes)} boxes and {count} steps")
        ny, nx = self.shape
        for y0, y1, x0, x1 in self.boxes:
            if not (0 <= y0 < y1 <= ny and 0 <= x0 < x1 <= nx):
                raise InvalidImageError(
                    f"the box (y0, y1, x0, x1) = {(y0, y1, x0, x1)} does not lie on an image of {ny} x {nx}"
                )
        for name in ("cells", "deviation"):
            array = getattr(self, name)
            if array is not None and (array.ndim != 2 or not array.size):
                raise InvalidImageError(f"{name} must be a grid of numbers, not of shape {array.shape}")

    def __repr__(self) -> str:
        cells = "none" if self.cells is None else "x".join(map(str, self.cells.shape))
        return f"{super().__repr__()[:-1]}, steps={len(self.boxes)}, cells={cells})"

    def sky_alone(self) -> LayeredBackground:
        """The same background without the light of undetected sources, whose uncertainty it takes over."""
        light, alone = self.faint_light, super().sky_alone()
        assert isinstance(alone, LayeredBackground)
        if light is None or self.deviation is None:
            return alone
        return dataclasses.replace(alone, deviation=np.hypot(self.deviation, np.float32(light.uncertainty)))

    def evaluate(
        self, *, y: slice = slice(None), x: slice = slice(None), faint_light: bool = True
    ) -> NDArray[np.float32]:
        """Model at each pixel of a window, as `Background.evaluate` gives it: (ny, nx) float32."""
        if not faint_light:
            return self.sky_alone().evaluate(y=y, x=x)
        out = super().evaluate(y=y, x=x)
        y0, x0 = (cut.indices(n)[0] for cut, n in zip((y, x), self.shape, strict=True))
        self._add_parts(out, y0, x0)
        return out

    def uncertainty(
        self, *, y: slice = slice(None), x: slice = slice(None), faint_light: bool = True
    ) -> NDArray[np.float32]:
        """Return the standard deviation of the model, as `Background.uncertainty` does: (ny, nx) float32."""
        if not faint_light:
            return self.sky_alone().uncertainty(y=y, x=x)
        if self.deviation is None:
            return super().uncertainty(y=y, x=x)
        rows, columns = (range(*cut.indices(n)) for cut, n in zip((y, x), self.shape, strict=True))
        deviation = interpolated(self.deviation, self.shape, rows, columns)
        if self.amplifiers is not None:
            np.hypot(deviation, self.amplifiers.uncertainty(y=y, x=x), out=deviation)
        return deviation

    def subtract_from(
        self,
        image: NDArray[np.floating],
        *,
        y: slice = slice(None),
        x: slice = slice(None),
        threads: int = 1,
        out: NDArray[np.floating] | None = None,
    ) -> NDArray[np.floating]:
        """``image - model`` over a window, as `Background.subtract_from` does it."""
        out = super().subtract_from(image, y=y, x=x, threads=threads, out=out)
        y0, x0 = (cut.indices(n)[0] for cut, n in zip((y, x), self.shape, strict=True))
        self._add_parts(out, y0, x0, sign=-1)
        return out

    def _add_parts(self, out: NDArray[np.floating], y0: int, x0: int, *, sign: int = 1) -> None:
        """Add steps and cells to a window whose first pixel is (y0, x0), in place; sign -1 takes them off."""
        ny, nx = out.shape
        if self.steps is not None:
            for (low_y, high_y, low_x, high_x), step in zip(self.boxes, self.steps.tolist(), strict=True):
                rows = slice(max(low_y - y0, 0), max(high_y - y0, 0))
                columns = slice(max(low_x - x0, 0), max(high_x - x0, 0))
                out[rows, columns] += out.dtype.type(sign * step)
        if self.cells is not None:
            for start in range(0, ny, _STRIP):
                stop = min(start + _STRIP, ny)
                part = interpolated(self.cells, self.shape, range(y0 + start, y0 + stop), range(x0, x0 + nx))
                if sign < 0:
                    out[start:stop] -= part
                else:
                    out[start:stop] += part


def interpolated(
    cells: NDArray[np.float32], shape: tuple[int, int], rows: range, columns: range
) -> NDArray[np.float32]:
    """Values of a grid of cells at pixels: linear between centres, constant beyond the outermost; float32."""
    low_y, share_y = _between(rows, shape[0], cells.shape[0])
    low_x, share_x = _between(columns, shape[1], cells.shape[1])
    high_x = np.minimum(low_x + 1, cells.shape[1] - 1)
    along = cells[:, low_x] * (1 - share_x) + cells[:, high_x] * share_x
    high_y = np.minimum(low_y + 1, cells.shape[0] - 1)
    values: NDArray[np.float32] = along[low_y] * (1 - share_y[:, None]) + along[high_y] * share_y[:, None]
    return values


def _between(pixels: range, length: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Lower neighbour among the cells, and share of the upper one, of each pixel."""
    place = (np.arange(pixels.start, pixels.stop) + 0.5) * cells / length - 0.5
    place = np.clip(place, 0, cells - 1)
    low = np.minimum(place.astype(np.int64), max(0, cells - 2))
    return low, (place - low).astype(np.float32)
