"""The equations of a visit: one spline for all detectors, templates, and terms that each detector has alone.

With the spline's coefficients and the templates' scales c and one detector's own terms b, the weighted sum of
squares plus the priors' is a quadratic form; b is eliminated detector by detector (Schur complement), so that
the work grows with the number of detectors and the matrix that is left is that of c alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import once
from skysub.pipeline.joint.spline import FREE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.pipeline.joint.spline import Basis, Spline

__all__ = ["DetectorRows", "LocalSolution", "Solution", "Sums", "System", "Widths"]

_WIDEST_PENALTY, _NARROWEST_PENALTY = 1e12, 1e-6
_SMALLEST_WIDTH = 1e-4
"""Width of a prior, in typical errors of a superpixel, that is as good as zero."""
_BARELY = 1e-9
"""Precision on what neither data nor prior determine, over that of the best determined coefficient."""


@dataclass(frozen=True, eq=False)
class DetectorRows:
    """One detector's equations: a row for each superpixel, used or not."""

    detector: int
    basis: Basis
    local: NDArray[np.float64]
    """(n, K + q): templates, then the detector's own terms."""
    groups: NDArray[np.int64]
    """(q,) group of each of the own terms: 0 an offset, 1 an amplifier."""
    values: NDArray[np.float64]
    """(n,) in units of the typical error; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Of the priors: precision of the spline's second differences, standard deviations of the own terms."""

    penalty: float
    offset: float = 0.0
    amplifier: float = 0.0

    def only(self, terms: Sequence[str]) -> Widths:
        """Return the same without the own terms that are not named."""
        return Widths(
            self.penalty,
            offset=self.offset if "offset" in terms else 0.0,
            amplifier=self.amplifier if "amplifier" in terms else 0.0,
        )

    def of_groups(self) -> NDArray[np.float64]:
        """(2,) by group of own terms."""
        widths: NDArray[np.float64] = np.maximum([self.offset, self.amplifier], _SMALLEST_WIDTH)
        return widths


@dataclass(frozen=True, eq=False)
class LocalSolution:
    """One detector's part of the answer."""

    terms: NDArray[np.float64]
    """(q,) own terms."""
    covariance: NDArray[np.float64]
    """(m + K + q, m + K + q) of the coefficients of its rectangle, templates and own terms together."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Posterior of all coefficients at given weights and widths of priors."""

    coefficients: NDArray[np.float64]
    """(p + K,) of the spline, then of the templates."""
    covariance: NDArray[np.float64] | None
    """(p + K, p + K); right within the envelope that detectors and penalty have in common, else 0."""
    local: tuple[LocalSolution, ...]
    widths: Widths


@dataclass(frozen=True, eq=False)
class Sums:
    """Weighted products of one detector's rows: m coefficients of the spline, and its other terms."""

    shared: NDArray[np.float64]
    """(m, m), lower half;"""
    cross: NDArray[np.float64]
    """(m, K + q);"""
    own: NDArray[np.float64]
    """(K + q, K + q);"""
    right: NDArray[np.float64]
    """(m,) with the values;"""
    own_right: NDArray[np.float64]
    """(K + q,)."""

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.shared - other.shared,
            self.cross - other.cross,
            self.own - other.own,
            self.right - other.right,
            self.own_right - other.own_right,
        )


