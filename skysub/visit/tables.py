"""Tables about written products: for ``butler ingest-files``, and for an ObsCore service."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import LayoutError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from astropy.table import Table

    from skysub.visit.image import VisitImage

__all__ = ["ingest_files_table", "obscore_row", "obscore_table"]

_BANDS = {
    # edges of LSST's filters at half of their peak, m
    "u": (324e-9, 395e-9),
    "g": (405e-9, 552e-9),
    "r": (552e-9, 691e-9),
    "i": (691e-9, 818e-9),
    "z": (818e-9, 922e-9),
    "y": (922e-9, 1060e-9),
}

_OBSCORE: dict[str, tuple[str, str]] = {
    "dataproduct_type": ("str", ""),
    "dataproduct_subtype": ("str", ""),
    "calib_level": ("int64", ""),
    "obs_collection": ("str", ""),
    "obs_id": ("str", ""),
    "obs_publisher_did": ("str", ""),
    "access_url": ("str", ""),
    "access_format": ("str", ""),
    "access_estsize": ("int64", "kbyte"),
    "facility_name": ("str", ""),
    "instrument_name": ("str", ""),
    "target_name": ("str", ""),
    "s_ra": ("float64", "deg"),
    "s_dec": ("float64", "deg"),
    "s_fov": ("float64", "deg"),
    "s_region": ("str", ""),
    "s_resolution": ("float64", "arcsec"),
    "s_xel1": ("int64", ""),
    "s_xel2": ("int64", ""),
    "t_min": ("float64", "d"),
    "t_max": ("float64", "d"),
    "t_exptime": ("float64", "s"),
    "t_resolution": ("float64", "s"),
    "t_xel": ("int64", ""),
    "em_min": ("float64", "m"),
    "em_max": ("float64", "m"),
    "em_res_power": ("float64", ""),
    "em_xel": ("int64", ""),
    "o_ucd": ("str", ""),
    "pol_xel": ("int64", ""),
    "lsst_visit": ("int64", ""),
    "lsst_detector": ("int64", ""),
    "lsst_band": ("str", ""),
}
"""Type and unit by column: the mandatory ones of ObsCore 1.1, and LSST's own for visit, detector and band."""


def ingest_files_table(
    products: Iterable[tuple[str | os.PathLike[str], int, int]], *, instrument: str
) -> Table:
    """Table that ``butler ingest-files`` reads: one row per file, with the dimensions of its data id.

    Parameters
    ----------
    products
        Path, visit and detector of each file. Paths are kept as given; relative ones are relative to the
        ``--prefix`` of that command.
    instrument
        Name of the instrument in the butler repository, e.g. "LSSTCam".

    Returns
    -------
    table
        Columns ``filename``, ``instrument``, ``visit`` (int64), ``detector`` (int64), sorted by visit and
        detector; write it by ``table.write("files.ecsv")``.

    Raises
    ------
    LayoutError
        When two files have the same visit and detector, which a butler collection cannot hold.
    """
    from astropy.table import Table

    rows = sorted((visit, detector, str(path)) for path, visit, detector in products)
    for (visit, detector, first), (*other, second) in pairwise(rows):
        if [visit, detector] == other:
            raise LayoutError(f"visit {visit} detector {detector} has two files: {first} and {second}")
    return Table(
        {
            "filename": np.array([path for _, _, path in rows], dtype=str),
            "instrument": np.array([instrument] * len(rows), dtype=str),
            "visit": np.array([visit for visit, _, _ in rows], dtype=np.int64),
            "detector": np.array([detector for _, detector, _ in rows], dtype=np.int64),
        }
    )


