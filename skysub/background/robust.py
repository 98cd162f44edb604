"""A fit that follows the sky only where sky is seen: asymmetric weights, and a prior on high degrees.

The model is the Chebyshev polynomial of `skysub.background.chebyshev`. Coefficients of each degree n
above zero have a normal prior of variance tau_n^2, which the data themselves set by expectation
maximisation (evidence of a hierarchical linear model; MacKay 1992, Neural Computation 4, 415). Where the
superpixels show no curvature, or none are seen, high degrees shrink to nothing instead of running away,
and the posterior covariance says how much is not known there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import degrees, design_matrix, gram
from skysub.background.model import Background, fit_statistics
from skysub.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics

__all__ = ["TRACE", "RobustConfig", "RobustFit", "fit_robust", "one_sided"]

_CONVEX_PASSES, _SYMMETRIC_PASSES, _PASSES = 12, 4, 6
_PRIOR_STEPS = 3
_HUBER = (0.3, 6.0)
_LEAN = (0.2, 0.5)
_BALANCED = (0.14, 0.2)
_EXTREME = (2.2, 3.0)
_CHANCE = 3.0
_SETTLED = 3e-3
_HELD_BACK = 1e-6
_LEAST_PRIOR = 1.5
_FOLLOWED = (1.3, 2.0)
TRACE = 0.01
"""How sure of light one is where all of it is in sources that were masked."""
_FEW = 8
"""Superpixels below which weights cannot tell light from noise, and nothing is shifted."""
_BLOCK = 4
"""Superpixels along the edge of a block in which residuals are averaged to see correlated errors."""


@dataclass(frozen=True, slots=True)
class RobustConfig:
    """How superpixels are weighted and the polynomial is held back.

    Parameters
    ----------
    cut_above, cut_below
        Bisquare weights: a superpixel that lies this many of its errors above or below the model has
        no weight. Light of undetected sources only ever adds, so the first is the smaller one.
    prior
        Let the data set how much each degree may contribute; else plain weighted least squares.
    """

    cut_above: float = 3.5
    cut_below: float = 6.0
    prior: bool = True

    def __post_init__(self) -> None:
        for name in ("cut_above", "cut_below"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 1):
                raise ConfigError(f"{name} must be a number above 1, not {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class RobustFit:
    """A background, and what the fit learnt about itself."""

    background: Background
    weights: NDArray[np.float64]
    """(gy, gx) from 0 to 1: how far each superpixel was believed; 0 where it was not usable."""
    freedom: float
    """Effective number of coefficients that the data, not the prior, determine."""
    scatter: float
    """Scatter of all usable superpixels about the model beyond their pixel noise, unit of the image: of
    structure of the sky that the polynomial cannot follow, and of light."""
    inflation: float
    """What the covariance of the coefficients was multiplied by because superpixels scatter more than their
    errors and with their neighbours."""
    one_sided: float
    """How far residuals of plain least squares lie to one side, as light and defects leave them: 0 (they are
    balanced, as a smooth sky leaves them, and every superpixel is believed) to 1."""
    deviation: NDArray[np.float64]
    """(gy, gx) standard deviation of the model at the centres of all superpixels, unit of the image."""

    @property
    def balanced(self) -> bool:
        """Whether superpixels lie as much above plain least squares as below: none of them is distrusted."""
        return self.one_sided <= TRACE

    @property
    def extrapolated(self) -> NDArray[np.bool_]:
        """(gy, gx): superpixels where the model is at least three times less certain than is typical."""
        seen = self.weights > 0
        typical = np.median(self.deviation[seen]) if seen.any() else np.inf
        return (self.deviation > 3 * typical) & ~seen


def fit_robust(
    grid: SuperpixelGrid,
    statistics: SuperpixelStatistics,
    config: BackgroundConfig,
    robust: RobustConfig,
    *,
    light: float = 0.0,
    believed: bool = False,
) -> RobustFit:
    """Fit the polynomial to superpixels, some of which hold light that is not sky.

    Parameters
    ----------
    grid, statistics
        The superpixels; ``config.min_good_pixels`` and finite errors say which are usable.
    config
        ``order`` is the highest degree; the prior decides how much of it is used.
    light
        From 0 to 1: how sure it is, whatever these superpixels show, that some of them hold light. It is
        known from those that no mask has touched; the masked ones may fit a polynomial all too well.
    believed
        Believe every superpixel: those that hold light have been left out.

    Raises
    ------
    NoUsableSuperpixelsError
        When nothing can be fit, and why.
    """
    values = statistics.mean.astype(np.float64)
    errors = statistics.error.astype(np.float64)
    usable = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    usable &= statistics.count >= config.min_good_pixels
    if not usable.any():
        # constant pixels have no error to weigh by; all alike is what is left
        plain = fit_statistics(grid, statistics, replace(config, weighting=False, undersampled="reduce"))
        return RobustFit(
            background=plain,
            weights=plain.usable.astype(np.float64),
            freedom=float(len(plain.coefficients)),
            scatter=0.0,
            inflation=1.0,
            one_sided=0.0,
            deviation=np.zeros(grid.shape),
        )
    iy, ix = np.nonzero(usable)
    order = min(config.order, len(np.unique(ix)) - 1, len(np.unique(iy)) - 1)
    shape = grid.image_shape
    y_all, x_all = (a.ravel() for a in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    everywhere = design_matrix(x_all, y_all, shape=shape, order=order)
    degree = np.array([p + q for p, q in degrees(order)])
    v = values[usable]
    level = float(np.median(v))
    v = v - level
    noise = errors[usable]
    scale = float(np.median(noise))
    v, noise = v / scale, noise / scale

    system = _System(
        everywhere[usable.ravel()], v, degree, least=_least_prior(everywhere, degree), learn=robust.prior
    )
    solution, spread, weights, distrust = _weighted(system, noise, robust, light, believed=believed)
    coefficients = solution.coefficients.copy()
    noise = spread
    residual = v - system.matrix @ coefficients
    trusted = weights > 0.1
    chi2 = float(np.sum(weights * (residual / noise) ** 2) / max(1.0, weights.sum() - solution.freedom))
    # blocks tell of scatter beyond the errors as well: the larger of the two, not their product
    inflation = max(chi2, _correlated(residual, noise, weights, iy, ix))
    covariance = solution.covariance * inflation * scale**2
    coefficients *= scale
    coefficients[0] += level
    deviation = np.sqrt(np.einsum("ki,ki->k", np.einsum("ki,ij->kj", everywhere, covariance), everywhere))
    believed_grid = np.zeros(grid.shape)
    believed_grid[usable] = np.where(trusted, weights, 0.0)
    background = Background(
        grid=grid,
        statistics=statistics,
        coefficients=coefficients,
        covariance=covariance,
        order=order,
        usable=believed_grid > 0,
        chi2_per_freedom=chi2,
        config=config,
        reduced="" if order == config.order else _why(order, config.order, int(usable.sum()), grid),
    )
    return RobustFit(
        background=background,
        weights=believed_grid,
        freedom=solution.freedom,
        scatter=scale * _beyond(residual, errors[usable] / scale),
        inflation=inflation,
        one_sided=distrust,
        deviation=deviation.reshape(grid.shape),
    )


def _why(order: int, asked: int, usable: int, grid: SuperpixelGrid) -> str:
    gy, gx = grid.shape
    return f"order {asked} reduced to {order}: {usable} of {gy} x {gx} superpixels are usable"


@dataclass(frozen=True, eq=False)
class _Solution:
    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    tau: NDArray[np.float64]
    freedom: float = 0.0


class _System:
    """Linear equations of one fit, in units of the typical error of a superpixel."""

    def __init__(
        self,
        matrix: NDArray[np.float64],
        values: NDArray[np.float64],
        degree: NDArray[np.int64],
        *,
        least: NDArray[np.float64],
        learn: bool,
    ) -> None:
        self.matrix, self.values, self.degree, self.learn = matrix, values, degree, learn
        self.least = least
        self._members = np.bincount(degree)[1:]

    def solve(self, weights: NDArray[np.float64], tau: NDArray[np.float64]) -> _Solution:
        """Posterior mean and covariance of the coefficients.

        The prior's widths tau, (order + 1,), are learnt.
        """
        terms = len(self.degree)
        normal = gram(self.matrix, weights)
        # einsum rather than BLAS: its sums do not depend on the number of threads
        right = np.einsum("ki,k->i", self.matrix, weights * self.values)
        tau = tau.copy()
        for _ in range(_PRIOR_STEPS if self.learn else 1):
            if self.learn:
                precision = np.where(self.degree > 0, 1 / tau[self.degree] ** 2, 1e-12)
            else:
                # just enough that a degenerate set of superpixels has an answer
                precision = np.full(terms, 1e-9 * max(1e-30, float(np.max(normal))))
            covariance = np.linalg.inv(normal + np.diag(precision))
            coefficients = covariance @ right
            if self.learn:
                power = coefficients**2 + np.diag(covariance)
                learnt = np.sqrt(np.bincount(self.degree, weights=power)[1:] / self._members)
                tau[1:] = np.maximum(learnt, self.least[1:])
        freedom = float(np.einsum("ij,ji->", covariance, normal))
        return _Solution(coefficients, covariance, tau, freedom)

    def residual(self, solution: _Solution) -> NDArray[np.float64]:
        off: NDArray[np.float64] = self.values - np.einsum("ki,i->k", self.matrix, solution.coefficients)
        return off


def _least_prior(everywhere: NDArray[np.float64], degree: NDArray[np.int64]) -> NDArray[np.float64]:
    """(order + 1,) widths of the prior below which the data could not tell them from zero.

    They are the errors of the coefficients where every superpixel is seen with an error of 1: the width of a
    degree of a few coefficients is not known better than that.
    """
    error = _LEAST_PRIOR / np.sqrt(np.einsum("ki,ki->i", everywhere, everywhere))
    least: NDArray[np.float64] = np.bincount(degree, weights=error) / np.bincount(degree)
    return least


def _weighted(
    system: _System,
    noise: NDArray[np.float64],
    robust: RobustConfig,
    light: float,
    *,
    believed: bool,
) -> tuple[_Solution, NDArray[np.float64], NDArray[np.float64], float]:
    """Solution, errors by which residuals were judged, and weights of the superpixels.

    A convex loss comes first, which has one minimum wherever it starts: Huber's, that leans away from light.
    Redescending weights start from there, symmetric ones; they lean only as far as the residuals of the
    symmetric fit do.
    """
    values = system.values
    tau = np.full(int(system.degree.max()) + 1, max(1.0, float(np.std(values))))
    solution = system.solve(1 / noise**2, tau)
    solution = system.solve(1 / noise**2, solution.tau)
    residual = system.residual(solution)
    distrust = max(light, one_sided(residual / noise))
    if believed or distrust == 0:
        return solution, noise, np.ones(len(values)), distrust
    # where there are sources, degrees that the sky lacks are held back altogether
    system.least = np.full_like(system.least, _HELD_BACK)
    weights = np.ones(len(values))
    spread = noise
    for _ in range(_CONVEX_PASSES):
        solution = system.solve(weights / noise**2, tau)
        tau = solution.tau
        residual = system.residual(solution)
        spread = _spread(residual, noise)
        before, weights = weights, _huber(residual / spread)
        if np.max(np.abs(weights - before)) < _SETTLED:
            break
    wide = max(robust.cut_above, robust.cut_below)
    above, below = wide / distrust, robust.cut_below / distrust
    if distrust > 0.5:
        above = robust.cut_above / distrust
    for turn in range(_SYMMETRIC_PASSES + _PASSES):
        if turn == _SYMMETRIC_PASSES:
            above = _cut_above(residual, noise, spread, robust, light) / distrust
            if above == wide / distrust:
                break
        before, weights = weights, _bisquare(residual / spread, above, below)
        if turn > _SYMMETRIC_PASSES and np.max(np.abs(weights - before)) < _SETTLED:
            break
        solution = system.solve(weights / spread**2, tau)
        tau = solution.tau
        residual = system.residual(solution)
        spread = _spread(residual, noise)
    weights = _bisquare(residual / spread, above, below)
    if weights.sum() > _FEW:
        shifted = solution.coefficients.copy()
        shifted[0] -= _shift(above, below) * float(np.mean(spread))
        solution = replace(solution, coefficients=shifted)
    return solution, spread, weights, distrust


def one_sided(pulls: NDArray[np.float64]) -> float:
    """How far the residuals of plain least squares tell of light or defects, from 0 to 1.

    A smooth sky that the polynomial cannot follow leaves as much above it as below. Sources leave few high
    peaks above, defects few deep holes below.
    """
    lean = abs(_lean(pulls))
    high, low = float(np.max(pulls, initial=0)), -float(np.min(pulls, initial=0))
    peak, other = max(high, low), min(high, low)
    by_squares = _between(lean, _BALANCED)
    by_extremes = _between(peak / max(other, _CHANCE), _EXTREME)
    return max(by_squares, by_extremes)


def _between(value: float, limits: tuple[float, float]) -> float:
    """0 below the first limit, 1 above the second, a straight line in between."""
    return min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))


def _lean(pulls: NDArray[np.float64], most: float = np.inf) -> float:
    """Squares above zero less those below, over their sum."""
    squares = np.minimum(np.abs(pulls), most) ** 2
    total = float(np.sum(squares))
    return float(np.sum(np.where(pulls > 0, squares, -squares))) / total if total > 0 else 0.0


def _cut_above(
    residual: NDArray[np.float64],
    noise: NDArray[np.float64],
    spread: NDArray[np.float64],
    robust: RobustConfig,
    light: float,
) -> float:
    """Upper cut that the residuals of a symmetric fit justify.

    Light adds, so that residuals lean upwards where there is light; a polynomial that the sky is too much for
    leaves as much below it as above, and weights that lean would drag it down. Where light is known to be
    there the cut is the narrow one as long as the darker side shows no more than noise.
    """
    leaning = _between(_lean(residual / spread, robust.cut_below), _LEAN)
    followed = 1 - _between(float(np.median(spread / noise)), _FOLLOWED)
    share = max(leaning, light * followed)
    wide = max(robust.cut_above, robust.cut_below)
    return wide + share * (robust.cut_above - wide)


def _huber(pulls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of a convex loss that grows linearly beyond a cut, sooner above than below."""
    weights: NDArray[np.float64] = np.minimum(
        1.0, np.where(pulls > 0, _HUBER[0], _HUBER[1]) / np.maximum(np.abs(pulls), 1e-30)
    )
    return weights


