"""A field on a grid of cells from noisy values with holes, by a prior whose spectrum the data tell.

The prior is a stationary normal field. Its covariance is that between two independent halves of the data,
which share the field and no noise, so that nothing has to be known of the noise; modes that do not stand out
count nothing. The answer is the posterior mean: Wiener's filter where nothing is missing, and what neighbours
foretell in holes (Rybicki & Press 1992, ApJ 398, 169).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Prior", "posterior", "prior_of"]

_LAGS = 14.0
"""Standard deviation, in cells, of the Gaussian by which covariance at large lags is held down: patterns keep
their phase over some such lengths, and what is farther apart tells no more than noise."""
_SIGNIFICANT = 2.0
"""Standard errors of the spectrum that are taken off it: modes that do not stand out count nothing."""
_ROUNDS, _TOLERANCE = 100, 1e-4


@dataclass(frozen=True, eq=False)
class Prior:
    """A stationary field of mean 0 on a padded, periodic grid."""

    spectrum: NDArray[np.float64]
    """(py, px // 2 + 1) variance per mode, in the convention in which white noise of variance v has v."""
    shape: tuple[int, int]
    """(py, px) of the padded grid."""

    @property
    def variance(self) -> float:
        """Of the field at a point."""
        return float(_mean_over_modes(self.spectrum, self.shape[1]))

    def left(self, noise: float) -> float:
        """Variance of the posterior, where every cell was seen with white noise of this variance."""
        gain = self.spectrum * noise / np.maximum(self.spectrum + noise, 1e-300)
        return float(_mean_over_modes(gain, self.shape[1]))


def prior_of(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    seen: NDArray[np.bool_],
    variance: float,
) -> Prior:
    """Prior from two independent measurements of one field.

    Parameters
    ----------
    first, second
        (cy, cx) each.
    seen
        (cy, cx): cells that both have.
    variance
        Of the noise of a cell in either.
    """
    cy, cx = seen.shape
    shape = _even(2 * cy), _even(2 * cx)
    mask = np.fft.rfft2(seen.astype(np.float64), s=shape)
    a, b = (np.fft.rfft2(np.where(seen, each, 0.0), s=shape) for each in (first, second))
    # sums over pairs of cells at each lag; both orders, so that the covariance is symmetric
    product = np.fft.irfft2((a.conj() * b).real, s=shape)
    pairs = np.fft.irfft2(np.abs(mask) ** 2, s=shape)
    lag_y, lag_x = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    taper = np.exp(-0.5 * (lag_y[:, None] ** 2 + lag_x**2) / _LAGS**2)
    enough = pairs > 0.05 * max(float(pairs[0, 0]), 1.0)
    covariance = np.where(enough, product / np.where(enough, pairs, 1.0), 0.0) * taper
    padded = _padded(seen.shape)
    whole = _refolded(covariance, padded, seen.shape)
    spectrum = np.fft.rfft2(whole).real
    noise = variance * np.sqrt(2 * np.sum(np.where(enough, taper, 0.0) ** 2) / max(float(seen.sum()), 1.0))
    return Prior(np.maximum(spectrum - _SIGNIFICANT * noise, 0.0), padded)


def posterior(
    values: NDArray[np.float64], variance: NDArray[np.float64], seen: NDArray[np.bool_], prior: Prior
) -> NDArray[np.float64]:
    """(cy, cx) posterior mean of the field everywhere, from ``values`` with noise of ``variance``."""
    cy, cx = seen.shape
    if not prior.spectrum.any() or not seen.any():
        return np.zeros(seen.shape)
    noise = np.where(seen, variance, 1.0)
    right = np.where(seen, values, 0.0)
    scale = 1 / (noise + prior.variance)

    def applied(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(seen, noise * vector + _through(prior, vector)[:cy, :cx], 0.0)

    # conjugate gradients on (N + S) y = values; the field is S y
    y = np.zeros(seen.shape)
    left = right.copy()
    ahead = scale * left
    direction = ahead.copy()
    power = float(np.sum(left * ahead))
    goal = _TOLERANCE**2 * power
    for _ in range(_ROUNDS):
        if power <= goal:
            break
        moved = applied(direction)
        length = power / float(np.sum(direction * moved))
        y += length * direction
        left -= length * moved
        ahead = scale * left
        before, power = power, float(np.sum(left * ahead))
        direction = ahead + power / before * direction
    return _through(prior, y)[:cy, :cx]


def _through(prior: Prior, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    passed: NDArray[np.float64] = np.fft.irfft2(
        np.fft.rfft2(vector, s=prior.shape) * prior.spectrum, s=prior.shape
    )
    return passed


def _refolded(
    covariance: NDArray[np.float64], shape: tuple[int, int], inside: tuple[int, int]
) -> NDArray[np.float64]:
    """The same covariance on a periodic grid of another size; lags beyond half of it are left out."""
    out = np.zeros(shape)
    reach = [min(n // 2, m - 1) for n, m in zip(shape, inside, strict=True)]
    rows, columns = (np.arange(-r, r + 1) if 2 * r < n else np.arange(-r + 1, r + 1)
                     for r, n in zip(reach, shape, strict=True))  # fmt: skip
    out[np.ix_(rows % shape[0], columns % shape[1])] = covariance[
        np.ix_(rows % covariance.shape[0], columns % covariance.shape[1])
    ]
    return out


def _padded(shape: tuple[int, int]) -> tuple[int, int]:
    """Room beyond the grid, so that its far edge does not foretell the near one."""
    pad = int(3 * _LAGS)
    return _even(shape[0] + min(pad, shape[0])), _even(shape[1] + min(pad, shape[1]))


def _even(n: int) -> int:
    """The next even number without large prime factors, for which transforms are quick."""
    n += n % 2
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 2


def _mean_over_modes(values: NDArray[np.float64], columns: int) -> float:
    """Mean over all modes of what `numpy.fft.rfft2` gives of a grid with so many columns."""
    weight = np.full(values.shape[1], 2.0)
    weight[0] = weight[-1] = 1.0
    return float(np.sum(values * weight)) / float(values.shape[0] * columns)
