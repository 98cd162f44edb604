"""From what was measured in counts and pixels to the calibrated table ``source``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from skysub.measurement.columns import COLUMNS, Column
from skysub.measurement.ids import SourceIds
from skysub.measurement.places import local_axes, sky_places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.visit.calibrations import Calibrations
    from skysub.visit.image import VisitImage

__all__ = ["Measured", "SourceTable", "make_source_table"]

_PIXEL_AREA = 0.2**2
"""Arcsec squared: the area of a pixel to which jacobian_value refers."""
_SAME_STAR = 1.0
"""Pixels within which a source is a star of the PSF."""
_INSTRUMENTAL = {
    **{f"apFlux_{radius}_0_instFlux": f"ap{radius}Flux" for radius in (12, 17, 35, 50)},
    "normCompTophatFlux_instFlux": "calibFlux",
    "localBackground_instFlux": "sky",
}
"""Fluxes in counts, and those in nJy that they are before calibration."""
_CORRECTED = ("psfFlux", "gaussianFlux", "kronFlux")
"""Fluxes that aperture corrections are for."""


class Measured(Protocol):
    """What a table is made of."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Arrays (n,) by the names of ``source``.

        Fluxes and their errors are in counts, variance_value in counts squared, places in pixels of the
        array, the centre of whose first pixel is (0, 0). Beside them there is ``parentIndex``: the row of the
        blend that a source was taken from, -1 where there is none.
        """


@dataclass(frozen=True, eq=False)
class SourceTable:
    """The table ``source`` of one detector."""

    columns: Mapping[str, NDArray[Any]]
    """Arrays (n,) by name, in the order and of the types of `skysub.measurement.columns`."""

    def __len__(self) -> int:
        return len(self.columns["sourceId"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __repr__(self) -> str:
        primary = int(self.columns["detect_isPrimary"].sum())
        return f"SourceTable({len(self)} rows, {primary} primary, {len(self.columns)} columns)"

    def to_astropy(self) -> Any:
        """As astropy's Table, with units and descriptions."""
        from astropy.table import Table

        table = Table({name: np.asarray(values) for name, values in self.columns.items()})
        for known in COLUMNS:
            table[known.name].description = known.description
            if known.unit:
                table[known.name].unit = known.unit
        return table

    def to_arrow(self) -> Any:
        """As Arrow's Table, each field with ``unit`` and ``description`` in its metadata.

        The schema's metadata has them once more as astropy and LSST's butler read them, and the lengths of
        texts that the butler's reader wants.

        Raises
        ------
        MissingPackageError
            When pyarrow is not installed.
        """
        from skysub.measurement.parquet import source_schema

        texts = [self.columns[known.name] for known in COLUMNS if known.dtype == "str"]
        schema = source_schema(tuple(max(1, *(len(text) for text in values), 0) for values in texts))
        import pyarrow as pa

        arrays = []
        for known, arrow in zip(COLUMNS, schema, strict=True):
            values = self.columns[known.name]
            arrays.append(pa.array(values.tolist() if known.dtype == "str" else values, arrow.type))
        return pa.Table.from_arrays(arrays, schema=schema)


