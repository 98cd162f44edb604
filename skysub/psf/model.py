"""A PSF that varies over a detector: elliptical Moffat profile, its shape a polynomial of the place.

The profile is I(d) ~ (1 + d^T Q d)^-beta (Moffat 1969) with Q = [[1 + g1, g2], [g2, 1 - g1]] / a^2; log a^2,
g1 and g2 are polynomials in x and y, and beta is one number for the detector. It is sampled at the centres
of pixels, so it holds the pixel's own response. What stars show beyond it is averaged, star by star centred,
into one small image of residuals, which the rendered profile carries along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import design_matrix, least_squares
from skysub.psf.stars import Moments, Stars, adaptive_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MoffatPsf", "PsfStars", "fit_psf"]

_BETAS = (1.8, 2.2, 2.6, 3.0, 3.5, 4.2, 5.5, 8.0)
_STEPS = 12
_CLIP = 4.0
_ROUNDS = 4
_SAMPLE = 40
"""Stars from which the exponent is found."""
_ENOUGH = 8
"""Stars that make a mean residual worth while."""
_ROUNDEST = 0.9
"""Largest element of a shape; 1 would be a line."""


@dataclass(frozen=True, eq=False)
class PsfStars:
    """The stars of a PSF and how well it describes each, (n,) arrays."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    """Of the fit, unit of the image."""
    used: NDArray[np.bool_]
    """Whether a star was kept to the end."""
    chi2: NDArray[np.float64]
    """Mean squared residual in units of the noise per pixel."""
    moments: Moments
    """Of the star."""
    model_moments: Moments
    """Of the model at its place."""


@dataclass(frozen=True, eq=False)
class MoffatPsf:
    """PSF of one detector; ``psf.stamp(x=..., y=...)`` renders it."""

    shape: tuple[int, int]
    """(ny, nx) of the detector, pixel."""
    order: int
    """Of the polynomials."""
    coefficients: NDArray[np.float64]
    """(3, n_terms) float64: of log a^2, g1 and g2, in the order of `skysub.background.chebyshev`."""
    beta: float
    residual: NDArray[np.float64]
    """(s, s) float64: mean of (star / flux - profile), centred on the middle pixel."""
    stars: PsfStars

    @property
    def size(self) -> int:
        """Edge of a stamp, pixel; odd."""
        return len(self.residual)

    def stamp(self, *, x: float, y: float) -> NDArray[np.float64]:
        """PSF at a place, (s, s) float64 of sum 1, whose middle pixel is the one nearest to (x, y).

        The place between pixels is kept: the profile is centred on x - round(x), y - round(y).
        """
        offset = np.array([x - round(x)]), np.array([y - round(y)])
        half = self.size // 2
        profile = _profile(
            self._free(np.array([x]), np.array([y])), self.beta, offset[0] + half, offset[1] + half, self.size
        )[0]
        profile += _shifted(self.residual, float(offset[0][0]), float(offset[1][0]))
        total: NDArray[np.float64] = profile / profile.sum()
        return total

    def moments(self, *, x: float | None = None, y: float | None = None) -> Moments:
        """Adaptive moments at a place; by default the middle of the detector."""
        ny, nx = self.shape
        x = (nx - 1) / 2 if x is None else x
        y = (ny - 1) / 2 if y is None else y
        return adaptive_moments(self.stamp(x=x, y=y)[None])

    @property
    def sigma(self) -> float:
        """Determinant radius in the middle of the detector, pixel."""
        return float(self.moments().size[0])

    @property
    def fwhm(self) -> float:
        """Full width at half maximum of the profile in the middle of the detector, pixel."""
        ny, nx = self.shape
        log_radius2, g1, g2 = self._free(np.array([(nx - 1) / 2]), np.array([(ny - 1) / 2]))[0]
        round_radius = np.exp(log_radius2 / 2) * (1 - g1 * g1 - g2 * g2) ** -0.25
        return float(2 * round_radius * np.sqrt(2 ** (1 / self.beta) - 1))

    @property
    def area(self) -> float:
        """Effective area (sum p)^2 / sum p^2 in the middle of the detector, pixel squared."""
        ny, nx = self.shape
        p = self.stamp(x=round((nx - 1) / 2), y=round((ny - 1) / 2))
        return float(p.sum() ** 2 / np.sum(p**2))

    def _free(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = (
            design_matrix(x, y, shape=self.shape, order=self.order) @ self.coefficients.T
        )
        return values


def fit_psf(stars: Stars, *, shape: tuple[int, int], order: int = 2) -> MoffatPsf:
    """Fit the PSF of a detector to its stars.

    Each star is fit by a profile of its own, for several exponents; the shapes are then fit over the
    detector, stars that stand out left out in a few rounds.

    Parameters
    ----------
    stars
        At least one.
    shape
        (ny, nx) of the detector, pixel.
    order
        Of the polynomials at most; lowered where there are fewer than four stars per term.
    """
    sample = stars.keep(np.arange(len(stars)) % max(1, len(stars) // _SAMPLE) == 0)
    beta = min(_BETAS, key=lambda b: _typical(_fit_each(sample, b).chi2))
    each = _fit_each(stars, beta)
    used = np.isfinite(each.free).all(axis=1) & np.isfinite(each.chi2)
    if not used.any():
        # no profile fits: the moments as they are
        used = np.isfinite(stars.moments.size)
        each.free[:] = _start(stars.moments, beta)
    while order > 0 and used.sum() < 4 * (order + 1) * (order + 2) // 2:
        order -= 1
    x, y = stars.x0 + each.x, stars.y0 + each.y
    matrix = design_matrix(x, y, shape=shape, order=order)
    coefficients: NDArray[np.float64] = np.zeros((3, matrix.shape[1]))
    for _ in range(_ROUNDS):
        coefficients = least_squares(matrix[used], each.free[used]).T
        off = each.free - matrix @ coefficients.T
        scatter = 1.4826 * np.median(np.abs(off[used]), axis=0) + 1e-4
        kept = used & (np.abs(off) < _CLIP * scatter).all(axis=1)
        if kept.sum() < max(1, used.sum() // 2) or (kept == used).all():
            break
        used = kept
    residual = _mean_residual(stars, each, matrix @ coefficients.T, beta, used)
    profile = _profile(matrix @ coefficients.T, beta, each.x, each.y, stars.stamps.shape[1])
    profile += np.array([_shifted(residual, *o) for o in zip(*_offsets(stars, each), strict=True)])
    profile /= profile.sum((1, 2))[:, None, None]
    w = stars.good.astype(np.float64)
    flux = (w * stars.stamps * profile).sum((1, 2)) / (w * profile**2).sum((1, 2))
    left = w * (stars.stamps - flux[:, None, None] * profile) / stars.noise[:, None, None]
    return MoffatPsf(
        shape=shape,
        order=order,
        coefficients=coefficients,
        beta=beta,
        residual=residual,
        stars=PsfStars(
            x=x,
            y=y,
            flux=flux,
            used=used,
            chi2=(left**2).sum((1, 2)) / np.maximum(1, w.sum((1, 2))),
            moments=stars.moments,
            model_moments=adaptive_moments(profile),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Each:
    """Fits of stars one by one, (n,) each; places in pixels of the stamp."""

    free: NDArray[np.float64]
    """(n, 3): log of the squared radius, and two elements of the shape."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    chi2: NDArray[np.float64]


