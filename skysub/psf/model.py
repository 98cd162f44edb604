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
from skysub.background.compiled import for_kernels
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
    """PSF of one detector; ``psf.stamp(x=..., y=...)`` renders it, ``psf.stamps`` does at many places."""

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

    def __repr__(self) -> str:
        return (
            f"MoffatPsf(fwhm={self.fwhm:.3f} pixel, beta={self.beta:.3g}, order={self.order}, "
            f"stars={int(self.stars.used.sum())} of {len(self.stars.x)}, detector={self.shape})"
        )

    def _repr_html_(self) -> str:
        from skysub.html import card, picture

        ny, nx = self.shape
        middle = self.stamp(x=round((nx - 1) / 2), y=round((ny - 1) / 2))
        rows = {
            "full width at half maximum": f"{self.fwhm:.3f} pixel",
            "beta": f"{self.beta:.3g}",
            "stars": f"{int(self.stars.used.sum())} of {len(self.stars.x)} used",
            "detector": f"{ny} x {nx} pixels, polynomials of order {self.order}",
        }
        # the wings show in the root
        return card("MoffatPsf", rows, [picture(np.sqrt(np.maximum(middle, 0)), "the PSF in the middle")])

    @property
    def size(self) -> int:
        """Edge of a stamp, pixel; odd."""
        return len(self.residual)

    def stamp(self, *, x: float, y: float) -> NDArray[np.float64]:
        """PSF at a place, (s, s) float64 of sum 1, whose middle pixel is the one nearest to (x, y).

        The place between pixels is kept: the profile is centred on x - round(x), y - round(y).
        """
        stamps: NDArray[np.float64] = self.stamps(x=np.array([x]), y=np.array([y]))[0]
        return stamps

    def stamps(self, *, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """PSF at places (n,), pixel: (n, s, s) float64, each as `stamp` has it."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        half = self.size // 2
        dx, dy = x - np.round(x), y - np.round(y)
        profiles = _profiles(self._free(x, y), self.beta, dx + half, dy + half, self.size)
        profiles += _shifted(self.residual[None], dx, dy)
        profiles /= profiles.sum((1, 2))[:, None, None]
        return profiles

    def moments(
        self, *, x: float | NDArray[np.float64] | None = None, y: float | NDArray[np.float64] | None = None
    ) -> Moments:
        """Adaptive moments at a place, or at places (n,); by default the middle of the detector."""
        ny, nx = self.shape
        x = (nx - 1) / 2 if x is None else x
        y = (ny - 1) / 2 if y is None else y
        return adaptive_moments(self.stamps(x=np.atleast_1d(x), y=np.atleast_1d(y)))

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
    pixels = _Pixels.of(stars)
    step = max(1, len(stars) // _SAMPLE)
    beta = min(_BETAS, key=lambda b: _typical(_fit_each(pixels.every(step), b).chi2))
    each = _fit_each(pixels, beta)
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
    profile = _profiles(matrix @ coefficients.T, beta, each.x, each.y, stars.stamps.shape[1])
    profile += _shifted(residual[None], *_offsets(stars, each))
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
class _Pixels:
    """Stars as kernels take them."""

    data: NDArray[np.float64]
    """(n, s, width): stamps, rows filled up."""
    weights: NDArray[np.float64]
    """(n, s, width): one over the noise, zero where pixels are not known."""
    moments: Moments

    @classmethod
    def of(cls, stars: Stars) -> _Pixels:
        from skysub.psf import kernels

        n, size, _ = stars.stamps.shape
        data, weights = np.zeros((2, n, size, kernels.padded(size)))
        data[:, :, :size] = stars.stamps
        weights[:, :, :size] = stars.good / stars.noise[:, None, None]
        return cls(data=data, weights=weights, moments=stars.moments)

    def every(self, step: int) -> _Pixels:
        """Every so many-th star."""
        m = self.moments
        return _Pixels(
            data=np.ascontiguousarray(self.data[::step]),
            weights=np.ascontiguousarray(self.weights[::step]),
            moments=Moments(m.x[::step], m.y[::step], m.xx[::step], m.xy[::step], m.yy[::step]),
        )


@dataclass(frozen=True, eq=False)
class _Each:
    """Fits of stars one by one, (n,) each; places in pixels of the stamp."""

    free: NDArray[np.float64]
    """(n, 3): log of the squared radius, and two elements of the shape; NaN where a fit is of no use."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    chi2: NDArray[np.float64]


def _fit_each(stars: _Pixels, beta: float) -> _Each:
    """Gauss-Newton fits of flux, place and shape, star by star."""
    from skysub.psf import kernels

    free = _start(stars.moments, beta)
    x, y = stars.moments.x.copy(), stars.moments.y.copy()
    chi2 = np.empty(len(x))
    kernels.fit_moffats(stars.data, stars.weights, beta, _STEPS, free, x, y, chi2)
    return _Each(free=free, x=x, y=y, chi2=chi2)


def _typical(chi2: NDArray[np.float64]) -> float:
    known = chi2[np.isfinite(chi2)]
    return float(np.median(known)) if len(known) else np.inf


def _start(moments: Moments, beta: float) -> NDArray[np.float64]:
    """Free parameters of a profile whose core has the moments."""
    e1, e2 = moments.ellipticity
    core = np.nan_to_num(moments.size, nan=1.7) ** 2 * 2.0 * beta * 0.7
    return np.column_stack([np.log(core), -np.nan_to_num(e1), -np.nan_to_num(e2)])


def _profiles(
    free: NDArray[np.float64],
    beta: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    size: int,
) -> NDArray[np.float64]:
    """Profiles of sum 1 centred on (x, y) of stamps, (n, size, size)."""
    from skysub.psf import kernels

    out = np.empty((len(x), size, size))
    kernels.moffats(for_kernels(free), beta, for_kernels(x), for_kernels(y), out)
    return out


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
    profile = _profiles(free, beta, each.x, each.y, size)
    w = stars.good / stars.noise[:, None, None] ** 2
    flux = (w * stars.stamps * profile).sum((1, 2)) / (w * profile**2).sum((1, 2))
    left = np.where(stars.good, stars.stamps / flux[:, None, None] - profile, 0.0)
    dx, dy = _offsets(stars, each)
    # star by star next to each other, which medians are quicker for
    centred = _shifted(left, -dx, -dy)[used].reshape(-1, size * size).T.copy()
    weights = ((flux / stars.noise) ** 2)[used]
    # no star may speak for all the others
    weights = np.minimum(weights, 4 * np.median(weights))
    middle = np.median(centred, axis=1)[:, None]
    off = np.abs(centred - middle)
    spread = 1.4826 * np.median(off, axis=1)[:, None] + 1e-12
    kept = weights * (off < _CLIP * spread)
    mean: NDArray[np.float64] = (kept * centred).sum(1) / np.maximum(kept.sum(1), 1e-30)
    return mean.reshape(size, size)


def _shifted(
    images: NDArray[np.float64], dx: NDArray[np.float64], dy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Images (n, s, s), or one for all, moved by fractions of a pixel (n,); their edges are near zero."""
    from skysub.psf import kernels

    size = images.shape[1]
    out = np.empty((len(dx), size, size))
    kernels.shift(for_kernels(images), for_kernels(dx), for_kernels(dy), out)
    return out
