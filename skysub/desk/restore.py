"""Writing a subtracted image so that its sky can be put back, and putting it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError, LayoutError
from skysub.visit.fits.emit import cards, history, plain_image, write_blocks
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.subtracted import (
    LAYOUT,
    SubtractedFile,
    cards_before,
    read_subtracted,
    write_subtracted,
)

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from skysub.desk.subtract import Subtracted

__all__ = ["Restored", "restore", "write_result"]

_TYPES = {8: "uint8", 16: "int16", 32: "int32", 64: "int64", -32: "float32", -64: "float64"}


@dataclass(frozen=True, eq=False)
class Restored:
    """An image with its sky put back."""

    image: NDArray[np.float32]
    """(ny, nx) or (colour, ny, nx) float32, unit of the image."""
    exact: bool
    """Whether each pixel is the number that was read before the sky was subtracted; False where that was a
    float32 rounded from a wider type, or the sky came from a file of its own (half a unit in the last place
    of image or background, whichever is larger)."""
    why: str
    """What that rests on, a sentence."""
    cards: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the image under the cards that it had before.

        Raises
        ------
        VisitFileError
            When the file cannot be written.
        """
        notes = history(["skysub put the sky back that it had subtracted."])
        write_blocks(path, [(plain_image(self.image, primary=True), self.cards + notes)])


def write_result(result: Subtracted, path: str | os.PathLike[str]) -> None:
    """Write what `skysub.subtract` found; see `skysub.visit.fits.subtracted` for the layout.

    Raises
    ------
    InvalidImageError
        When the result no longer has the pixels from before, or they are float64, which the file has no room
        for.
    """
    from skysub.visit.fits.cards import Cards

    pixels = result.original
    if pixels is None or pixels.dtype != np.float32 or result.image.dtype != np.float32:
        raise InvalidImageError(
            "only results of float32 are written, with the pixels from before: subtract image.astype('f4')"
        )
    opened = result.opened
    stated = Cards("") if opened is None else opened.cards
    bitpix = stated.get("BITPIX", -32)
    original = _TYPES.get(bitpix, "float32") if isinstance(bitpix, int) else "float32"
    exact = original in {"uint8", "int16", "float32"} and stated.get("BSCALE", 1) == 1
    variances = [] if opened is None else [channel.variance for channel in opened.channels]
    known = [variance for variance in variances if variance is not None]
    content = SubtractedFile(
        image=np.asarray(result.image, np.float32),
        background=result.background,
        mask=result.planes_mask,
        planes=result.planes,
        variance=np.asarray(opened.whole(list(known)), np.float32)
        if opened is not None and len(known) == len(variances) and known
        else None,
        unit=result.unit,
        cards=stated,
        differing=_differing(pixels, result.background, np.asarray(result.image, np.float32)),
        original=original,
        exact=exact,
    )
    config = result.models[0][0].config
    model = f"{config.model} {result.order}" if config.model == "chebyshev" else config.model
    summary: dict[str, Any] = {
        "SKYLEVEL": (_finite(result.sky), "median of the sky"),
        "SKYNOISE": (_finite(result.noise), "noise per pixel"),
        "SKYMASK": (result.masked, "share of pixels left out of the sky"),
        "SKYMODEL": (model, "kind of model"),
    }
    sentences = [f"skysub guessed: {guess}" for guess in result.guesses]
    sentences += [f"skysub flag {name}: {text}" for name, text in result.flags.items()]
    write_subtracted(path, content, summary=summary, sentences=sentences)


def restore(
    path: str | os.PathLike[str], background: str | os.PathLike[str] | None = None, *, verify: bool = True
) -> Restored:
    """Put the sky back into an image that skysub subtracted it from.

    Parameters
    ----------
    path
        A file that ``skysub subtract`` wrote; or an exported visit image, with ``background``.
    background
        The file of layers that were subtracted (LSST's BackgroundList, as ``skysub export`` writes it).
    verify
        Refuse a file whose data do not have their checksum.

    Raises
    ------
    LayoutError
        When it is no such file, or image and background do not fit.
    VisitFileNotFoundError, VisitFileError
        When a file is missing or damaged.
    """
    if background is not None:
        return _restored_from(path, background, verify=verify)
    with open_fits(path, verify=verify) as file:
        if not LAYOUT.recognise(file):
            raise LayoutError(
                f"{file.path}: this file does not hold what was subtracted from it. Files of `skysub "
                "subtract` do; for an exported visit image name the file of its background: --background FILE"
            )
        content = read_subtracted(file, verify=verify)
    why = (
        f"each pixel is the {content.original} that was there"
        if content.exact
        else f"pixels were {content.original} and were read as float32: each is that float32"
    )
    return Restored(content.restored(), content.exact, why, cards_before(content.cards).text)


def _restored_from(
    path: str | os.PathLike[str], background: str | os.PathLike[str], *, verify: bool
) -> Restored:
    from skysub.visit.fits.background import read_background
    from skysub.visit.fits.read import read_visit_image
    from skysub.visit.fits.write import exposure_cards
    from skysub.visit.ingest import IngestMap

    visit_image = read_visit_image(path, IngestMap(verify=verify))
    layers = read_background(background)
    if layers[0].shape != visit_image.shape:
        raise LayoutError(
            f"{background}: this background is of an image of {layers[0].shape} pixels; {path} has "
            f"{visit_image.shape}"
        )
    why = (
        "the model was evaluated again: pixels agree to half a unit in the last place of image or "
        "background, whichever is larger"
    )
    unit = cards({"BUNIT": visit_image.unit})
    return Restored(visit_image.image + layers.evaluate(), False, why, unit + exposure_cards(visit_image))


def _differing(
    pixels: NDArray[Any], background: NDArray[np.float32], left: NDArray[np.float32]
) -> NDArray[np.int32]:
    """(2, n) places and bits of the pixels that ``left + background`` is not."""
    from skysub.desk import kernels

    before, taken, after = (np.ascontiguousarray(array).reshape(-1) for array in (pixels, background, left))
    count = int(kernels.count_differences(before, taken, after))
    places, values = np.empty(count, np.int32), np.empty(count, np.float32)
    if count:
        kernels.differences(before, taken, after, places, values)
    return np.stack([places, values.view(np.int32)])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
