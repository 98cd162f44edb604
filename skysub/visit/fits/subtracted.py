"""Files of one image whose sky was subtracted: the image, the mask, and what was taken, to be put back.

The image is the primary HDU, where every program looks first, under the cards that it came with. MASK has
planes named by MP_ cards, BACKGROUND is what was subtracted, VARIANCE is there where one is known. RESTORE
lists the pixels, if any, for which image + background in float32 is not the very number that was there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub._version import __version__
from skysub.errors import LayoutError
from skysub.visit.fits.afw import planes_of_cards
from skysub.visit.fits.assemble import check_shape, finish, visit_header
from skysub.visit.fits.cards import Cards
from skysub.visit.fits.emit import Block, cards, history, kept_cards, plain_image, write_blocks
from skysub.visit.fits.layout import Layout
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.fits.sky_state import SKY_CARD

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile
    from skysub.visit.fits.header import VisitHeader
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap
    from skysub.visit.planes import MaskPlanes

__all__ = ["LAYOUT", "SubtractedFile", "cards_before", "read_subtracted", "write_subtracted"]

_NAME = "skysub subtracted image"

_STRUCTURE = (
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|EXTEND|EXTNAME|EXTTYPE|EXTVER|EXTLEVEL|INHERIT|"
    r"CHECKSUM|DATASUM|BSCALE|BZERO|BLANK|UNSIGNED|UZSCALE|AR_HDU|EXPINFO_V|ARCHIVE_ID_.*|\w+_ID|DATAMODL|"
    r"FMTVER|(INDX|JSON)(ADDR|SIZE)|FZALGOR|FZTILE|FZQVALUE|FZQMETHD|ZDITHER0"
)
_OURS = r"SKYSUB|SKYVERS|SKYLEVEL|SKYNOISE|SKYMASK|SKYMODEL|SKYORIG"
_REPLACED = re.compile(rf"({_STRUCTURE}|{_OURS}|BUNIT)$")
_ADDED = re.compile(rf"({_STRUCTURE}|{_OURS})$")
_ROUNDED = ", rounded"
"""Added to the type of pixels that float32 could not hold."""
_SHORT = 15
"""Planes that a mask of 16-bit integers holds without its sign."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SubtractedFile:
    """What a file of a subtracted image holds."""

    image: NDArray[np.float32]
    """(ny, nx) or (colour, ny, nx) float32, its sky subtracted."""
    background: NDArray[np.float32]
    """What was subtracted, of the same shape."""
    mask: NDArray[np.signedinteger] = field(repr=False)
    planes: MaskPlanes
    variance: NDArray[np.float32] | None = field(default=None, repr=False)
    unit: str
    cards: Cards = field(repr=False)
    """Cards of the image that was subtracted."""
    differing: NDArray[np.int32] = field(repr=False)
    """(2, n) int32: places in the flat image where image + background is another number than there was, and
    the bits of the float32 that there was."""
    original: str = "float32"
    """Type of the pixels before they were read as float32."""
    exact: bool = True
    """Whether `restored` has the very pixels; False where float32 could not hold them to begin with."""

    def restored(self) -> NDArray[np.float32]:
        """The image as it was read before its sky was subtracted, to the last bit; NaN where it was NaN."""
        whole = self.image + self.background
        places, bits = self.differing
        whole.reshape(-1)[places] = bits.view(np.float32)
        return whole


def write_subtracted(
    path: str | os.PathLike[str],
    content: SubtractedFile,
    *,
    summary: Mapping[str, Any],
    sentences: Iterable[str] = (),
) -> None:
    """Write image, mask, background and, where one is known, variance; the file appears when it is complete.

    Parameters
    ----------
    summary
        Further cards about the sky, a value or a value and a comment each.
    sentences
        For HISTORY.

    Raises
    ------
    VisitFileError
        When the file cannot be written.
    """
    kept = kept_cards(content.cards.text, _REPLACED)
    stated = cards(
        {
            "BUNIT": content.unit,
            SKY_CARD: (True, "sky subtracted; it is in the extension BACKGROUND"),
            "SKYVERS": (__version__, "version of skysub that did it"),
            **summary,
            "SKYORIG": (content.original + ("" if content.exact else _ROUNDED), "pixels before"),
        }
    )
    coordinates = Cards(kept).select(lambda keyword: _GEOMETRY.match(keyword) is not None).text
    mask = plain_image(_narrow(content.mask, content.planes))
    blocks: list[tuple[Block, str]] = [
        (plain_image(content.image, primary=True), kept + stated + history(sentences)),
        (mask, _named("MASK") + _planes(content.planes) + coordinates),
        (plain_image(content.background), _named("BACKGROUND", content.unit) + coordinates),
    ]
    if content.variance is not None:
        square = f"{content.unit}2" if content.unit.isalpha() else f"({content.unit})2"
        more = cards({"UTYPE": "VarianceUncertainty"})
        blocks.append((plain_image(content.variance), _named("VARIANCE", square) + more + coordinates))
    if content.differing.size:
        blocks.append((plain_image(content.differing), _named("RESTORE")))
    write_blocks(path, blocks)


