"""What an image tells of itself: its PSF, and how much light an aperture catches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.chebyshev import design_matrix, least_squares
from skysub.errors import ConfigError
from skysub.psf.compilation import compile_once
from skysub.psf.model import MoffatPsf, fit_psf
from skysub.psf.stars import Stars, choose_stars, cut_stamps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid
    from skysub.sources.detect import Footprints

__all__ = ["ApertureCorrection", "PsfConfig", "characterise", "fit_aperture_correction", "star_candidates"]

_CLIP, _ROUNDS = 4.0, 4
_DISTURBING = 0.02
"""Share of a star's flux from which a neighbour disturbs it."""


@dataclass(frozen=True, slots=True)
class PsfConfig:
    """How stars are chosen and the PSF is modelled.

    Parameters
    ----------
    least_signal
        Flux of a candidate over its error, as for a point source on sky.
    most_stars
        The brightest so many candidates are looked at.
    order
        Of the polynomials in place.
    aperture
        Radius of the aperture whose light the aperture correction refers to, pixel.
    """

    least_signal: float = 50.0
    most_stars: int = 300
    order: int = 2
    aperture: float = 12.0

    def __post_init__(self) -> None:
        for name in ("least_signal", "most_stars", "aperture"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be a positive number, not {getattr(self, name)!r}")
        if isinstance(self.order, bool) or not isinstance(self.order, int) or not 0 <= self.order <= 6:
            raise ConfigError(f"order must be a whole number from 0 to 6, not {self.order!r}")


@dataclass(frozen=True, eq=False)
class ApertureCorrection:
    """Flux in the aperture over flux of the PSF fit, as a polynomial of the place.

    Multiply a PSF flux by ``at(x, y)`` to compare it with the zero point of the aperture.
    """

    shape: tuple[int, int]
    """(ny, nx) of the detector, pixel."""
    order: int
    coefficients: NDArray[np.float64]
    """(n_terms,) float64, in the order of `skysub.background.chebyshev`."""
    radius: float
    """Of the aperture, pixel."""
    scatter: float
    """Of stars about it, relative; NaN for a single star."""
    stars: int
    """Stars it rests on."""

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Correction at places (n,), pixel."""
        matrix = design_matrix(np.atleast_1d(x), np.atleast_1d(y), shape=self.shape, order=self.order)
        values: NDArray[np.float64] = matrix @ self.coefficients
        return values


@dataclass(frozen=True, eq=False)
class Character:
    """PSF and aperture correction, None where no star serves; and what a person should know."""

    psf: MoffatPsf | None
    aperture_correction: ApertureCorrection | None
    flags: dict[str, str]


def characterise(
    image: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    footprints: Footprints,
    noise: NDArray[np.float64],
    *,
    grid: SuperpixelGrid,
    config: PsfConfig,
    fwhm: float,
    unit_flux: float,
) -> Character:
    """PSF and aperture correction of a background-subtracted image.

    Parameters
    ----------
    image, unusable
        (ny, nx) float32, and (ny, nx) bool: pixels that are not known.
    footprints
        Where candidates come from.
    noise
        (gy, gx) per pixel in each superpixel of ``grid``, unit of the image.
    fwhm
        Of the PSF as far as it is known, pixel.
    unit_flux
        Flux of a point source of a signal of 1, unit of the image.
    """
    compile_once()
    shape = (image.shape[0], image.shape[1])
    size = 2 * max(math.ceil(config.aperture + 1), math.ceil(3 * fwhm)) + 1
    chosen = star_candidates(footprints, config=config, unit_flux=unit_flux, size=size)
    here = grid_values(noise, grid, footprints.x[chosen], footprints.y[chosen])
    stars, inside = cut_stamps(image, unusable, footprints.x[chosen], footprints.y[chosen], here, size=size)
    flux = footprints.flux[chosen][inside]
    core = slice(size // 2 - 2, size // 2 + 3)
    whole = np.asarray(stars.good[:, core, core].all((1, 2)))
    stars, flux = stars.keep(whole), flux[whole]
    found = len(stars)
    if found:
        kept = choose_stars(stars, flux)
        stars, flux = stars.keep(kept), flux[kept]
    if not len(stars):
        return Character(
            psf=None,
            aperture_correction=None,
            flags={
                "no_psf_stars": (
                    f"No PSF: none of {found} isolated unsaturated objects with a signal of "
                    f"{config.least_signal:g} looks like a star."
                    if found
                    else f"No PSF: there is no isolated unsaturated object with a signal of "
                    f"{config.least_signal:g}."
                )
            },
        )
    psf = fit_psf(stars, shape=shape, order=config.order)
    quality_flags: dict[str, str] = {}
    if psf.order < config.order:
        quality_flags["psf_order_reduced"] = (
            f"The PSF varies over the detector by order {psf.order} rather than {config.order}: "
            f"only {int(psf.stars.used.sum())} stars serve."
        )
    return Character(
        psf=psf,
        aperture_correction=fit_aperture_correction(stars, psf, radius=config.aperture),
        flags=quality_flags,
    )


def star_candidates(
    footprints: Footprints, *, config: PsfConfig, unit_flux: float, size: int
) -> NDArray[np.int64]:
    """Indices of the brightest footprints that are unsaturated, roundish, and alone within a stamp."""
    area = np.pi * (size / 2) ** 2
    apart = np.hypot((footprints.xx - footprints.yy) / 2, footprints.xy)
    roundish = apart < 0.5 * (footprints.xx + footprints.yy) / 2
    good = (footprints.saturated == 0) & roundish & (footprints.area < area)
    good &= footprints.flux >= config.least_signal * unit_flux
    candidates = np.nonzero(good)[0]
    candidates = candidates[np.argsort(-footprints.flux[candidates], kind="stable")][: 3 * config.most_stars]
    from skysub.psf import star_kernels as kernels

    alone = np.empty(len(candidates), bool)
    x, y, flux, reach = (
        np.asarray(values, np.float64)
        for values in (footprints.x, footprints.y, footprints.flux, footprints.radius)
    )
    kernels.stand_alone(candidates, x, y, flux, reach, _DISTURBING, 0.6 * size, alone)
    return candidates[alone][: config.most_stars]


def grid_values(
    values: NDArray[np.float64], grid: SuperpixelGrid, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values (gy, gx) of the superpixels in which places (n,) lie."""
    gy, gx = grid.shape
    row = np.clip(np.searchsorted(grid.y_edges, y, side="right") - 1, 0, gy - 1)
    column = np.clip(np.searchsorted(grid.x_edges, x, side="right") - 1, 0, gx - 1)
    return values[row, column]


def fit_aperture_correction(stars: Stars, psf: MoffatPsf, *, radius: float) -> ApertureCorrection:
    """Ratio of aperture flux to PSF flux over the detector, by stars that the PSF used.

    Of order 2 at most, clipped at 4 sigma; lowered where there are fewer than three stars per term.
    """
    from skysub.psf import star_kernels as kernels

    weights = np.empty(stars.stamps.shape)
    kernels.disc_shares(stars.moments.x, stars.moments.y, float(radius), weights)
    # a pixel that is not known is filled in by the PSF
    model = psf.stamps(x=stars.x, y=stars.y)
    filled = np.where(stars.good, stars.stamps, psf.stars.flux[:, None, None] * model)
    ratio = (filled * weights).sum((1, 2)) / psf.stars.flux
    used = psf.stars.used & np.isfinite(ratio)
    if not used.any():
        used = np.isfinite(ratio)
    order = 2
    while order > 0 and used.sum() < 3 * (order + 1) * (order + 2) // 2:
        order -= 1
    matrix = design_matrix(stars.x, stars.y, shape=psf.shape, order=order)
    for _ in range(_ROUNDS):
        coefficients = least_squares(matrix[used], ratio[used])
        off = ratio - matrix @ coefficients
        scatter = 1.4826 * float(np.median(np.abs(off[used])))
        kept = used & (np.abs(off) <= _CLIP * scatter)
        if scatter == 0 or kept.sum() <= matrix.shape[1] or (kept == used).all():
            break
        used = kept
    return ApertureCorrection(
        shape=psf.shape,
        order=order,
        coefficients=coefficients,
        radius=radius,
        scatter=scatter if used.sum() > matrix.shape[1] else math.nan,
        stars=int(used.sum()),
    )
