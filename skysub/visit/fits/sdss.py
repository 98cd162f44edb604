"""SDSS frames (data release 8 on): calibrated, sky subtracted, with the sky model that can be added back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import LayoutError
from skysub.visit.fits.assemble import finish, nothing_known, visit_header
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.pixels import read_float, read_vector
from skysub.visit.fits.row import read_row
from skysub.visit.ingest import by_hand
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["LAYOUT"]

_NAME = "SDSS frame"
NANOMAGGY = 3631.0
"""nJy in a nanomaggy."""

_WITH_SKY = f"to have it in the image: {by_hand(add_sky=True)}"


def _recognise(file: FitsFile) -> bool:
    """Whether the primary holds an image of SDSS and the sky model stands in the third HDU."""
    cards, hdus = file.primary.cards, file.hdus
    return (
        file.primary.is_image
        and {"RUN", "CAMCOL", "CAMROW"} <= set(cards.keywords())
        and len(hdus) >= 3
        and hdus[2].cards.get("TTYPE1") == "ALLSKY"
    )


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header; the visit is RUN * 10000 + FRAME, the detector 10 * CAMROW + CAMCOL.

    Raises
    ------
    LayoutError
        When those are missing.
    """
    cards = file.primary.cards
    numbers = [cards.get(keyword) for keyword in ("RUN", "FRAME", "CAMROW", "CAMCOL")]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise LayoutError(f"{file.path}: RUN, FRAME, CAMROW and CAMCOL of an SDSS frame are {numbers}")
    run, frame, row, column = numbers
    header = visit_header(
        file,
        ingest,
        layout=_NAME,
        image=file.primary,
        planes=AFW_PLANES,
        cards=cards,
        visit=(),
        detector=(),
        known_visit=run * 10000 + frame,
        known_detector=10 * row + column,
        default_unit="nanomaggy",
    )
    return [dataclasses.replace(header, unit="adu") if ingest.add_sky else header]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read a frame: nanomaggies without sky, or counts with the sky that SDSS subtracted.

    Raises
    ------
    LayoutError
        When calibration or sky do not fit the image.
    """
    image = read_float(file, file.primary, verify=ingest.verify)
    photo_calib = NANOMAGGY if header.unit == "nanomaggy" else None
    if ingest.add_sky:
        calibration = read_vector(file, file.hdus[1])
        if calibration.shape != header.shape[1:] or not (calibration > 0).all():
            raise LayoutError(f"{header.who}: the calibration must be {header.shape[1]} positive numbers")
        image /= calibration.astype(np.float32)
        image += _sky(file, header)
        photo_calib = NANOMAGGY * float(calibration.mean())
    return finish(
        header,
        ingest,
        image=image,
        mask=nothing_known(image),
        variance=None,
        notes=() if ingest.add_sky else (f"SDSS has subtracted the sky already; {_WITH_SKY}",),
        photo_calib=photo_calib,
    )


def _sky(file: FitsFile, header: VisitHeader) -> NDArray[np.float32]:
    """The subtracted sky, counts: a coarse grid, interpolated bilinearly at the columns and rows given."""
    row = read_row(file, file.hdus[2])
    try:
        coarse, columns, rows = (row[name].astype(np.float64) for name in ("ALLSKY", "XINTERP", "YINTERP"))
    except KeyError as error:
        raise LayoutError(f"{header.who}: the sky model lacks the column {error}") from error
    if (
        coarse.ndim != 2
        or (rows.size, columns.size) != header.shape
        or not np.isfinite([*rows, *columns]).all()
    ):
        raise LayoutError(f"{header.who}: the sky model does not fit an image of {header.shape}")
    along_y = _interpolated(coarse, rows)
    return _interpolated(along_y.T, columns).T.astype(np.float32)


def _interpolated(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of ``values`` at fractional row numbers, held at the ends."""
    place = np.clip(at, 0, len(values) - 1)
    below = np.minimum(place.astype(np.int64), max(len(values) - 2, 0))
    above = np.minimum(below + 1, len(values) - 1)
    part = (place - below)[:, None]
    result: NDArray[np.float64] = values[below] * (1 - part) + values[above] * part
    return result


LAYOUT = Layout(_NAME, _recognise, _headers, _read, by_rows=False)
