"""Sky frames: patterns fixed to the detectors whose strength changes from visit to visit.

What many visits' skies leave over, cell by cell, is written as a sum of few frames times a strength per visit
and frame, which all detectors share: factor analysis (Rubin & Thayer 1982), with frames as posterior means
under a prior that two halves of the visits tell. A frame is taken where it foretells cells that it has not
seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.templates.stationary import posterior, prior_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Frames", "nodes_of", "sky_frames"]

_TURNS = 4
"""Turns of strengths and frames."""
_CUT = 5.0
"""Pull beyond which a cell of a visit counts no more."""
_SURE = 4.0
"""Standard errors by which a frame must make hidden cells better."""
_BLOCK = 8
"""Edge, in cells, of the blocks of which every other one is hidden when a frame is judged."""
_CAPPED = 16.0
"""Square of a pull that counts at most."""
_POWER_STEPS = 60
_FEWEST = 4
"""Visits from which frames can be judged."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Sky frames of all detectors and how strong they were."""

    frames: Mapping[int, NDArray[np.float32]]
    """By detector, (K, cy, cx) float32, unit of the cells at a strength of 1."""
    errors: Mapping[int, NDArray[np.float64]]
    """By detector, (K,) rms of what is not known of each frame's cells."""
    strengths: NDArray[np.float64]
    """(V, K); the median strength of a frame is 1."""
    why: tuple[str, ...]
    """What was judged, a sentence for each frame that was tried."""

    @property
    def count(self) -> int:
        """Number K of frames."""
        return int(self.strengths.shape[1])


@dataclass(eq=False)
class _Detector:
    """Cells of one detector in all visits."""

    values: NDArray[np.float32]
    """(V, cy, cx), 0 where nothing was seen;"""
    weight: NDArray[np.float32]
    """(V, cy, cx) 1 / variance, 0 there."""

    def without(self, strengths: NDArray[np.float64], frame: NDArray[np.float64]) -> None:
        """Take a frame off, where there is something."""
        for k, strength in enumerate(strengths.tolist()):
            self.values[k] -= np.where(self.weight[k] > 0, strength * frame, 0.0).astype(np.float32)


def sky_frames(
    values: Mapping[int, Sequence[NDArray[np.float32] | None]],
    errors: Mapping[int, Sequence[NDArray[np.float32] | None]],
    *,
    most: int,
) -> Frames:
    """Find up to ``most`` frames.

    Parameters
    ----------
    values, errors
        By detector, for each visit in one order: (cy, cx) cells and their standard errors, NaN where nothing
        was seen; None where a visit lacks the detector.
    """
    detectors = {n: made for n in sorted(values) if (made := _gathered(values[n], errors[n])) is not None}
    visits = max((len(each) for each in values.values()), default=0)
    found: list[tuple[dict[int, NDArray[np.float64]], dict[int, float], NDArray[np.float64]]] = []
    why: list[str] = []
    for number in range(most if visits >= _FEWEST else 0):
        strengths = _first_strengths(detectors, visits)
        if not strengths.any():
            break
        frames: dict[int, NDArray[np.float64]] = {}
        left: dict[int, float] = {}
        trusted = {n: one.weight for n, one in detectors.items()}
        for turn in range(_TURNS):
            frames, left = _frames_of(detectors, trusted, strengths)
            strengths, unit = _normalised(_strengths_of(detectors, trusted, frames, left), strengths)
            frames = {n: frame * unit for n, frame in frames.items()}
            left = {n: error * unit for n, error in left.items()}
            if turn < _TURNS - 1:
                trusted = {n: _trusted(one, strengths, frames[n]) for n, one in detectors.items()}
        better = _foretold(detectors, trusted, strengths)
        sentence = f"Sky frame {number + 1} makes hidden cells better by {better:.1f} standard errors"
        if not better > _SURE:
            why.append(f"{sentence}, less than {_SURE:g}: it was left out.")
            break
        why.append(f"{sentence}.")
        found.append((frames, left, strengths))
        for n, one in detectors.items():
            one.without(strengths, frames[n])
    return Frames(
        frames={n: np.stack([f[n] for f, _, _ in found]).astype(np.float32) for n in detectors}
        if found
        else {},
        errors={n: np.array([e[n] for _, e, _ in found]) for n in detectors} if found else {},
        strengths=np.stack([s for _, _, s in found], axis=1) if found else np.zeros((visits, 0)),
        why=tuple(why),
    )