class System:
    """Equations of all detectors of a visit, in units of the typical error of a superpixel."""

    def __init__(
        self,
        spline: Spline,
        detectors: Sequence[DetectorRows],
        templates: int = 0,
        offsets: Mapping[int, tuple[float, float]] | None = None,
        steps: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
    ) -> None:
        """Set up the equations.

        ``templates`` is the number of shared columns, and ``offsets`` holds the prior mean and standard
        deviation of the offsets that have one of their own, by detector number, in typical errors; ``steps``
        those of the amplifiers, all of a detector.
        """
        from skysub.pipeline.joint import kernels

        once(kernels, "joint", _run_kernels)
        self.spline, self.detectors, self.templates = spline, tuple(detectors), templates
        self.offsets, self.steps = offsets or {}, steps or {}
        self.penalty = spline.penalty()
        size = spline.size
        first = np.maximum(0, np.arange(size) - 2 * spline.shape[1])
        for rows in self.detectors:
            members = rows.basis.members
            first[members] = np.minimum(first[members], members[0])
        self.first = np.concatenate([first, np.zeros(templates, np.int64)])
        self.places = [
            np.concatenate([rows.basis.members, np.arange(size, size + templates)]) for rows in self.detectors
        ]

    def summed(self, weights: Sequence[NDArray[np.float64]]) -> tuple[Sums, ...]:
        """Weighted products of every detector's rows, which all priors share.

        ``weights`` are (n,) for each detector's rows, 1 / variance; 0 leaves a row out.
        """
        return tuple(self._summed(rows, w) for rows, w in zip(self.detectors, weights, strict=True))

    def solve(self, sums: Sequence[Sums], widths: Widths, *, covariance: bool = True) -> Solution:
        """Posterior mean, and covariance if asked for.

        Parameters
        ----------
        sums
            What `summed` made of the weights.
        widths
            Of the priors.

        Raises
        ------
        numpy.linalg.LinAlgError
            When not even the priors determine an answer, as for values that are not finite.
        """
        from skysub.pipeline.joint import kernels

        p, total = self.spline.size, self.spline.size + self.templates
        matrix = np.zeros((total, total))
        matrix[:p, :p] = widths.penalty * self.penalty
        right = np.zeros(total)
        parts = []
        # places ascend, so that the lower half alone is filled
        for rows, known, place in zip(self.detectors, sums, self.places, strict=True):
            mean, deviation = self.prior_of(rows, widths)
            parts.append(
                kernels.eliminate(
                    known.shared, known.cross, known.own, known.right, known.own_right, self.templates,
                    mean, 1 / deviation**2, place, matrix, right,
                )
            )  # fmt: skip
        largest = max(1e-30, float(matrix.diagonal().max()))
        lower = matrix.copy()
        if not kernels.factor(lower, self.first):
            # rounding has the upper hand of what neither data nor prior determine
            lower = matrix
            lower.flat[:: total + 1] += _BARELY * largest
            if not kernels.factor(lower, self.first):
                raise np.linalg.LinAlgError("the normal equations of the visit are not positive definite")
        kernels.solve(lower, self.first, right)
        inverse = None
        if covariance:
            inverse = np.zeros((total, total))
            kernels.selected_inverse(lower, self.first, inverse)
        local = tuple(
            _back(*part, shared=right[place], inverse=inverse, place=place)
            for place, part in zip(self.places, parts, strict=True)
        )
        return Solution(right, inverse, local, widths)

    def prior_of(self, rows: DetectorRows, widths: Widths) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Prior mean and standard deviation of a detector's own terms."""
        deviation = widths.of_groups()[rows.groups]
        mean = np.zeros(len(deviation))
        stated = self.offsets.get(rows.detector)
        if stated is not None and len(rows.groups):
            mean[0], deviation[0] = stated[0], max(stated[1], _SMALLEST_WIDTH)
        steps = self.steps.get(rows.detector)
        if steps is not None:
            own = rows.groups == 1
            mean[own], deviation[own] = steps[0], np.maximum(steps[1], _SMALLEST_WIDTH)
        return mean, deviation

    def learnt(self, solution: Solution) -> Widths:
        """Widths of the priors that make the data likeliest, one step nearer (MacKay 1992)."""
        assert solution.covariance is not None
        p = self.spline.size
        c, widths = solution.coefficients[:p], solution.widths
        penalised = np.einsum("ij,j->i", self.penalty, c)
        spent = float(np.einsum("i,i->", c, penalised))
        unseen = widths.penalty * float(np.sum(solution.covariance[:p, :p] * self.penalty))
        penalty = (p - FREE - min(unseen, p - FREE - 1e-3)) / max(spent, 1e-30)
        found = [widths.offset, widths.amplifier]
        for group in (0, 1):
            if found[group] == 0:
                continue
            power, seen = 0.0, 0.0
            for rows, local in zip(self.detectors, solution.local, strict=True):
                if rows.detector in (self.offsets, self.steps)[group]:
                    continue
                own = rows.groups == group
                own_variance = local.covariance.diagonal()[len(local.covariance) - len(own) :][own]
                power += float(np.sum(local.terms[own] ** 2))
                seen += float(np.sum(np.maximum(0.0, 1 - own_variance / found[group] ** 2)))
            found[group] = max(_SMALLEST_WIDTH, float(np.sqrt(power / max(seen, 1e-3))))
        return Widths(
            min(max(penalty, _NARROWEST_PENALTY), _WIDEST_PENALTY), offset=found[0], amplifier=found[1]
        )

    def model(self, solution: Solution, number: int) -> NDArray[np.float64]:
        """(n,) values of the whole model at the rows of the detector in place ``number``."""
        rows = self.detectors[number]
        smooth = self.smooth(solution, number)
        scales = solution.coefficients[self.spline.size :]
        every = np.concatenate([scales, solution.local[number].terms])
        added: NDArray[np.float64] = smooth + np.einsum("ki,i->k", rows.local, every)
        return added

    def smooth(self, solution: Solution, number: int) -> NDArray[np.float64]:
        """(n,) values of the spline alone."""
        from skysub.pipeline.joint import kernels

        basis = self.detectors[number].basis
        out = np.empty(len(basis.index_y))
        parts = (basis.index_y, basis.index_x, basis.basis_y, basis.basis_x, basis.columns)
        coefficients = solution.coefficients[basis.members]
        kernels.spline_values(*parts, coefficients, out)
        return out

    def _summed(self, rows: DetectorRows, weights: NDArray[np.float64]) -> Sums:
        from skysub.pipeline.joint import kernels

        basis = rows.basis
        m, terms = len(basis.members), rows.local.shape[1]
        sums = Sums(
            np.zeros((m, m)), np.zeros((m, terms)), np.zeros((terms, terms)), np.zeros(m), np.zeros(terms)
        )
        kernels.add_normal(
            basis.index_y, basis.index_x, basis.basis_y, basis.basis_x, rows.local, basis.columns,
            weights, rows.values, sums.cross, sums.own, sums.right, sums.own_right, sums.shared,
        )  # fmt: skip
        return sums


