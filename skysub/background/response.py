"""How much of the light in its superpixels a background's fit takes for sky.

A fit is linear in the values of its superpixels once their weights are given: coefficients c = C A^T W v,
with A the polynomial's terms at the centres, W the weights, and C the inverse of A^T W A plus the prior. A
`Background` keeps values and errors and not how the fit came to weigh them, so it is fit anew by each of the
ways in which fits are made, and the one that gives the same model is the one that was used.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import design_matrix, gram
from skysub.background.model import fit_statistics
from skysub.background.robust import TRACE, RobustConfig, fit_robust
from skysub.errors import NoUsableSuperpixelsError, UndersampledError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from skysub.background.model import Background
    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["Response", "find_response"]

_SAME = 1e-6
"""Rms by which two models differ, over the model's uncertainty, up to which they are the same."""


@dataclasses.dataclass(frozen=True, eq=False)
class Response:
    """What light in superpixels does to the model that was fit to them."""

    order: int
    """Total degree of the polynomial; -1 for a spline, whose coefficients are the superpixels' values."""
    shape: tuple[int, int]
    """(ny, nx) of the image, pixel."""
    matrix: NDArray[np.float64]
    """(n_terms, gy * gx) float64: change of the coefficients for one unit of light in each superpixel."""
    apart: float
    """Rms by which the fit that the matrix is of differs from the background, over its uncertainty: near 0
    where it is the very fit."""
    grid: SuperpixelGrid | None = None
    """Of a spline: its nodes are the centres of superpixels."""

    def change(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Change of the coefficients (n_terms,) for light ``values`` (gy * gx) in the superpixels."""
        lit = np.nonzero(values)[0]
        change: NDArray[np.float64] = np.einsum("tk,k->t", self.matrix[:, lit], values[lit])
        return change

    def terms(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Terms (n, n_terms) of the model at places (n,), pixel; of a spline linear between its nodes."""
        if self.grid is not None:
            rows, columns = (_between(*each) for each in ((self.grid.y_centers, y), (self.grid.x_centers, x)))
            return (rows[:, :, None] * columns[:, None, :]).reshape(len(x), -1)
        return design_matrix(x, y, shape=self.shape, order=self.order)


def find_response(background: Background, robust: RobustConfig | None = None) -> Response:
    """Response of the fit that a background is of.

    Where no way of fitting these superpixels gives the background, as when other detectors helped to fit it,
    the nearest one is taken, and its response is less by as much as the background is more certain.

    Parameters
    ----------
    background
        One layer: of several that were fit one after the other the last, which was fit to what the others
        left and so, polynomials being what they are, stands for all of them.
    robust
        Settings of robust fits.
    """
    grid, shape = background.grid, background.shape
    if background.is_spline:
        through = np.diag(background.usable.ravel().astype(np.float64))
        return Response(order=-1, shape=shape, matrix=through, apart=0.0, grid=grid)
    y, x = (c.ravel() for c in np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij"))
    given = _values(background, x, y)
    spread = np.sqrt(np.maximum(_variances(background, x, y), 0))
    scale = float(np.sqrt(np.mean(spread**2))) or 1.0
    best: tuple[float, Background, NDArray[np.float64]] | None = None
    for model, matrix in _ways(background, robust or RobustConfig()):
        off = _values(model, x, y) - given
        # corrections of the level are no part of the fit
        apart = float(np.std(off)) / scale
        if best is None or apart < best[0]:
            best = apart, model, matrix
        if apart < _SAME:
            break
    if best is None:
        return Response(order=0, shape=shape, matrix=np.zeros((1, len(x))), apart=np.inf)
    apart, model, matrix = best
    if apart > 1:
        own = float(np.sqrt(np.mean(np.maximum(_variances(model, x, y), 0))))
        matrix = matrix * min(1.0, (scale / own) ** 2 if own > 0 else 1.0)
    return Response(order=model.order, shape=shape, matrix=matrix, apart=apart)


def _between(nodes: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (n, nodes) of linear interpolation, constant beyond the outermost nodes."""
    weights = np.zeros((len(places), len(nodes)))
    k = np.clip(np.searchsorted(nodes, places) - 1, 0, max(0, len(nodes) - 2))
    each = np.arange(len(places))
    if len(nodes) == 1:
        weights[:, 0] = 1.0
        return weights
    share = np.clip((places - nodes[k]) / (nodes[k + 1] - nodes[k]), 0, 1)
    weights[each, k], weights[each, k + 1] = 1 - share, share
    return weights


def _ways(background: Background, robust: RobustConfig) -> Iterator[tuple[Background, NDArray[np.float64]]]:
    """Fits of the same superpixels, and what each makes of their values."""
    grid, statistics, config = background.grid, background.statistics, background.config
    config = dataclasses.replace(config, undersampled="reduce")
    try:
        plain = fit_statistics(grid, statistics, config)
    except (NoUsableSuperpixelsError, UndersampledError):
        return
    yield plain, _plain_matrix(plain)
    used = np.where(background.usable, statistics.mean, np.float32(np.nan))
    trusted = dataclasses.replace(statistics, mean=used)
    for values, light, believed in (
        (statistics, 0.0, False),
        (statistics, TRACE, False),
        (statistics, 1.0, False),
        (trusted, 0.0, True),
    ):
        try:
            fit = fit_robust(grid, values, config, robust, light=light, believed=believed)
        except NoUsableSuperpixelsError:
            continue
        model = fit.background
        errors = statistics.error.astype(np.float64)
        if not (model.usable & (errors > 0)).any():
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(fit.weights > 0, fit.weights / errors**2, 0.0).ravel()
        weights[~np.isfinite(weights)] = 0.0
        terms = _terms(model)
        inverse = model.covariance / fit.inflation
        # errors were enlarged by one factor for all; it is told by the coefficients that the data determine
        enlarged = float(np.einsum("ij,ji->", inverse, gram(terms, weights))) / max(fit.freedom, 1e-12)
        yield model, np.einsum("st,kt,k->sk", inverse, terms, weights) / max(enlarged, 1e-300)


def _plain_matrix(model: Background) -> NDArray[np.float64]:
    """Of weighted least squares, weights as `fit_statistics` has them."""
    errors = model.statistics.error.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = 1 / errors if model.config.weighting else np.ones_like(errors)
    weights = np.where(model.usable & np.isfinite(weights), weights, 0.0).ravel()
    weights /= weights.max()
    terms = _terms(model)
    return np.linalg.solve(gram(terms, weights), terms.T * weights).astype(np.float64, copy=False)


def _terms(model: Background) -> NDArray[np.float64]:
    y, x = (c.ravel() for c in np.meshgrid(model.grid.y_centers, model.grid.x_centers, indexing="ij"))
    return design_matrix(x, y, shape=model.shape, order=model.order)


def _values(model: Background, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    terms = design_matrix(x, y, shape=model.shape, order=model.order)
    values: NDArray[np.float64] = np.einsum("kt,t->k", terms, model.coefficients)
    return values


def _variances(model: Background, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    terms = design_matrix(x, y, shape=model.shape, order=model.order)
    variances: NDArray[np.float64] = np.einsum("ks,st,kt->k", terms, model.covariance, terms)
    return variances
