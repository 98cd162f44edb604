"""Stars that overlap: which ones, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.local_psf import PsfTable

__all__ = ["Autocorrelation", "Pairs"]

_PER_PIXEL = 4
_NEGLIGIBLE = 0.01
"""Overlap of two stars, as a share of that of a star with itself, below which they are apart."""


@dataclass(frozen=True, eq=False)
class Autocorrelation:
    """Overlap of two stars of flux 1 by their distance, of the PSF in the middle of the detector."""

    table: NDArray[np.float64]
    """(6, m, m): overlap, its derivatives by y and x, and its second derivatives yy, yx, xx, by offset in
    quarters of a pixel."""
    reach: float
    """Distance, pixel, beyond which stars are apart."""

    @classmethod
    def of(cls, psf: PsfTable) -> Autocorrelation:
        """Autocorrelation from stamps at quarters of a pixel."""
        my, mx = psf.defined.shape
        phases = psf.table[my // 2, mx // 2, 1:5, 1:5, :, : psf.size].astype(np.float64)
        # phase p stands for a centre (p - 2) / 4 off, so its pixels lie at j - half - (p - 2) / 4
        fine = phases[::-1, ::-1].transpose(2, 0, 3, 1).reshape(4 * psf.size, 4 * psf.size)
        n = 2 * len(fine)
        power = np.abs(np.fft.rfft2(fine, (n, n))) ** 2
        full = np.fft.fftshift(np.fft.irfft2(power, (n, n))) / _PER_PIXEL**2
        middle = n // 2
        profile = np.maximum.accumulate(np.maximum(full[middle, middle:], full[middle:, middle])[::-1])[::-1]
        beyond = np.nonzero(profile < _NEGLIGIBLE * profile[0])[0]
        reach = int(beyond[0]) if len(beyond) else n // 2 - 2
        half = min(reach + 2, n // 2 - 1)
        cut = full[middle - half - 1 : middle + half + 2, middle - half - 1 : middle + half + 2]
        by_y, by_x = np.gradient(cut, 1 / _PER_PIXEL)
        by_yy, by_yx = np.gradient(by_y, 1 / _PER_PIXEL)
        by_xx = np.gradient(by_x, 1 / _PER_PIXEL, axis=1)
        table = np.array([cut, by_y, by_x, by_yy, by_yx, by_xx])[:, 1:-1, 1:-1]
        return cls(table=np.ascontiguousarray(table), reach=reach / _PER_PIXEL)

    @property
    def square(self) -> float:
        """Overlap of a star with itself: the sum of the PSF's squares."""
        half = self.table.shape[1] // 2
        return float(self.table[0, half, half])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of stars that overlap, (pairs,) indices each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @classmethod
    def within(
        cls, y: NDArray[np.float64], x: NDArray[np.float64], reach: float, shape: tuple[int, int]
    ) -> Pairs:
        """Pairs of places (n,) closer than ``reach``, pixel."""
        from skysub.measurement import pair_kernels as kernels

        cell = max(reach, 4.0)
        rows, columns = (int(n // cell) + 1 for n in shape)
        cell_y = np.clip((y + 0.5) // cell, 0, rows - 1).astype(np.int64)
        cell_x = np.clip((x + 0.5) // cell, 0, columns - 1).astype(np.int64)
        number = cell_y * columns + cell_x
        order = np.argsort(number, kind="stable")
        starts = np.searchsorted(number[order], np.arange(rows * columns + 1))
        nothing = np.empty(0, np.int64)
        count = kernels.find_pairs(y, x, order, starts, columns, reach, nothing, nothing)
        first, second = np.empty((2, count), np.int64)
        kernels.find_pairs(y, x, order, starts, columns, reach, first, second)
        return cls(first=first, second=second)

    def neighbours(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Partners of each of n stars: ``partners[starts[i] : starts[i + 1]]``."""
        from skysub.measurement import pair_kernels as kernels

        starts, partners = np.zeros(n + 1, np.int64), np.empty(2 * len(self.first), np.int64)
        kernels.list_neighbours(n, self.first, self.second, starts, partners)
        return starts, partners

    def spread(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The chosen stars, (n,) bool, and all that overlap with one of them."""
        out = chosen.copy()
        out[self.first[chosen[self.second]]] = True
        out[self.second[chosen[self.first]]] = True
        return out
