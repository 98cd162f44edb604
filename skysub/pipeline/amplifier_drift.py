"""Drift of amplifiers from row to row: whether there is any, how large, how long, and what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.amplifier_cells import BIN_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.pipeline.amplifier_cells import Cells

__all__ = ["Drift", "DriftSystem", "rows_share_a_drift"]

_LENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Correlation lengths that are tried, in bins of rows."""
_DEVIATIONS = np.geomspace(0.1, 10.0, 11)
"""Standard deviations that are tried, in units of the noise of a row's bin."""
_SURE = 5.0
"""How many times what chance gives the parts of rows must have in common,"""
_MORE_THAN_COLUMNS = 3.0
"""and how many times what parts of columns have;"""
_AS_FAR = 0.5
"""parts that do not touch must share so much of what touching ones do."""
_GROUP = 4
"""Bins of rows that are averaged for that."""
_PARTS = 4
_LEAST_GROUPS = 6


@dataclass(frozen=True, slots=True)
class Drift:
    """A first-order Markov process from bin to bin of rows."""

    deviation: float
    """Unit of the image."""
    length: float
    """Over which its correlation falls to 1 / e, in bins."""

    @property
    def precision(self) -> tuple[float, float, float]:
        """Tridiagonal inverse covariance: inner diagonal, its ends, off-diagonal."""
        kept = math.exp(-1 / self.length)
        scale = 1 / (self.deviation**2 * (1 - kept**2))
        return (1 + kept**2) * scale, scale, -kept * scale

    def logarithm(self, bins: int) -> float:
        """Log determinant of that matrix for so many bins."""
        kept = math.exp(-1 / self.length)
        return -2 * bins * math.log(self.deviation) - (bins - 1) * math.log(1 - kept**2)


