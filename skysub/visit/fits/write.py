"""Write visit images as FITS that afw, lsst.images, DS9, Firefly and astropy open."""

from __future__ import annotations

import copy
import math
import re
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from skysub.errors import ConfigError, InvalidImageError
from skysub.visit.amplifiers import amplifier_cards
from skysub.visit.fits.assemble import PLANES_PER_HDU
from skysub.visit.fits.cards import Cards
from skysub.visit.fits.emit import (
    Block,
    cards,
    gzip_tiles,
    history,
    kept_cards,
    plain_image,
    rice_tiles,
    write_blocks,
)
from skysub.visit.fits.header import find_wcs, wcs_cards
from skysub.visit.fits.psf import psf_blocks, psf_cards
from skysub.visit.plane_table import KNOWN_PLANES, lsst_name

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage
    from skysub.visit.planes import MaskPlanes

__all__ = ["Compression", "described_plane", "exposure_cards", "write_visit_image"]

Compression = Literal["lossless", "lossy16", "none"]

_UTYPE = "VarianceUncertainty"
"""What the plane of the variance is, in astropy's words."""
_OURS = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|EXTEND|EXTNAME|EXTTYPE|EXTVER|EXTLEVEL|INHERIT|"
    r"CHECKSUM|DATASUM|BUNIT|BSCALE|BZERO|BLANK|UTYPE|UZSCALE|DATE|"
    r"VISIT|DETECTOR|BAND|EXPTIME|GAIN|RDNOISE|PHOTCAL|PSFSIGMA|AMP(NAM|SEC)\d\d|"
    r"WCSAXES[A-Z]?|RADESYS[A-Z]?|RADECSYS|EQUINOX[A-Z]?|EPOCH|LONPOLE[A-Z]?|LATPOLE[A-Z]?|"
    r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA|CRDER|CSYER)\d[A-Z]?|(CD|PC)\d_\d[A-Z]?|P[VS]\d_\d+[A-Z]?|"
    r"PC00\d00\d|[AB]P?_ORDER|[AB]P?_\d_\d|[AB]_DMAX|LT[VM]\d.*|"
    # pointers to parts of the file that these cards came from
    r"AR_HDU|EXPINFO_V|ARCHIVE_ID_.*|\w+_ID|DATAMODL|FMTVER|(INDX|JSON)(ADDR|SIZE)|MP_.*|MSK[NMD]\d+)$"
)


def write_visit_image(
    visit_image: VisitImage,
    path: str | os.PathLike[str],
    *,
    compression: Compression = "lossless",
    threads: int = 1,
) -> None:
    """Write a visit image as FITS: an empty primary with the exposure's cards, IMAGE, MASK, VARIANCE, PSF.

    The file appears at ``path`` when it is complete, and replaces one that is there. What `read_visit_image`
    makes of it has the same bits, with ``compression`` other than "lossy16". A visit image without variance
    is written with NaN in its place, which LSST's readers need, and VARKNOWN = F. The point-spread function
    is a card where it is a Gaussian, a table where it is a `MoffatPsf`.

    Parameters
    ----------
    visit_image
        What to write. Its ``header`` is kept but for the cards that describe the file itself.
    path
        Local path or URL.
    compression
        ``"lossless"``: tiles of one row, GZIP_2. ``"lossy16"``: image and variance quantised at a sixteenth
        of their noise, with dither, by RICE (LSST's recipe of that name); NaN is kept, infinity becomes NaN.
        ``"none"``: as they are.
    threads
        Threads to compress with; the bytes are the same.

    Raises
    ------
    ConfigError
        When ``compression`` is none of these.
    InvalidImageError
        When a plane's name or the point-spread function cannot be written in FITS.
    VisitFileError
        When the file cannot be written.
    """
    if compression not in get_args(Compression):
        raise ConfigError(
            f"compression must be one of {', '.join(get_args(Compression))}, not {compression!r}"
        )
    _check_planes(visit_image)
    write_blocks(path, _blocks(visit_image, compression, threads))


