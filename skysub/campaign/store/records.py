"""What a marker says of a visit image apart from its pixels, and the visit image made of it again."""

from __future__ import annotations

import base64
import math
import zlib
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from skysub.background.rows import made_rows, over_rows, rows_between
from skysub.errors import InvalidImageError
from skysub.visit.fits.tally import Tally
from skysub.visit.planes import MaskPlanes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from astropy.io.fits import Header
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = [
    "described",
    "header_of",
    "narrow_mask",
    "numbers",
    "pixels_checksum",
    "sky_positions",
    "visit_image_fields",
    "wcs_of",
]


_ROWS = 64
"""Rows whose checksum is taken at once."""


def described(visit_image: VisitImage, planes: MaskPlanes) -> dict[str, Any]:
    """Return what `visit_image_fields` needs to make the same visit image of the stored pixels."""
    header = visit_image.header
    wcs = visit_image.wcs
    return {
        "unit": visit_image.unit,
        "planes": dict(planes),
        "has_variance": visit_image.variance is not None,
        "photo_calib": _number(visit_image.photo_calib),
        "band": visit_image.band,
        "exposure_time": _number(visit_image.exposure_time),
        "gain": _number(visit_image.gain),
        "read_noise": _number(visit_image.read_noise),
        "xy0": [int(value) for value in visit_image.xy0],
        "notes": list(visit_image.notes),
        # relaxed, so that distortion terms are written as well
        "wcs": None if wcs is None else _packed(wcs.to_header_string(relax=True)),
        # cards hold fewer digits than numbers have
        "wcs_numbers": None if wcs is None else _wcs_numbers(wcs),
        "header": None if header is None else _packed(header.tostring()),
    }


def visit_image_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a visit image that `described` kept, arrays and identity left out."""
    exposure_time = record["exposure_time"]
    return {
        "unit": record["unit"],
        "planes": MaskPlanes(record["planes"]),
        "notes": tuple(record.get("notes", ())),
        "photo_calib": record["photo_calib"],
        "band": record["band"],
        "exposure_time": math.nan if exposure_time is None else exposure_time,
        "gain": record["gain"],
        "read_noise": record["read_noise"],
        "xy0": tuple(record["xy0"]),
        "wcs": wcs_of(record),
        "header": header_of(record),
    }


def header_of(record: Mapping[str, Any]) -> Header | None:
    """Header that `described` kept; None where the image has none."""
    from astropy.io.fits import Header

    return None if record["header"] is None else Header.fromstring(_unpacked(record["header"]))


def wcs_of(record: Mapping[str, Any]) -> WCS | None:
    """World coordinates that `described` kept; None where the image has none."""
    from astropy.io.fits import Header

    if record["wcs"] is None:
        return None
    return _exact_wcs(Header.fromstring(_unpacked(record["wcs"])), record.get("wcs_numbers") or {})


def sky_positions(
    record: Mapping[str, Any], x: Sequence[float], y: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Longitude and latitude, degrees, of some pixels (from 0); None without celestial coordinates.

    Without the many checks of astropy's WCS it takes a tenth of the time; distortions by SIP go its way.
    """
    if record["wcs"] is None:
        return None
    text = _unpacked(record["wcs"])
    try:
        if "-SIP" in text:
            wcs = wcs_of(record)
            assert wcs is not None
            return tuple(wcs.all_pix2world(x, y, 0)) if wcs.has_celestial else None
        from astropy.wcs import Wcsprm

        # wcslib wants the cards alone
        inner = Wcsprm(header=text.partition("END" + 77 * " ")[0].encode(), relax=True)
        inner.set()
        if inner.naxis != 2 or inner.lng < 0 or inner.lat < 0:
            return None
        world = inner.p2s(np.stack([x, y], axis=1).astype(float), 0)["world"]
    except ValueError:
        # all that wcslib raises: coordinates that do not exist, or say nothing of these pixels
        return None
    return world[:, inner.lng], world[:, inner.lat]


