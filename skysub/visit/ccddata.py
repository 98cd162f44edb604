"""A visit image as astropy's CCDData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from astropy.io.fits import Header
from astropy.nddata import CCDData, VarianceUncertainty

if TYPE_CHECKING:
    from skysub.visit.image import VisitImage

__all__ = ["as_ccddata"]


def as_ccddata(visit_image: VisitImage, *, ignore: tuple[str, ...]) -> CCDData:
    """See `VisitImage.to_ccddata`."""
    masking = visit_image.bits(*(name for name in visit_image.planes if name not in ignore))
    meta = Header() if visit_image.header is None else visit_image.header.copy()
    meta["VISIT"] = visit_image.visit
    meta["DETECTOR"] = visit_image.detector
    if visit_image.band:
        meta["BAND"] = visit_image.band
    variance = visit_image.variance
    return CCDData(
        visit_image.image,
        unit=visit_image.unit,
        mask=(visit_image.mask & masking) != 0,
        uncertainty=None if variance is None else VarianceUncertainty(variance, copy=False),
        wcs=visit_image.wcs,
        meta=meta,
        copy=False,
    )
