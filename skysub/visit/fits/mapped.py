"""Files that the user maps by hand: extensions, plane bits and header keys as an `IngestMap` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import LayoutError
from skysub.visit.fits.assemble import (
    check_shape,
    finish,
    noise_model,
    nothing_known,
    visit_header,
    weight_to_variance,
)
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.ingest import by_hand
from skysub.visit.planes import AFW_PLANES, MaskPlanes

if TYPE_CHECKING:
    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["LAYOUT"]

_NAME = "mapped by hand"


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header, of the extension that the map names as the image.

    Raises
    ------
    LayoutError
        When an extension or a keyword of the map is not in the file.
    """
    assert ingest.image is not None
    image = file.find(ingest.image)
    return [
        visit_header(
            file,
            ingest,
            layout=_NAME,
            image=image,
            planes=MaskPlanes(ingest.planes) if ingest.planes else AFW_PLANES,
            cards=image.cards.over(file.primary.cards) if image.index else image.cards,
            visit=("VISIT", "EXPID", "EXPNUM"),
            detector=("DETECTOR", "DETNUM", "CCDNUM"),
        )
    ]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read what the map names; without a mask only non-finite pixels are masked (NO_DATA).

    Raises
    ------
    LayoutError
        When planes disagree in shape, or the mask has bits that the map does not name.
    """
    image = read_float(file, file.hdus[header.extension], verify=ingest.verify)
    mask = nothing_known(image)
    if ingest.mask is not None:
        hdu = file.find(ingest.mask)
        check_shape(header, hdu)
        stored = read_integer(file, hdu, verify=ingest.verify)
        if ingest.planes:
            mask = stored
        else:
            mask[stored != 0] |= AFW_PLANES.bits("BAD")
    elif ingest.planes:
        raise LayoutError(
            f"{header.who}: the map gives planes but no mask: {by_hand('mask', planes='{...}')}"
        )
    variance = noise_model(header, image)
    extension = ingest.variance if ingest.weight is None else ingest.weight
    if extension is not None:
        hdu = file.find(extension)
        check_shape(header, hdu)
        variance = read_float(file, hdu, verify=ingest.verify)
        if ingest.weight is not None:
            variance = weight_to_variance(variance)
            if "NO_DATA" in header.planes:
                mask[np.isnan(variance)] |= mask.dtype.type(header.planes.bits("NO_DATA"))
    return finish(header, ingest, image=image, mask=mask, variance=variance)


LAYOUT = Layout(_NAME, lambda _: False, _headers, _read)
"""For files that `IngestMap.image` maps; it is never recognised by itself."""
