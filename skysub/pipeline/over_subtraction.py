"""Light of a source that the background has taken with it, predicted from the sizes of all sources.

What a mask leaves of a source raises the superpixels that it lies in, and the fit follows as far as its
polynomial, its weights and its prior let it (`skysub.background.response`). What all sources together raise
the model by within the circle of one of them is light that this one has lost. Profiles that fall off
exponentially stand for the sources. What the fit has left in the superpixels is held against what these
profiles would leave there: a source that was taken for larger than it is loses the light that is not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.response import Response, find_response
from skysub.errors import ConfigError
from skysub.pipeline.source_sizes import HALF_LIGHT
from skysub.visit.calibrated import layers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.model import Background
    from skysub.visit.calibrated import SkyModel

__all__ = ["Losses", "OverSubtractionConfig", "predict_losses"]

_BLOCK = 8
"""Edge of the blocks in which profiles and the mask are sampled, pixel."""
_REACH = 8.0
"""Half-light radii beyond which an exponential profile holds no light to speak of."""
_PLACES = 15
"""Points along an axis of a source's circle at which the model's rise is looked at."""
_MOST = 400
"""Sources whose light is followed: the brightest of the large ones."""
_OWN = 3.0
"""Half-light radii within which light is a source's own."""
_MOST_LOST = 0.95
"""No larger loss is believed."""
_TRUSTED = 0.3
"""Relative standard deviation of the light that sources' profiles leave outside the mask."""
_SWEEPS = 30
"""Of the solution for that light."""


