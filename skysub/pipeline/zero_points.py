"""Astrometric and photometric zero points against a reference catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import ReferenceCatalogueError, how_to_install

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = ["Reference", "ZeroPoints", "find_zero_points", "read_reference"]

_SEARCH = 40.0
"""Pixels within which the pointing may be off."""
_MATCH = 3.0
"""Pixels within which a star and its reference lie, once the offset is known."""
_FEWEST = 3
_CLIP = 3.0
_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Reference:
    """Stars with known places and magnitudes, (n,) float64 each."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    """Degrees, ICRS."""
    magnitude: NDArray[np.float64]
    """AB, in the band of the image; NaN where unknown."""
    name: str = "reference catalogue"
    """What messages call it: the file's path."""


@dataclass(frozen=True, slots=True)
class ZeroPoints:
    """How image and catalogue differ."""

    photometric: float
    """Magnitude of one unit of the image in the aperture of the correction; NaN where unknown."""
    photometric_error: float
    dx: float
    dy: float
    """Pixels by which the image's world coordinates are off: a star lies at its predicted place plus this."""
    offset_scatter: float
    """Of stars about that, pixel, per axis."""
    matches: int

    @property
    def photo_calib(self) -> float:
        """NJy per unit of the image."""
        return float(10 ** (0.4 * (31.4 - self.photometric)))


def read_reference(path: str | Path, *, band: str) -> Reference:
    """Reference catalogue from Parquet or ECSV.

    Columns: ``ra``, ``dec`` (or ``coord_ra``, ``coord_dec``) in degrees, and ``BAND_mag`` or ``mag`` (AB), or
    ``BAND_flux`` or ``flux`` (nJy).

    Raises
    ------
    ReferenceCatalogueError
        When the file cannot be read or a column is missing.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            raw = pyarrow.parquet.read_table(path)
            columns: dict[str, Any] = {name: raw[name].to_numpy() for name in raw.column_names}
        else:
            from astropy.table import Table

            table = Table.read(path, format="ascii.ecsv")
            columns = {name: np.ma.filled(table[name], np.nan) for name in table.colnames}
    except ImportError as error:
        raise ReferenceCatalogueError(
            f"{path}: reading Parquet needs pyarrow; {how_to_install('parquet')}"
        ) from error
    except (OSError, ValueError) as error:
        raise ReferenceCatalogueError(
            f"{path}: cannot be read as a reference catalogue (.parquet or .ecsv): {error}"
        ) from error

    def column(*names: str) -> NDArray[np.float64] | None:
        for name in names:
            if name in columns:
                return np.asarray(columns[name], np.float64)
        return None

    ra, dec = column("ra", "coord_ra"), column("dec", "coord_dec")
    magnitude, flux = column(f"{band}_mag", "mag"), column(f"{band}_flux", "flux")
    if magnitude is None and flux is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitude = 31.4 - 2.5 * np.log10(flux)
    if ra is None or dec is None or magnitude is None:
        raise ReferenceCatalogueError(
            f"{path}: needs columns ra, dec (degrees) and {band}_mag or mag, {band}_flux or flux (nJy); "
            f"it has {', '.join(columns)}"
        )
    return Reference(ra=ra, dec=dec, magnitude=magnitude, name=str(path))


def find_zero_points(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    flux: NDArray[np.float64],
    wcs: WCS,
    reference: Reference,
    *,
    shape: tuple[int, int],
) -> tuple[ZeroPoints | None, dict[str, str]]:
    """Compare stars of an image with a reference catalogue.

    Parameters
    ----------
    x, y, flux
        (n,) places in pixels, and fluxes in the aperture, unit of the image.

    Returns
    -------
    zero_points, flags
        None where fewer than three stars match, and then a sentence about it.
    """
    there_x, there_y = wcs.all_world2pix(reference.ra, reference.dec, 0, quiet=True)
    ny, nx = shape
    margin = _SEARCH
    near = np.isfinite(there_x) & np.isfinite(there_y)
    near &= (there_x > -margin) & (there_x < nx + margin) & (there_y > -margin) & (there_y < ny + margin)
    if not near.any():
        return None, {
            "reference_no_overlap": f"No zero points: no star of {reference.name} lies on this detector."
        }
    rx, ry, magnitude = there_x[near], there_y[near], reference.magnitude[near]
    dx, dy = x[:, None] - rx[None, :], y[:, None] - ry[None, :]
    shift_x, shift_y = _densest(dx, dy)
    distance = np.hypot(dx - shift_x, dy - shift_y)
    star, match = np.nonzero(
        (distance <= _MATCH)
        & (distance == distance.min(axis=1, keepdims=True))
        & (distance == distance.min(axis=0, keepdims=True))
    )
    if len(star) < _FEWEST:
        return None, {
            "reference_no_matches": (
                f"No zero points: only {len(star)} of {len(x)} stars match {reference.name} "
                f"within {_MATCH:g} pixels."
            )
        }
    off_x, off_y = dx[star, match], dy[star, match]
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = magnitude[match] + 2.5 * np.log10(flux[star])
    zero_point, zero_error = _clipped_median(zero[np.isfinite(zero)])
    quality_flags: dict[str, str] = {}
    if not math.isfinite(zero_point):
        quality_flags["no_photometric_zero_point"] = (
            f"No photometric zero point: no matched star of {reference.name} has a magnitude and a flux."
        )
    scatter = 1.4826 * math.hypot(*(float(np.median(np.abs(o - np.median(o)))) for o in (off_x, off_y)))
    return ZeroPoints(
        photometric=zero_point,
        photometric_error=zero_error,
        dx=float(np.median(off_x)),
        dy=float(np.median(off_y)),
        offset_scatter=scatter / math.sqrt(2),
        matches=len(star),
    ), quality_flags


def _densest(dx: NDArray[np.float64], dy: NDArray[np.float64]) -> tuple[float, float]:
    """Offset that most pairs share: the fullest of overlapping squares, then the median of its pairs."""
    close = (np.abs(dx) < _SEARCH) & (np.abs(dy) < _SEARCH)
    if not close.any():
        return 0.0, 0.0
    px, py = dx[close], dy[close]
    edges = np.arange(-_SEARCH, _SEARCH + 1, 2.0)
    counts = np.histogram2d(py, px, bins=(edges, edges))[0]
    full = np.zeros_like(counts)
    for a in (0, 1):
        for b in (0, 1):
            full[: len(counts) - a, : len(counts) - b] += counts[a:, b:]
    j, i = np.unravel_index(int(np.argmax(full)), full.shape)
    inside = (np.abs(px - edges[i] - 2) <= 2) & (np.abs(py - edges[j] - 2) <= 2)
    return float(np.median(px[inside])), float(np.median(py[inside]))


def _clipped_median(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median after clipping at three standard deviations, and its error."""
    for _ in range(_ROUNDS):
        if not len(values):
            return math.nan, math.nan
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        kept = np.abs(values - middle) <= max(_CLIP * spread, 1e-6)
        if kept.all():
            break
        values = values[kept]
    return middle, spread * math.sqrt(math.pi / 2 / len(values))
