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

from skysub.background.chebyshev import degrees, design_matrix
from skysub.background.model import Background, fit_statistics
from skysub.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics

__all__ = ["RobustConfig", "RobustFit", "fit_robust"]

_PASSES = 8
_PRIOR_STEPS = 6
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
    deviation: NDArray[np.float64]
    """(gy, gx) standard deviation of the model at the centres of all superpixels, unit of the image."""

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
) -> RobustFit:
    """Fit the polynomial to superpixels, some of which hold light that is not sky.

    Parameters
    ----------
    grid, statistics
        The superpixels; ``config.min_good_pixels`` and finite errors say which are usable.
    config
        ``order`` is the highest degree; the prior decides how much of it is used.

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
            deviation=np.zeros(grid.shape),
        )
    iy, ix = np.nonzero(usable)
    order = min(config.order, len(np.unique(ix)) - 1, len(np.unique(iy)) - 1)
    shape = grid.image_shape
    y_all, x_all = (a.ravel() for a in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    everywhere = design_matrix(x_all, y_all, shape=shape, order=order)
    matrix = everywhere[usable.ravel()]
    degree = np.array([p + q for p, q in degrees(order)])
    v = values[usable]
    level = float(np.median(v))
    v = v - level
    noise = errors[usable]
    scale = float(np.median(noise))
    v, noise = v / scale, noise / scale

    start = _start(v, noise)
    spread = _spread(v - start, noise)
    weights = _bisquare((v - start) / spread, robust)
    solution = _Solution(np.zeros(len(degree)), np.eye(len(degree)), np.full(order + 1, np.inf))
    tau = np.full(order + 1, max(1.0, float(np.std(v[weights > 0])) if (weights > 0).any() else 1.0))
    for _ in range(_PASSES):
        solution = _solve(matrix, v, weights / spread**2, degree, tau, learn=robust.prior)
        tau = solution.tau
        residual = v - matrix @ solution.coefficients
        spread = _spread(residual, noise)
        weights = _bisquare(residual / spread, robust)
    coefficients = solution.coefficients.copy()
    noise = spread
    if weights.sum() > _FEW:
        coefficients[0] -= _shift(robust) * float(np.mean(noise))
    residual = v - matrix @ coefficients
    believed = weights > 0.1
    chi2 = float(np.sum(weights * (residual / noise) ** 2) / max(1.0, weights.sum() - solution.freedom))
    inflation = max(1.0, chi2) * _correlated(residual, noise, weights, iy, ix)
    covariance = solution.covariance * inflation * scale**2
    coefficients *= scale
    coefficients[0] += level
    deviation = np.sqrt(np.einsum("ki,ki->k", np.einsum("ki,ij->kj", everywhere, covariance), everywhere))
    believed_grid = np.zeros(grid.shape)
    believed_grid[usable] = np.where(believed, weights, 0.0)
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


def _solve(
    matrix: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    degree: NDArray[np.int64],
    tau: NDArray[np.float64],
    *,
    learn: bool,
) -> _Solution:
    """Posterior mean and covariance of the coefficients; tau (order + 1,) is updated when ``learn``."""
    weighted = matrix * weights[:, None]
    # einsum rather than BLAS: its sums do not depend on the number of threads
    normal = np.einsum("ki,kj->ij", weighted, matrix)
    right = np.einsum("ki,k->i", weighted, values)
    tau = tau.copy()
    members = np.bincount(degree)[1:]
    for _ in range(_PRIOR_STEPS if learn else 1):
        precision = np.where(degree > 0, 1 / np.maximum(tau[degree], 1e-6) ** 2, 1e-12)
        if not learn:
            # just enough that a degenerate set of superpixels has an answer
            precision = np.full(len(degree), 1e-9 * max(1e-30, float(np.max(normal))))
        covariance = np.linalg.inv(normal + np.diag(precision))
        coefficients = covariance @ right
        if learn:
            power = coefficients**2 + np.diag(covariance)
            tau[1:] = np.sqrt(np.bincount(degree, weights=power)[1:] / members)
    freedom = float(np.trace(covariance @ normal))
    return _Solution(coefficients, covariance, tau, freedom)


def _start(values: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Level to start from: the median of the lower half leans away from superpixels full of light."""
    lower = np.sort(values)[: max(1, (len(values) + 1) // 2)]
    return float(np.median(lower) + 0.6745 * np.median(noise))


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


def _bisquare(pulls: NDArray[np.float64], robust: RobustConfig) -> NDArray[np.float64]:
    t = pulls / np.where(pulls > 0, robust.cut_above, robust.cut_below)
    weights: NDArray[np.float64] = np.where(np.abs(t) < 1, (1 - t * t) ** 2, 0.0)
    if not weights.any():
        # nothing lies near the start: believe the lowest, where light adds least
        weights = (pulls <= np.min(pulls) + robust.cut_above).astype(np.float64)
    return weights


@functools.lru_cache(maxsize=16)
def _shift(robust: RobustConfig) -> float:
    """Where the asymmetric weights put the centre of normal noise of 1: z of E[w(z) z] = 0."""
    z = np.linspace(-6, 6, 1201)
    density = np.exp(-0.5 * z * z)
    centre = 0.0
    for _ in range(30):
        w = _bisquare(z - centre, robust) * density
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