def _spread(residual: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors to judge residuals by: enlarged to what the residuals' negative side shows."""
    pulls = residual / noise
    below = pulls[pulls < 0]
    if len(below) < 5:
        return noise
    return noise * max(1.0, 1.4826 * float(np.median(-below)))


def _beyond(residual: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Standard deviation of residuals, by their median about their own, beyond that of their noise."""
    scatter = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    return math.sqrt(max(0.0, scatter**2 - float(np.median(noise)) ** 2))


def _bisquare(pulls: NDArray[np.float64], above: float, below: float) -> NDArray[np.float64]:
    t = pulls / np.where(pulls > 0, above, below)
    weights: NDArray[np.float64] = np.where(np.abs(t) < 1, (1 - t * t) ** 2, 0.0)
    if not weights.any():
        # nothing lies near the start: believe the lowest, where light adds least
        weights = (pulls <= np.min(pulls) + above).astype(np.float64)
    return weights


@functools.lru_cache(maxsize=64)
def _shift(cut_above: float, cut_below: float) -> float:
    """Where the asymmetric weights put the centre of normal noise of 1: z of E[w(z) z] = 0."""
    z = np.linspace(-6, 6, 1201)
    density = np.exp(-0.5 * z * z)
    centre = 0.0
    for _ in range(30):
        w = _bisquare(z - centre, cut_above, cut_below) * density
        centre = float(np.sum(w * z) / np.sum(w))
    return centre


def _correlated(
    residual: NDArray[np.float64],
    noise: NDArray[np.float64],
    weights: NDArray[np.float64],
    iy: NDArray[np.int64],
    ix: NDArray[np.int64],
) -> float:
    """Variance of residuals averaged over blocks, over what independent superpixels would give."""
    block = (iy // _BLOCK) * (ix.max() // _BLOCK + 1) + ix // _BLOCK
    w = weights / noise**2
    total = np.bincount(block, weights=w)
    mean = np.bincount(block, weights=w * residual)
    expected = np.bincount(block, weights=w * weights)
    seen = np.bincount(block, weights=(weights > 0).astype(float)) >= _BLOCK
    seen &= total > 0
    if seen.sum() < 8:
        return 1.0
    return max(1.0, float(np.mean(mean[seen] ** 2 / np.maximum(expected[seen], 1e-30))))
