"""One robust fit of a visit's equations: weights, priors and coefficients in turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.joint import weights as weighting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.robust import RobustConfig
    from skysub.pipeline.joint.system import Solution, System, Widths

__all__ = ["Fit", "Observed", "fit_system", "start_widths"]

_CONVEX_PASSES, _SYMMETRIC_PASSES, _PASSES = 6, 3, 5
_LEARNING_STEPS = 1
"""Steps of the widths of priors for each new set of weights."""
_SETTLED = 0.01
_BLOCK = 4
"""Edge, in superpixels, of the blocks in which residuals are averaged to see errors that neighbours share."""
_FEWEST_BLOCKS = 8


@dataclass(frozen=True, eq=False)
class Observed:
    """One detector's errors and trust, a number for each superpixel."""

    error: NDArray[np.float64]
    """(n,) in typical errors; infinite where there is no value."""
    trust: NDArray[np.float64]
    """(n,) from 0 to 1: 0 near large or bright objects."""
    grid: tuple[int, int]
    """(gy, gx)."""

    @property
    def used(self) -> NDArray[np.bool_]:
        """(n,): superpixels that may enter."""
        return (self.trust > 0) & np.isfinite(self.error)


@dataclass(frozen=True, eq=False)
class Fit:
    """A solution with the weights it was found with."""

    solution: Solution
    judge: weighting.Judge
    weights: tuple[NDArray[np.float64], ...]
    """(n,) by detector: how far each superpixel is believed, trust included."""
    chi2: float
    """Mean square of residuals over spread errors, per degree of freedom."""
    shared: float
    """Variance of residuals averaged over blocks, over what independent superpixels would give."""
    shift: float
    """What leaning weights moved the level by, taken back; in typical errors."""
    lean: float
    """Upper over lower cut: 1 for symmetric weights."""

    @property
    def inflation(self) -> float:
        """What the covariance of the coefficients is multiplied by."""
        return max(1.0, self.chi2) * self.shared


def start_widths(terms: frozenset[str], *, offset: float, penalty: float = 1.0) -> Widths:
    """Widths to start from; 0 for terms that are left out."""
    from skysub.pipeline.joint.system import Widths

    return Widths(
        penalty,
        offset=offset if "offset" in terms else 0.0,
        amplifier=offset if "amplifier" in terms else 0.0,
    )


def fit_system(
    system: System,
    observed: Sequence[Observed],
    robust: RobustConfig,
    widths: Widths,
    *,
    light: float = 0.0,
    start: Sequence[NDArray[np.float64]] | None = None,
    learn: bool = True,
) -> Fit:
    """Fit all detectors.

    Parameters
    ----------
    observed
        Errors and trust of the superpixels, in the order of the system's detectors.
    light
        From 0 to 1: how sure it is that there is light as large as superpixels.
    start
        (n,) weights of each detector's superpixels to start from, instead of a convex loss's.
    learn
        Let the data set the widths of priors.
    """
    used = [one.used for one in observed]
    base = [
        np.where(u, o.trust / np.where(u, o.error, 1.0) ** 2, 0.0)
        for o, u in zip(observed, used, strict=True)
    ]
    believed = [u.astype(np.float64) for u in used]
    if start is not None:
        believed = [np.where(u, k, 0.0) for u, k in zip(used, start, strict=True)]
    spread: tuple[float, ...] = (1.0,) * len(observed)

    def solved(steps: int) -> Solution:
        nonlocal widths
        sums = system.summed([b * k / s**2 for b, k, s in zip(base, believed, spread, strict=True)])
        for _ in range(steps):
            widths = system.learnt(system.solve(sums, widths))
        return system.solve(sums, widths, covariance=False)

    def pulls(solution: Solution) -> list[NDArray[np.float64]]:
        found = []
        for number, (rows, one, u) in enumerate(zip(system.detectors, observed, used, strict=True)):
            off = (rows.values - system.model(solution, number)) / one.error
            found.append(np.where(u, off, 0.0))
        return found

    def judged(judge: weighting.Judge, off: list[NDArray[np.float64]]) -> float:
        nonlocal believed
        before = believed
        believed = [
            np.where(u, judge.weights(p, n), 0.0) for n, (p, u) in enumerate(zip(off, used, strict=True))
        ]
        return max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(before, believed, strict=True))

    steps = _LEARNING_STEPS if learn else 0
    solution = solved(steps)
    for _ in range(_CONVEX_PASSES if start is None else 0):
        off = pulls(solution)
        spread = weighting.spreads([p[u] for p, u in zip(off, used, strict=True)])
        believed = [
            np.where(u, weighting.huber(p / s), 0.0) for p, u, s in zip(off, used, spread, strict=True)
        ]
        solution = solved(steps)
    judge = weighting.symmetric(robust, spread)
    for turn in range(_SYMMETRIC_PASSES + _PASSES):
        off = pulls(solution)
        spread = weighting.spreads([p[u] for p, u in zip(off, used, strict=True)])
        if turn < _SYMMETRIC_PASSES:
            judge = weighting.symmetric(robust, spread)
        elif turn == _SYMMETRIC_PASSES:
            judge = weighting.leaning(robust, spread, [p[u] for p, u in zip(off, used, strict=True)], light)
            if judge.above == judge.below:
                break
        else:
            judge = weighting.Judge(spread, judge.above, judge.below)
        if judged(judge, off) < _SETTLED and turn > _SYMMETRIC_PASSES:
            break
        solution = solved(steps if turn < _SYMMETRIC_PASSES else min(steps, 1))
    w = [b * k / s**2 for b, k, s in zip(base, believed, judge.spread, strict=True)]
    solution = system.solve(system.summed(w), widths)
    off = pulls(solution)
    chi2, shared = _scatter(system, solution, observed, off=off, believed=believed, judge=judge)
    shift = weighting.centre_of(judge.above, judge.below) * _typical(observed, believed, judge)
    return Fit(
        solution=solution,
        judge=judge,
        weights=tuple(k * o.trust for k, o in zip(believed, observed, strict=True)),
        chi2=chi2,
        shared=shared,
        shift=shift,
        lean=judge.above / judge.below,
    )


