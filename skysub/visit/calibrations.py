"""What turns pixels into sky: world coordinates, photometric calibration, PSF and aperture corrections.

They come from a visit summary, from what `calibrate_image` has found, or from the header, in this order. A
visit summary that has a column for one of them speaks for all of its detectors: one that is empty there is a
failure of upstream work, and nothing else stands in for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import CalibrationError, LayoutError, UpstreamFailureError
from skysub.visit.fits.psf import GaussianPsf
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = ["PARTS", "Calibrations", "check_psf", "find_calibrations", "summary_row"]

PARTS = ("wcs", "photo_calib", "psf", "aperture_corrections")
"""What a detector needs, by the names that messages use."""

_WCS_TEXT = "wcs"
_PSF_PREFIX = "psf_"
_CORRECTION = "_apCorr"
_CARDS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")
_AB_OF_NJY = 31.4
"""Magnitude of 1 nJy."""
_LOOKS = 5
"""Places along an axis at which a PSF is rendered to see whether it is one."""
_PEAKED = 1.5
"""Least ratio of a PSF's middle pixel to the mean of its stamp."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibrations:
    """All that a detector needs to be calibrated."""

    wcs: WCS
    """World coordinates of the array's own pixels; the centre of the first one is (0, 0)."""
    photo_calib: PhotometricCalibration
    """Counts of the post-ISR image to nJy, of fluxes that the aperture corrections have been applied to."""
    psf: Any
    """`MoffatPsf` or `GaussianPsf`."""
    aperture_corrections: Mapping[str, ChebyshevField]
    """By flux ("psfFlux", "gaussianFlux", "kronFlux"): what a flux is multiplied by; under the same name with
    "Err" its standard deviation."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where each of `PARTS` comes from."""


def find_calibrations(
    visit_image: VisitImage,
    *,
    row: Mapping[str, Any] | None = None,
    row_name: str = "visit summary",
    calibrated: VisitImage | None = None,
    aperture_corrections: Mapping[str, ChebyshevField] | None = None,
) -> Calibrations:
    """Calibrations of a detector, from the best source that has them.

    Parameters
    ----------
    visit_image
        The post-ISR image: its header is the last resort.
    row
        Of the detector in a visit summary (`skysub.visit.summary_file.VisitSummary.row`).
    row_name
        What messages call the summary.
    calibrated
        What `calibrate_image` made of the image: its wcs, photo_calib and psf.
    aperture_corrections
        What `calibrate_image` found, as fields.

    Raises
    ------
    UpstreamFailureError
        When something is missing; the message names all of it.
    CalibrationError
        When something is there and cannot be right: a photometric field with zeros or of the wrong size, a
        PSF that is none.
    """
    who = f"{visit_image.path}: " if visit_image.path else ""
    who += f"visit {visit_image.visit} detector {visit_image.detector}"
    found: dict[str, Any] = {}
    provenance: dict[str, str] = {}
    empty: dict[str, str] = {}
    try:
        if row is not None:
            for part, read in _READERS.items():
                value = read(row, visit_image)
                if value is _EMPTY:
                    empty[part] = f"{part} (empty in {row_name})"
                elif value is not None:
                    found[part], provenance[part] = value, row_name
        for source, name in ((calibrated, "calibrate_image"), (visit_image, "header")):
            for part, value in _of_image(source).items():
                if part not in found and part not in empty and value is not None:
                    found[part], provenance[part] = value, name
        if "psf" not in found and "psf" not in empty and row is not None and "psfSigma" in row:
            # the width of a model that the table does not hold: the last resort
            found["psf"], provenance["psf"] = GaussianPsf(float(row["psfSigma"])), row_name
        if aperture_corrections and not {"aperture_corrections"} & {*found, *empty}:
            found["aperture_corrections"] = dict(aperture_corrections)
            provenance["aperture_corrections"] = "calibrate_image"
        if "psf" in found:
            check_psf(found["psf"], visit_image.shape)
        if "photo_calib" in found:
            found["photo_calib"].check_covers(shape=visit_image.shape, xy0=visit_image.xy0)
    except (CalibrationError, LayoutError) as error:
        raise CalibrationError(f"{who}: {error}") from error
    missing = tuple(part for part in PARTS if part not in found)
    if missing:
        names = ", ".join(empty.get(part, part) for part in missing)
        looked = " nor ".join(
            [row_name] * (row is not None) + ["calibrate_image"] * (calibrated is not None) + ["the header"]
        )
        raise UpstreamFailureError(
            f"{who}: upstream work has not found its {names}: neither {looked} has it"
            if looked != "the header"
            else f"{who}: its header lacks {names}, and there is no visit summary to take it from",
            missing,
        )
    return Calibrations(provenance=provenance, **found)


