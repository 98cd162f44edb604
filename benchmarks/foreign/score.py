"""How far a model lies from the true sky of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import skysub

if TYPE_CHECKING:
    from foreign.methods import Answer
    from foreign.scenes import Scene

__all__ = ["Score", "cells_of", "score", "unfollowed"]

CELL = 128
"""Edge of the cells that errors are averaged in, pixel."""
_LEAST_GOOD = 0.5
"""Share of a cell's pixels without defects below which it is not scored."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Figures of one method on one scene; e- per pixel, NaN where a figure does not apply."""

    sigma: float
    """Noise of a pixel, e-."""
    rms: float
    """Of the cells' errors about their mean."""
    largest: float
    """Largest absolute error of a cell about the mean."""
    level_t1: float
    """Mean error against the sky alone."""
    level_t2: float
    """Mean error against the sky and the light of undetected sources."""
    pull: float
    """Standard deviation of the cells' errors (T2), about their mean, over the model's own uncertainty."""
    level_pull: float
    """Mean error (T2) over the median uncertainty."""
    masked: float
    """Share of pixels left out as sources."""
    lost: float
    """Light of the large object that the model takes within 2 half-light radii, % of it there."""
    cirrus: float
    """Power of the cirrus left after subtraction over its power, on scales of up to 2 arcmin."""
    flags: tuple[str, ...]

    def by_noise(self, name: str) -> float:
        """A figure in units of the noise per pixel."""
        return float(getattr(self, name)) / self.sigma


def score(scene: Scene, answer: Answer) -> Score:
    """Score a model against the truth of its scene."""
    good = ~scene.defects
    error = answer.model.astype(np.float32) * np.float32(scene.electrons) - scene.sky
    undetected = float(scene.undetected[good].mean())
    cells = cells_of(error, good)
    known = np.isfinite(cells)
    mean = float(error[good].mean(dtype=np.float64))
    about = cells[known] - cells[known].mean()
    pull = level_pull = float("nan")
    if answer.uncertainty is not None:
        own = cells_of(answer.uncertainty * np.float32(scene.electrons), good)[known]
        pulls = (cells[known] - undetected) / own
        # about the mean error rather than the mean pull: a level shared by all cells is scored apart
        pull = float(np.sqrt(np.mean((about / own) ** 2))) if np.isfinite(pulls).all() else float("nan")
        level_pull = (mean - undetected) / float(np.median(own))
    is_cirrus = scene.kind.cirrus is not None
    return Score(
        sigma=scene.sigma,
        rms=float(np.sqrt(np.mean(about**2))),
        largest=float(np.max(np.abs(about))),
        level_t1=mean,
        level_t2=mean - undetected,
        pull=pull,
        level_pull=level_pull,
        masked=answer.masked,
        lost=_lost(scene, error) if scene.target is not None and not is_cirrus else float("nan"),
        cirrus=_cirrus_kept(scene, error) if is_cirrus else float("nan"),
        flags=answer.flags,
    )


def cells_of(plane: np.ndarray, good: np.ndarray) -> np.ndarray:
    """(gy, gx) float64 means over cells of about 128 pixels; NaN where too few pixels are good."""
    ny, nx = plane.shape
    y = np.linspace(0, ny, max(1, round(ny / CELL)) + 1).astype(int)[:-1]
    x = np.linspace(0, nx, max(1, round(nx / CELL)) + 1).astype(int)[:-1]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, x, axis=1, dtype=np.float64), y, axis=0)

    number, size = summed(good), summed(np.ones_like(good))
    total = summed(np.where(good, plane, 0))
    return np.where(number > _LEAST_GOOD * size, total / np.maximum(number, 1), np.nan)


def unfollowed(scene: Scene) -> float:
    """Rms over cells, e-, by which a polynomial of order 6 misses the true sky when nothing else is there."""
    found = skysub.fit_background(scene.sky, scene.defects, skysub.BackgroundConfig(weighting=False))
    cells = cells_of(found.evaluate() - scene.sky, ~scene.defects)
    return float(np.nanstd(cells))


def _lost(scene: Scene, error: np.ndarray) -> float:
    """Sum of the error within 2 half-light radii, above the mean error far away, over the light there.

    Far away is beyond 4 radii, or the farthest tenth of the pixels.
    """
    facts = scene.facts
    y, x = np.ogrid[: error.shape[0], : error.shape[1]]
    distance = np.hypot(y - facts["y"], x - facts["x"]).astype(np.float32)
    inside = distance < 2 * facts["radius"]
    far = distance > min(4 * facts["radius"], float(np.quantile(distance, 0.9)))
    reference = float(error[far & ~scene.defects].mean(dtype=np.float64))
    taken = float(np.sum(error[inside] - reference, dtype=np.float64))
    return 100 * taken / float(scene.target[inside].sum(dtype=np.float64))


def _cirrus_kept(scene: Scene, error: np.ndarray) -> float:
    size = 16
    ny, nx = (n // size * size for n in error.shape)

    def power(plane: np.ndarray) -> float:
        small = (
            plane[:ny, :nx].reshape(ny // size, size, nx // size, size).mean(axis=(1, 3), dtype=np.float64)
        )
        window = np.hanning(ny // size)[:, None] * np.hanning(nx // size)
        spectrum = np.abs(np.fft.fft2((small - small.mean()) * window)) ** 2
        k = np.hypot(np.fft.fftfreq(ny // size, size)[:, None], np.fft.fftfreq(nx // size, size))
        return float(spectrum[k >= scene.kind.pixel / 120].sum())

    return power(scene.target - error) / power(scene.target)