def _typical(
    observed: Sequence[Observed], believed: Sequence[NDArray[np.float64]], judge: weighting.Judge
) -> float:
    """Error by which a level moves when every superpixel moves by one of its own errors."""
    once = twice = 0.0
    for one, k, s in zip(observed, believed, judge.spread, strict=True):
        w = np.where(k > 0, k / (s * one.error), 0.0)
        once += float(np.sum(w))
        twice += float(np.sum(np.where(k > 0, w / (s * one.error), 0.0)))
    return once / twice if twice > 0 else 0.0


def _scatter(
    system: System,
    solution: Solution,
    observed: Sequence[Observed],
    *,
    off: Sequence[NDArray[np.float64]],
    believed: Sequence[NDArray[np.float64]],
    judge: weighting.Judge,
) -> tuple[float, float]:
    """Mean square of the pulls per degree of freedom, and how much of it neighbours share."""
    squares = total = 0.0
    means, expected = [], []
    for one, pull, k, s in zip(observed, off, believed, judge.spread, strict=True):
        scaled = pull / s
        squares += float(np.sum(k * scaled**2))
        total += float(np.sum(k))
        gy, gx = one.grid
        iy, ix = (index.ravel() for index in np.mgrid[:gy, :gx])
        block = (iy // _BLOCK) * (-(-gx // _BLOCK)) + ix // _BLOCK
        w = np.where(k > 0, k / (s * one.error) ** 2, 0.0)
        w = np.where(np.isfinite(w), w, 0.0)
        weight = np.bincount(block, weights=w)
        mean = np.bincount(block, weights=w * scaled * np.where(w > 0, s * one.error, 0.0))
        noise = np.bincount(block, weights=w * k)
        seen = (np.bincount(block, weights=(k > 0).astype(float)) >= _BLOCK) & (weight > 0)
        means.append(mean[seen] ** 2)
        expected.append(noise[seen])
    seen_means, seen_expected = np.concatenate(means), np.concatenate(expected)
    shared = 1.0
    if len(seen_means) >= _FEWEST_BLOCKS:
        shared = max(1.0, float(np.mean(seen_means / np.maximum(seen_expected, 1e-30))))
    freedom = max(1.0, total - _spent(system, solution))
    chi2 = squares / freedom if total > 0 else 1.0
    return (chi2 if math.isfinite(chi2) else 1.0), shared


def _spent(system: System, solution: Solution) -> float:
    """Degrees of freedom that the shared coefficients use up."""
    assert solution.covariance is not None
    p = system.spline.size
    unseen = solution.widths.penalty * float(np.sum(solution.covariance[:p, :p] * system.penalty))
    return max(0.0, p - unseen)
