"""From a post-ISR image, its sky and its calibrations to the final image and the table of its sources."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import CalibrationError, InvalidImageError, InvalidPsfError
from skysub.measurement import measure_sources
from skysub.measurement.table import SourceTable, make_source_table
from skysub.pipeline.final_figures import final_figures
from skysub.pipeline.over_subtraction import Losses, predict_losses
from skysub.pipeline.reprocess_config import ReprocessVisitImageConfig
from skysub.pipeline.source_sizes import exponential_sizes, large_sizes
from skysub.pipeline.timing import Stopwatch
from skysub.visit.calibrated import (
    SkyModel,
    calibrate_pixels,
    calibrate_variance,
    calibration_cards,
    subtract_model,
)
from skysub.visit.plane_table import planes_with

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement import SourceMeasurements
    from skysub.visit.calibrations import Calibrations
    from skysub.visit.image import VisitImage
    from skysub.visit.planes import MaskPlanes

__all__ = ["ReprocessVisitImageResult", "reprocess_visit_image"]

_FOUND_ANEW = planes_with("detected")
_LEFT_OUT = ("DETECTED", "DETECTED_NEGATIVE", "CR", "BAD", "EDGE", "NO_DATA", "SAT", "SUSPECT")
"""Planes whose pixels the background was not measured on."""
_SKY_ERRORS = 3.0
"""How much further the background may lie off around a source than its own uncertainty says."""
_HALF_LIGHT_OF_SIGMA = 1.1774
"""Half-light radius of a Gaussian over its sigma."""
_SIZED_BY = {"ap03Flux": 3.0, "ap06Flux": 6.0, "ap09Flux": 9.0, "ap12Flux": 12.0, "ap17Flux": 17.0} | {
    "ap25Flux": 25.0,
    "ap35Flux": 35.0,
    "ap50Flux": 50.0,
    "ap70Flux": 70.0,
}


@dataclass(frozen=True, eq=False)
class ReprocessVisitImageResult:
    """What `reprocess_visit_image` made."""

    visit_image: VisitImage
    """Background subtracted and calibrated: nJy, variance in nJy squared, final mask, wcs, psf. Its header
    has the factor, so that `skysub.visit.calibrated.restore_post_isr_image` gives the input back."""
    visit_image_background: SkyModel
    """What was subtracted, in the unit of the post-ISR image."""
    source: SourceTable
    figures: dict[str, float] = field(default_factory=dict)
    """By LSST's names; NaN where nothing is known."""
    flags: dict[str, str] = field(default_factory=dict)
    """What is missing or doubtful: a short name, and a sentence for people."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""


def reprocess_visit_image(
    visit_image: VisitImage,
    background: SkyModel,
    calibrations: Calibrations,
    config: ReprocessVisitImageConfig | None = None,
    *,
    mask: NDArray[np.signedinteger] | None = None,
    planes: MaskPlanes | None = None,
    background_to_photometric_ratio: NDArray[np.float32] | None = None,
    overwrite: bool = False,
    threads: int = 1,
) -> ReprocessVisitImageResult:
    """Subtract the final background, calibrate, and measure all sources.

    Parameters
    ----------
    visit_image
        The post-ISR image, sky and all; not modified unless ``overwrite``.
    background
        The final background, in the unit of the image; of the image times the ratio where there is one.
    calibrations
        Of the detector (`skysub.visit.calibrations.find_calibrations`).
    config
        Settings; ``ReprocessVisitImageConfig()`` by default.
    mask, planes
        The preliminary mask and its planes: CR and what the instrument flagged are kept, DETECTED tells what
        the background was not measured on, and is found anew. The image's own by default.
    background_to_photometric_ratio
        (ny, nx) float32: as `calibrate_image` was given it.
    overwrite
        Make the result of the very arrays of image and variance where they can be written to.
    threads
        Threads to share the work among; the result is bit for bit the same.

    Raises
    ------
    CalibrationError
        When the photometric field does not cover the image.
    InvalidImageError
        When shapes disagree.
    SourceIdError
        When the sources cannot be numbered.
    InvalidPsfError
        When there is no PSF anywhere.
    """
    config = config or ReprocessVisitImageConfig()
    who = f"visit {visit_image.visit} detector {visit_image.detector}"
    try:
        calibrations.photo_calib.check_covers(shape=visit_image.shape, xy0=visit_image.xy0)
    except CalibrationError as error:
        raise CalibrationError(f"{who}: {error}") from error
    if mask is None or planes is None:
        mask, planes = visit_image.mask, visit_image.planes
    if mask.shape != visit_image.shape:
        raise InvalidImageError(
            f"{who}: the preliminary mask has the shape {mask.shape}, the image {visit_image.shape}"
        )
    stopwatch = Stopwatch()
    with stopwatch("subtract"):
        counts = subtract_model(
            visit_image.image, background, ratio=background_to_photometric_ratio, threads=threads
        )
    found_before = (mask & planes.bits_where_present(*_LEFT_OUT)) != 0
    kept = mask & ~mask.dtype.type(planes.bits_where_present(*_FOUND_ANEW))
    with stopwatch("measure"):
        try:
            measured = measure_sources(
                counts,
                visit_image.variance,
                kept,
                planes,
                calibrations.psf,
                dataclasses.replace(config.measurement, threads=threads),
                gain=1.0 if visit_image.unit == "electron" else visit_image.gain,
            )
        except InvalidPsfError as error:
            raise InvalidPsfError(f"{who}: {error}") from error
    final_mask, final_planes = _final_mask(kept, planes, measured)
    del kept
    with stopwatch("over-subtraction"):
        losses = _losses(counts, background, found_before, measured, config)
    del found_before
    with stopwatch("table"):
        source = make_source_table(
            measured, visit_image, calibrations, ids=config.ids, losses=losses.columns()
        )
    with stopwatch("figures"):
        in_counts = visit_image.replace(
            image=counts, mask=final_mask, planes=final_planes, wcs=calibrations.wcs, psf=calibrations.psf
        )
        figures = final_figures(in_counts, background, calibrations, source, ignored=config.sky_ignored)
    flags = dict(measured.flags)
    flags |= _said(measured, calibrations)
    del counts, in_counts, measured
    with stopwatch("calibrate"):
        given, variance = visit_image.image, visit_image.variance
        pixels = calibrate_pixels(
            given,
            background,
            calibrations.photo_calib,
            xy0=visit_image.xy0,
            ratio=background_to_photometric_ratio,
            out=given if overwrite and given.flags.writeable else None,
            threads=threads,
        )
        if variance is not None:
            variance = calibrate_variance(
                variance,
                calibrations.photo_calib,
                xy0=visit_image.xy0,
                out=variance if overwrite and variance.flags.writeable else None,
            )
    return ReprocessVisitImageResult(
        visit_image=visit_image.replace(
            image=pixels,
            variance=variance,
            mask=final_mask,
            planes=final_planes,
            unit="nJy",
            photo_calib=1.0,
            wcs=calibrations.wcs,
            psf=calibrations.psf,
            header=_header(visit_image, calibrations, ratio=background_to_photometric_ratio is not None),
        ),
        visit_image_background=background,
        source=source,
        figures=figures,
        flags=flags,
        timings=dict(stopwatch.seconds),
    )


def _final_mask(
    kept: NDArray[np.signedinteger], planes: MaskPlanes, measured: SourceMeasurements
) -> tuple[NDArray[np.signedinteger], MaskPlanes]:
    """The preliminary mask with DETECTED as it was found now, and NOT_DEBLENDED where it was too crowded."""
    crowded = bool(measured.too_crowded.any())
    planes = planes.with_plane("DETECTED", *(["NOT_DEBLENDED"] if crowded else []))
    mask = kept.astype(planes.dtype, copy=False)
    mask[measured.detected] |= mask.dtype.type(planes.bits("DETECTED"))
    if crowded:
        mask[measured.too_crowded] |= mask.dtype.type(planes.bits("NOT_DEBLENDED"))
    return mask, planes


def _losses(
    counts: NDArray[np.float32],
    background: SkyModel,
    left_out: NDArray[np.bool_],
    measured: SourceMeasurements,
    config: ReprocessVisitImageConfig,
) -> Losses:
    """Predictions for sources; NaN for blends and places of empty sky."""
    columns = measured.columns
    n = len(measured)
    primary = np.asarray(columns["isPrimary"], bool)
    x, y = np.asarray(columns["x"], np.float64), np.asarray(columns["y"], np.float64)
    loss, error, flag = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, bool)
    if not primary.any():
        return Losses(loss=loss, error=error, flag=flag)
    ny, nx = left_out.shape
    at_y = np.clip(np.nan_to_num(y).astype(np.int64), 0, ny - 1)
    at_x = np.clip(np.nan_to_num(x).astype(np.int64), 0, nx - 1)
    sky_error = _SKY_ERRORS * background.uncertainty()[at_y, at_x].astype(np.float64)
    flux, radius = exponential_sizes(
        {name: values[primary] for name, values in columns.items() if name.startswith("ap")},
        _SIZED_BY,
        sky_error[primary],
    )
    # a point is as large as the PSF, whatever its neighbours put into its apertures
    points = np.asarray(columns["extendedness"], np.float64)[primary] == 0
    sigma2 = 0.5 * (np.asarray(columns["ixxPSF"], np.float64) + columns["iyyPSF"])[primary]
    psf_radius = _HALF_LIGHT_OF_SIGMA * np.sqrt(sigma2)
    flux = np.where(points, np.asarray(columns["psfFlux"], np.float64)[primary], flux)
    core = np.nan_to_num(np.asarray(columns["ap12Flux"], np.float64)[primary])
    variance = np.asarray(columns["variance_value"], np.float64)
    known = variance[np.isfinite(variance) & (variance > 0)]
    noise = float(np.sqrt(np.median(known))) if known.size else 0.0
    flux, radius = large_sizes(
        counts,
        noise,
        x[primary],
        y[primary],
        core=core,
        flux=flux,
        radius=np.where(points, 0.0, radius),
        sky_error=sky_error[primary],
    )
    radius = np.where(points, psf_radius, radius)
    found = predict_losses(
        background,
        left_out,
        x[primary],
        y[primary],
        flux=flux,
        radius=radius,
        core=core,
        config=config.over_subtraction,
    )
    loss[primary], error[primary], flag[primary] = found.loss, found.error, found.flag
    return Losses(loss=loss, error=error, flag=flag)


def _said(measured: SourceMeasurements, calibrations: Calibrations) -> dict[str, str]:
    quality_flags: dict[str, str] = {}
    share = float(measured.too_crowded.mean())
    if share and "too_crowded" not in measured.flags:
        quality_flags["too_crowded"] = (
            f"{100 * share:.2g} % of the pixels are so crowded that sources were left out there; they have "
            "the plane NOT_DEBLENDED."
        )
    lacking = [name for name in ("psfFlux",) if name not in calibrations.aperture_corrections]
    if lacking:
        quality_flags["no_aperture_correction"] = f"There is no aperture correction for {', '.join(lacking)}."
    if not math.isfinite(calibrations.photo_calib.error) or calibrations.photo_calib.error == 0:
        quality_flags["no_calibration_error"] = (
            "The error of the photometric calibration is not known; errors of fluxes do not hold it."
        )
    return quality_flags


def _header(visit_image: VisitImage, calibrations: Calibrations, *, ratio: bool) -> object:
    from astropy.io.fits import Header

    header = Header() if visit_image.header is None else visit_image.header.copy()
    for name in list(header):
        if name.startswith("PHO") and (name in {"PHOTBOX", "PHOTERR"} or name[5:6] == "_"):
            del header[name]
    cards = calibration_cards(calibrations.photo_calib, unit=visit_image.unit, ratio=ratio)
    for name, card in cards.items():
        header[name] = card
    return header