def _back(
    own: NDArray[np.float64],
    side: NDArray[np.float64],
    gain: NDArray[np.float64],
    *,
    shared: NDArray[np.float64],
    inverse: NDArray[np.float64] | None,
    place: NDArray[np.int64],
) -> LocalSolution:
    """Own terms of a detector, and the covariance of all, once the shared coefficients are known."""
    terms = np.einsum("ij,j->i", own, side) - np.einsum("ij,i->j", gain, shared)
    if inverse is None:
        return LocalSolution(terms, np.zeros((0, 0)))
    block = inverse[place[:, None], place]
    across = -_product(block, gain)
    among = own - _product(gain.T, across)
    count = len(block)
    covariance = np.empty((count + len(terms), count + len(terms)))
    covariance[:count, :count], covariance[count:, count:] = block, among
    covariance[:count, count:], covariance[count:, :count] = across, across.T
    return LocalSolution(terms, covariance)


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    from skysub.pipeline.joint import kernels

    out = np.empty((a.shape[0], b.shape[1]))
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    kernels.product(a, b, out)
    return out


def _run_kernels() -> None:
    """Every kernel once, on next to nothing, so that it is compiled."""
    from skysub.pipeline.joint import kernels

    index, four, one = np.zeros(1, np.int64), np.ones((1, 4)), np.ones(1)
    square, many = np.eye(1), np.zeros((16, 1))
    kernels.add_normal(
        index, index, four, four, square, 4, one, one,
        many, square.copy(), np.zeros(16), one.copy(), np.zeros((16, 16)),
    )  # fmt: skip
    kernels.spline_values(index, index, four, four, 4, np.zeros(16), one.copy())
    kernels.factor(square, index)
    kernels.solve(square, index, one.copy())
    kernels.selected_inverse(square, index, np.zeros((1, 1)))
    kernels.eliminate(square, square, square, one, one, 0, one, one, index, square.copy(), one.copy())
    kernels.product(square, square, np.empty((1, 1)))
    kernels.quadratic(square, square, one.copy())