def described_plane(planes: MaskPlanes, name: str) -> tuple[str, str]:
    """Name that lsst.images has for a plane, unless another plane has it, and what the plane means."""
    theirs = lsst_name(name)
    meaning = KNOWN_PLANES[name].meaning if name in KNOWN_PLANES else name.replace("_", " ").capitalize()
    return name if theirs in planes else theirs, meaning


def _blocks(visit_image: VisitImage, compression: Compression, threads: int) -> Iterator[tuple[Block, str]]:
    psf = psf_blocks(visit_image.psf)
    yield plain_image(None, primary=True), exposure_cards(visit_image)
    geometry = _geometry_cards(visit_image)
    unit = visit_image.unit
    good = (visit_image.mask & visit_image.bits("NO_DATA", "INTRP")) == 0

    def floats(array: NDArray[np.float32]) -> tuple[Block, str]:
        if compression == "none":
            return plain_image(array), ""
        scale = _lossy_scale(array[good]) if compression == "lossy16" else 0.0
        if not scale:
            return gzip_tiles(array, threads=threads), ""
        return rice_tiles(array, scale), cards({"UZSCALE": (scale, "one step of all tiles")})

    block, more = floats(visit_image.image)
    yield block, _extension_cards("IMAGE") + cards({"BUNIT": unit}) + more + geometry
    for version, mask in enumerate(_mask_images(visit_image), 1):
        made = plain_image(mask) if compression == "none" else gzip_tiles(mask, threads=threads)
        yield made, _extension_cards("MASK", version) + _plane_cards(visit_image, version) + geometry
    variance = visit_image.variance
    if variance is None:
        variance = np.full(visit_image.shape, np.nan, np.float32)
    block, more = floats(variance)
    known = visit_image.variance is not None
    square: dict[str, Any] = {"BUNIT": f"{unit}2" if unit.isalpha() else f"({unit})2", "UTYPE": _UTYPE}
    square["VARKNOWN"] = None if known else (False, "no variance: NaN stands in its place")
    yield block, _extension_cards("VARIANCE") + cards(square) + more + geometry
    yield from psf


def _extension_cards(name: str, version: int = 1) -> str:
    values = {"EXTNAME": name, "EXTTYPE": name, "INHERIT": True, "EXTVER": version if version > 1 else None}
    return cards(values)


def exposure_cards(visit_image: VisitImage) -> str:
    """Cards of the exposure, for the primary header."""
    time = visit_image.exposure_time
    ours = cards(
        {
            "VISIT": visit_image.visit,
            "DETECTOR": visit_image.detector,
            "BAND": visit_image.band.encode("ascii", "replace").decode("ascii") or None,
            "EXPTIME": (time if math.isfinite(time) else None, "s"),
            "GAIN": (visit_image.gain, "electron per adu"),
            "RDNOISE": (visit_image.read_noise, "electron"),
            "PHOTCAL": (visit_image.photo_calib, "nJy per unit of the pixels"),
        }
        | amplifier_cards(visit_image.amplifiers)
        | psf_cards(visit_image.psf)
    )
    header = visit_image.header
    kept = "" if header is None else header.tostring(endcard=False, padding=False)
    return ours + kept_cards(kept, _OURS) + history(visit_image.notes)


def _geometry_cards(visit_image: VisitImage) -> str:
    """World coordinates, the linear WCS 'A' that afw takes the origin from, and LTV for everybody else."""
    x0, y0 = visit_image.xy0
    origin: dict[str, Any] = {"LTV1": -float(x0), "LTV2": -float(y0)}
    for axis, start in ((1, x0), (2, y0)):
        origin |= {
            f"CTYPE{axis}A": "LINEAR",
            f"CRPIX{axis}A": 1.0,
            f"CRVAL{axis}A": float(start),
            f"CUNIT{axis}A": "PIXEL",
        }
    return _sky_cards(visit_image) + cards(origin)


def _sky_cards(visit_image: VisitImage) -> str:
    """Cards of the celestial coordinates: the header's own while they say the same, to the last digit."""
    wcs = visit_image.wcs
    if wcs is None:
        return ""
    if visit_image.header is not None:
        stated = Cards(visit_image.header.tostring(endcard=False, padding=False))
        own = find_wcs(visit_image.path, stated)
        if own is not None and own.to_header_string(relax=True) == wcs.to_header_string(relax=True):
            return wcs_cards(stated).text
    return cards(_wcs_values(wcs))