def _fit_each(stars: Stars, beta: float) -> _Each:
    """Gauss-Newton fits of flux, place and shape, all stars at once."""
    n, size, _ = stars.stamps.shape
    data = stars.stamps.reshape(n, -1)
    w = stars.good.reshape(n, -1) / stars.noise[:, None]
    free = _start(stars.moments, beta)
    x, y = stars.moments.x.copy(), stars.moments.y.copy()
    flux = data.sum(1)
    steps = np.array([0.02, 0.02, 0.02, 0.02, 0.02])

    def profile(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return _profile(p[:, 2:], beta, p[:, 0], p[:, 1], size).reshape(n, -1)

    parameters = np.column_stack([x, y, free])
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            here = profile(parameters)
            flux = (w * w * data * here).sum(1) / (w * w * here**2).sum(1)
            columns = [here]
            for k in range(5):
                moved = parameters.copy()
                moved[:, k] += steps[k]
                columns.append(flux[:, None] * (profile(moved) - here) / steps[k])
            jacobian = np.stack(columns, axis=-1) * w[:, :, None]
            left = (data - flux[:, None] * here) * w
            normal = np.einsum("npi,npj->nij", jacobian, jacobian)
            normal += (
                1e-9 * np.eye(6) * np.nan_to_num(np.trace(normal, axis1=1, axis2=2), nan=1.0)[:, None, None]
            )
            right = np.einsum("npi,np->ni", jacobian, left)
            solvable = np.isfinite(normal).all((1, 2)) & np.isfinite(right).all(1)
            normal[~solvable] = np.eye(6)
            right[~solvable] = 0
            change = np.linalg.solve(normal, right[:, :, None])[:, 1:, 0]
            parameters += np.clip(change, -0.5, 0.5)
        here = profile(parameters)
        flux = (w * w * data * here).sum(1) / (w * w * here**2).sum(1)
        chi2 = (((data - flux[:, None] * here) * w) ** 2).sum(1) / np.maximum(1, (w > 0).sum(1) - 6)
    x, y, free = parameters[:, 0], parameters[:, 1], parameters[:, 2:].copy()
    lost = np.hypot(x - size // 2, y - size // 2) > size / 4
    lost |= np.abs(free[:, 1:]).max(axis=1, initial=0) > _ROUNDEST
    lost |= ~(flux > 0)
    free[lost] = np.nan
    return _Each(free=free, x=x, y=y, flux=flux, chi2=chi2)


def _typical(chi2: NDArray[np.float64]) -> float:
    known = chi2[np.isfinite(chi2)]
    return float(np.median(known)) if len(known) else np.inf


def _start(moments: Moments, beta: float) -> NDArray[np.float64]:
    """Free parameters of a profile whose core has the moments."""
    e1, e2 = moments.ellipticity
    core = np.nan_to_num(moments.size, nan=1.7) ** 2 * 2.0 * beta * 0.7
    return np.column_stack([np.log(core), -np.nan_to_num(e1), -np.nan_to_num(e2)])


def _profile(
    free: NDArray[np.float64],
    beta: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    size: int,
) -> NDArray[np.float64]:
    """Profiles of sum 1 centred on (x, y) of stamps, (n, size, size)."""
    grid = np.arange(size, dtype=np.float64)
    dx = grid[None, None, :] - x[:, None, None]
    dy = grid[None, :, None] - y[:, None, None]
    g1, g2 = (np.clip(free[:, k], -_ROUNDEST, _ROUNDEST)[:, None, None] for k in (1, 2))
    r2 = np.exp(-free[:, 0])[:, None, None] * ((1 + g1) * dx * dx + 2 * g2 * dx * dy + (1 - g1) * dy * dy)
    values: NDArray[np.float64] = (1 + r2) ** -beta
    values /= values.sum((1, 2))[:, None, None]
    return values


def _offsets(stars: Stars, each: _Each) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    half = stars.stamps.shape[1] // 2
    return each.x - half, each.y - half


def _mean_residual(
    stars: Stars,
    each: _Each,
    free: NDArray[np.float64],
    beta: float,
    used: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Clipped mean of what stars show beyond their profiles, centred; zero with fewer than _ENOUGH stars."""
    size = stars.stamps.shape[1]
    if used.sum() < _ENOUGH:
        return np.zeros((size, size))
    profile = _profile(free, beta, each.x, each.y, size)
    w = stars.good / stars.noise[:, None, None] ** 2
    flux = (w * stars.stamps * profile).sum((1, 2)) / (w * profile**2).sum((1, 2))
    left = np.where(stars.good, stars.stamps / flux[:, None, None] - profile, 0.0)
    centred = np.array(
        [_shifted(image, -dx, -dy) for image, dx, dy in zip(left, *_offsets(stars, each), strict=True)]
    )[used]
    weights = ((flux / stars.noise) ** 2)[used]
    # no star may speak for all the others
    weights = np.minimum(weights, 4 * np.median(weights))[:, None, None]
    middle = np.median(centred, axis=0)
    spread = 1.4826 * np.median(np.abs(centred - middle), axis=0) + 1e-12
    kept = weights * (np.abs(centred - middle) < _CLIP * spread)
    mean: NDArray[np.float64] = (kept * centred).sum(0) / np.maximum(kept.sum(0), 1e-30)
    return mean


def _shifted(image: NDArray[np.float64], dx: float, dy: float) -> NDArray[np.float64]:
    """Image moved by a fraction of a pixel: a phase in Fourier space, edges tapered by being near zero."""
    ny, nx = image.shape
    phase_x = np.exp(-2j * np.pi * np.fft.rfftfreq(nx) * dx)
    phase_y = np.exp(-2j * np.pi * np.fft.fftfreq(ny) * dy)
    moved: NDArray[np.float64] = np.fft.irfft2(
        np.fft.rfft2(image) * phase_y[:, None] * phase_x[None, :], s=(ny, nx)
    )
    return moved
