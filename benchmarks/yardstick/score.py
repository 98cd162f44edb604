"""How complete, pure and right the sources of a method are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from yardstick.cases import Case
    from yardstick.methods import Answer

__all__ = ["GALAXY_BINS", "HEAD", "STAR_BINS", "Detections", "cells_of", "found_of"]

NEAR, EDGE = 2.5, 20
"""Distance of a source from a true one that it is, and width of the edge that is not looked at, pixel."""
STAR_BINS = ((1, 1.4), (1.4, 2.5), (2.5, 5))
GALAXY_BINS = ((3, 6), (6, 20), (20, 100))
HEAD = (
    "scene",
    "method",
    "pure",
    *(f"stars {a}-{b}" for a, b in STAR_BINS),
    *(f"galaxies {a}-{b}" for a, b in GALAXY_BINS),
    "bias %",
    "flux pull",
    "x pull",
    *(f"Kron {a}-{b}" for a, b in GALAXY_BINS),
    "sky / sigma",
    "s per 16 Mpx",
    "settings",
)


@dataclass(frozen=True)
class Detections:
    """Which true sources were found, and how many of the found are true."""

    match: np.ndarray
    """Index of the source that each true one is matched to, or -1."""
    true: np.ndarray
    """(n,) bool: whether a source of the method has a true one near by."""
    inside: np.ndarray
    """(n,) bool: whether it is far enough from the edge to be judged."""
    seen: np.ndarray
    """Whether a true source is."""
    shares: tuple[float, ...]
    """Found shares by bins of stars, then of galaxies; NaN where there are none."""

    @property
    def purity(self) -> float:
        return float(self.true[self.inside].mean()) if self.inside.any() else float("nan")

    @property
    def completeness(self) -> float:
        return float(np.nanmean(self.shares))


def found_of(case: Case, x: np.ndarray, y: np.ndarray) -> Detections:
    """Match sources to the nearest true one, bright ones first."""
    ny, nx = case.image.shape
    column, row = (np.clip(np.rint(v), 0, n - 1).astype(int) for v, n in ((case.x, nx), (case.y, ny)))
    seen = (case.x > EDGE) & (case.x < nx - EDGE) & (case.y > EDGE) & (case.y < ny - EDGE)
    seen &= case.mask[row, column] == 0
    places = np.nan_to_num(np.column_stack([x, y]), nan=-1e3)
    inside = ((places > EDGE) & (places < (nx - EDGE, ny - EDGE))).all(axis=1)
    real = case.signal > 1
    true = cKDTree(np.column_stack([case.x, case.y])[real]).query(places)[0] < NEAR
    match = _matched(case, places)
    limits = case.signal / 5
    shares = []
    for chosen, bins in ((case.is_star, STAR_BINS), (~case.is_star, GALAXY_BINS)):
        for low, high in bins:
            these = chosen & seen & (limits >= low) & (limits < high)
            shares.append(float((match[these] >= 0).mean()) if these.any() else float("nan"))
    return Detections(match, true, inside, seen, tuple(shares))


def cells_of(case: Case, answer: Answer) -> list[str]:
    """A row of the table, after the names."""
    found = found_of(case, answer.x, answer.y)
    match, seen, limits = found.match, found.seen, case.signal / 5
    cells = [f"{found.purity:.3f}", *(f"{s:.3f}" for s in found.shares)]
    stars = case.is_star & seen & (limits >= 3) & (limits < 200) & (match >= 0)
    which = match[stars]
    true = case.flux[stars] * (1 if np.isnan(case.share) else case.share)
    ratio = answer.flux[which] / true
    if np.isnan(case.share):
        # the PSF of an image is of sum 1 over its stamp: bright stars tell which part of all light that is
        bright = limits[stars] > 20
        scale = np.median(ratio[bright]) if bright.sum() > 5 else np.median(ratio)
        true, ratio = true * scale, ratio / scale
    pull = (answer.flux[which] - true) / answer.error[which]
    moved = (answer.x[which] - case.x[stars]) / answer.x_error[which]
    cells += [f"{100 * (np.median(ratio) - 1):+.2f}", f"{_spread(pull):.2f}", f"{_spread(moved):.2f}"]
    galaxies = [
        ~case.is_star & seen & (limits >= low) & (limits < high) & (match >= 0) for low, high in GALAXY_BINS
    ]
    krons = [[_finite(kron[match[g]] / case.flux[g]) for g in galaxies] for kron in answer.krons]
    off = [np.nanmean([abs(np.median(k) - 1) if len(k) else np.nan for k in kron]) for kron in krons]
    for kron in krons[int(np.argmin(off))]:
        cells.append(f"{np.median(kron):.3f} / {np.std(np.clip(kron, 0, 2)):.2f}" if len(kron) else "-")
    return [*cells, f"{answer.sky:+.3f}", f"{answer.seconds / case.image.size * 1.6e7:.1f}", answer.settings]


def _matched(case: Case, places: np.ndarray) -> np.ndarray:
    tree, taken = cKDTree(places), np.zeros(len(places), bool)
    match = np.full(len(case.x), -1)
    bright = np.nonzero(case.signal > 2.5)[0]
    bright = bright[np.argsort(-case.flux[bright])]
    here = np.column_stack([case.x, case.y])
    for i, near in zip(bright, tree.query_ball_point(here[bright], NEAR), strict=True):
        free = [j for j in near if not taken[j]]
        if free:
            match[i] = min(free, key=lambda j, i=i: float(np.hypot(*(places[j] - here[i]))))
            taken[match[i]] = True
    return match


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _spread(values: np.ndarray) -> float:
    values = _finite(values)
    return float(np.diff(np.percentile(values, [15.87, 84.13]))[0] / 2) if len(values) else float("nan")
