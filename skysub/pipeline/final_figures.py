"""Figures of a detector's final image, by LSST's names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.model import BackgroundList
from skysub.pipeline.summary import summarise
from skysub.pipeline.zero_points import ZeroPoints
from skysub.psf.model import MoffatPsf
from skysub.visit.calibrated import layers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.table import SourceTable
    from skysub.visit.calibrated import SkyModel
    from skysub.visit.calibrations import Calibrations
    from skysub.visit.image import VisitImage

__all__ = ["final_figures"]

_SAMPLE = 1 << 22
"""Pixels from which the figures of the sky are taken, at most."""
_FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))
_AB_OF_NJY = 31.4


def final_figures(
    visit_image: VisitImage,
    background: SkyModel,
    calibrations: Calibrations,
    source: SourceTable,
    *,
    ignored: tuple[str, ...],
) -> dict[str, float]:
    """Figures by LSST's names: those of its task's metadata, of CcdVisit, and counts of sources.

    Parameters
    ----------
    visit_image
        Background-subtracted, in counts, with its final mask.
    background
        What was subtracted, counts.
    source
        Calibrated sources, those of empty sky among them.
    ignored
        Mask planes whose pixels are no sky.
    """
    calibration = calibrations.photo_calib
    points = ZeroPoints(
        photometric=_AB_OF_NJY - 2.5 * math.log10(calibration.mean),
        photometric_error=2.5 / math.log(10) * calibration.error / calibration.mean,
        dx=math.nan,
        dy=math.nan,
        offset_scatter=math.nan,
        matches=0,
    )
    psf = calibrations.psf
    figures = summarise(
        visit_image,
        BackgroundList(layers_of(background)),
        psf=psf if isinstance(psf, MoffatPsf) else None,
        aperture_correction=None,
        zero_points=points,
    )
    if not isinstance(psf, MoffatPsf) and hasattr(psf, "sigma"):
        figures["psfSigma"] = float(psf.sigma)
    ny, nx = visit_image.shape
    figures |= {
        "xSize": float(nx),
        "ySize": float(ny),
        "seeing": _FWHM * figures["psfSigma"] * figures["pixelScale"],
        "zeroPointErr": points.photometric_error,
    }
    figures |= _sky_pixels(visit_image, ignored)
    empty, primary = source["sky_source"], source["detect_isPrimary"]
    name = "bg_subtracted_skySource_flux"
    figures[f"{name}_median"], figures[f"{name}_stdev"] = _median_and_deviation(source["ap12Flux"][empty])
    figures |= {
        "sources": float(primary.sum()),
        "blends": float((source["deblend_nChild"] > 0).sum()),
        "sky_sources": float(empty.sum()),
        "over_subtracted": float(source["overSubtraction_flag"].sum()),
    }
    return figures


def _sky_pixels(visit_image: VisitImage, ignored: tuple[str, ...]) -> dict[str, float]:
    """Median and scatter of pixels of sky, and the share of pixels that each plane takes."""
    step = max(1, math.ceil(math.sqrt(visit_image.image.size / _SAMPLE)))
    pixels, mask = visit_image.image[::step, ::step], visit_image.mask[::step, ::step]
    sky = pixels[((mask & visit_image.bits(*ignored)) == 0) & np.isfinite(pixels)]
    name = "bg_subtracted_skyPixel_instFlux"
    figures = dict(zip((f"{name}_median", f"{name}_stdev"), _median_and_deviation(sky), strict=True))
    for plane in visit_image.planes.names:
        share = np.count_nonzero(mask & visit_image.bits(plane)) / mask.size
        figures[f"{plane.lower()}_mask_fraction"] = float(share)
    return figures


def _median_and_deviation(values: NDArray[np.floating]) -> tuple[float, float]:
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        return math.nan, math.nan
    return float(np.median(values)), float(np.std(values))
