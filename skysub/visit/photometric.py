"""Photometric calibration of a detector: a number, or a field over it, that turns counts into nJy."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ChebyshevField", "PhotometricCalibration"]

_LEAST, _MOST = 1e-15, 1e15
"""nJy per count; beyond these float32 pixels would lose digits."""
_MOST_TERMS = 64
_LATTICE = 33
"""Points along an axis at which a field is looked at for zeros, beside its corners."""


@dataclass(frozen=True, eq=False)
class ChebyshevField:
    """A function of the place on a detector: Chebyshev polynomials over a box of pixels.

    The value at (x, y) is the sum of ``coefficients[q, p] T_q(y') T_p(x')``, with x' and y' from -1 to 1
    over the box grown by half a pixel: the convention of afw's ChebyshevBoundedField and of lsst.images.

    Raises
    ------
    CalibrationError
        When the coefficients are no matrix of finite numbers, or the box is empty.
    """

    coefficients: NDArray[np.float64]
    """(nq, np) float64: row q goes with T_q(y'), column p with T_p(x')."""
    box: tuple[int, int, int, int]
    """(x_min, y_min, x_max, y_max), pixel of the whole detector, both ends inside."""

    def __post_init__(self) -> None:
        matrix = self.coefficients
        if matrix.ndim != 2 or not matrix.size or max(matrix.shape) > _MOST_TERMS:
            raise CalibrationError(
                f"a Chebyshev field has a matrix [q, p] of up to {_MOST_TERMS} x {_MOST_TERMS} coefficients, "
                f"not an array of shape {matrix.shape}"
            )
        if not np.isfinite(matrix).all():
            raise CalibrationError("the coefficients of a Chebyshev field are not all finite")
        x_min, y_min, x_max, y_max = self.box
        if x_max < x_min or y_max < y_min:
            raise CalibrationError(
                f"the box {self.box} of a Chebyshev field (x_min, y_min, x_max, y_max) is empty"
            )

    @classmethod
    def of_terms(
        cls, coefficients: NDArray[np.float64], order: int, *, shape: tuple[int, int]
    ) -> ChebyshevField:
        """Field over a detector of shape (ny, nx) from terms as `skysub.background.chebyshev` has them."""
        from skysub.background.chebyshev import degrees

        matrix = np.zeros((order + 1, order + 1))
        for value, (p, q) in zip(coefficients, degrees(order), strict=True):
            matrix[q, p] = value
        return cls(coefficients=matrix, box=(0, 0, shape[1] - 1, shape[0] - 1))

    @classmethod
    def constant(cls, value: float, *, shape: tuple[int, int]) -> ChebyshevField:
        """Field of one value over a detector of ``shape`` (ny, nx)."""
        return cls(coefficients=np.array([[float(value)]]), box=(0, 0, shape[1] - 1, shape[0] - 1))

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (n,) float64 at places (n,), pixel of the whole detector; NaN where a place is NaN.

        Places beyond the box get the value at its edge, as afw has it.
        """
        x_min, y_min, x_max, y_max = self.box
        u = np.clip((2 * np.asarray(x, np.float64) - x_min - x_max) / (x_max - x_min + 1), -1, 1)
        v = np.clip((2 * np.asarray(y, np.float64) - y_min - y_max) / (y_max - y_min + 1), -1, 1)
        return _sums(self.coefficients, u, v)

    def over(self, *, y: slice, x: slice) -> NDArray[np.float64]:
        """Values (ny, nx) float64 at the pixels of a window of the whole detector."""
        rows, columns = np.arange(y.start, y.stop, dtype=float), np.arange(x.start, x.stop, dtype=float)
        x_min, y_min, x_max, y_max = self.box
        u = np.clip((2 * columns - x_min - x_max) / (x_max - x_min + 1), -1, 1)
        v = np.clip((2 * rows - y_min - y_max) / (y_max - y_min + 1), -1, 1)
        # Clenshaw's recurrence in x for each row's own coefficients: the same bits for any window
        by_row = np.stack([_clenshaw(self.coefficients[:, p], v) for p in range(self.coefficients.shape[1])])
        return _clenshaw(by_row[:, :, None], u[None, :])

    def covers(self, *, shape: tuple[int, int], xy0: tuple[int, int]) -> bool:
        """Whether the box holds all pixels of an image of ``shape`` (ny, nx) whose first pixel is ``xy0``."""
        x_min, y_min, x_max, y_max = self.box
        (ny, nx), (x0, y0) = shape, xy0
        return x_min <= x0 and y_min <= y0 and x_max >= x0 + nx - 1 and y_max >= y0 + ny - 1

    @functools.cached_property
    def mean(self) -> float:
        """Mean over the box, by the integrals of the polynomials."""
        ny, nx = self.coefficients.shape
        return float(np.einsum("q,p,qp->", _integrals(ny), _integrals(nx), self.coefficients))


