"""Steps and row drift of amplifiers, as far as an image gives evidence of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.amplifiers import AmplifierBackground
from skysub.background.chebyshev import design_matrix, gram
from skysub.pipeline.amplifier_cells import BIN_ROWS, Boundary, Cells, boundaries
from skysub.pipeline.amplifier_drift import Drift, DriftSystem, rows_share_a_drift

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_amplifiers", "rough_steps", "worth_fitting"]

_CERTAIN = 8.0
"""Logarithm of the Bayes factor in favour of steps, or of drift, from which they are believed."""
_STEP_WIDTHS = np.geomspace(0.5, 200.0, 18)
"""Widths of the prior of steps that are tried, in units of the boundaries' typical error."""
_BLOCK = 4
"""Cells along a row that are one point of the joint fit."""
_LARGE = 16
"""Bins of rows, and as many pixels across, over which points are averaged to see what they have in common."""
_DOUBT = 0.8
"""Standard deviations by which the jumps' sum of squares must exceed what chance gives, to look closer."""
_BORNE_OUT = 3.0
"""Logarithm by which the jumps across boundaries alone must favour the steps."""
_CUT = 4.5
_ROUNDS = 4
_LOOSE = 1e-9
"""Precision of the polynomial's prior, over its largest."""


def rough_steps(cells: Cells, noise: float) -> AmplifierBackground | None:
    """Steps as strips along boundaries show them, of an image whose sources are not masked yet.

    None where there is no evidence of any.
    """
    n = len(cells.lattice.amplifiers)
    jumps = _Jumps.of(boundaries(cells, noise, slope=True), n)
    width = jumps.most_likely_width()
    if width is None:
        return None
    covariance = np.linalg.inv(jumps.information + np.eye(n) / width**2)
    steps = np.einsum("ij,j->i", covariance, jumps.right)
    return _layer(cells, steps, np.sqrt(np.diag(covariance)))


def worth_fitting(cells: Cells, noise: float) -> bool:
    """Whether there may be steps or drift, judged quickly."""
    jumps = _Jumps.of(boundaries(cells, noise), len(cells.lattice.amplifiers))
    return jumps.doubtful() or rows_share_a_drift(cells, noise)


def fit_amplifiers(
    cells: Cells, noise: float, *, order: int, known: AmplifierBackground | None = None
) -> AmplifierBackground | None:
    """Steps and drift, fit together with the polynomial of the sky.

    Steps have to explain whole amplifiers better than a polynomial alone does, and the jumps across
    boundaries have to bear them out: sky and light are continuous there. Drift has to be shared by the parts
    of an amplifier's rows, more than columns share anything.

    Parameters
    ----------
    cells
        Of the residual with ``known`` taken off.
    noise
        Per pixel, unit of the image.
    order
        Of the polynomial.
    known
        What has been taken off already; it is added back, and the answer takes its place.

    Returns
    -------
    layer
        None where there is no evidence of steps or drift.
    """
    if known is not None:
        cells = replace(cells, mean=np.where(cells.count > 0, cells.mean + _in_cells(cells, known), 0.0))
    points = _Points.of(cells, noise, order)
    if points is None:
        return None
    joint = _Joint(points, len(cells.lattice.amplifiers))
    joint.fit(_Jumps.of(boundaries(cells, noise), joint.amplifiers))
    if rows_share_a_drift(joint.less_smooth(cells), noise * math.sqrt(joint.inflation)):
        joint.drift = joint.system().most_likely_drift(_CERTAIN)
    if joint.drift is not None:
        joint.solve()
        without = [_blurred(each, joint.drift) for each in boundaries(joint.less_drift(cells), noise)]
        joint.fit(_Jumps.of(without, joint.amplifiers))
    if joint.width is None and joint.drift is None:
        return None
    return joint.layer(cells)