def nodes_of(cells: NDArray[np.float64]) -> NDArray[np.float32]:
    """(cy, cx) float32 values at centres of cells: linear interpolation between them has these cells' means.

    Interpolating the means themselves would make a pattern of five cells a fifth too faint.
    """
    return _unaveraged(_unaveraged(cells.astype(np.float64)).T).T.astype(np.float32)


def _unaveraged(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the first axis: what has a mean of 1/8, 3/4, 1/8 of neighbours, and of itself beyond the ends."""
    n = len(means)
    centre = np.full(n, 0.75)
    centre[0] += 0.125
    centre[-1] += 0.125
    out = means.copy()
    # elimination of a matrix with three diagonals
    for k in range(1, n):
        share = 0.125 / centre[k - 1]
        centre[k] -= 0.125 * share
        out[k] -= share * out[k - 1]
    out[-1] /= centre[-1]
    for k in range(n - 2, -1, -1):
        out[k] = (out[k] - 0.125 * out[k + 1]) / centre[k]
    return out


def _gathered(
    values: Sequence[NDArray[np.float32] | None], errors: Sequence[NDArray[np.float32] | None]
) -> _Detector | None:
    shapes = {each.shape for each in values if each is not None}
    if len(shapes) != 1:
        return None
    shape = shapes.pop()
    value = np.zeros((len(values), *shape), np.float32)
    weight = np.zeros_like(value)
    for k, (one, error) in enumerate(zip(values, errors, strict=True)):
        if one is None or error is None:
            continue
        seen = np.isfinite(one) & np.isfinite(error) & (error > 0)
        value[k] = np.where(seen, one, 0.0)
        weight[k] = np.where(seen, 1 / np.where(seen, error, 1.0) ** 2, 0.0)
    return _Detector(value, weight) if weight.any() else None


def _first_strengths(detectors: Mapping[int, _Detector], visits: int) -> NDArray[np.float64]:
    """The pattern of strengths that visits have most in common; 0 where they have nothing."""
    common = np.zeros((visits, visits))
    for one in detectors.values():
        whitened = one.values * np.sqrt(one.weight)
        capped = np.clip(whitened, -_CUT, _CUT).reshape(visits, -1).astype(np.float64)
        for v in range(visits):
            for u in range(v):
                common[v, u] += float(np.sum(capped[v] * capped[u]))
    common += common.T
    # noise is in the diagonal alone, which is left out; a shift makes the largest eigenvalue the first
    shift = float(np.max(np.sum(np.abs(common), axis=1), initial=0.0))
    if shift == 0:
        return np.zeros(visits)
    strengths = np.ones(visits)
    for _ in range(_POWER_STEPS):
        strengths = np.einsum("vu,u->v", common, strengths) + shift * strengths
        strengths /= math.sqrt(float(np.sum(strengths**2)) / visits)
    return strengths


def _frames_of(
    detectors: Mapping[int, _Detector],
    trusted: Mapping[int, NDArray[np.float32]],
    strengths: NDArray[np.float64],
) -> tuple[dict[int, NDArray[np.float64]], dict[int, float]]:
    """Posterior means of the frames at known strengths, and rms of what is not known of them."""
    halves = np.arange(len(strengths)) % 2 == 0
    frames, left = {}, {}
    for n, one in detectors.items():
        value, variance = _mean(one.values, trusted[n], strengths)
        seen = np.isfinite(variance)
        (first, first_variance), (second, second_variance) = (
            _mean(one.values[half], trusted[n][half], strengths[half]) for half in (halves, ~halves)
        )
        both = np.isfinite(first_variance) & np.isfinite(second_variance)
        if both.sum() < 16:
            frames[n], left[n] = np.zeros(seen.shape), 0.0
            continue
        # errors as halves differ, which neighbours' undetected sources and clouds of faint light add to
        apart = (first - second)[both] / np.sqrt(first_variance + second_variance)[both]
        wider = max(1.0, (1.4826 * float(np.median(np.abs(apart)))) ** 2)
        noise = wider * 0.5 * float(np.median((first_variance + second_variance)[both]))
        prior = prior_of(first, second, both, noise)
        frames[n] = posterior(value, wider * variance, seen, prior)
        left[n] = math.sqrt(prior.left(wider * float(np.median(variance[seen]))))
    return frames, left


def _mean(
    values: NDArray[np.float32], weight: NDArray[np.float32], strengths: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least squares of a frame, and its variance; infinite where nothing was seen."""
    total, square = np.zeros(values.shape[1:]), np.zeros(values.shape[1:])
    for value, w, strength in zip(values, weight, strengths, strict=True):
        total += strength * w * value
        square += strength**2 * w
    seen = square > 0
    return np.where(seen, total / np.where(seen, square, 1.0), 0.0), np.where(
        seen, 1 / np.where(seen, square, 1.0), np.inf
    )


def _strengths_of(
    detectors: Mapping[int, _Detector],
    trusted: Mapping[int, NDArray[np.float32]],
    frames: Mapping[int, NDArray[np.float64]],
    left: Mapping[int, float],
) -> NDArray[np.float64]:
    """Strength of each visit; what is not known of the frames keeps them from being too large."""
    visits = len(next(iter(detectors.values())).values)
    total, square = np.zeros(visits), np.zeros(visits)
    for n, one in detectors.items():
        for v in range(visits):
            w = trusted[n][v]
            total[v] += float(np.sum(w * one.values[v] * frames[n], dtype=np.float64))
            square[v] += float(np.sum(w * (frames[n] ** 2 + left[n] ** 2), dtype=np.float64))
    return np.where(square > 0, total / np.where(square > 0, square, 1.0), 0.0)


def _normalised(
    strengths: NDArray[np.float64], before: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Strengths of median size 1 and what they were divided by; the old ones where all are 0."""
    present = np.abs(strengths[strengths != 0])
    if not present.size:
        return before, 1.0
    unit = float(np.median(present))
    unit = unit if float(np.sum(strengths)) >= 0 else -unit
    return strengths / unit, unit


def _trusted(
    one: _Detector, strengths: NDArray[np.float64], frame: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Weights without cells that lie far from the model, such as those with light that nobody masked."""
    weight = np.empty_like(one.weight)
    for v, strength in enumerate(strengths):
        pull = (one.values[v] - strength * frame) * np.sqrt(one.weight[v])
        there = one.weight[v] > 0
        wide = max(1.0, 1.4826 * float(np.median(np.abs(pull[there])))) if there.any() else 1.0
        t = np.minimum(np.abs(pull) / (_CUT * wide), 1.0)
        weight[v] = one.weight[v] * (1 - t * t) ** 2
    return weight


def _foretold(
    detectors: Mapping[int, _Detector],
    trusted: Mapping[int, NDArray[np.float32]],
    strengths: NDArray[np.float64],
) -> float:
    """By how many standard errors a frame of the other visits makes a visit's hidden cells better.

    A half of the visits makes the frame; in each of the other half, blocks like one colour of a chessboard
    tell its strength, and the others are foretold. Standard errors are as visits and detectors scatter.
    """
    halves = np.arange(len(strengths)) % 2 == 0
    gains: list[list[float]] = []
    for makes in (halves, ~halves):
        made = {n: _Detector(one.values[makes], one.weight[makes]) for n, one in detectors.items()}
        if int(makes.sum()) < 2:
            continue
        frames, _ = _frames_of(made, {n: trusted[n][makes] for n in made}, strengths[makes])
        gains += [_gain_of_visit(detectors, trusted, frames, v) for v in np.flatnonzero(~makes).tolist()]
    each = np.array([gain for visit in gains for gain in visit])
    if len(each) < 2:
        return 0.0
    error = float(np.std(each)) / math.sqrt(len(each) - 1)
    return float(np.mean(each)) / error if error > 0 else 0.0


def _gain_of_visit(
    detectors: Mapping[int, _Detector],
    trusted: Mapping[int, NDArray[np.float32]],
    frames: Mapping[int, NDArray[np.float64]],
    v: int,
) -> list[float]:
    """By detector, how much the mean square of capped pulls of hidden cells falls."""
    total = square = 0.0
    for n, one in detectors.items():
        seen = _chessboard(one.values.shape[1:])
        w = np.where(seen, trusted[n][v], 0.0)
        total += float(np.sum(w * one.values[v] * frames[n], dtype=np.float64))
        square += float(np.sum(w * frames[n] ** 2, dtype=np.float64))
    strength = total / square if square > 0 else 0.0
    gains = []
    for n, one in detectors.items():
        judged = ~_chessboard(one.values.shape[1:]) & (one.weight[v] > 0)
        if not judged.any():
            continue
        sigma = np.sqrt(one.weight[v])
        before = np.minimum((one.values[v] * sigma) ** 2, _CAPPED)
        after = np.minimum(((one.values[v] - strength * frames[n]) * sigma) ** 2, _CAPPED)
        gains.append(float(np.mean((before - after)[judged])))
    return gains


def _chessboard(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]] // _BLOCK
    black: NDArray[np.bool_] = (y + x) % 2 == 0
    return black