@dataclass(frozen=True, eq=False)
class PhotometricCalibration:
    """Factor from counts to nJy, the same all over a detector or a field.

    Raises
    ------
    CalibrationError
        When the factor is not a positive number of a usable size, its error is negative, or a field is zero,
        negative or not finite somewhere in its box.
    """

    mean: float
    """nJy per count; of a field its mean over its box."""
    error: float = 0.0
    """Standard deviation of ``mean``, nJy per count; 0 where unknown."""
    field: ChebyshevField | None = None
    """nJy per count over the detector; None where one number holds all over it."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and _LEAST <= self.mean <= _MOST):
            raise CalibrationError(
                f"a photometric calibration is a positive number of nJy per count, not {self.mean!r}"
            )
        if not (math.isfinite(self.error) and self.error >= 0):
            raise CalibrationError(
                f"the error of a photometric calibration is a number of at least 0, not {self.error!r}"
            )
        if self.field is not None:
            self._check_field(self.field)

    @classmethod
    def of_field(cls, field: ChebyshevField, error: float = 0.0) -> PhotometricCalibration:
        """Calibration by a field of nJy per count; ``error`` is that of its mean."""
        mean = field.mean
        if not mean > 0:
            raise CalibrationError(
                f"the field of a photometric calibration has the mean {mean:.6g}; it must be positive"
            )
        return cls(mean=mean, error=error, field=field)

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """NJy per count at places (n,), pixel of the whole detector."""
        if self.field is None:
            return np.full(np.shape(x), self.mean)
        return self.field.at(x, y)

    def error_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of `at`, nJy per count: the same share of it everywhere."""
        return self.at(x, y) * (self.error / self.mean)

    def over(self, *, y: slice, x: slice) -> NDArray[np.float64] | float:
        """NJy per count at the pixels of a window: (ny, nx) float64, or the one number."""
        return self.mean if self.field is None else self.field.over(y=y, x=x)

    def check_covers(self, *, shape: tuple[int, int], xy0: tuple[int, int]) -> None:
        """Raise CalibrationError where the field does not hold all pixels of an image."""
        if self.field is not None and not self.field.covers(shape=shape, xy0=xy0):
            (ny, nx), (x0, y0) = shape, xy0
            raise CalibrationError(
                f"the photometric field covers (x_min, y_min, x_max, y_max) {self.field.box}, "
                f"the image {(x0, y0, x0 + nx - 1, y0 + ny - 1)}: of the wrong size or another detector's"
            )

    @staticmethod
    def _check_field(field: ChebyshevField) -> None:
        x_min, y_min, x_max, y_max = field.box
        x, y = (a.ravel() for a in np.meshgrid(_ticks(x_min, x_max), _ticks(y_min, y_max)))
        values = field.at(x, y)
        wrong = ~((values >= _LEAST) & (values <= _MOST))
        if wrong.any():
            k = int(np.argmax(wrong))
            raise CalibrationError(
                f"the field of the photometric calibration is {values[k]:.6g} nJy per count at "
                f"x = {x[k]:.0f}, y = {y[k]:.0f}; it must be positive all over its box"
            )


def _ticks(low: int, high: int) -> NDArray[np.float64]:
    return np.linspace(low, high, min(_LATTICE, high - low + 1))


def _sums(
    coefficients: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of c[q, p] T_q(v) T_p(u) at points of any one shape."""
    inner: Sequence[NDArray[np.float64]] = [
        _clenshaw(coefficients[:, p], v) for p in range(coefficients.shape[1])
    ]
    return _clenshaw(inner, u)


def _clenshaw(
    coefficients: Sequence[NDArray[np.float64]] | NDArray[np.float64], t: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of coefficients[k] T_k(t) by Clenshaw's recurrence; coefficients broadcast with t."""
    first = np.zeros(np.broadcast_shapes(np.shape(coefficients[0]), np.shape(t)))
    second = np.zeros_like(first)
    for k in range(len(coefficients) - 1, 0, -1):
        first, second = coefficients[k] + 2 * t * first - second, first
    total: NDArray[np.float64] = coefficients[0] + t * first - second
    return total


def _integrals(n: int) -> NDArray[np.float64]:
    """Means of T_0 ... T_(n-1) over [-1, 1]: 1 / (1 - k^2) for even k, 0 for odd."""
    k = np.arange(n, dtype=float)
    odd = (np.arange(n) % 2).astype(bool)
    return np.where(odd, 0.0, 1 / np.where(odd, 1.0, 1 - k * k))
