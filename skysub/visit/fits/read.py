"""Read visits from FITS: the layout is chosen by looking at the file."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from skysub.errors import LayoutError, VisitFileError
from skysub.visit.fits import afw, decam, lco, lsst_images, mapped, plain, sdss, subtracted
from skysub.visit.fits.claims import no_room
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.header import Window
from skysub.visit.fits.pixels import read_float, verify_sums
from skysub.visit.ingest import IngestMap

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.fits.layout import Layout
    from skysub.visit.fits.tally import Tally
    from skysub.visit.image import VisitImage

__all__ = [
    "companion_files",
    "image_rows",
    "layout_of",
    "read_rows",
    "read_visit_header",
    "read_visit_headers",
    "read_visit_image",
    "read_with_checksum",
    "verify_file",
]

_LAYOUTS = (
    subtracted.LAYOUT,
    lsst_images.LAYOUT,
    afw.LAYOUT,
    decam.LAYOUT,
    sdss.LAYOUT,
    lco.LAYOUT,
    plain.LAYOUT,
)
"""In the order in which they are tried: `plain` recognises all that hold an image."""


def read_visit_image(
    path: str | os.PathLike[str],
    ingest: IngestMap | None = None,
    *,
    detector: int | None = None,
    threads: int = 1,
) -> VisitImage:
    """Read one detector of one visit from a FITS file, whatever layout it has.

    Known layouts are LSST afw exposures, lsst.images VisitImage files, DECam Community Pipeline triples,
    SDSS frames, an image with a bad-pixel mask, and an image alone; ``docs/formats.md`` says what is found
    where in each. The file is closed again before this returns.

    Parameters
    ----------
    path
        A local file, or a URL (``s3://...``); packed by gzip, bzip2 or xz as a whole, tile-compressed, or
        plain.
    ingest
        What to take from where, for files that keep it elsewhere.
    detector
        Which detector, in a file of several.
    threads
        Threads to share the work among; what is read is the same.

    Returns
    -------
    visit_image
        Pixels as native float32, y before x, in the file's unit.

    Raises
    ------
    VisitFileNotFoundError
        When there is no file, or none beside it that belongs to it.
    VisitFileError
        When a file is truncated, damaged, or no FITS, or needs more memory than there is.
    LayoutError
        When it does not hold what a visit image needs; the message says what, and what to do.
    """
    return _read(path, ingest, detector, threads=threads)[0]


def read_with_checksum(
    path: str | os.PathLike[str], ingest: IngestMap | None = None, *, detector: int | None = None
) -> tuple[VisitImage, str | None]:
    """Read one detector, and the CRC-32C of the file's bytes as they were read.

    Parameters and errors are those of `read_visit_image`. The checksum is None where the file is packed as a
    whole or not local; it is that of ``path`` alone, without files beside it.
    """
    from skysub.visit.fits.tally import Tally

    return _read(path, ingest, detector, tally=Tally())


def _read(
    path: str | os.PathLike[str],
    ingest: IngestMap | None,
    detector: int | None,
    *,
    threads: int = 1,
    tally: Tally | None = None,
) -> tuple[VisitImage, str | None]:
    ingest = ingest or IngestMap()
    with open_fits(path, verify=ingest.verify, threads=threads, tally=tally) as file:
        layout = layout_of(file, ingest)
        header = _chosen(layout.headers(file, ingest), detector, file.path)
        try:
            visit_image = layout.read(file, header, ingest)
        except MemoryError as error:
            raise VisitFileError(no_room(header.who, str(error) or "it ended on the way")) from error
        return visit_image, file.checksum()


def read_rows(
    path: str | os.PathLike[str],
    ingest: IngestMap | None,
    detector: int | None,
    rows: range,
    *,
    own: range,
    bare: bool = True,
) -> tuple[VisitImage, VisitHeader]:
    """Read some rows of one detector, as far as its file allows without the others.

    Frames of SDSS, whose sky goes over all rows, and files that are packed as a whole are read whole. Whether
    too many pixels lack a variance, and sums of data, are for `check_variance` and `verify_file`.

    Parameters
    ----------
    own
        Those of the rows whose variance is looked at.
    bare
        Leave out header and world coordinates, which take time.

    Returns
    -------
    visit_image, header
        Arrays (len(rows), nx), without amplifiers; and the header, whose ``rows`` say what was seen.
        Errors are those of `read_visit_image`.
    """
    ingest = ingest or IngestMap()
    with open_fits(path, verify=ingest.verify) as file:
        layout = layout_of(file, ingest)
        header = _chosen(layout.headers(file, ingest), detector, file.path)
        rows = range(rows.start, min(rows.stop, header.shape[0]))
        own = range(own.start, min(own.stop, rows.stop))
        window = Window(shape=header.shape, rows=rows, own=own)
        header = dataclasses.replace(header, rows=window, bare=bare)
        if not layout.by_rows:
            whole = layout.read(file, dataclasses.replace(header, rows=None), ingest)
            cut = slice(rows.start, rows.stop)
            return whole.replace(image=whole.image[cut], mask=whole.mask[cut], amplifiers=()), header
        file.window = window
        visit_image = layout.read(file, header, ingest)
        return visit_image, header


def image_rows(
    path: str | os.PathLike[str], ingest: IngestMap | None, detector: int | None, rows: range
) -> NDArray[np.float32]:
    """Read some rows of the pixels of one detector alone, as `read_rows` does."""
    ingest = ingest or IngestMap()
    with open_fits(path, verify=ingest.verify) as file:
        layout = layout_of(file, ingest)
        header = _chosen(layout.headers(file, ingest), detector, file.path)
        if layout.by_rows:
            file.window = Window(shape=header.shape, rows=rows, own=range(0))
            return read_float(file, file.hdus[header.extension], verify=ingest.verify)
    return read_rows(path, ingest, detector, rows, own=range(0))[0].image


def verify_file(path: str | os.PathLike[str], ingest: IngestMap | None = None) -> None:
    """Compare the data of a file with the sums that it states, where the mapping asks for that.

    Raises
    ------
    ChecksumError
        When they differ.
    """
    ingest = ingest or IngestMap()
    if ingest.verify:
        with open_fits(path) as file:
            verify_sums(file)


def read_visit_header(
    path: str | os.PathLike[str], ingest: IngestMap | None = None, *, detector: int | None = None
) -> VisitHeader:
    """Read what the header of one detector says, without touching pixels.

    Parameters and errors are those of `read_visit_image`.
    """
    return _chosen(read_visit_headers(path, ingest), detector, str(path))


def read_visit_headers(path: str | os.PathLike[str], ingest: IngestMap | None = None) -> list[VisitHeader]:
    """Read what the headers of all detectors in a file say, without touching pixels.

    Errors are those of `read_visit_image`.
    """
    ingest = ingest or IngestMap()
    with open_fits(path, headers_only=True, verify=ingest.verify) as file:
        return layout_of(file, ingest).headers(file, ingest)


def layout_of(file: FitsFile, ingest: IngestMap) -> Layout:
    """The layout that a file has.

    Raises
    ------
    LayoutError
        When there is no image in the file.
    """
    if ingest.image is not None:
        return mapped.LAYOUT
    for layout in _LAYOUTS:
        if layout.recognise(file):
            return layout
    have = ", ".join(hdu.name or "(no name)" for hdu in file.hdus)
    raise LayoutError(f"{file.path}: there is no image in this file (extensions: {have})")


def companion_files(path: str) -> tuple[str, ...]:
    """Paths of the files that belong to one by their names, as layouts of several files have them.

    They need not exist, and nothing is opened.
    """
    return tuple(each for layout in _LAYOUTS for each in layout.companions(path))


def _chosen(headers: list[VisitHeader], detector: int | None, path: str) -> VisitHeader:
    if detector is None and len(headers) == 1:
        return headers[0]
    have = ", ".join(str(header.detector) for header in headers)
    if detector is None:
        raise LayoutError(f"{path}: the file holds several detectors ({have}); say which: detector=...")
    for header in headers:
        if header.detector == detector:
            return header
    raise LayoutError(f"{path}: the file does not hold detector {detector}; it holds: {have}")