class DriftSystem:
    """Linear equations of polynomial and steps, in which each amplifier may drift.

    The drift is eliminated amplifier by amplifier (Woodbury's identity; its precision is tridiagonal), so
    that its cost grows with the rows alone.
    """

    def __init__(
        self,
        *,
        normal: NDArray[np.float64],
        right: NDArray[np.float64],
        matrix: NDArray[np.float64],
        value: NDArray[np.float64],
        precision: NDArray[np.float64],
        owners: NDArray[np.int64],
        columns: int,
        terms: int,
    ) -> None:
        self.normal, self.right, self.terms, self.columns = normal, right, terms, columns
        self.owners, self.shape = owners, value.shape
        self.constant = float(np.sum(precision * value**2))
        column = owners[0] % columns
        starts = np.searchsorted(column, np.arange(columns))
        weight = np.add.reduceat(precision, starts, axis=1)
        values = np.add.reduceat(precision * value, starts, axis=1)
        sums = np.add.reduceat(precision[:, :, None] * matrix, starts, axis=1)
        row = owners[:, 0] // columns
        self.parts = []
        for number in range(int(owners.max()) + 1):
            own, at = row == number // columns, number % columns
            self.parts.append(tuple(np.ascontiguousarray(a[own, at]) for a in (weight, values, sums)))

    def solve(self, drift: Drift | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients of polynomial and steps, and errors of the steps for a given polynomial."""
        normal, right, _, _ = self._eliminated(drift)
        coefficients = np.linalg.solve(normal, right)
        errors = np.sqrt(np.diag(np.linalg.inv(normal[self.terms :, self.terms :])))
        return np.asarray(coefficients), errors

    def most_likely_drift(self, certain: float) -> Drift | None:
        """Amplitude and length of greatest evidence; None where no drift is nearly as likely."""
        weights = np.concatenate([weight for weight, _, _ in self.parts])
        weights = weights[weights > 0]
        if not weights.size:
            return None
        typical = 1 / math.sqrt(float(np.median(weights)))
        none = self.evidence(None)
        best, found = none + certain, None
        for length in _LENGTHS:
            for deviation in _DEVIATIONS * typical:
                drift = Drift(float(deviation), length)
                evidence = self.evidence(drift)
                if evidence > best:
                    best, found = evidence, drift
        return found

    def drift_by_amplifier(
        self, drift: Drift, coefficients: NDArray[np.float64]
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """For each amplifier the drift in each bin of its rows, and its standard deviation."""
        from skysub.background import amplifier_kernels as kernels

        values, deviations = [], []
        for weight, value, sums in self.parts:
            n = len(weight)
            left = value - np.einsum("ki,i->k", sums, coefficients)
            solved = np.empty((n, 1))
            kernels.drift_system(
                drift.precision, weight, left, np.empty((n, 0)), solved, np.empty(n), np.empty(n)
            )
            variance = np.empty(n)
            kernels.drift_variances(drift.precision, weight, variance)
            values.append(solved[:, 0])
            deviations.append(np.sqrt(variance))
        return values, deviations

    def drift_of(self, drift: Drift, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """(bins, blocks) drift at the points."""
        values, _ = self.drift_by_amplifier(drift, coefficients)
        found = np.empty(self.shape)
        for number, each in enumerate(values):
            rows = self.owners[:, 0] // self.columns == number // self.columns
            columns = self.owners[0] % self.columns == number % self.columns
            found[np.ix_(rows, columns)] = each[:, None]
        return found

    def evidence(self, drift: Drift | None) -> float:
        """Logarithm of the marginal likelihood, but for a constant."""
        normal, right, constant, logarithm = self._eliminated(drift)
        _, determinant = np.linalg.slogdet(normal)
        fitted = float(right @ np.linalg.solve(normal, right))
        return -0.5 * (constant - fitted + logarithm + float(determinant))

    def _eliminated(
        self, drift: Drift | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
        """Normal matrix, right side, sum of squares and log determinant of the covariance."""
        from skysub.background import amplifier_kernels as kernels

        if drift is None:
            return self.normal, self.right, self.constant, 0.0
        normal, right = self.normal.copy(), self.right.copy()
        constant, logarithm = self.constant, 0.0
        for weight, value, sums in self.parts:
            n, columns = sums.shape
            solved = np.empty((n, columns + 1))
            logarithm += kernels.drift_system(
                drift.precision, weight, value, sums, solved, np.empty(n), np.empty(n)
            )
            logarithm -= drift.logarithm(n)
            normal -= np.einsum("ki,kj->ij", sums, solved[:, :-1])
            right -= np.einsum("ki,k->i", sums, solved[:, -1])
            constant -= float(np.sum(value * solved[:, -1]))
        return (normal + normal.T) / 2, right, constant, logarithm


def rows_share_a_drift(cells: Cells, noise: float) -> bool:
    """Whether parts of rows within amplifiers have something in common that is not sky or light.

    An amplifier's square tiles are cut into four parts along the rows. What parts that do not touch have in
    common must exceed chance, what touching parts have in common must not be much more, and parts of columns
    of the same tiles must have far less: sky and light have no preferred direction.

    Parameters
    ----------
    cells
        Without smooth sky and steps.
    noise
        Per pixel, unit of the image.
    """
    weight = cells.count / noise**2
    tiles = _tiles(cells)
    rows = _Shared()
    for cut, tall, _ in tiles:
        rows.add(_averaged(cells.mean[cut], weight[cut], tall // _GROUP))
    if not (rows.sure > _SURE and rows.far > _AS_FAR * rows.touching):
        return False
    columns = _Shared()
    for cut, _, broad in tiles:
        columns.add(_averaged(cells.mean[cut].T, weight[cut].T, broad))
    return rows.far > _MORE_THAN_COLUMNS * max(columns.far, columns.touching, 0.0)


def _tiles(cells: Cells) -> list[tuple[tuple[slice, slice], int, int]]:
    """Square tiles within amplifiers: the cells of each, and how many there are along columns and rows."""
    found = []
    n_columns = cells.lattice.shape[1]
    for number, amplifier in enumerate(cells.lattice.amplifiers):
        own_rows = np.flatnonzero(cells.y_amplifier == number // n_columns)
        own_columns = np.flatnonzero(cells.x_amplifier == number % n_columns)
        ny, nx = amplifier.shape
        side = min(ny, nx)
        tall, broad = side // BIN_ROWS, max(1, round(side * len(own_columns) / nx))
        top, left = int(own_rows[0]), int(own_columns[0])
        found += [
            ((slice(top + y, top + y + tall), slice(left + x, left + x + broad)), tall, broad)
            for y in range(0, len(own_rows) - tall + 1, tall)
            for x in range(0, len(own_columns) - broad + 1, broad)
        ]
    return found


class _Shared:
    """Mean products of parts of lines, over many tiles."""

    def __init__(self) -> None:
        self._sums = np.zeros((2, 2))

    def add(self, averaged: tuple[NDArray[np.float64], NDArray[np.float64]] | None) -> None:
        if averaged is None:
            return
        value, weight = averaged
        for first in range(value.shape[1]):
            for second in range(first + 1, value.shape[1]):
                w = weight[:, first] * weight[:, second]
                kind = int(second - first > 1)
                self._sums[kind] += np.sum(w * value[:, first] * value[:, second]), np.sum(w)

    @property
    def touching(self) -> float:
        """Mean product of parts beside each other."""
        return float(self._sums[0, 0] / self._sums[0, 1]) if self._sums[0, 1] > 0 else 0.0

    @property
    def far(self) -> float:
        """Mean product of parts that do not touch."""
        return float(self._sums[1, 0] / self._sums[1, 1]) if self._sums[1, 1] > 0 else 0.0

    @property
    def sure(self) -> float:
        """That in units of what chance gives."""
        return float(self._sums[1, 0] / math.sqrt(self._sums[1, 1])) if self._sums[1, 1] > 0 else 0.0


def _averaged(
    value: NDArray[np.float64], weight: NDArray[np.float64], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(groups, parts) means over lines of a tile, a parabola along the lines taken off, and their weights."""
    if groups < _LEAST_GROUPS or value.shape[1] < _PARTS:
        return None
    y = np.arange(groups + 1) * len(value) // groups
    x = np.arange(_PARTS + 1) * value.shape[1] // _PARTS
    w = np.add.reduceat(np.add.reduceat(weight, y[:-1], axis=0), x[:-1], axis=1)
    sums = np.add.reduceat(np.add.reduceat(weight * value, y[:-1], axis=0), x[:-1], axis=1)
    mean = sums / np.maximum(w, 1e-300)
    at = np.linspace(-1, 1, groups)
    terms = np.stack([np.ones(groups), at, at * at], axis=1)
    for part in range(_PARTS):
        normal = np.einsum("ki,k,kj->ij", terms, w[:, part], terms) + 1e-12 * np.eye(3)
        fitted = np.linalg.solve(normal, np.einsum("ki,k->i", terms, w[:, part] * mean[:, part]))
        mean[:, part] -= np.einsum("ki,i->k", terms, fitted)
    return np.where(w > 0, mean, 0.0), w