def check_psf(psf: Any, shape: tuple[int, int]) -> None:
    """Raise CalibrationError for a PSF that is none anywhere on the detector.

    Where it is undefined in places, measuring takes the nearest place and flags it.
    """
    if isinstance(psf, GaussianPsf):
        if not (math.isfinite(psf.sigma) and psf.sigma > 0):
            raise CalibrationError(f"its PSF has a width of {psf.sigma} pixels")
        return
    ny, nx = shape
    y, x = (a.ravel() for a in np.meshgrid(*(np.linspace(0, n - 1, _LOOKS) for n in (ny, nx)), indexing="ij"))
    with np.errstate(all="ignore"):
        stamps = psf.stamps(x=x, y=y)
    half, area = stamps.shape[1] // 2, stamps[0].size
    # a sum of 1 spread over the whole stamp is no point
    bad = ~(np.isfinite(stamps).all(axis=(1, 2)) & (stamps[:, half, half] * area > _PEAKED))
    if bad.all():
        raise CalibrationError(
            "its PSF is none anywhere on the detector: not finite, or wider than its stamp"
        )


def summary_row(
    calibrations: Calibrations,
    *,
    visit: int,
    detector: int,
    xy0: tuple[int, int] = (0, 0),
    statistics: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Row of a visit summary that `find_calibrations` makes the same calibrations of.

    Parameters
    ----------
    xy0
        (x, y) of the image's first pixel in the whole detector, to which a summary refers.
    statistics
        Further columns, such as those of `skysub.pipeline.summary`.
    """
    from skysub.psf.columns import psf_to_columns

    photo_calib, psf = calibrations.photo_calib, calibrations.psf
    row: dict[str, Any] = {"visit": visit, "detector": detector, **(statistics or {})}
    header = calibrations.wcs.to_header(relax=True)
    for card, origin in zip(("CRPIX1", "CRPIX2"), xy0, strict=True):
        header[card] = float(header.get(card, 0.0)) + origin
    row[_WCS_TEXT] = header.tostring(sep="\n", endcard=False, padding=False)
    row["photoCalib"], row["photoCalibErr"] = photo_calib.mean, photo_calib.error
    if photo_calib.field is not None:
        row["photoCalib_coefficients"] = photo_calib.field.coefficients
        row["photoCalib_box"] = np.array(photo_calib.field.box, np.int64)
    if isinstance(psf, GaussianPsf):
        row["psfSigma"] = psf.sigma
    else:
        row |= {f"{_PSF_PREFIX}{name}": values for name, values in psf_to_columns(psf).items()}
    for name, correction in calibrations.aperture_corrections.items():
        flux, error = (name[:-3], "Err") if name.endswith("Err") else (name, "")
        row[f"{flux}{_CORRECTION}{error}"] = correction.coefficients
    return row


_EMPTY = object()
"""A column is there, and has nothing in this row."""


def _of_image(visit_image: VisitImage | None) -> dict[str, Any]:
    if visit_image is None:
        return {}
    number = visit_image.photo_calib
    return {
        "wcs": visit_image.wcs,
        "psf": visit_image.psf,
        "photo_calib": None if number is None else PhotometricCalibration(float(number)),
    }


def _wcs(row: Mapping[str, Any], visit_image: VisitImage) -> Any:
    """From the cards of a header as one text, or from columns named as the cards are."""
    from astropy.io.fits import Header

    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.header import find_wcs

    if _WCS_TEXT in row:
        text = row[_WCS_TEXT]
        if not isinstance(text, str) or not text.strip():
            return _EMPTY
        header = Header.fromstring(text, sep="\n" if "\n" in text else "")
    else:
        cards = {name.upper(): value for name, value in row.items()}
        if not any(name in cards for name in _CARDS):
            return None
        if any(_is_empty(cards.get(name)) for name in _CARDS):
            return _EMPTY
        header = Header()
        for name, value in cards.items():
            if len(name) <= 8 and isinstance(value, (str, int, float)) and value == value:  # noqa: PLR0124
                header[name] = value
    for card, origin in zip(("CRPIX1", "CRPIX2"), visit_image.xy0, strict=True):
        if origin:
            header[card] = float(header.get(card, 0.0)) - origin
    wcs = find_wcs("wcs", Cards(header.tostring(endcard=False, padding=False)))
    return _EMPTY if wcs is None else wcs


def _photo_calib(row: Mapping[str, Any], visit_image: VisitImage) -> Any:
    error = row.get("photoCalibErr")
    error = 0.0 if error is None or _is_empty(error) else float(error)
    if "photoCalib_coefficients" in row and not _is_empty(row["photoCalib_coefficients"]):
        box = row.get("photoCalib_box")
        return PhotometricCalibration.of_field(
            _field(row["photoCalib_coefficients"], visit_image, None if _is_empty(box) else box), error
        )
    if "photoCalib" in row:
        value = row["photoCalib"]
        return _EMPTY if _is_empty(value) else PhotometricCalibration(float(value), error)
    if "photoCalib_coefficients" in row:
        return _EMPTY
    if "zeroPoint" in row:
        value = row["zeroPoint"]
        if _is_empty(value):
            return _EMPTY
        return PhotometricCalibration(10 ** (0.4 * (_AB_OF_NJY - float(value))), error)
    return None


def _psf(row: Mapping[str, Any], visit_image: VisitImage) -> Any:
    from skysub.psf.columns import psf_from_columns

    del visit_image
    columns = {
        name.removeprefix(_PSF_PREFIX).upper(): value
        for name, value in row.items()
        if name.startswith(_PSF_PREFIX)
    }
    if not columns:
        # LSST's tables have the width even where they do not have the model; without it there is no model
        return _EMPTY if "psfSigma" in row and _is_empty(row["psfSigma"]) else None
    if any(value is None for value in columns.values()):
        return _EMPTY
    numbers = {name: np.asarray(value) for name, value in columns.items()}
    if any(np.isnan(numbers[name]).any() for name in ("COEFFICIENTS", "BETA") if name in numbers):
        return _EMPTY
    return psf_from_columns(numbers)


def _aperture_corrections(row: Mapping[str, Any], visit_image: VisitImage) -> Any:
    fields: dict[str, ChebyshevField] = {}
    empty = False
    for name, value in row.items():
        flux, found, error = name.partition(_CORRECTION)
        if not found or error not in {"", "Err"}:
            continue
        if _is_empty(value):
            empty = empty or not error
        else:
            fields[flux + error] = _field(value, visit_image)
    if empty:
        return _EMPTY
    return fields or None


_READERS = {
    "wcs": _wcs,
    "photo_calib": _photo_calib,
    "psf": _psf,
    "aperture_corrections": _aperture_corrections,
}


def _field(value: Any, visit_image: VisitImage, box: Any = None) -> ChebyshevField:
    """Field from a number, a matrix [q][p], or the n x n elements of one in a row."""
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"the coefficients of a field are no matrix of numbers: {error}") from error
    if matrix.ndim < 2:
        edge = math.isqrt(matrix.size)
        if edge * edge != matrix.size:
            raise CalibrationError(
                f"coefficients of a field are a matrix [q][p] or its n x n numbers, not {matrix.size} numbers"
            )
        matrix = matrix.reshape(edge, edge)
    if box is None:
        (ny, nx), (x0, y0) = visit_image.shape, visit_image.xy0
        corners = [x0, y0, x0 + nx - 1, y0 + ny - 1]
    else:
        corners = [int(edge) for edge in np.ravel(box)]
        if len(corners) != 4:
            raise CalibrationError(f"the box of a field is (x_min, y_min, x_max, y_max), not {corners}")
    return ChebyshevField(coefficients=matrix, box=(corners[0], corners[1], corners[2], corners[3]))


def _is_empty(value: Any) -> bool:
    """Whether a cell says nothing: None, NaN, an empty text or array, or an array that is NaN all over."""
    if value is None or value is np.ma.masked or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, str):
        return False
    try:
        numbers: NDArray[np.float64] = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return not numbers.size or bool(np.isnan(numbers).all())
