"""Columns of the table, of sources, blends and places of empty sky."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.measurement.config import APERTURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.fitted import Places
    from skysub.measurement.local_psf import PsfTable
    from skysub.measurement.photometry import Photometry

__all__ = ["aperture_name", "columns_of_places", "stacked"]


def aperture_name(radius: float) -> str:
    """Name of a column of an aperture: ap03Flux, ap04_5Flux."""
    whole, part = divmod(radius, 1)
    return f"ap{int(whole):02d}{f'_{round(part * 10)}' if part else ''}Flux"


def columns_of_places(  # noqa: PLR0917
    places: Places,
    photometry: Photometry,
    psf: PsfTable,
    variance: NDArray[np.float64],
    shape: tuple[int, int],
    extended: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Columns that sources, blends and empty sky have alike.

    Parameters
    ----------
    variance
        (n,) of a pixel at each place.
    shape
        (ny, nx) of the image.
    extended
        (n,): sources that a template describes better than a star.
    """
    y, x = places.y, places.x
    columns: dict[str, NDArray[Any]] = {
        "x": x,
        "y": y,
        "xErr": np.where(np.isfinite(places.x_error), places.x_error, np.nan),
        "yErr": np.where(np.isfinite(places.y_error), places.y_error, np.nan),
        "psfFlux": places.flux,
        "psfFluxErr": places.flux_error,
        "deblend_chi2": places.chi2,
        "variance_value": variance,
    }
    columns |= _psf_columns(places, psf, shape)
    columns |= _apertures(photometry)
    columns |= _shapes(places, photometry, psf, variance, extended)
    columns |= _kron_and_rings(photometry)
    bad_error = ~(np.isfinite(places.x_error) & np.isfinite(places.y_error))
    columns["centroid_flag_badError"] = bad_error
    edge = (y < 0) | (x < 0) | (y > shape[0] - 1) | (x > shape[1] - 1)
    columns["centroid_flag_edge"] = edge
    columns["centroid_flag"] = bad_error | edge
    return columns


def stacked(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Rows of several tables of the same columns."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _psf_columns(places: Places, psf: PsfTable, shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    y, x = places.y, places.x
    xx, xy, yy = (psf.values_at(m, y, x) for m in psf.moments)
    invalid = psf.values_at((~psf.defined).astype(float), y, x) > 0.5
    nothing = ~(np.isfinite(places.flux_error) & (places.good > 0.2))
    edge = (y < psf.half) | (x < psf.half) | (y > shape[0] - 1 - psf.half) | (x > shape[1] - 1 - psf.half)
    return {
        "ixxPSF": xx,
        "iyyPSF": yy,
        "ixyPSF": xy,
        "ixxDebiasedPSF": xx,
        "iyyDebiasedPSF": yy,
        "ixyDebiasedPSF": xy,
        "hsmPsfMoments_flag": ~np.isfinite(xx),
        "iDebiasedPSF_flag": ~np.isfinite(xx),
        "invalidPsfFlag": invalid,
        "psfFlux_area": psf.values_at(psf.area, y, x),
        "psfFlux_flag": nothing,
        "psfFlux_flag_noGoodPixels": nothing,
        "psfFlux_flag_edge": edge,
    }


def _apertures(photometry: Photometry) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for k, radius in enumerate(APERTURES):
        name = aperture_name(radius)
        lost = photometry.truncated[:, k]
        columns[name] = np.where(lost, np.nan, photometry.apertures[:, k])
        columns[f"{name}Err"] = np.where(lost, np.nan, photometry.aperture_errors[:, k])
        columns[f"{name}_flag"] = lost
    columns["calibFlux"] = columns["ap12Flux"]
    columns["calibFluxErr"] = columns["ap12FluxErr"]
    columns["apFlux_12_0_flag_apertureTruncated"] = columns["ap12Flux_flag"]
    return columns


def _shapes(
    places: Places,
    photometry: Photometry,
    psf: PsfTable,
    variance: NDArray[np.float64],
    extended: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    _, _, xx, xy, yy, flux, spread, converged = photometry.shapes.T
    failed = converged == 0
    xx, xy, yy = (np.where(failed, np.nan, a) for a in (xx, xy, yy))
    error = np.sqrt(np.maximum(spread * variance, 0))
    pxx, pxy, pyy = (psf.values_at(m, places.y, places.x) for m in psf.moments)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.maximum(xx * yy - xy**2, 0) ** 0.25 / np.maximum(pxx * pyy - pxy**2, 1e-9) ** 0.25
        size_error = 0.5 * error / np.maximum(flux, 1e-30)
        apart = (size - 1) / np.maximum(size_error, 1e-9)
    known = np.isfinite(size)
    probability = np.where(known, 1 / (1 + np.exp(-np.clip(2 * (apart - 3), -50, 50))), np.nan)
    return {
        "ixx": xx,
        "iyy": yy,
        "ixy": xy,
        "gaussianFlux": flux,
        "gaussianFluxErr": np.where(failed, np.nan, error),
        "gaussianFlux_flag": failed,
        "hsmShapeRegauss_flag": failed,
        "hsmShapeRegauss_flag_galsim": failed,
        "extendedness": np.where(np.isfinite(places.flux), extended.astype(float), np.nan),
        "extendedness_flag": ~np.isfinite(places.flux),
        "sizeExtendedness": probability,
        "sizeExtendedness_flag": ~known,
    }


def _kron_and_rings(photometry: Photometry) -> dict[str, NDArray[Any]]:
    flux, spread, radius, share = photometry.kron.T
    level, scatter, pixels = photometry.ring.T
    no_ring = ~np.isfinite(level)
    with np.errstate(invalid="ignore"):
        return {
            "kronFlux": flux,
            "kronFluxErr": np.sqrt(spread),
            "kronRadius": radius,
            "kronFlux_flag": ~np.isfinite(flux),
            "blendedness_abs": 1 - share,
            "blendedness_flag": ~np.isfinite(share),
            "localBackground_instFlux": level,
            "localBackground_instFluxErr": scatter,
            "localBackground_flag": no_ring,
            "localBackground_flag_noGoodPixels": pixels < 2,
        }