def obscore_row(
    visit_image: VisitImage,
    url: str,
    *,
    collection: str,
    product: str = "lsst.visit_image",
    publisher: str = "ivo://org.rubinobs/lsst",
) -> dict[str, Any]:
    """Row of ObsCore 1.1 that describes one written visit image.

    Parameters
    ----------
    visit_image
        What was written; its WCS gives the region, its header instrument and date.
    url
        Where the file is served; its size is looked up where this is a local path.
    collection
        ``obs_collection``.
    product
        ``dataproduct_subtype``.
    publisher
        Beginning of the identifier.

    Returns
    -------
    row
        Value by column; None where it is not known.
    """
    header = visit_image.header if visit_image.header is not None else {}
    ny, nx = visit_image.shape
    em_min, em_max = _BANDS.get(visit_image.band, (None, None))
    start = _mjd(header)
    time = visit_image.exposure_time if math.isfinite(visit_image.exposure_time) else None
    obs_id = f"{visit_image.visit}-{visit_image.detector}"
    row: dict[str, Any] = dict.fromkeys(_OBSCORE)
    row |= {
        "dataproduct_type": "image",
        "dataproduct_subtype": product,
        "calib_level": 2 if visit_image.unit == "nJy" else 1,
        "obs_collection": collection,
        "obs_id": obs_id,
        "obs_publisher_did": f"{publisher}?{collection}/{product}/{obs_id}",
        "access_url": url,
        "access_format": "application/fits",
        "access_estsize": -(-Path(url).stat().st_size // 1000) if Path(url).is_file() else None,
        "facility_name": header.get("OBSERVAT") or header.get("TELESCOP"),
        "instrument_name": header.get("INSTRUME"),
        "target_name": header.get("OBJECT"),
        "s_xel1": nx,
        "s_xel2": ny,
        "t_min": start,
        "t_max": None if start is None or time is None else start + time / 86400,
        "t_exptime": time,
        "t_resolution": time,
        "t_xel": 1,
        "em_min": em_min,
        "em_max": em_max,
        "em_res_power": None
        if em_min is None or em_max is None
        else (em_min + em_max) / 2 / (em_max - em_min),
        "em_xel": 1,
        "o_ucd": "phot.flux.density" if visit_image.unit == "nJy" else "phot.count",
        "pol_xel": 0,
        "lsst_visit": visit_image.visit,
        "lsst_detector": visit_image.detector,
        "lsst_band": visit_image.band or None,
    }
    return row | _region(visit_image)


def obscore_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Rows of `obscore_row` as a table with ObsCore's types and units; what is not known is masked."""
    from astropy.table import MaskedColumn, Table

    rows = list(rows)
    table = Table(masked=True)
    for name, (kind, unit) in _OBSCORE.items():
        values = [row[name] for row in rows]
        empty = {"str": "", "int64": 0, "float64": np.nan}[kind]
        filled = [empty if value is None else value for value in values]
        table[name] = MaskedColumn(
            np.array(filled, dtype=kind), mask=[value is None for value in values], unit=unit or None
        )
    return table


def _region(visit_image: VisitImage) -> dict[str, Any]:
    wcs = visit_image.wcs
    if wcs is None:
        return {}
    ny, nx = visit_image.shape
    # outer corners of the corner pixels, anticlockwise in pixels
    corners = wcs.all_pix2world([-0.5, nx - 0.5, nx - 0.5, -0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5], 0)
    center = wcs.all_pix2world([(nx - 1) / 2], [(ny - 1) / 2], 0)
    (ra, dec), (ra0, dec0) = corners, (float(center[0][0]), float(center[1][0]))
    radius = max(_separation(ra0, dec0, float(a), float(d)) for a, d in zip(ra, dec, strict=True))
    scale = 3600 * math.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    sigma = getattr(visit_image.psf, "sigma", None)
    return {
        "s_ra": ra0,
        "s_dec": dec0,
        "s_fov": 2 * radius,
        "s_region": "POLYGON ICRS " + " ".join(f"{a:.9f} {d:.9f}" for a, d in zip(ra, dec, strict=True)),
        "s_resolution": None if sigma is None else 2.354820045 * float(sigma) * scale,
    }


def _separation(ra0: float, dec0: float, ra: float, dec: float) -> float:
    """Angle between two directions, degrees (haversine)."""
    a0, d0, a, d = (math.radians(angle) for angle in (ra0, dec0, ra, dec))
    h = math.sin((d - d0) / 2) ** 2 + math.cos(d) * math.cos(d0) * math.sin((a - a0) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(h))))


def _mjd(header: Any) -> float | None:
    value = header.get("MJD-OBS")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    date = header.get("DATE-BEG") or header.get("DATE-OBS")
    if not isinstance(date, str):
        return None
    from astropy.time import Time

    try:
        return float(Time(date, format="isot" if "T" in date else "iso", scale="utc").mjd)
    except ValueError:
        return None