def narrow_mask(mask: NDArray[np.signedinteger], planes: MaskPlanes) -> tuple[NDArray[np.int32], MaskPlanes]:
    """Return the mask as the int32 that the store has, planes moved to lower bits where they must be.

    Raises
    ------
    InvalidImageError
        When there are more than 31 planes.
    """
    if mask.dtype == np.int32 and planes.dtype == np.int32:
        return mask, planes
    if len(planes) > 31:
        raise InvalidImageError(f"the store holds masks of 31 planes, not {len(planes)}: {', '.join(planes)}")
    narrow = MaskPlanes({name: bit for bit, name in enumerate(planes.names)})
    moves = [(planes[name], bit) for name, bit in narrow.items()]
    return made_rows(_moved, (mask,), np.int32, moves=moves), narrow


def pixels_checksum(pixels: NDArray[Any]) -> str:
    """CRC-32C of an array's bytes, 8 hexadecimal digits."""
    edges = np.append(np.arange(0, len(pixels), _ROWS), len(pixels))
    sums = Tally()
    for part in over_rows(_checksums, (pixels,), spans=rows_between(edges), edges=edges):
        for offset, length, crc in part:
            sums.add_sum(offset, length, crc)
    size = pixels.size * pixels.dtype.itemsize
    return sums.total(size, lambda _offset, _count: b"")


def _moved(
    rows: range,
    out: NDArray[np.int32],
    mask: NDArray[np.signedinteger],
    *,
    moves: list[tuple[int, int]],
    threads: int,
) -> None:
    """Mask whose bits are moved from the first to the second of each pair."""
    del threads
    given, moved = mask[rows.start : rows.stop], out[rows.start : rows.stop]
    moved[:] = 0
    for before, after in moves:
        moved[(given >> before) & 1 == 1] |= np.int32(1 << after)


def _checksums(
    units: range, pixels: NDArray[Any], *, edges: NDArray[np.int64], threads: int
) -> list[tuple[int, int, int]]:
    """First byte, number of bytes and CRC-32C of some pieces, which stay in cache."""
    del threads
    width = pixels.shape[1] * pixels.itemsize
    found = []
    for unit in units:
        first, last = int(edges[unit]), int(edges[unit + 1])
        crc = google_crc32c.value(np.ascontiguousarray(pixels[first:last]).tobytes())
        found.append((first * width, (last - first) * width, crc))
    return found


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures ready for JSON: NumPy's numbers as Python's, what is not finite as None."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _wcs_numbers(wcs: WCS) -> dict[str, Any]:
    """Numbers of world coordinates to the last bit, as JSON keeps them.

    Those of TPV distortions are not among them: wcslib gives them as cards alone.
    """
    inner = wcs.wcs
    numbers: dict[str, Any] = {
        "crpix": inner.crpix.tolist(),
        "crval": inner.crval.tolist(),
    }
    if inner.has_cd():
        numbers["cd"] = inner.cd.tolist()
    else:
        numbers |= {"pc": inner.get_pc().tolist(), "cdelt": inner.cdelt.tolist()}
    if wcs.sip is not None:
        terms = (wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp)
        numbers["sip"] = [None if each is None else each.tolist() for each in terms]
        numbers["sip_crpix"] = wcs.sip.crpix.tolist()
    return numbers


def _exact_wcs(header: Header, numbers: Mapping[str, Any]) -> WCS:
    from astropy.wcs import WCS, Sip

    if "cd" in numbers:
        # astropy writes a CD matrix as PC and CDELT, which would stand above the one that is set
        for i in (1, 2):
            for card in (f"CDELT{i}", f"PC{i}_1", f"PC{i}_2"):
                header.remove(card, ignore_missing=True)
    wcs = WCS(header, naxis=2, fix=False)
    for name in ("crpix", "crval", "cd", "cdelt", "pc"):
        if name in numbers:
            setattr(wcs.wcs, name, np.array(numbers[name]))
    if "sip" in numbers:
        terms = [None if each is None else np.array(each) for each in numbers["sip"]]
        wcs.sip = Sip(*terms, np.array(numbers["sip_crpix"]))
    wcs.wcs.set()
    return wcs


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _unpacked(text: str) -> str:
    return zlib.decompress(base64.b64decode(text)).decode()