@dataclass(frozen=True, slots=True)
class OverSubtractionConfig:
    """When a source is flagged.

    Parameters
    ----------
    loss
        Share of its light that a source has to have lost.
    radii
        Half-light radii within which light counts as the source's.
    smallest
        Half-light radius below which nothing is predicted, pixel: the mask holds such sources whole.
    """

    loss: float = 0.05
    radii: float = 4.0
    smallest: float = 4.0

    def __post_init__(self) -> None:
        for name in ("loss", "radii", "smallest"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be a positive number, not {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class Losses:
    """Predictions for sources, (n,) each."""

    loss: NDArray[np.float64]
    """Share of the light that the fit has taken; NaN where flux, size or place is not known."""
    error: NDArray[np.float64]
    """Standard deviation of the share that the background's own uncertainty adds or takes."""
    flag: NDArray[np.bool_]

    def columns(self) -> dict[str, NDArray[np.float64] | NDArray[np.bool_]]:
        """By the names of ``source``."""
        return {
            "overSubtraction_loss": self.loss,
            "overSubtraction_lossErr": self.error,
            "overSubtraction_flag": self.flag,
        }


def predict_losses(
    background: SkyModel,
    left_out: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    flux: NDArray[np.float64],
    radius: NDArray[np.float64],
    core: NDArray[np.float64],
    config: OverSubtractionConfig | None = None,
) -> Losses:
    """Predict what sources have lost to the background.

    Parameters
    ----------
    background
        What was subtracted; of several layers the last answers for all, of one in parts its polynomial.
    left_out
        (ny, nx) bool: pixels that the fit did not see, those of sources above all.
    x, y, flux, radius, core
        (n,): centres (pixel), fluxes before the loss (unit of the background times pixels), half-light radii
        (pixel), and fluxes of the cores, by which it is told whose light the apertures of neighbours hold.
    """
    config = config or OverSubtractionConfig()
    n = len(x)
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(radius) & (flux > 0)
    loss, error = np.full(n, np.nan), np.full(n, np.nan)
    layers = layers_of(background)
    if not n or not layers:
        return Losses(loss=loss, error=error, flag=np.zeros(n, bool))
    last = _followed(layers[-1])
    ny, nx = last.shape
    area = np.minimum(math.pi * (config.radii * np.maximum(radius, 1.0)) ** 2, ny * nx)
    at_x = np.clip(np.nan_to_num(x).astype(np.int64), 0, nx - 1)
    at_y = np.clip(np.nan_to_num(y).astype(np.int64), 0, ny - 1)
    deviation = background.uncertainty()[at_y, at_x].astype(np.float64)
    large = _apart(x, y, core, radius, np.nonzero(known & (radius >= config.smallest))[0])
    loss[known], error[known] = 0.0, (area * deviation)[known] / flux[known]
    if not len(large):
        return Losses(loss=loss, error=error, flag=np.zeros(n, bool))
    blocks = _Blocks.of(left_out, last.grid.y_edges, last.grid.x_edges)
    response = find_response(last)
    units = np.stack([blocks.light(float(x[k]), float(y[k]), float(radius[k])) for k in large], axis=1)
    rises = np.stack([response.change(units[:, k]) for k in range(len(large))], axis=1)
    within = np.stack(
        [_within(response, float(x[k]), float(y[k]), config.radii * float(radius[k])) for k in large]
    )
    flux_seen = _light_seen(last, units, rises, response, flux[large])
    rise = np.einsum("tk,k->t", rises, flux_seen)
    others = known.copy()
    others[large] = False
    terms = response.terms(x[others], y[others])
    lost_by_others = area[others] * np.einsum("nt,t->n", terms, rise)
    loss[others] = lost_by_others / np.maximum(flux[others] + lost_by_others, flux[others] / 2)
    loss[large] = np.einsum("jt,t->j", within, rise) / flux[large]
    np.clip(loss, -1.0, _MOST_LOST, out=loss, where=known)
    return Losses(loss=loss, error=error, flag=known & (loss > config.loss))


def _followed(layer: Any) -> Background:
    """The part of a layer that follows superpixels, without steps between amplifiers."""
    smooth = getattr(layer, "smooth", layer)
    followed: Background = smooth() if callable(smooth) else smooth
    return followed


def _apart(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    core: NDArray[np.float64],
    radius: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sources with the brightest cores, without those whose apertures are full of another one's light.

    What the apertures of a galaxy's knots and satellites hold is the galaxy's light once more.
    """
    kept: list[int] = []
    for k in chosen[np.argsort(-core[chosen], kind="stable")]:
        others = np.array(kept, np.int64)
        if not (np.hypot(x[others] - x[k], y[others] - y[k]) < _OWN * radius[others]).any():
            kept.append(int(k))
            if len(kept) == _MOST:
                break
    return np.array(kept, np.int64)


def _light_seen(
    layer: Background,
    units: NDArray[np.float64],
    rises: NDArray[np.float64],
    response: Response,
    flux: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Fluxes (m,) of profiles by the light that the fit has left in its superpixels.

    They have a normal prior about the measured ones and are not negative. Coordinate descent in a given order
    has always the same bits.
    """
    grid, statistics = layer.grid, layer.statistics
    y, x = (c.ravel() for c in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    terms = response.terms(x, y)
    design = (units - np.einsum("kt,tm->km", terms, rises)) * flux
    if layer.is_spline:
        # it goes through its superpixels, and leaves nothing to judge by
        return flux
    left = statistics.mean.ravel() - np.einsum("kt,t->k", terms, layer.coefficients)
    errors = statistics.error.ravel().astype(np.float64)
    seen = np.isfinite(left) & np.isfinite(errors) & (errors > 0) & (statistics.count.ravel() > 0)
    if not seen.any():
        return flux
    design, left = design[seen], left[seen]
    # the level is corrected after a fit, and light of undetected sources scatters beyond the errors
    left -= np.median(left)
    scatter = max(1.0, 1.4826 * float(np.median(np.abs(left / errors[seen]))))
    weights = 1 / (scatter * errors[seen]) ** 2
    curvature = np.einsum("km,k->m", design**2, weights) + 1 / _TRUSTED**2
    shares = np.ones(len(flux))
    residual = left - np.einsum("km->k", design)
    for _ in range(_SWEEPS):
        for m in range(len(flux)):
            pull = float(np.einsum("k,k,k->", design[:, m], weights, residual))
            pull -= (shares[m] - 1) / _TRUSTED**2
            moved = max(0.0, float(shares[m]) + pull / float(curvature[m]))
            residual -= (moved - shares[m]) * design[:, m]
            shares[m] = moved
    return flux * shares


def _within(response: Response, x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Integrals (n_terms,) of the model's terms over a circle, as far as it lies on the detector."""
    ny, nx = response.shape
    ticks = (np.arange(_PLACES) + 0.5) / _PLACES * 2 - 1
    v, u = (a.ravel() for a in np.meshgrid(ticks, ticks, indexing="ij"))
    px, py = x + u * radius, y + v * radius
    inside = (np.hypot(u, v) <= 1) & (px >= -0.5) & (px <= nx - 0.5) & (py >= -0.5) & (py <= ny - 0.5)
    terms = response.terms(px[inside], py[inside])
    integrals: NDArray[np.float64] = terms.sum(axis=0) * (2 * radius / _PLACES) ** 2
    return integrals


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The pixels that the fit saw, in blocks."""

    seen: NDArray[np.float64]
    """(by, bx): share of each block's pixels."""
    superpixel: NDArray[np.int64]
    """(by, bx): index of the superpixel that a block's centre lies in."""
    weight: NDArray[np.float64]
    """(gy * gx): blocks' worth of pixels seen in each superpixel."""

    @classmethod
    def of(
        cls, left_out: NDArray[np.bool_], y_edges: NDArray[np.int64], x_edges: NDArray[np.int64]
    ) -> _Blocks:
        ny, nx = left_out.shape
        y_starts, x_starts = np.arange(0, ny, _BLOCK), np.arange(0, nx, _BLOCK)
        hidden = np.add.reduceat(
            np.add.reduceat(left_out.view(np.uint8), y_starts, axis=0, dtype=np.int32), x_starts, axis=1
        )
        sizes = np.outer(np.diff(np.append(y_starts, ny)), np.diff(np.append(x_starts, nx)))
        seen = 1 - hidden / sizes
        y, x = y_starts + (_BLOCK - 1) / 2, x_starts + (_BLOCK - 1) / 2
        row = np.clip(np.searchsorted(y_edges, y, side="right") - 1, 0, len(y_edges) - 2)
        column = np.clip(np.searchsorted(x_edges, x, side="right") - 1, 0, len(x_edges) - 2)
        gx = len(x_edges) - 1
        superpixel = row[:, None] * gx + column[None, :]
        cells = (len(y_edges) - 1) * gx
        weight = np.bincount(superpixel.ravel(), weights=seen.ravel(), minlength=cells).astype(np.float64)
        return cls(seen=seen, superpixel=superpixel, weight=weight)

    def light(self, x: float, y: float, radius: float) -> NDArray[np.float64]:
        """Mean light (gy * gx) that a source of flux 1 leaves in the pixels seen of each superpixel."""
        by, bx = self.seen.shape
        reach = _REACH * radius
        rows = slice(max(0, int((y - reach) // _BLOCK)), min(by, int((y + reach) // _BLOCK) + 1))
        columns = slice(max(0, int((x - reach) // _BLOCK)), min(bx, int((x + reach) // _BLOCK) + 1))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return np.zeros_like(self.weight)
        block_y = np.arange(rows.start, rows.stop) * _BLOCK + (_BLOCK - 1) / 2 - y
        block_x = np.arange(columns.start, columns.stop) * _BLOCK + (_BLOCK - 1) / 2 - x
        scale = radius / HALF_LIGHT
        light = np.exp(-np.hypot(block_y[:, None], block_x[None, :]) / scale) / (2 * math.pi * scale**2)
        seen = self.seen[rows, columns]
        where = self.superpixel[rows, columns]
        values = np.bincount(where.ravel(), weights=(light * seen).ravel(), minlength=len(self.weight))
        mean: NDArray[np.float64] = np.zeros_like(values)
        return np.divide(values, self.weight, out=mean, where=self.weight > 0)