def make_source_table(
    measured: Measured,
    visit_image: VisitImage,
    calibrations: Calibrations,
    *,
    ids: SourceIds | None = None,
    losses: Mapping[str, NDArray[Any]] | None = None,
) -> SourceTable:
    """Calibrate what was measured on a detector.

    Rows are sorted by position: by the row of pixels that a centroid lies in, then by x. So a source has the
    same number in every rerun, whatever the order in which it was found.

    Parameters
    ----------
    measured
        What was measured, in counts and pixels; columns that it lacks are derived where others tell them,
        else NaN, 0 or false.
    visit_image
        The image it was measured on: visit, detector, band, ``xy0`` and header.
    calibrations
        Of the detector. A flux is multiplied by its aperture correction and by the photometric calibration at
        its place; errors of fluxes hold that of the calibration and not that of the correction.
    ids
        How sources are numbered; ``SourceIds()`` by default.
    losses
        Columns of the over-subtraction, (n,) in the order of what was measured.

    Raises
    ------
    SourceIdError
        When visit, detector or the number of sources does not fit into ids.
    """
    given = {**measured.columns, **(losses or {})}
    n = len(given["x"])
    numbers = (ids or SourceIds()).of(visit_image.visit, visit_image.detector, n)
    order = _by_position(given["x"], given["y"])
    made = {name: np.asarray(values)[order] for name, values in given.items()}
    made["sourceId"] = numbers
    made["parentSourceId"] = _parents(made.get("parentIndex"), order, numbers)
    x, y = np.asarray(made["x"], np.float64), np.asarray(made["y"], np.float64)
    _instrumental(made, n)
    _places(made, x, y, calibrations)
    x0, y0 = visit_image.xy0
    made["x"], made["y"] = x + x0, y + y0
    _fluxes(made, calibrations)
    _psf_stars(made, x, y, calibrations.psf)
    if "detect_isPrimary" not in made:
        primary = made.get("isPrimary")
        made["detect_isPrimary"] = np.ones(n, bool) if primary is None else np.asarray(primary, bool)
    header = visit_image.header if visit_image.header is not None else {}
    made["visit"] = np.full(n, visit_image.visit)
    made["detector"] = np.full(n, visit_image.detector)
    made["band"] = np.full(n, visit_image.band)
    made["physical_filter"] = np.full(n, str(header.get("FILTER") or ""))
    return SourceTable({known.name: _typed(made.get(known.name), known, n) for known in COLUMNS})