def _wcs_values(wcs: Any) -> dict[str, Any]:
    """Keywords of astropy's WCS with all digits, which its own to_header rounds away."""
    if wcs.naxis != 2 or wcs.cpdis1 or wcs.cpdis2 or wcs.det2im1 or wcs.det2im2:
        raise InvalidImageError(
            "only world coordinates of two axes, without distortion tables, can be written"
        )
    rounded = wcs.to_header(relax=True)
    inner = copy.deepcopy(wcs.wcs)
    inner.set()
    if wcs.sip is None and rounded.get("CTYPE1") != inner.ctype[0]:
        # TPV and its like: wcslib shows their coefficients in no other way
        return dict(rounded)
    matrix = inner.cd if inner.has_cd() else np.diag(inner.get_cdelt()) @ inner.get_pc()
    values: dict[str, Any] = {"WCSAXES": 2}
    for i in range(2):
        values |= {
            f"CTYPE{i + 1}": inner.ctype[i],
            f"CUNIT{i + 1}": str(inner.cunit[i]) or None,
            f"CRPIX{i + 1}": float(inner.crpix[i]),
            f"CRVAL{i + 1}": float(inner.crval[i]),
        }
        values |= {f"CD{i + 1}_{j + 1}": float(matrix[i, j]) for j in range(2)}
    values |= {f"PV{i}_{m}": float(value) for i, m, value in inner.get_pv()}
    values["RADESYS"] = inner.radesys or None
    values |= {
        name: float(value)
        for name in ("EQUINOX", "LONPOLE", "LATPOLE")
        if np.isfinite(value := getattr(inner, name.lower()))
    }
    if wcs.sip is not None:
        for letter in ("a", "b", "ap", "bp"):
            table = getattr(wcs.sip, letter)
            if table is not None:
                values[f"{letter.upper()}_ORDER"] = len(table) - 1
                values |= {f"{letter.upper()}_{p}_{q}": float(table[p, q]) for p, q in np.argwhere(table)}
    return values


def _check_planes(visit_image: VisitImage) -> None:
    for name in visit_image.planes:
        if not re.fullmatch(r"[A-Z0-9_]{1,40}", name):
            raise InvalidImageError(
                f"visit {visit_image.visit} detector {visit_image.detector}: the mask plane {name!r} "
                "cannot be written in FITS; use capitals, digits and underscores, at most 40"
            )


def _mask_images(visit_image: VisitImage) -> list[NDArray[np.int32]]:
    """Mask as int32, in several images of 31 planes each where there are planes above bit 30."""
    mask, planes = visit_image.mask, visit_image.planes
    if planes.dtype == np.int32:
        return [mask.astype(np.int32, copy=False)]
    count = max(planes.values()) // PLANES_PER_HDU + 1
    low = (1 << PLANES_PER_HDU) - 1
    return [((mask >> PLANES_PER_HDU * i) & low).astype(np.int32) for i in range(count)]


def _plane_cards(visit_image: VisitImage, version: int) -> str:
    planes = visit_image.planes
    single = planes.dtype == np.int32
    values: dict[str, Any] = {f"MP_{name}": planes[name] for name in planes.names} if single else {}
    for name in planes.names:
        index, bit = divmod(planes[name], PLANES_PER_HDU)
        if index == version - 1:
            theirs, description = described_plane(planes, name)
            values[f"MSKN{bit:04d}"] = theirs
            values[f"MSKM{bit:04d}"] = 1 << bit
            values[f"MSKD{bit:04d}"] = description
    return cards(values)


def _lossy_scale(good: NDArray[np.float32]) -> float:
    """Quantisation step of LSST's lossy16: a sixteenth of the noise, from the quartiles of good pixels."""
    finite = good[np.isfinite(good)]
    if finite.size == 0:
        return 0.0
    low, high = np.percentile(finite, [25, 75])
    return float(0.741 * (high - low) / 16)
