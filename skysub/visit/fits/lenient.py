"""Open any image that a person has: what its header leaves out is guessed, and what was guessed is said."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import (
    AmbiguousImageError,
    ChecksumError,
    LayoutError,
    UnknownEntryError,
    VisitFileNotFoundError,
)
from skysub.visit.fits import decam, mapped, plain, sdss
from skysub.visit.fits.assemble import finish, noise_model, nothing_known, visit_header
from skysub.visit.fits.cards import Cards
from skysub.visit.fits.file import FitsFile, Hdu, open_fits
from skysub.visit.fits.pixels import read_float
from skysub.visit.fits.read import layout_of
from skysub.visit.fits.sky_state import sky_is_gone
from skysub.visit.ingest import IngestMap
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = ["OpenedImage", "detectors_in", "open_image"]

_BAYER = {"RGGB", "BGGR", "GRBG", "GBRG"}
_MOST_COLOURS = 4
"""Planes of a cube that are taken for colours of one image; more are a stack of images."""
_GUESSES = {"visit": 0, "detector": 0, "unit": "adu"}


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenedImage:
    """One image of a file, whatever lay beside it, and what had to be guessed to read it."""

    path: str
    channels: tuple[VisitImage, ...]
    """One visit image; of a colour camera one per colour, each with a sky of its own."""
    colours: tuple[str, ...] = ()
    """Names of the channels; empty where there is one."""
    mosaic: bool = False
    """Whether the channels are the pixels of a Bayer mosaic, in turns of two along both axes."""
    shape: tuple[int, ...]
    """Shape of the image in the file: (ny, nx), or (colour, ny, nx)."""
    layout: str
    """Name of the layout that the file was recognised as."""
    cards: Cards = field(repr=False)
    """Cards of the image and, below them, of the primary header."""
    several: bool = False
    """Whether the file holds further detectors."""
    guesses: tuple[str, ...] = ()
    """What was guessed, a sentence each."""
    flags: dict[str, str] = field(default_factory=dict)
    """What is doubtful about the file: a short name, and a sentence for people."""
    sky_is_gone: str = ""
    """What says that the sky has been subtracted already; empty where nothing does."""

    def whole(self, parts: list[NDArray[Any]]) -> NDArray[Any]:
        """Put arrays of the channels together as the image lies in the file."""
        if len(parts) == 1:
            return parts[0].reshape(self.shape)
        out = np.empty(self.shape, parts[0].dtype)
        if self.mosaic:
            for i, part in enumerate(parts):
                out[i // 2 :: 2, i % 2 :: 2] = part
        else:
            for i, part in enumerate(parts):
                out[i] = part
        return out


def detectors_in(path: str | os.PathLike[str], ingest: IngestMap | None = None) -> list[int | None]:
    """Numbers of the detectors in a file of several; [None] for a file of one image.

    Raises
    ------
    VisitFileNotFoundError, VisitFileError
        When there is no such file, or it cannot be read.
    """
    ingest = replace(ingest or IngestMap(), verify=False)
    with open_fits(path, headers_only=True, verify=False) as file:
        try:
            found = layout_of(file, ingest).headers(file, ingest)
        except LayoutError:
            return [None]
        return [header.detector for header in found] if len(found) > 1 else [None]


def open_image(
    path: str | os.PathLike[str],
    ingest: IngestMap | None = None,
    *,
    detector: int | None = None,
    bare: bool = False,
) -> OpenedImage:
    """Read an image for which a sky is wanted and nothing else, from a file of any kind.

    Layouts are those of `skysub.read_visit_image`. Where it would refuse, a guess is made if there is one:
    numbers of visit and detector are 0, pixels of an unknown unit are counts (adu), of several images
    that nothing tells apart the largest is meant, of layouts that lack a part the image is read alone, axes
    of length 1 are left out, a Bayer mosaic and a cube of up to four planes are colours. Data without the
    checksum that is stated are read where they can be, with the flag ``checksum``.

    Parameters
    ----------
    path
        Local path or URL.
    ingest
        What is known by hand; it stands above what files say, and above guesses.
    detector
        Which detector of several.
    bare
        Leave header and world coordinates out of the visit images; ``cards`` has them all the same.

    Raises
    ------
    VisitFileNotFoundError, VisitFileError
        When there is no such file, or its pixels cannot be read.
    LayoutError
        When it holds no image, or several detectors and none is asked for.
    """
    ingest = ingest or IngestMap()
    guesses: list[str] = []
    flags: dict[str, str] = {}
    while True:
        try:
            with open_fits(path, verify=ingest.verify) as file:
                opened = _opened(file, ingest, detector, bare=bare)
        except ChecksumError as error:
            flags["checksum"] = f"{str(error).partition('; fetch')[0].removeprefix(f'{path}: ')}."
            ingest = replace(ingest, verify=False)
        except UnknownEntryError as error:
            if error.entry not in _GUESSES or getattr(ingest, error.entry) == _GUESSES[error.entry]:
                raise
            guess = _GUESSES[error.entry]
            known: dict[str, Any] = {error.entry: guess}
            ingest = replace(ingest, **known)
            if error.entry == "unit":
                guesses.append(f"the unit {error.stated} is not known: pixels are taken for counts (adu)")
        except AmbiguousImageError as error:
            if not error.extensions or ingest.image is not None:
                raise
            chosen, shape = _largest(path, error.extensions)
            ingest = replace(ingest, image=chosen)
            guesses.append(
                f"extension {chosen} is taken, {shape}, of the images in {_listed(error.extensions)}; "
                "--ingest image=N takes another"
            )
        else:
            return replace(
                opened, guesses=(*guesses, *opened.guesses), flags=flags | opened.flags, path=str(path)
            )


def _opened(file: FitsFile, ingest: IngestMap, detector: int | None, *, bare: bool) -> OpenedImage:
    cube = None if ingest.image is not None else _cube(file)
    if cube is not None:
        return _of_cube(file, cube, ingest)
    layout = layout_of(file, ingest)
    try:
        headers = layout.headers(file, ingest)
    except (UnknownEntryError, AmbiguousImageError):
        raise
    except LayoutError as error:
        if layout is decam.LAYOUT:
            # a file of codes or weights: nothing to subtract a sky from
            raise
        return _alone(file, ingest, error, bare=bare)
    if detector is None and len(headers) > 1:
        have = ", ".join(str(header.detector) for header in headers)
        raise LayoutError(f"{file.path}: the file holds several detectors ({have}); say which: detector=...")
    header = next((each for each in headers if detector in {None, each.detector}), None)
    if header is None:
        have = ", ".join(str(each.detector) for each in headers)
        raise LayoutError(f"{file.path}: the file does not hold detector {detector}; it holds: {have}")
    try:
        visit_image = layout.read(file, replace(header, bare=bare), ingest)
    except (UnknownEntryError, AmbiguousImageError):
        raise
    except (LayoutError, VisitFileNotFoundError) as error:
        if layout is mapped.LAYOUT:
            raise
        return _alone(file, replace(ingest, image=header.extension), error, bare=bare)
    hdu = file.hdus[header.extension]
    opened = _of_one(file, hdu, visit_image, ingest, layout.name)
    if layout is sdss.LAYOUT and ingest.add_sky:
        opened = replace(opened, sky_is_gone="")
    return replace(opened, several=len(headers) > 1)


def _of_one(
    file: FitsFile, hdu: Hdu, visit_image: VisitImage, ingest: IngestMap, layout: str, *guesses: str
) -> OpenedImage:
    cards = _all_cards(file, hdu)
    more = [*guesses, *_unit_guess(visit_image.unit, cards, ingest)]
    if cards.get("UNSIGNED") is True and hdu.cards.get("BITPIX") == 16 and "BZERO" not in hdu.cards:
        visit_image.image[visit_image.image < 0] += np.float32(65536)
        more.append(
            "UNSIGNED = T: integers that are negative by the FITS standard are taken for 32768 and more"
        )
    bias = cards.get("SOFTBIAS")
    if isinstance(bias, (int, float)) and bias and visit_image.unit == "adu":
        more.append(f"SOFTBIAS = {bias:g} lies under the sky and goes with it")
    return _split(
        OpenedImage(
            path=file.path,
            channels=(visit_image,),
            shape=visit_image.shape,
            layout=layout,
            cards=cards,
            guesses=tuple(more),
            sky_is_gone=sky_is_gone(cards, layout=layout, level=_level(visit_image.image)),
        )
    )


def _alone(file: FitsFile, ingest: IngestMap, error: Exception, *, bare: bool) -> OpenedImage:
    """The image without what its layout would have beside it."""
    if ingest.image is None:
        candidates = [hdu for hdu in file.hdus if hdu.is_image and 0 not in hdu.shape]
        named = [hdu for hdu in candidates if hdu.name in {"IMAGE", "SCI", "PRIMARY"}] or candidates
        if not named:
            raise error
        chosen = max(named, key=lambda hdu: (math.prod(hdu.shape), -hdu.index))
        ingest = replace(ingest, image=chosen.index)
    if isinstance(ingest.image, int) and not file.hdus[ingest.image].is_image:
        raise error
    (header,) = mapped.LAYOUT.headers(file, ingest)
    visit_image = mapped.LAYOUT.read(file, replace(header, bare=bare), ingest)
    hdu = file.hdus[header.extension]
    reason = str(error).removeprefix(f"{file.path}: ").partition("; ")[0]
    guess = f"the image in extension {hdu.index} is read alone, without mask and variance: {reason}"
    return _of_one(file, hdu, visit_image, ingest, mapped.LAYOUT.name, guess)


def _cube(file: FitsFile) -> Hdu | None:
    """The one image of more than two axes, where no HDU has two."""
    if any(hdu.is_image for hdu in file.hdus):
        return None
    found = [
        hdu
        for hdu in file.hdus
        if len(hdu.shape) > 2
        and 0 not in hdu.shape
        and not hdu.compressed
        and hdu.raw.get("XTENSION", "IMAGE") == "IMAGE"
        and math.prod(hdu.shape[:-2]) <= _MOST_COLOURS
    ]
    return found[0] if len(found) == 1 else None


def _of_cube(file: FitsFile, hdu: Hdu, ingest: IngestMap) -> OpenedImage:
    *outer, ny, nx = hdu.shape
    count = math.prod(outer)
    flat = hdu.cards.select(lambda keyword: not keyword.startswith("NAXIS"))
    sizes = (("NAXIS", 2), ("NAXIS1", nx), ("NAXIS2", ny))
    cards = Cards("".join(f"{key:8}= {value:>20}".ljust(80) for key, value in sizes) + flat.text)
    nbytes = hdu.nbytes // count
    channels = []
    for i in range(count):
        # a plane as an image of its own; the file's checksum is that of all planes
        part = Hdu(hdu.index, cards, cards, hdu.offset + i * nbytes, nbytes, compressed=False)
        header = visit_header(
            file,
            ingest,
            layout=plain.LAYOUT.name,
            image=part,
            planes=AFW_PLANES,
            cards=cards.over(file.primary.cards),
            visit=("VISIT", "EXPID", "EXPNUM"),
            detector=("DETECTOR", "DETNUM", "CCDNUM"),
        )
        image = read_float(file, part, verify=False)
        channels.append(
            finish(
                replace(header, bare=True),
                ingest,
                image=image,
                mask=nothing_known(image),
                variance=noise_model(header, image),
            )
        )
    guesses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    if count == 1:
        guesses = (f"the axes of {hdu.shape} that have the length 1 are left out",)
    else:
        names = tuple("RGB") if count == 3 else tuple(f"plane {i + 1}" for i in range(count))
        guesses = (f"the {count} planes of {hdu.shape} are taken for colours, each with a sky of its own",)
    all_cards = _all_cards(file, hdu)
    unit = _unit_guess(channels[0].unit, all_cards, ingest)
    return OpenedImage(
        path=file.path,
        channels=tuple(channels),
        colours=names,
        shape=(ny, nx) if count == 1 else (count, ny, nx),
        layout=plain.LAYOUT.name,
        cards=all_cards,
        guesses=(*guesses, *unit),
        sky_is_gone=sky_is_gone(all_cards, level=_level(channels[0].image)),
    )


def _split(opened: OpenedImage) -> OpenedImage:
    """Split a Bayer mosaic into its colours; others stay as they are."""
    pattern = opened.cards.get("BAYERPAT", opened.cards.get("COLORTYP"))
    pattern = pattern.strip().upper() if isinstance(pattern, str) else ""
    if pattern not in _BAYER or min(opened.shape) < 2:
        return opened
    (whole,) = opened.channels
    channels = []
    for i in range(4):
        cut = (slice(i // 2, None, 2), slice(i % 2, None, 2))
        variance = None if whole.variance is None else np.ascontiguousarray(whole.variance[cut])
        image, mask = (np.ascontiguousarray(array[cut]) for array in (whole.image, whole.mask))
        channels.append(whole.replace(image=image, mask=mask, variance=variance, wcs=None))
    guess = f"a colour camera's mosaic ({pattern}): each of its four colours has a sky of its own"
    names = tuple(f"{letter}{i // 2 + 1}" if letter == "G" else letter for i, letter in enumerate(pattern))
    return replace(
        opened, channels=tuple(channels), colours=names, mosaic=True, guesses=(*opened.guesses, guess)
    )


def _unit_guess(unit: str, cards: Cards, ingest: IngestMap) -> list[str]:
    stated = cards.get("BUNIT")
    missing = stated is None or (isinstance(stated, str) and not stated.strip())
    guessed = missing and ingest.unit is None and unit == "adu"
    return ["there is no BUNIT: pixels are taken for counts (adu)"] if guessed else []


def _level(image: NDArray[np.float32]) -> float:
    """Median of a sample of the pixels."""
    step = max(1, math.isqrt(image.size // 4096))
    sample = image[::step, ::step]
    sample = sample[np.isfinite(sample)]
    return float(np.median(sample)) if sample.size else math.nan


def _all_cards(file: FitsFile, hdu: Hdu) -> Cards:
    return hdu.cards.over(file.primary.cards) if hdu.index else hdu.cards


def _largest(path: str | os.PathLike[str], extensions: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    with open_fits(path, headers_only=True, verify=False) as file:
        chosen = max(extensions, key=lambda index: (math.prod(file.hdus[index].shape), -index))
        return chosen, file.hdus[chosen].shape


def _listed(extensions: tuple[int, ...]) -> str:
    shown = ", ".join(str(index) for index in extensions[:8])
    return shown if len(extensions) <= 8 else f"{shown}, ... ({len(extensions)} in all)"