def _by_position(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order by row of pixels, then by x; what has no place comes last."""
    known = np.isfinite(x) & np.isfinite(y)
    row = np.where(known, np.floor(np.where(known, y, 0.0) + 0.5), np.inf)
    return np.lexsort((np.where(known, y, np.inf), np.where(known, x, np.inf), row))


def _parents(
    index: NDArray[Any] | None, order: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers of the blends, from the rows that they had before sorting."""
    if index is None:
        return np.zeros(len(order), np.int64)
    where = np.empty(len(order), np.int64)
    where[order] = np.arange(len(order))
    parent = np.asarray(index, np.int64)
    return np.where(parent >= 0, numbers[where[np.maximum(parent, 0)]], 0) if len(order) else parent


def _instrumental(made: dict[str, Any], n: int) -> None:
    """Fluxes in counts that are not calibrated, from those that will be."""
    for error in ("", "Err"):
        if f"calibFlux{error}" not in made and f"ap12Flux{error}" in made:
            made[f"calibFlux{error}"] = made[f"ap12Flux{error}"]
        for counts, flux in _INSTRUMENTAL.items():
            if counts + error not in made and flux + error in made:
                made[counts + error] = made[flux + error]
            elif flux + error not in made and counts + error in made:
                made[flux + error] = made[counts + error]
    for counts, flux in _INSTRUMENTAL.items():
        flag = f"{flux}_flag" if flux.startswith("ap") else ""
        own = counts.replace("_instFlux", "_flag")
        if own not in made and flag in made:
            made[own] = made[flag]
    if "normCompTophatFlux_flag" not in made:
        made["normCompTophatFlux_flag"] = made.get("ap12Flux_flag", np.zeros(n, bool))


def _places(
    made: dict[str, Any], x: NDArray[np.float64], y: NDArray[np.float64], calibrations: Calibrations
) -> None:
    """Places on the sky, their errors, and the local axes."""
    ra, dec = sky_places(calibrations.wcs, x, y)
    axes = local_axes(calibrations.wcs, x, y)
    nothing = np.full(len(x), np.nan)
    x_variance = np.asarray(made.get("xErr", nothing), np.float64) ** 2
    y_variance = np.asarray(made.get("yErr", nothing), np.float64) ** 2
    xy = np.asarray(made.get("xy_Cov", np.zeros(len(x))), np.float64)
    (a, b), (c, d) = axes
    made |= {"ra": ra, "dec": dec, "coord_ra": ra, "coord_dec": dec}
    made["raErr"] = np.sqrt(a * a * x_variance + 2 * a * b * xy + b * b * y_variance)
    made["decErr"] = np.sqrt(c * c * x_variance + 2 * c * d * xy + d * d * y_variance)
    made["ra_dec_Cov"] = a * c * x_variance + (a * d + b * c) * xy + b * d * y_variance
    for row in range(2):
        for column in range(2):
            made[f"localWcs_CDMatrix_{row + 1}_{column + 1}"] = axes[row][column]
    area = np.abs(a * d - b * c) * 3600**2
    made["jacobian_value"] = area / _PIXEL_AREA
    made["jacobian_flag"] = ~np.isfinite(area)


def _fluxes(made: dict[str, Any], calibrations: Calibrations) -> None:
    """Calibrate fluxes; ``x`` and ``y`` are those of the whole detector."""
    x, y = made["x"], made["y"]
    scale = calibrations.photo_calib.at(x, y)
    relative = calibrations.photo_calib.error / calibrations.photo_calib.mean
    made["localPhotoCalib"] = scale
    made["localPhotoCalibErr"] = calibrations.photo_calib.error_at(x, y)
    for known in COLUMNS:
        flux = known.name
        if known.unit != "nJy" or flux.endswith("Err") or flux not in made or flux.startswith("local"):
            continue
        factor = scale
        if flux in _CORRECTED and flux in calibrations.aperture_corrections:
            factor = scale * calibrations.aperture_corrections[flux].at(x, y)
        made[flux] = np.asarray(made[flux], np.float64) * factor
        if f"{flux}Err" in made:
            error = np.asarray(made[f"{flux}Err"], np.float64) * factor
            made[f"{flux}Err"] = np.hypot(error, made[flux] * relative) if relative else error
    correction = calibrations.aperture_corrections.get("psfFlux")
    if correction is None:
        made["psfFlux_flag_apCorr"] = np.ones(len(x), bool)
        return
    made["psfFlux_apCorr"] = correction.at(x, y)
    made["psfFlux_flag_apCorr"] = ~np.isfinite(made["psfFlux_apCorr"])
    spread = calibrations.aperture_corrections.get("psfFluxErr")
    if spread is not None:
        made["psfFlux_apCorrErr"] = spread.at(x, y)


def _psf_stars(made: dict[str, Any], x: NDArray[np.float64], y: NDArray[np.float64], psf: Any) -> None:
    """Flags of the sources that are stars of the PSF: for each star the nearest source."""
    stars = getattr(psf, "stars", None)
    candidate, used = np.zeros(len(x), bool), np.zeros(len(x), bool)
    whole = np.asarray(made.get("deblend_nChild", np.zeros(len(x)))) == 0
    rows = np.nonzero(whole & np.isfinite(x) & np.isfinite(y))[0]
    if stars is not None and len(rows):
        for star_x, star_y, served in zip(stars.x, stars.y, stars.used, strict=True):
            apart = np.hypot(x[rows] - star_x, y[rows] - star_y)
            nearest = int(np.argmin(apart))
            if apart[nearest] <= _SAME_STAR:
                candidate[rows[nearest]] = True
                used[rows[nearest]] |= bool(served)
    made.setdefault("calib_psf_candidate", candidate)
    made.setdefault("calib_psf_used", used)


def _typed(values: Any, known: Column, n: int) -> NDArray[Any]:
    """Values of a column in its type; NaN, 0 or false where there are none."""
    if known.dtype == "str":
        return np.asarray(values, dtype=str)
    if values is None:
        return np.full(n, np.nan if known.dtype.startswith("float") else 0, known.dtype)
    return np.ascontiguousarray(values, dtype=known.dtype)
