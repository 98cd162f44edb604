"""Two-dimensional Chebyshev polynomials of limited total degree: basis, weighted fit, covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ChebyshevFit",
    "degrees",
    "design_matrix",
    "fit_chebyshev",
    "power_coefficients",
    "supported_order",
]

WORST_CONDITION = 1e6
"""Above this condition number of the weighted design a fit's high terms are noise."""


@dataclass(frozen=True, eq=False)
class ChebyshevFit:
    """Coefficients of a fit and their covariance, terms in afw's order."""

    coefficients: NDArray[np.float64]
    """(n_terms,) float64, unit of the values."""
    covariance: NDArray[np.float64]
    """(n_terms, n_terms) float64, unit squared; see `fit_chebyshev`."""
    chi2_per_freedom: float
    """Mean squared residual in units of the errors per degree of freedom; NaN where none is left."""


def degrees(order: int) -> list[tuple[int, int]]:
    """Degrees (in x, in y) of each term: by total degree, and within one by falling degree in x."""
    return [(total - q, q) for total in range(order + 1) for q in range(total + 1)]


def design_matrix(
    x: NDArray[np.float64], y: NDArray[np.float64], *, shape: tuple[int, int], order: int
) -> NDArray[np.float64]:
    """Terms of total degree ``order`` at points of an image of ``shape`` (ny, nx).

    Parameters
    ----------
    x, y
        (n,) float64, pixel; the centre of pixel 0 is 0. The domain is the image with its outer half
        pixels, [-0.5, n - 0.5], so that x' = (2 x - nx + 1) / nx.

    Returns
    -------
    matrix
        (n, n_terms) float64, T_p(x') T_q(y') in the order of `degrees`.
    """
    ny, nx = shape
    tx = _chebyshev_values((2 * x - nx + 1) / nx, order)
    ty = _chebyshev_values((2 * y - ny + 1) / ny, order)
    return np.stack([tx[p] * ty[q] for p, q in degrees(order)], axis=-1)


def supported_order(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    shape: tuple[int, int],
    order: int,
) -> int:
    """Highest order, ``order`` at most, that the usable superpixels at ``x``, ``y`` (n,) determine.

    An order is held when there are as many superpixels as terms, more distinct rows and columns than
    its degree, and the weighted design is not degenerate. Returns -1 where there is no superpixel.
    """
    n = len(x)
    if n == 0:
        return -1
    columns, rows = len(np.unique(x)), len(np.unique(y))
    for tried in range(min(order, columns - 1, rows - 1), 0, -1):
        if n < len(degrees(tried)):
            continue
        matrix = design_matrix(x, y, shape=shape, order=tried)
        if np.linalg.cond(matrix * np.sqrt(weights / weights.max())[:, None]) <= WORST_CONDITION:
            return tried
    return 0


def fit_chebyshev(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    shape: tuple[int, int],
    order: int,
) -> ChebyshevFit:
    """Weighted least squares: minimise sum w (v - sum c T)^2 by the normal equations, as afw does.

    Parameters
    ----------
    x, y
        (n,) float64, pixel; centres of the usable superpixels.
    values, errors
        (n,) float64; values and their standard errors, which enter the covariance alone.
    weights
        (n,) float64, positive; weight of a squared residual.

    Returns
    -------
    fit
        The covariance is (A^-1) (M^T W S W M) (A^-1) with A = M^T W M and S the squared errors,
        multiplied by chi2_per_freedom where that is above 1: superpixels scatter more than their
        pixel noise says when faint sources are left in them.
    """
    # the scale of the weights cancels; taking it out keeps images of 1e15 or 1e-20 within range
    w = weights / np.max(weights)
    matrix = design_matrix(x, y, shape=shape, order=order)
    weighted = matrix * w[:, None]
    # einsum rather than BLAS: its sums do not depend on the number of threads
    normal = np.einsum("ki,kj->ij", weighted, matrix)
    coefficients = np.linalg.solve(normal, np.einsum("ki,k->i", weighted, values))
    scale = np.max(errors, initial=0.0, where=np.isfinite(errors)) or 1.0
    relative = np.where(np.isfinite(errors), errors / scale, 0.0)
    noisy = weighted * relative[:, None]
    inverse = np.linalg.inv(normal)
    covariance = inverse @ np.einsum("ki,kj->ij", noisy, noisy) @ inverse
    freedom = int(np.count_nonzero(relative > 0)) - matrix.shape[1]
    chi2 = np.nan
    if freedom > 0:
        pulls = (
            (values - np.einsum("ki,i->k", matrix, coefficients))[relative > 0]
            / scale
            / relative[relative > 0]
        )
        chi2 = float(np.sum(pulls**2) / freedom)
        covariance *= max(1.0, chi2)
    return ChebyshevFit(
        coefficients=coefficients, covariance=covariance * scale * scale, chi2_per_freedom=chi2
    )


def power_coefficients(coefficients: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Monomial coefficients [q, p] of x'^p y'^q, (order + 1, order + 1) float64, for Horner's rule."""
    table = np.zeros((order + 1, order + 1))
    for value, (p, q) in zip(coefficients, degrees(order), strict=True):
        table[q, p] = value
    to_power = np.zeros((order + 1, order + 1))
    for n in range(order + 1):
        series = np.zeros(n + 1)
        series[n] = 1.0
        to_power[n, : n + 1] = np.polynomial.chebyshev.cheb2poly(series)
    return np.einsum("qp,pi,qj->ji", table, to_power, to_power)


def _chebyshev_values(x: NDArray[np.float64], order: int) -> list[NDArray[np.float64]]:
    values = [np.ones_like(x), x]
    while len(values) <= order:
        values.append(2 * x * values[-1] - values[-2])
    return values[: order + 1]
