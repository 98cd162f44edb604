"""A PSF as columns of a table of one row, which is how files keep it, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import LayoutError
from skysub.psf.model import MoffatPsf, PsfStars
from skysub.psf.stars import Moments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["MODEL", "VERSION", "psf_from_columns", "psf_to_columns"]

MODEL = "MOFFAT"
"""What a file calls the model."""
VERSION = 1
"""Of the columns; a change that older readers would misread makes it larger."""

_MOMENTS = tuple(field.name for field in fields(Moments))
_MAX_ORDER = 20


def psf_to_columns(psf: MoffatPsf) -> dict[str, NDArray[Any]]:
    """Columns of one row that hold a PSF, every bit of it.

    Returns
    -------
    columns
        ``SHAPE`` (2,) int64; ``ORDER`` and ``BETA``; ``COEFFICIENTS`` (3, n_terms) and ``RESIDUAL`` (s, s)
        float64; for its n stars ``STAR_X``, ``STAR_Y``, ``STAR_FLUX``, ``STAR_CHI2`` (n,) float64,
        ``STAR_USED`` (n,) bool, and their moments ``STAR_M...`` and ``MODEL_M...`` (n,) float64.
    """
    stars = psf.stars
    columns: dict[str, Any] = {
        "SHAPE": np.array(psf.shape, np.int64),
        "ORDER": np.array([psf.order], np.int64),
        "BETA": np.array([psf.beta], np.float64),
        "COEFFICIENTS": psf.coefficients,
        "RESIDUAL": psf.residual,
        "STAR_USED": stars.used,
    }
    columns |= {f"STAR_{name.upper()}": getattr(stars, name) for name in ("x", "y", "flux", "chi2")}
    for whose, moments in (("STAR", stars.moments), ("MODEL", stars.model_moments)):
        columns |= {f"{whose}_M{name.upper()}": getattr(moments, name) for name in _MOMENTS}
    return columns


def psf_from_columns(columns: Mapping[str, NDArray[Any]]) -> MoffatPsf:
    """PSF from what `psf_to_columns` made of it; arrays of one element may have lost their axis.

    Raises
    ------
    LayoutError
        When a column is missing, or of a shape or value that no PSF has.
    """

    def column(name: str, kind: type, *shape: int) -> NDArray[Any]:
        if name not in columns:
            raise LayoutError(f"there is no column {name}")
        array = np.asarray(columns[name])
        if array.dtype.kind != np.dtype(kind).kind or array.size != np.prod(shape):
            found = f"{array.dtype.name} of shape {array.shape}"
            raise LayoutError(f"{name} is {found}, not {kind.__name__} of {shape}")
        return array.astype(kind).reshape(shape)

    def series(name: str) -> NDArray[np.float64]:
        return column(name, np.float64, count)

    ny, nx = (int(edge) for edge in column("SHAPE", np.int64, 2))
    order = int(column("ORDER", np.int64, 1)[0])
    beta = float(column("BETA", np.float64, 1)[0])
    if min(ny, nx) < 1 or not 0 <= order <= _MAX_ORDER or not 1 < beta < np.inf:
        raise LayoutError(f"SHAPE {ny, nx}, ORDER {order}, BETA {beta} are no PSF's")
    size, count = (int(np.size(columns.get(name, ()))) for name in ("RESIDUAL", "STAR_USED"))
    edge = round(size**0.5)
    if edge % 2 == 0 or edge**2 != size:
        raise LayoutError(f"RESIDUAL has {size} pixels, which is no square with a middle pixel")
    coefficients = column("COEFFICIENTS", np.float64, 3, (order + 1) * (order + 2) // 2)
    residual = column("RESIDUAL", np.float64, edge, edge)
    if not (np.isfinite(coefficients).all() and np.isfinite(residual).all()):
        raise LayoutError("COEFFICIENTS and RESIDUAL are not finite")
    star, model = (
        Moments(**{name: series(f"{whose}_M{name.upper()}") for name in _MOMENTS})
        for whose in ("STAR", "MODEL")
    )
    stars = PsfStars(
        **{name: series(f"STAR_{name.upper()}") for name in ("x", "y", "flux", "chi2")},
        used=column("STAR_USED", np.bool_, count),
        moments=star,
        model_moments=model,
    )
    return MoffatPsf(
        shape=(ny, nx), order=order, coefficients=coefficients, beta=beta, residual=residual, stars=stars
    )
