"""VisitImage files of lsst.images (LSST data releases): planes named by MSKN cards, and a JSON tree."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from skysub.errors import InvalidImageError, LayoutError, VisitFileError
from skysub.visit.fits import afw
from skysub.visit.fits.afw import only
from skysub.visit.fits.assemble import PLANES_PER_HDU, assemble, visit_header
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.psf import GaussianPsf
from skysub.visit.fits.row import read_row
from skysub.visit.plane_table import our_name
from skysub.visit.planes import MAX_BIT, MaskPlanes

if TYPE_CHECKING:
    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["LAYOUT"]

_NAME = "lsst.images VisitImage"

_MAX_TREE = 64 * 2**20


def _recognise(file: FitsFile) -> bool:
    """Whether the primary header names a schema of lsst.images, or the mask names planes in its way alone."""
    model = file.primary.cards.get("DATAMODL")
    masks = file.named("MASK")
    return (isinstance(model, str) and "images" in model) or any(
        hdu.cards.keywords("MSKN") and not hdu.cards.keywords("MP_") for hdu in masks
    )


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header: a VisitImage is one detector.

    Raises
    ------
    LayoutError
        When IMAGE, MASK or VARIANCE are missing, a plane has no bit, or visit or detector are unknown.
    """
    image = only(file, "IMAGE")
    only(file, "VARIANCE")
    tree = _tree(file)
    detector, exposure = _branch(tree, "detector"), _branch(tree, "obs_info")
    band = tree.get("band")
    header = visit_header(
        file,
        ingest,
        layout=_NAME,
        image=image,
        planes=_planes(file),
        cards=file.primary.cards.over(image.cards),
        visit=("VISIT", "EXPID"),
        detector=("DETECTOR", "DETNUM"),
        known_visit=_whole(exposure.get("visit_id"), detector.get("visit")),
        known_detector=_whole(_branch(detector, "attributes").get("id"), exposure.get("detector_num")),
        known_band=band if isinstance(band, str) else "",
        known_exposure_time=exposure.get("exposure_time"),
    )
    return [header]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read image, masks and variance, and what the JSON tree says of PSF and calibration.

    Raises
    ------
    LayoutError
        When planes disagree, or the variance is bad.
    """
    more = afw.extras(file, header) | _extras(file, header)
    masks, variance = file.named("MASK"), only(file, "VARIANCE")
    return assemble(file, header, ingest, masks=masks, variance=variance, **more)


def _extras(file: FitsFile, header: VisitHeader) -> dict[str, Any]:
    """Fields of a visit image that only the JSON tree holds: PSF if Gaussian, calibration if constant."""
    tree = _tree(file)
    calibration = None if header.unit == "nJy" else _calibration(tree, header.unit)
    sigma: Any = _branch(tree, "psf").get("sigma")
    gaussian = isinstance(sigma, (int, float)) and not isinstance(sigma, bool) and 0 < sigma < math.inf
    return ({} if calibration is None else {"photo_calib": calibration}) | (
        {"psf": GaussianPsf(float(sigma))} if gaussian else {}
    )


def _calibration(tree: dict[str, Any], unit: str) -> float | None:
    """NJy per unit of the pixels, or None where it is missing, varies, or is of another unit."""
    from astropy.units import Unit

    scaling = _branch(tree, "photometric_scaling")
    value: Any = scaling.get("coefficients")
    while isinstance(value, dict) and "data" in value:
        value = value["data"]
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        return None
    try:
        return float(value) * float((Unit(scaling.get("unit", "")) * Unit(unit)).to("nJy"))
    except (ValueError, TypeError):
        return None


def _planes(file: FitsFile) -> MaskPlanes:
    masks = file.named("MASK")
    if not masks:
        only(file, "MASK")
    for hdu in file.hdus[1:]:
        # whose name is damaged, its planes would be missed by nobody
        if hdu not in masks and hdu.cards.keywords("MSKN"):
            raise LayoutError(
                f"{file.path}: extension {hdu.index} {hdu.name or '(no name)'} names mask planes, "
                "but is no MASK; the file is damaged"
            )
    bit_of: dict[str, int] = {}
    for index, hdu in enumerate(masks):
        where = f"{file.path}: extension {hdu.index} MASK"
        names = hdu.cards.keywords("MSKN")
        for keyword in names:
            name, number = hdu.cards.get(keyword), keyword[4:]
            value = hdu.cards.get(
                f"MSKM{number}", 1 << int(number) if number.isdigit() and len(number) < 5 else None
            )
            bit = value.bit_length() - 1 if isinstance(value, int) and not isinstance(value, bool) else -1
            if not isinstance(name, str) or not 0 <= bit < PLANES_PER_HDU or value != 1 << bit:
                raise LayoutError(f"{where}: {keyword} and MSKM{number} do not give a plane and its bit")
            ours = our_name(name)
            if ours in bit_of or bit + PLANES_PER_HDU * index > MAX_BIT:
                raise LayoutError(
                    f"{where}: mask plane {name} is there twice, or one of more than {MAX_BIT + 1}"
                )
            bit_of[ours] = bit + PLANES_PER_HDU * index
    if not bit_of:
        raise LayoutError(f"{file.path}: no MSKN card in MASK names a mask plane")
    try:
        return MaskPlanes(bit_of)
    except InvalidImageError as error:
        raise LayoutError(f"{file.path}: {error}") from error


def _tree(file: FitsFile) -> dict[str, Any]:
    """The JSON tree, empty where a cut-out was made without it."""
    tables = [hdu for hdu in file.named("JSON") if not hdu.is_image]
    if not tables:
        return {}
    hdu = tables[-1]
    if hdu.nbytes > _MAX_TREE:
        raise LayoutError(
            f"{file.path}: the JSON tree takes {hdu.nbytes} bytes; that is no description of a visit"
        )
    try:
        tree = json.loads(read_row(file, hdu)["JSON"].tobytes().decode("utf-8"))
    except (ValueError, KeyError, RecursionError) as error:
        raise VisitFileError(f"{file.path}: the JSON tree cannot be read: {error}") from error
    return tree if isinstance(tree, dict) else {}


def _branch(tree: dict[str, Any], name: str) -> dict[str, Any]:
    value = tree.get(name)
    return value if isinstance(value, dict) else {}


def _whole(*values: Any) -> int | None:
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0), None)


LAYOUT = Layout(_NAME, _recognise, _headers, _read)