@dataclass(frozen=True, eq=False)
class _Jumps:
    """Jumps across boundaries, as equations for the steps of n amplifiers."""

    jump: NDArray[np.float64]
    error: NDArray[np.float64]
    incidence: NDArray[np.float64]
    """(boundaries, n): -1 and +1 for the amplifiers on both sides."""

    @classmethod
    def of(cls, found: list[Boundary], n: int) -> _Jumps:
        incidence = np.zeros((len(found), n))
        for row, each in enumerate(found):
            incidence[row, each.first], incidence[row, each.second] = -1, 1
        jump = np.array([each.step for each in found])
        return cls(jump, np.array([each.error for each in found]), incidence)

    @property
    def information(self) -> NDArray[np.float64]:
        """(n, n) about the steps."""
        return np.asarray(np.einsum("ki,k,kj->ij", self.incidence, 1 / self.error**2, self.incidence))

    @property
    def right(self) -> NDArray[np.float64]:
        """(n,) right side that belongs to it."""
        return np.asarray(np.einsum("ki,k->i", self.incidence, self.jump / self.error**2))

    def doubtful(self) -> bool:
        """Whether the jumps are larger than chance mostly makes them."""
        n = len(self.jump)
        return n > 0 and float(np.sum((self.jump / self.error) ** 2)) > n + _DOUBT * math.sqrt(2 * n)

    def most_likely_width(self) -> float | None:
        """Standard deviation of steps of greatest evidence; None where the jumps may all be chance."""
        if not len(self.jump):
            return None
        shared = np.einsum("ik,jk->ij", self.incidence, self.incidence)
        best, found = _CERTAIN, None
        none = 0.5 * float(np.sum((self.jump / self.error) ** 2)) + float(np.sum(np.log(self.error)))
        for width in _STEP_WIDTHS * float(np.median(self.error)):
            covariance = np.diag(self.error**2) + width**2 * shared
            fitted = float(self.jump @ np.linalg.solve(covariance, self.jump))
            gain = none - 0.5 * fitted - 0.5 * float(np.linalg.slogdet(covariance)[1])
            if gain > best:
                best, found = gain, float(width)
        return found

    def support(self, steps: NDArray[np.float64]) -> float:
        """Logarithm by which steps are likelier than none, by the jumps alone."""
        off = self.jump - np.einsum("ki,i->k", self.incidence, steps)
        return 0.5 * float(np.sum((self.jump**2 - off**2) / self.error**2))


