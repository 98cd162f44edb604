"""Pixels, mask and variance as astropy's CCDData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from astropy.io.fits import Header
from astropy.nddata import CCDData, VarianceUncertainty

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = ["as_ccddata"]


def as_ccddata(
    image: NDArray[np.float32],
    masked: NDArray[np.bool],
    *,
    variance: NDArray[np.float32] | None,
    unit: str,
    wcs: WCS | None,
    header: Header | None,
    cards: Mapping[str, int | str],
) -> CCDData:
    """Return arrays (ny, nx) as CCDData that shares them; ``cards`` are added to a copy of the header."""
    meta = Header() if header is None else header.copy()
    meta.update(cards)
    return CCDData(
        image,
        unit=unit,
        mask=masked,
        uncertainty=None if variance is None else VarianceUncertainty(variance, copy=False),
        wcs=wcs,
        meta=meta,
        copy=False,
    )