def cards_before(cards: Cards) -> Cards:
    """Cards without those that `write_subtracted` added, and the HISTORY that follows them."""
    kept, ours = [], False
    for card in cards:
        keyword = card[:8].rstrip()
        ours = keyword == "SKYORIG" or (ours and keyword == "HISTORY")
        if not ours and not _ADDED.match(keyword):
            kept.append(card)
    return Cards("".join(kept))


def _recognise(file: FitsFile) -> bool:
    """Whether this is a file that `write_subtracted` wrote."""
    primary = file.primary.cards
    return primary.get(SKY_CARD) is True and "SKYVERS" in primary and bool(file.named("BACKGROUND"))


def _headers(file: FitsFile, ingest: IngestMap) -> list[VisitHeader]:
    """One header: the file's one image.

    Raises
    ------
    LayoutError
        When it is a cube of colours, or visit or detector are unknown.
    """
    mask = file.find("MASK")
    return [
        visit_header(
            file,
            ingest,
            layout=_NAME,
            image=file.primary,
            planes=planes_of_cards(f"{file.path}: extension {mask.index} MASK", mask.cards),
            cards=file.primary.cards,
            visit=("VISIT", "EXPID", "EXPNUM"),
            detector=("DETECTOR", "DETNUM", "CCDNUM"),
        )
    ]


def _read(file: FitsFile, header: VisitHeader, ingest: IngestMap) -> VisitImage:
    """Read the subtracted image, its mask, and its variance where there is one.

    Raises
    ------
    LayoutError
        When their shapes disagree.
    """
    mask, variance = file.find("MASK"), file.named("VARIANCE")
    for hdu in (mask, *variance):
        check_shape(header, hdu)
    return finish(
        header,
        ingest,
        image=read_float(file, file.primary, verify=ingest.verify),
        mask=read_integer(file, mask, verify=ingest.verify),
        variance=read_float(file, variance[0], verify=ingest.verify) if variance else None,
        notes=("the sky has been subtracted",),
    )


def read_subtracted(file: FitsFile, *, verify: bool = True) -> SubtractedFile:
    """Read all that `write_subtracted` wrote.

    Raises
    ------
    LayoutError
        When it is another file, or was changed so that its parts no longer fit.
    """
    if not LAYOUT.recognise(file):
        raise LayoutError(
            f"{file.path}: this is no file that skysub subtract wrote (there is no {SKY_CARD} = T with an "
            "extension BACKGROUND): what was subtracted from it is not known"
        )
    background, mask = file.find("BACKGROUND"), file.find("MASK")
    if not file.primary.shape == background.shape == mask.shape:
        raise LayoutError(
            f"{file.path}: image, BACKGROUND and MASK have the shapes {file.primary.shape}, "
            f"{background.shape} and {mask.shape}; they must be alike"
        )
    image = read_float(file, file.primary, verify=verify, axes=len(file.primary.shape))
    differing = np.zeros((2, 0), np.int32)
    found = file.named("RESTORE")
    if found:
        differing = read_integer(file, found[0], verify=verify).astype(np.int32, copy=False)
        if len(differing) != 2 or not ((differing[0] >= 0) & (differing[0] < image.size)).all():
            raise LayoutError(f"{file.path}: RESTORE names pixels that the image does not have")
    stated = file.primary.cards.get("SKYORIG")
    original = stated if isinstance(stated, str) else "float32"
    unit = file.primary.cards.get("BUNIT")
    return SubtractedFile(
        image=image,
        background=read_float(file, background, verify=verify, axes=len(background.shape)),
        mask=np.zeros((0, 0), np.int32),
        planes=planes_of_cards(f"{file.path}: extension {mask.index} MASK", mask.cards),
        unit=unit if isinstance(unit, str) else "adu",
        cards=file.primary.cards,
        differing=differing,
        original=original.removesuffix(_ROUNDED),
        exact=not original.endswith(_ROUNDED),
    )


_GEOMETRY = re.compile(
    r"(WCSAXES|RADESYS|RADECSYS|EQUINOX|EPOCH|LONPOLE|LATPOLE|(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA)\d|"
    r"(CD|PC)\d_\d|PC00\d00\d|P[VS]\d_\d+|[AB]P?_ORDER|[AB]P?_\d_\d|[AB]_DMAX|LT[VM]\d.*)$"
)


def _named(name: str, unit: str | None = None) -> str:
    return cards({"EXTNAME": name, "BUNIT": unit})


def _planes(planes: MaskPlanes) -> str:
    return cards({f"MP_{name}": planes[name] for name in planes.names})


def _narrow(mask: NDArray[np.signedinteger], planes: MaskPlanes) -> NDArray[np.signedinteger]:
    """Mask in the smallest type that holds its planes."""
    if max(planes.values(), default=0) < _SHORT:
        narrow: NDArray[np.signedinteger] = mask.astype(np.int16)
        return narrow
    return mask


LAYOUT = Layout(_NAME, _recognise, _headers, _read)
