"""Which terms a visit needs, judged on blocks of superpixels that were hidden from the fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.pipeline.joint.fit import Fit, Observed
    from skysub.pipeline.joint.system import System

__all__ = ["Choice", "choose"]

_BLOCK, _LEAST_BLOCK = 8, 2
_PER_AXIS = 4
"""Blocks along each axis of a detector at least, so that what is hidden has seen superpixels around it."""
_FOLDS = 4
_LEARNING_STEPS = 3
_SURE = 3.0
"""Standard errors by which a term must be better: on visits without it none was by more than 2.1, on
visits with it none by less than 6.4."""
_SEEN = 1.0
"""The same for amplifiers whose steps were seen in pixels: that there are some is not in question, only
whether what is left of them stands out of a smooth sky."""
_CAPPED = 9.0
"""Square of a pull that counts at most: what light leaves must not decide."""
_FEW_DETECTORS = 4
"""Detectors below which their scatter says nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The terms that were chosen, and the scores behind it."""

    terms: tuple[str, ...]
    scores: tuple[tuple[str, float], ...] = ()
    """Of each candidate, simplest first: its terms and its mean square of pulls on hidden superpixels."""
    steps: tuple[tuple[str, str, float], ...] = ()
    """Of each comparison: the richer candidate, the simpler one, and by how many standard errors it is
    better."""

    @property
    def why(self) -> str:
        """The decision in a sentence."""
        if not self.scores:
            return "There was nothing to choose from."
        scores = "; ".join(f"{name} {score:.4g}" for name, score in self.scores)
        steps = "; ".join(f"{a} beats {b} by {t:.1f} standard errors" for a, b, t in self.steps)
        return (
            f"Mean square of pulls on hidden superpixels: {scores}. {steps}. A term is taken when it is "
            f"better by more than {_SURE:g} standard errors, steps that pixels have shown by more than "
            f"{_SEEN:g}: {_name(self.terms)}."
        )


def choose(
    system: System,
    fit: Fit,
    observed: Sequence[Observed],
    candidates: Sequence[tuple[str, ...]],
    *,
    placebo: System | None = None,
    seen: bool = False,
) -> Choice:
    """Choose among terms of one visit, by what each makes of hidden superpixels.

    Parameters
    ----------
    fit
        With all terms; its errors and weights judge every candidate. Superpixels that are not trusted neither
        fit nor score.
    candidates
        Terms, simplest first; each is one more than the one before.
    placebo
        The same equations with amplifiers where there are none. Structure of the sky that is smaller than the
        detector looks like steps at any boundaries, and real ones must be better than these.
    seen
        Steps of amplifiers were seen in the pixels of most detectors, and taken off: what is left of them
        need not beat a placebo.
    """
    judged = _Judged(fit, observed)
    scores = [judged.score(system, terms) for terms in candidates]
    means = [_mean(score) for score in scores]
    names = [_name(terms) for terms in candidates]
    listed = list(zip(names, means, strict=True))
    if not all(math.isfinite(mean) for mean in means):
        return Choice(candidates[0])
    steps, chosen = [], 0
    for k in range(1, len(candidates)):
        better = _better(scores[chosen], scores[k])
        steps.append((names[k], names[chosen], better))
        bar = _SEEN if seen and "amplifier" in candidates[k] else _SURE
        if better > bar and placebo is not None and not seen and "amplifier" in candidates[k]:
            shifted = judged.score(placebo, candidates[k])
            listed.append(("boundaries where there are none", _mean(shifted)))
            better = _better(shifted, scores[k])
            steps.append((names[k], "boundaries where there are none", better))
        if better > bar:
            chosen = k
    return Choice(candidates[chosen], tuple(listed), tuple(steps))


def _name(terms: Sequence[str]) -> str:
    return " and ".join(terms) or "a smooth sky alone"


def _mean(score: Sequence[NDArray[np.float64]]) -> float:
    blocks = np.concatenate(score) if len(score) else np.zeros(0)
    return float(np.mean(blocks)) if len(blocks) else math.nan


def _better(worse: Sequence[NDArray[np.float64]], better: Sequence[NDArray[np.float64]]) -> float:
    """Difference of mean scores in standard errors.

    Those are as blocks or as whole detectors scatter, whichever is more: what a single detector alone asks
    for, a galaxy that fills it for instance, is no more than one standard error.
    """
    differences = [a - b for a, b in zip(worse, better, strict=True)]
    blocks = np.concatenate(differences)
    error = float(np.std(blocks)) / math.sqrt(max(1, len(blocks) - 1))
    sums = np.array([float(np.sum(part)) for part in differences if len(part)])
    if len(sums) >= _FEW_DETECTORS:
        error = max(error, float(np.std(sums)) * math.sqrt(len(sums)) / len(blocks))
    return float(np.mean(blocks)) / error if error > 0 else 0.0


class _Judged:
    """Hidden blocks of a visit's superpixels, and how well they are foretold."""

    def __init__(self, fit: Fit, observed: Sequence[Observed]) -> None:
        self.fit, self.observed = fit, observed
        self.folds = [_folds(one.grid) for one in observed]
        self.weights = []
        for one, believed, s in zip(observed, fit.weights, fit.judge.spread, strict=True):
            error = np.where(one.used, one.error, 1.0) * s
            self.weights.append(np.where(one.used, believed / error**2, 0.0))

    def score(self, system: System, terms: Sequence[str]) -> list[NDArray[np.float64]]:
        """By detector, the mean square of capped pulls in each hidden block of trusted superpixels."""
        whole = system.summed(self.weights)
        widths = self.fit.solution.widths.only(terms)
        for _ in range(_LEARNING_STEPS):
            widths = system.learnt(system.solve(whole, widths))
        found: list[list[NDArray[np.float64]]] = [[] for _ in self.observed]
        for fold in range(_FOLDS):
            hidden = [np.where(f == fold, w, 0.0) for w, (f, _) in zip(self.weights, self.folds, strict=True)]
            seen = [a - b for a, b in zip(whole, system.summed(hidden), strict=True)]
            solution = system.solve(seen, widths, covariance=False)
            for number, (one, s, (where, block)) in enumerate(
                zip(self.observed, self.fit.judge.spread, self.folds, strict=True)
            ):
                judged = one.used & (where == fold)
                if not judged.any():
                    continue
                off = (system.detectors[number].values - system.model(solution, number))[judged]
                squares = np.minimum((off / (one.error[judged] * s)) ** 2, _CAPPED)
                count = np.bincount(block[judged])
                total = np.bincount(block[judged], weights=squares)
                found[number].append(total[count > 0] / count[count > 0])
        return [np.concatenate(parts) if parts else np.zeros(0) for parts in found]


def _folds(grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) fold and (n,) block of each superpixel; a fold hides every other block along both axes."""
    edge = [max(_LEAST_BLOCK, min(_BLOCK, n // _PER_AXIS)) for n in grid]
    iy, ix = (index.ravel() for index in np.mgrid[: grid[0], : grid[1]])
    by, bx = iy // edge[0], ix // edge[1]
    return 2 * (by % 2) + bx % 2, by * (int(bx.max()) + 1) + bx
