"""The point-spread function as far as a FITS header holds one: a circular Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.errors import InvalidImageError

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards

__all__ = ["GaussianPsf", "psf_from_cards", "psf_to_cards"]


@dataclass(frozen=True)
class GaussianPsf:
    """A circular Gaussian, the same all over the detector."""

    sigma: float
    """Standard deviation, pixel."""


def psf_from_cards(cards: Cards) -> GaussianPsf | None:
    """Point-spread function that the header states, or None."""
    sigma = cards.get("PSFSIGMA")
    good = isinstance(sigma, (int, float)) and not isinstance(sigma, bool) and 0 < sigma < float("inf")
    return GaussianPsf(float(sigma)) if good else None


def psf_to_cards(psf: Any) -> dict[str, float]:
    """Cards for a point-spread function: none for None, PSFSIGMA for one that is a Gaussian.

    Raises
    ------
    InvalidImageError
        For any other: a header cannot hold it, and dropping it silently would mislead.
    """
    if psf is None:
        return {}
    if type(psf).__name__.lower().startswith("gaussian") and isinstance(
        getattr(psf, "sigma", None), (int, float)
    ):
        return {"PSFSIGMA": float(psf.sigma)}
    raise InvalidImageError(
        f"a FITS header holds no point-spread function but a Gaussian, not {type(psf).__name__}; "
        "write it on its own, and the image by visit_image.replace(psf=None)"
    )
