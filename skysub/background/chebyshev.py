"""Two-dimensional Chebyshev polynomials of limited total degree: basis, weighted fit, covariance."""

from __future__ import annotations

import functools
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
    "gram",
    "monomial_coefficients",
]

WORST_CONDITION = 1e6
"""Above this condition number of the weighted design a fit's high terms are noise."""


@dataclass(frozen=True, eq=False)
class ChebyshevFit:
    """Coefficients of a fit and their covariance, terms in afw's order."""

    order: int
    """Total degree that was fit."""
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

    The order is the highest up to ``order`` that the points determine: as many points as terms, and a
    weighted design that is not degenerate.

    Parameters
    ----------
    x, y
        (n,) float64, pixel; centres of the usable superpixels, at least one.
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
    normal = gram(matrix, w)
    held = _determined_order(normal, len(x), order)
    terms = len(degrees(held))
    # terms stand by degree: a lower order's equations are the first of a higher one's
    matrix, normal = matrix[:, :terms], normal[:terms, :terms]
    coefficients = np.linalg.solve(normal, np.einsum("ki,k->i", matrix, w * values))
    scale = np.max(errors, initial=0.0, where=np.isfinite(errors)) or 1.0
    relative = np.where(np.isfinite(errors), errors / scale, 0.0)
    inverse = np.linalg.inv(normal)
    covariance = inverse @ gram(matrix, (w * relative) ** 2) @ inverse
    known = relative > 0
    freedom = int(np.count_nonzero(known)) - terms
    chi2 = np.nan
    if freedom > 0:
        pulls = (values - np.einsum("ki,i->k", matrix, coefficients))[known] / scale / relative[known]
        chi2 = float(np.sum(pulls**2) / freedom)
        covariance *= max(1.0, chi2)
    return ChebyshevFit(
        order=held, coefficients=coefficients, covariance=covariance * scale * scale, chi2_per_freedom=chi2
    )


def least_squares(matrix: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (n_terms,) or (n_terms, m) of least squares: terms (n, n_terms), values (n,) or (n, m).

    By normal equations, so that the bits do not depend on BLAS' threads; for a few terms of low degree.
    A trace of ridge gives points that do not determine all terms the answer of about the least norm.
    """
    normal = gram(matrix, np.ones(len(matrix)))
    normal.flat[:: len(normal) + 1] += 1e-12 * normal.max(initial=0.0)
    right = np.einsum("ki,km->im", matrix, values.reshape(len(values), -1))
    return np.linalg.solve(normal, right).reshape(matrix.shape[1], *values.shape[1:])


def gram(matrix: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """``matrix.T @ diag(w) @ matrix`` in pieces too small for BLAS to share among threads.

    So the bits do not depend on the number of threads, and none waits for a core that is busy, which
    can cost a hundred times the fit.
    """
    points, terms = matrix.shape
    piece = max(1, 100_000 // terms**2)
    padded = np.zeros((-(-points // piece) * piece, terms))
    padded[:points] = matrix
    pieces = padded.reshape(-1, piece, terms)
    padded = np.zeros_like(padded)
    padded[:points] = matrix * w[:, None]
    products = np.matmul(padded.reshape(pieces.shape).transpose(0, 2, 1), pieces)
    gram: NDArray[np.float64] = np.add.reduce(products, axis=0)
    return gram


def _determined_order(normal: NDArray[np.float64], points: int, order: int) -> int:
    for tried in range(order, 0, -1):
        terms = len(degrees(tried))
        if points >= terms:
            eigenvalues = np.linalg.eigvalsh(normal[:terms, :terms])
            if eigenvalues[0] * WORST_CONDITION**2 >= eigenvalues[-1]:
                return tried
    return 0


def monomial_coefficients(coefficients: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Monomial coefficients [q, p] of x'^p y'^q, (order + 1, order + 1) float64, for Horner's rule."""
    table = np.zeros((order + 1, order + 1))
    for value, (p, q) in zip(coefficients, degrees(order), strict=True):
        table[q, p] = value
    to_monomials = _to_power(order)
    monomials: NDArray[np.float64] = np.einsum("qp,pi,qj->ji", table, to_monomials, to_monomials)
    return monomials


@functools.lru_cache(maxsize=64)
def _to_power(order: int) -> NDArray[np.float64]:
    """(order + 1, order + 1) monomial coefficients of each Chebyshev polynomial, a row each."""
    to_monomials = np.zeros((order + 1, order + 1))
    for n in range(order + 1):
        series = np.zeros(n + 1)
        series[n] = 1.0
        to_monomials[n, : n + 1] = np.polynomial.chebyshev.cheb2poly(series)
    to_monomials.flags.writeable = False
    return to_monomials


def _chebyshev_values(x: NDArray[np.float64], order: int) -> list[NDArray[np.float64]]:
    values = [np.ones_like(x), x]
    while len(values) <= order:
        values.append(2 * x * values[-1] - values[-2])
    return values[: order + 1]