@dataclass(frozen=True, eq=False)
class _Points:
    """Cells joined to points of the joint fit."""

    value: NDArray[np.float64]
    """(bins, blocks) mean residual."""
    variance: NDArray[np.float64]
    """(bins, blocks) of ``value`` by pixel noise; infinite where nothing is seen."""
    terms: NDArray[np.float64]
    """(bins * blocks, terms) of the polynomial."""
    owners: NDArray[np.int64]
    """(bins, blocks) number of the amplifier."""
    starts: list[int]
    """First column of cells of each block."""
    columns: int
    """Of amplifiers."""

    @classmethod
    def of(cls, cells: Cells, noise: float, order: int) -> _Points | None:
        shape = (int(cells.y_edges[-1]), int(cells.x_edges[-1]))
        starts: list[int] = []
        for column in range(cells.lattice.shape[1]):
            own = np.flatnonzero(cells.x_amplifier == column)
            parts = max(1, round(len(own) / _BLOCK))
            starts += [int(own[len(own) * i // parts]) for i in range(parts)]
        count = np.add.reduceat(cells.count, starts, axis=1)
        total = np.add.reduceat(cells.mean * cells.count, starts, axis=1)
        if not (noise > 0 and np.sum(count > 0) > 4 * (order + 1) * (order + 2)):
            return None
        edges = np.append(cells.x_edges[starts], cells.x_edges[-1])
        x = (edges[1:] + edges[:-1] - 1) / 2
        y = (cells.y_edges[1:] + cells.y_edges[:-1] - 1) / 2
        yy, xx = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
        columns = cells.lattice.shape[1]
        with np.errstate(divide="ignore"):
            variance = noise**2 / count
        return cls(
            value=total / np.maximum(count, 1),
            variance=variance,
            terms=design_matrix(xx, yy, shape=shape, order=order),
            owners=cells.y_amplifier[:, None] * columns + cells.x_amplifier[starts][None, :],
            starts=starts,
            columns=columns,
        )


class _Joint:
    """Polynomial, steps and drift of one image in one fit."""

    def __init__(self, points: _Points, amplifiers: int) -> None:
        self.points, self.amplifiers = points, amplifiers
        self.inflation = 1.0
        self.matrix = np.concatenate([points.terms, np.eye(amplifiers)[points.owners.ravel()]], axis=1)
        self.weights = np.isfinite(points.variance).astype(np.float64)
        self.coefficients = np.zeros(self.matrix.shape[1])
        self.step_errors = np.zeros(amplifiers)
        self.width: float | None = None
        """Standard deviation of the steps; None where they are held at zero."""
        self.jumps: _Jumps | None = None
        self.drift: Drift | None = None

    def fit(self, jumps: _Jumps) -> None:
        """Fit polynomial and steps, these only where they are likelier than none and the jumps agree."""
        self.jumps, self.width = None, None
        if self.amplifiers > 1 and len(jumps.jump):
            # as wide a prior as jumps can ask for shows what steps would leave
            self.width = float(np.max(np.abs(jumps.jump)) + np.median(jumps.error))
            self.solve()
            self.width = self._most_likely_width(jumps)
            if self.width is not None:
                self.jumps = jumps
        self.solve()

    def solve(self) -> None:
        """Fit in rounds, which find points that hold light, and how much more than noise others scatter."""
        for _ in range(_ROUNDS):
            self.current = self.system()
            self.coefficients, self.step_errors = self.current.solve(self.drift)
            if self.width is None:
                self.step_errors = np.zeros(self.amplifiers)
            self._weigh(self._residual())

    def system(self) -> DriftSystem:
        """Linear equations of polynomial and steps."""
        points, n = self.points, self.amplifiers
        precision = self.weights / (points.variance * self.inflation)
        normal = gram(self.matrix, precision.ravel())
        right = np.einsum("ki,k->i", self.matrix, (precision * points.value).ravel())
        terms = len(normal) - n
        own = np.arange(terms, terms + n)
        normal[np.arange(terms), np.arange(terms)] += _LOOSE * float(np.max(np.diag(normal)[:terms]))
        matrix = self.matrix
        if self.width is None:
            normal[terms:, :], normal[:, terms:], right[terms:] = 0, 0, 0
            normal[own, own] = 1
            matrix = np.where(np.arange(terms + n) < terms, matrix, 0)
        else:
            normal[own, own] += 1 / self.width**2
            if self.jumps is not None:
                normal[terms:, terms:] += self.jumps.information
                right[terms:] += self.jumps.right
        return DriftSystem(
            normal=normal,
            right=right,
            matrix=matrix.reshape(*points.value.shape, -1),
            value=points.value,
            precision=precision,
            owners=points.owners,
            columns=points.columns,
            terms=terms,
        )

    def _most_likely_width(self, jumps: _Jumps) -> float | None:
        """Width of greatest evidence among those whose steps the jumps bear out."""
        self.width = None
        none = self.system().evidence(self.drift)
        best, found = none + _CERTAIN, None
        for width in _STEP_WIDTHS * float(np.median(jumps.error)):
            self.width = float(width)
            system = self.system()
            gain = system.evidence(self.drift) - self.amplifiers * math.log(width)
            if gain > best:
                steps = system.solve(self.drift)[0][-self.amplifiers :]
                if jumps.support(steps) > _BORNE_OUT:
                    best, found = gain, float(width)
        return found

    def _residual(self) -> NDArray[np.float64]:
        """(bins, blocks) points less polynomial, steps and drift."""
        model = np.einsum("ki,i->k", self.matrix, self.coefficients).reshape(self.points.value.shape)
        left: NDArray[np.float64] = self.points.value - model
        if self.drift is not None:
            left -= self.current.drift_of(self.drift, self.coefficients)
        return left

    def less_smooth(self, cells: Cells) -> Cells:
        """Cells without polynomial and steps, which change little within a point."""
        model = np.einsum("ki,i->k", self.matrix, self.coefficients).reshape(self.points.value.shape)
        model = np.repeat(model, np.diff(self.points.starts, append=cells.mean.shape[1]), axis=1)
        return replace(cells, mean=np.where(cells.count > 0, cells.mean - model, 0.0))

    def less_drift(self, cells: Cells) -> Cells:
        """Cells without the drift."""
        if self.drift is None:
            return cells
        values, _ = self.current.drift_by_amplifier(self.drift, self.coefficients)
        none = np.zeros(len(values))
        layer = replace(_layer(cells, none, none, drift=tuple(values)), steps=none)
        return replace(cells, mean=np.where(cells.count > 0, cells.mean - _in_cells(cells, layer), 0.0))

    def layer(self, cells: Cells) -> AmplifierBackground:
        """What was fit, its mean over the image 0."""
        n = self.amplifiers
        steps = self.coefficients[-n:].copy()
        errors = self.step_errors
        if self.drift is None:
            return _layer(cells, steps, errors)
        values, deviations = self.current.drift_by_amplifier(self.drift, self.coefficients)
        means = np.array([float(np.mean(each)) for each in values])
        return _layer(
            cells,
            steps + means,
            errors,
            drift=tuple(each - mean for each, mean in zip(values, means, strict=True)),
            drift_errors=tuple(deviations),
        )

    def _weigh(self, residual: NDArray[np.float64]) -> None:
        variance = self.points.variance
        seen = np.isfinite(variance)
        pulls = np.zeros(residual.shape)
        pulls[seen] = residual[seen] / np.sqrt(variance[seen])
        scatter = max(1.0, 1.4826 * float(np.median(np.abs(pulls[seen]))))
        t = np.minimum(np.abs(pulls) / (_CUT * scatter), 1)
        self.weights = np.where(seen, (1 - t * t) ** 2, 0.0)
        # what large parts of an amplifier have in common does not average out
        w = np.where(seen, self.weights / np.where(seen, variance, 1), 0.0)
        rows = np.arange(0, len(w), _LARGE)
        total = np.add.reduceat(w, rows, axis=0)
        mean = np.add.reduceat(w * residual, rows, axis=0) / np.maximum(total, 1e-300)
        expected = np.add.reduceat(w * self.weights, rows, axis=0) / np.maximum(total, 1e-300)
        known = (total > 0) & (expected > 0)
        common = float(np.mean(total[known] * mean[known] ** 2 / expected[known])) if known.any() else 1.0
        self.inflation = max(1.0, scatter**2, common)


def _layer(
    cells: Cells,
    steps: NDArray[np.float64],
    errors: NDArray[np.float64],
    *,
    drift: tuple[NDArray[np.float64], ...] = (),
    drift_errors: tuple[NDArray[np.float64], ...] = (),
) -> AmplifierBackground:
    amplifiers = cells.lattice.amplifiers
    area = np.array([math.prod(a.shape) for a in amplifiers], np.float64)
    return AmplifierBackground(
        shape=(int(cells.y_edges[-1]), int(cells.x_edges[-1])),
        amplifiers=amplifiers,
        steps=steps - float(np.sum(area * steps) / np.sum(area)),
        step_errors=errors,
        rows_per_bin=BIN_ROWS if drift else 0,
        drift=drift,
        drift_errors=drift_errors or tuple(np.zeros(len(each)) for each in drift),
    )


def _in_cells(cells: Cells, layer: AmplifierBackground) -> NDArray[np.float64]:
    """(cells in y, cells in x) values of a layer, which cells do not cross."""
    rows, columns = cells.lattice.shape
    steps = layer.steps.reshape(rows, columns)
    values = steps[cells.y_amplifier[:, None], cells.x_amplifier[None, :]]
    if layer.drift:
        drift = np.concatenate(
            [
                np.stack([layer.drift[row * columns + column] for column in range(columns)], axis=1)
                for row in range(rows)
            ]
        )
        values = values + drift[:, cells.x_amplifier]
    return np.asarray(values)


def _blurred(boundary: Boundary, drift: Drift) -> Boundary:
    if not boundary.across_rows:
        return boundary
    return replace(boundary, error=math.hypot(boundary.error, math.sqrt(2) * drift.deviation))
