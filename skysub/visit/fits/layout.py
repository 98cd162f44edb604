"""What a layout of files is: how to know it, and how to read headers and pixels of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["Layout"]


def _none(path: str) -> tuple[str, ...]:
    del path
    return ()


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which cameras or pipelines lay out a visit image in files.

    Parameters
    ----------
    name
        What messages and `VisitHeader.layout` call it.
    recognise
        Whether an open file has this layout. It looks at headers alone.
    headers
        One header for each detector in the file, without touching pixels. It raises `LayoutError` where
        something that a visit image needs is missing or contradicts itself.
    read
        The visit image that a header describes. It raises `LayoutError` where planes disagree.
    companions
        Paths of further files that belong to one, judged by its name alone; they need not exist. A campaign
        takes a change of one for a change of the input.
    by_rows
        Whether rows of the image can be read without the others: `read` then makes each row of what it
        returns of the same row of each plane.
    """

    name: str
    recognise: Callable[[FitsFile], bool]
    headers: Callable[[FitsFile, IngestMap], list[VisitHeader]]
    read: Callable[[FitsFile, VisitHeader, IngestMap], VisitImage]
    companions: Callable[[str], tuple[str, ...]] = _none
    by_rows: bool = True
