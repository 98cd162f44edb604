"""DECam Community Pipeline: image (ooi), data quality (ood), weight (oow): three files of many detectors."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import LayoutError, VisitFileNotFoundError
from skysub.visit.fits.assemble import check_shape, finish, visit_header, weight_to_variance
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.ingest import by_hand
from skysub.visit.planes import MaskPlanes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile, Hdu
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["BITS", "CODES", "LAYOUT", "PLANES", "planes_of_quality"]

_NAME = "DECam Community Pipeline"

_PRODUCT = re.compile(r"_(oo|op|os)([idw])(?=_)")

PLANES = MaskPlanes(
    {
        "BAD": 0,
        "SAT": 1,
        "INTRP": 2,
        "CR": 3,
        "EDGE": 4,
        "SUSPECT": 7,
        "NO_DATA": 8,
        "STREAK": 10,
        "BLEED": 11,
    }
)

CODES = {
    1: ("BAD",),
    2: ("NO_DATA",),
    3: ("SAT",),
    4: ("SAT", "BLEED"),
    5: ("CR",),
    6: ("SUSPECT",),
    7: ("SUSPECT",),
    8: ("STREAK",),
}
"""Codes from pipeline version 3.5 on, one per pixel: bad, no value, saturated, bleed trail, cosmic ray, low
weight, differs from the median of exposures, long streak (NOAO Data Handbook; DECam data quality masks,
community.lsst.org/t/133; 8 as in legacypipe)."""

BITS = {
    1: ("BAD",),
    2: ("SAT",),
    4: ("INTRP",),
    8: ("BAD",),
    16: ("CR",),
    32: ("SUSPECT",),
    64: ("SAT", "BLEED"),
    128: ("SUSPECT",),
    256: ("SUSPECT",),
    512: ("EDGE",),
    1024: ("STREAK",),
    2048: ("INTRP",),
}
"""Bits of the versions before. The pipeline documents 1, 2, 4, 16, 64 and 128 (bad, saturated, interpolated,
cosmic ray, bleed trail, differs from the median of exposures; same sources); the others are those of DES,
which it came from (mask_bits.h of pixcorrect: too little signal, near a bright star, crosstalk of a saturated
source, glowing edge, streak, repaired). DES's 128, the bleed into an edge, is as doubtful."""


def _recognise(file: FitsFile) -> bool:
    """Whether this is an image of the pipeline (a file of codes or weights is not)."""
    instrument = file.primary.cards.get("INSTRUME")
    if not isinstance(instrument, str) or "decam" not in instrument.lower():
        return False
    name = PurePosixPath(file.path).name
    return _PRODUCT.search(name) is not None or "PLVER" in file.primary.cards


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header per detector in the file.

    Raises
    ------
    LayoutError
        When this is the file of codes or weights, or visit or detector are unknown.
    """
    found = _PRODUCT.search(PurePosixPath(file.path).name)
    if found is not None and found[2] != "i":
        raise LayoutError(
            f"{file.path}: this holds the {_WHAT[found[2]]} of a visit; give its image, {found[1]}i"
        )
    images = [hdu for hdu in file.hdus[1:] if hdu.is_image]
    if not images:
        raise LayoutError(f"{file.path}: there is no image in any extension")
    return [
        visit_header(
            file,
            ingest,
            layout=_NAME,
            image=hdu,
            planes=PLANES,
            cards=hdu.cards.over(file.primary.cards),
            visit=("EXPNUM",),
            detector=("CCDNUM",),
            gain_keywords=("GAIN", "GAINA"),
            read_noise_keywords=("RDNOISE", "RDNOISEA"),
        )
        for hdu in images
    ]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read the image of one detector with its codes and weights from the files beside.

    Pixels of zero weight get NaN as variance and the plane NO_DATA.

    Raises
    ------
    VisitFileNotFoundError
        When one of the files beside is missing.
    LayoutError
        When they do not have the detector, or in another shape.
    """
    hdu = file.hdus[header.extension]
    image = read_float(file, hdu, verify=ingest.verify)
    with ExitStack() as stack:
        quality, codes_hdu = _beside(stack, header, hdu, "d", verify=ingest.verify)
        codes = read_integer(quality, codes_hdu, verify=ingest.verify)
    version = header.cards.get("PLVER")
    mask = planes_of_quality(header.who, codes, version if isinstance(version, str) else "")
    with ExitStack() as stack:
        weights, weight_hdu = _beside(stack, header, hdu, "w", verify=ingest.verify)
        variance = weight_to_variance(read_float(weights, weight_hdu, verify=ingest.verify))
    mask[np.isnan(variance)] |= PLANES.bits("NO_DATA")
    return finish(header, ingest, image=image, mask=mask, variance=variance)


def planes_of_quality(who: str, quality: NDArray[np.signedinteger], version: str) -> NDArray[np.int32]:
    """Mask of `PLANES` from the pipeline's codes (version 3.5 on) or bits (before).

    Raises
    ------
    LayoutError
        When there are codes that the pipeline does not document, or the version is unknown.
    """
    found = re.match(r"(?:DES\s+)?V?(\d+)\.(\d+)", version.strip())
    if found is None:
        raise LayoutError(
            f"{who}: PLVER is {version!r}, without which the data quality's codes have no meaning"
        )
    mask = np.zeros(quality.shape, np.int32)
    codes = (int(found[1]), int(found[2])) >= (3, 5)
    unknown = np.setdiff1d(np.unique(quality), [0, *CODES]) if codes else quality & ~sum(BITS)
    if unknown.any():
        raise LayoutError(
            f"{who}: the data quality has values that {version} does not know: {np.unique(unknown)}"
        )
    for value, names in (CODES if codes else BITS).items():
        chosen = quality == value if codes else (quality & value) != 0
        mask[chosen] |= PLANES.bits(*names)
    return mask


_WHAT = {"d": "data quality", "w": "weight"}


def companions(path: str) -> tuple[str, ...]:
    """Paths of the files of codes and of weights of an image; none where the name is no image's."""
    name = PurePosixPath(path).name
    product = _PRODUCT.search(name)
    if product is None or product[2] != "i":
        return ()
    return tuple(path[: len(path) - len(name)] + _companion(name, each) for each in _WHAT)


def _companion(name: str, product: str) -> str:
    return _PRODUCT.sub(rf"_\g<1>{product}", name, count=1)


def _beside(
    stack: ExitStack, header: VisitHeader, image: Hdu, product: str, *, verify: bool
) -> tuple[FitsFile, Hdu]:
    name = PurePosixPath(header.path).name
    if not _PRODUCT.search(name):
        raise LayoutError(
            f"{header.who}: the name has no _ooi_ from which that of its {_WHAT[product]} file would follow; "
            f"read the image alone by {by_hand('image')}"
        )
    path = header.path[: len(header.path) - len(name)] + _companion(name, product)
    try:
        file = stack.enter_context(open_fits(path, verify=verify))
    except VisitFileNotFoundError as error:
        raise VisitFileNotFoundError(
            f"{header.who}: its {_WHAT[product]} file is missing: {path}; fetch it, "
            f"or read the image alone by {by_hand('image')}"
        ) from error
    hdu = next((hdu for hdu in file.hdus[1:] if hdu.is_image and hdu.name == image.name), None)
    if hdu is None:
        raise LayoutError(f"{header.who}: {path} has no extension {image.name}")
    check_shape(header, hdu)
    file.window = header.rows
    return file, hdu


LAYOUT = Layout(_NAME, _recognise, _headers, _read, companions)
