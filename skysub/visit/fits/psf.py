"""The point-spread function in a file: a Gaussian as a card, a model that varies as a table of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.errors import InvalidImageError, LayoutError
from skysub.visit.fits.emit import Block, cards, table_row
from skysub.visit.fits.row import read_row

if TYPE_CHECKING:
    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.file import FitsFile, Hdu

__all__ = ["GaussianPsf", "find_psf", "psf_blocks", "psf_cards"]

_NAME = "PSF"


@dataclass(frozen=True)
class GaussianPsf:
    """A circular Gaussian, the same all over the detector."""

    sigma: float
    """Standard deviation, pixel."""


def find_psf(file: FitsFile, cards: Cards) -> Any:
    """Point-spread function that a file has in a form of ours, or None.

    Raises
    ------
    LayoutError
        When a table that says it is one of ours is not, or of a later version.
    """
    for hdu in file.named(_NAME):
        # other software has tables of this name too
        if not hdu.is_image and "PSFMODEL" in hdu.cards:
            return _from_table(file, hdu)
    sigma = cards.get("PSFSIGMA")
    good = isinstance(sigma, (int, float)) and not isinstance(sigma, bool) and 0 < sigma < float("inf")
    return GaussianPsf(float(sigma)) if good else None


def psf_cards(psf: Any) -> dict[str, Any]:
    """Cards of a Gaussian for the primary header; none for others."""
    return {"PSFSIGMA": (psf.sigma, "pixel, circular Gaussian")} if isinstance(psf, GaussianPsf) else {}


def psf_blocks(psf: Any) -> list[tuple[Block, str]]:
    """HDUs of a point-spread function that cards cannot hold: one for a `MoffatPsf`.

    Raises
    ------
    InvalidImageError
        When it is of a kind that cannot be written: dropping it silently would mislead.
    """
    if psf is None or isinstance(psf, GaussianPsf):
        return []
    from skysub.psf.columns import MODEL, VERSION, psf_to_columns
    from skysub.psf.model import MoffatPsf

    if not isinstance(psf, MoffatPsf):
        raise InvalidImageError(
            f"the point-spread function of a file is a GaussianPsf or a MoffatPsf, not {type(psf).__name__}; "
            "write it on its own, and the image by visit_image.replace(psf=None)"
        )
    more = {
        "EXTNAME": _NAME,
        "EXTTYPE": _NAME,
        "PSFMODEL": (MODEL, "as skysub.psf has it"),
        "PSFVER": (VERSION, "version of these columns"),
    }
    return [(table_row(psf_to_columns(psf)), cards(more))]


def _from_table(file: FitsFile, hdu: Hdu) -> Any:
    from skysub.psf.columns import MODEL, VERSION, psf_from_columns

    where = f"{file.path}: extension {hdu.index} {_NAME}"
    model, version = hdu.cards.get("PSFMODEL"), hdu.cards.get("PSFVER")
    if (model, version) != (MODEL, VERSION):
        raise LayoutError(
            f"{where}: its model is {getattr(model, 'text', model)!r} of version "
            f"{getattr(version, 'text', version)!r}; this skysub reads {MODEL} of version {VERSION}; "
            "read the file with the skysub that wrote it, or drop the extension"
        )
    try:
        return psf_from_columns(read_row(file, hdu))
    except LayoutError as error:
        raise LayoutError(f"{where}: {error}; the file is damaged") from error
