"""Structure of the sky that the joint fit leaves: how much there is, and a finer model for detection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.joint.spline import difference_penalty

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["finer_cells", "structure_of"]

_SIGNIFICANT = 4.0
"""Standard errors by which neighbours must agree before that is structure."""
_CLIPPED = 30.0
"""Pull beyond which a residual counts no more: a defect is not structure."""
_FINER = 3
"""Superpixels between the knots of the finer model."""
_WIDTHS = 10.0 ** np.arange(-2.0, 4.0)
"""Precisions of second differences that are tried."""
_WHITE = 0.1
"""Precision that holds coefficients that nothing was seen of near zero, over that of one superpixel."""


def structure_of(
    residual: NDArray[np.float64], error: NDArray[np.float64], seen: NDArray[np.bool_], *, light: bool
) -> float:
    """Rms of structure that neighbouring superpixels have in common, in the unit of the residuals.

    Parameters
    ----------
    residual, error, seen
        (gy, gx) values minus model, their errors, and which are to be looked at.
    light
        Whether there is light as large as superpixels. It only ever lies above, so what lies below the model
        counts twice then, and what lies above not at all.
    """
    safe = np.where(seen, error, 1.0)
    pull = np.where(seen, np.clip(residual / safe, -_CLIPPED, _CLIPPED), 0.0)
    kept = seen.astype(np.float64)
    if light:
        kept = kept * (pull < 0)
        pull = np.minimum(pull, 0.0)
    product = pairs = noise = 0.0
    for a, b in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = kept[a] * kept[b]
        product += float(np.sum(both * pull[a] * pull[b] * safe[a] * safe[b]))
        noise += float(np.sum(both * (safe[a] * safe[b]) ** 2))
        pairs += float(np.sum(both))
    if pairs < 8:
        return 0.0
    mean, chance = product / pairs, math.sqrt(noise) / pairs
    if light:
        # the product of two halves of normal noises is 2 / pi of their variances on average
        mean -= 2 / math.pi * math.sqrt(noise / pairs)
    return math.sqrt(mean) if mean > _SIGNIFICANT * chance else 0.0


def finer_cells(
    residual: NDArray[np.float64], error: NDArray[np.float64], seen: NDArray[np.bool_], *, upsampled: int
) -> NDArray[np.float32] | None:
    """Model of what is left, by a P-spline with knots every three superpixels and smoothness by evidence.

    Parameters
    ----------
    residual, error, seen
        (gy, gx); superpixels of large objects are not ``seen``, and the model falls to zero in them.
    upsampled
        Cells per superpixel and axis in the answer.

    Returns
    -------
    cells
        (upsampled gy, upsampled gx) float32; None where the data ask for none.
    """
    if seen.sum() < 16:
        return None
    gy, gx = seen.shape
    along_y, along_x = (_basis(np.arange(n, dtype=np.float64) + 0.5, n) for n in (gy, gx))
    my, mx = along_y.shape[1], along_x.shape[1]
    error = error * _small_scatter(residual, error, seen)
    weight = np.where(seen, 1 / np.where(seen, error, 1.0) ** 2, 0.0)
    # weighted products of a tensor basis, one axis after the other
    pairs_y = np.einsum("ka,kb->kab", along_y, along_y).reshape(gy, -1)
    pairs_x = np.einsum("ka,kb->kab", along_x, along_x).reshape(gx, -1)
    inner = np.einsum("yi,yx->ix", pairs_y, weight)
    normal = np.einsum("ix,xj->ij", inner, pairs_x).reshape(my, my, mx, mx)
    normal = normal.transpose(0, 2, 1, 3).reshape(my * mx, my * mx)
    value = weight * np.where(seen, residual, 0.0)
    right = np.einsum("ax,xb->ab", np.einsum("ya,yx->ax", along_y, value), along_x).ravel()
    penalty = np.kron(difference_penalty(my), np.eye(mx)) + np.kron(np.eye(my), difference_penalty(mx))
    white = _WHITE * float(np.median(weight[seen])) * np.eye(my * mx)
    scale = float(np.median(weight[seen]))
    best, chosen = 0.0, None
    for precision in (_WIDTHS * scale).tolist():
        prior = precision * penalty + white
        whole = normal + prior
        coefficients = right.copy()
        least, most = _log_determinant(prior), _log_determinant(whole, coefficients)
        # against a model that is zero everywhere
        evidence = 0.5 * (float(np.einsum("i,i->", right, coefficients)) + least - most)
        if evidence > best:
            best, chosen = evidence, coefficients
    if chosen is None:
        return None
    fine_y = _basis((np.arange(gy * upsampled) + 0.5) / upsampled, gy)
    fine_x = _basis((np.arange(gx * upsampled) + 0.5) / upsampled, gx)
    table = chosen.reshape(my, mx)
    cells = np.einsum("ya,ab->yb", fine_y, table)
    finer: NDArray[np.float32] = np.einsum("yb,xb->yx", cells, fine_x).astype(np.float32)
    return finer


def _small_scatter(
    residual: NDArray[np.float64], error: NDArray[np.float64], seen: NDArray[np.bool_]
) -> float:
    """How much more neighbours differ than their errors say, as faint sources make them; at least 1."""
    differences = []
    for a, b in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = seen[a] & seen[b]
        apart = np.abs(residual[a] - residual[b])[both]
        differences.append(apart / np.hypot(error[a], error[b])[both])
    every = np.concatenate(differences)
    return max(1.0, 1.4826 * float(np.median(every))) if len(every) else 1.0


def _log_determinant(matrix: NDArray[np.float64], solved: NDArray[np.float64] | None = None) -> float:
    """Of a positive definite matrix, which is overwritten; ``solved`` becomes the solution for itself."""
    from skysub.pipeline.joint import kernels

    first = np.zeros(len(matrix), np.int64)
    if not kernels.factor(matrix, first):
        return math.inf
    if solved is not None:
        kernels.solve(matrix, first, solved)
    return 2 * float(np.sum(np.log(matrix.diagonal())))


def _basis(t: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """(n, m) cubic B-splines over [0, length] at positions t, with knots about every three units."""
    from skysub.pipeline.joint.spline import cubic

    cells = max(1, length // _FINER)
    first, values = cubic(t * cells / length, cells)
    out = np.zeros((len(t), cells + 3))
    np.put_along_axis(out, first[:, None] + np.arange(4), values, axis=1)
    return out
