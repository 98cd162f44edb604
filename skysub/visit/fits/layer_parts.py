"""Steps, small structure and deviation of a background, as layers of LSST's BackgroundList FITS.

Each part is three HDUs as any layer, so that LSST's readers add it up as well: steps as constants, small
structure as values between which is interpolated linearly, and the deviation as errors of a layer of zeros.
Cards hold what float32 cannot: the coefficients and their covariance, and the steps.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.amplifiers import Amplifier
from skysub.background.chebyshev import design_matrix
from skysub.background.layered import LayeredBackground
from skysub.background.model import Background
from skysub.errors import ConfigError, InvalidImageError, LayoutError
from skysub.visit.fits.emit import Block, cards
from skysub.visit.fits.layer_hdus import CONSTANT, LINEAR, interpolated_cards, layer_blocks
from skysub.visit.fits.pixels import read_float

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.visit.fits.file import FitsFile, Hdu

__all__ = ["exact_cards", "is_part", "part_blocks", "with_exact_numbers", "with_part"]

_PART = "SKYPART"
_EXACT, _PIECE = "SKYEXACT", 56
_AGREE = 1e-4
"""Difference between a layer's values and its coefficients' model, over the larger of 1 and the largest
value, up to which they are the same: values are float32."""


def exact_cards(layer: Background) -> dict[str, Any]:
    """Cards with the very coefficients and covariance of a layered background; none for others."""
    if not isinstance(layer, LayeredBackground):
        return {}
    lower = layer.covariance[np.tril_indices(len(layer.coefficients))]
    numbers = np.concatenate([layer.coefficients, lower]).astype("<f8")
    text = base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode("ascii")
    pieces = [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]
    return {f"{_EXACT}{number}": piece for number, piece in enumerate(pieces, 1)}


def part_blocks(layer: Background, *, xy0: tuple[int, int] = (0, 0)) -> list[tuple[Block, str]]:
    """Blocks and further cards of all parts; none for a background that is a polynomial alone."""
    if not isinstance(layer, LayeredBackground):
        return []
    blocks: list[tuple[Block, str]] = []
    if layer.steps is not None:
        ny, nx = layer.shape
        dy = math.gcd(ny, *(edge for box in layer.boxes for edge in box[:2]))
        dx = math.gcd(nx, *(edge for box in layer.boxes for edge in box[2:]))
        values = np.zeros((ny // dy, nx // dx), np.float32)
        more: dict[str, Any] = {}
        for number, (box, step) in enumerate(zip(layer.boxes, layer.steps.tolist(), strict=True), 1):
            y0, y1, x0, x1 = box
            values[y0 // dy : y1 // dy, x0 // dx : x1 // dx] += np.float32(step)
            section = Amplifier(f"{number}", y=(y0, y1), x=(x0, x1)).section
            more |= {f"SKYBOX{number}": section, f"SKYSTEP{number}": step}
        blocks += _layer("STEPS", layer.shape, values, xy0=xy0, more=more)
    if layer.cells is not None:
        blocks += _layer("CELLS", layer.shape, layer.cells, xy0=xy0, style=LINEAR)
    if layer.deviation is not None:
        nothing = np.zeros_like(layer.deviation)
        blocks += _layer("DEVIATION", layer.shape, nothing, xy0=xy0, errors=layer.deviation)
    return blocks


def is_part(hdus: list[Hdu]) -> bool:
    """Whether three HDUs are a part of the layer before."""
    return _PART in hdus[0].cards


def with_exact_numbers(where: str, layer: Background, hdu: Hdu) -> Background:
    """The layer with the coefficients that the cards of its first HDU state; itself where there are none.

    Raises
    ------
    LayoutError
        When the cards are damaged, or say another model than the values.
    """
    pieces: list[str] = []
    while isinstance(piece := hdu.cards.get(f"{_EXACT}{len(pieces) + 1}"), str):
        pieces.append(piece)
    if not pieces:
        return layer
    terms = len(layer.coefficients)
    wanted = 8 * (terms + terms * (terms + 1) // 2)
    try:
        # no more than is wanted, whatever the cards would unpack to
        data = zlib.decompressobj().decompress(base64.b64decode("".join(pieces), validate=True), wanted + 1)
    except (binascii.Error, zlib.error) as error:
        raise LayoutError(f"{where}: its cards {_EXACT}n are damaged: {error}") from None
    numbers = np.frombuffer(data[: len(data) // 8 * 8], "<f8").astype(np.float64)
    if len(data) != wanted or not np.isfinite(numbers).all():
        raise LayoutError(f"{where}: its cards {_EXACT}n do not hold the numbers of order {layer.order}")
    coefficients = numbers[:terms].copy()
    covariance = np.zeros((terms, terms))
    covariance[np.tril_indices(terms)] = numbers[terms:]
    covariance = np.tril(covariance) + np.tril(covariance, -1).T
    y, x = (c.ravel() for c in np.meshgrid(layer.grid.y_centers, layer.grid.x_centers, indexing="ij"))
    terms_there = design_matrix(x, y, shape=layer.shape, order=layer.order)
    model = np.einsum("ki,i->k", terms_there, coefficients).reshape(layer.grid.shape)
    scale = max(1.0, float(np.max(np.abs(model))))
    if not np.allclose(layer.statistics.mean, model, rtol=0, atol=_AGREE * scale, equal_nan=False):
        raise LayoutError(
            f"{where}: its values are another model than its cards {_EXACT}n: take the cards out to read them"
        )
    own = {each.name: getattr(layer, each.name) for each in fields(Background)}
    return LayeredBackground(**(own | {"coefficients": coefficients, "covariance": covariance}))


def with_part(where: str, layer: Background, file: FitsFile, hdus: list[Hdu]) -> Background:
    """The layer with one more part.

    Raises
    ------
    LayoutError
        When the part is unknown, damaged, or of another image.
    """
    found = {name: hdus[0].cards.get(name) for name in (_PART, "BKGD_HEIGHT", "BKGD_WIDTH")}
    part, *shape = found.values()
    if not isinstance(layer, LayeredBackground) or tuple(shape) != layer.shape:
        raise LayoutError(
            f"{where}: a part {part!r} must follow a layer with cards {_EXACT}n of the same image"
        )
    values, errors = read_float(file, hdus[0]), read_float(file, hdus[2])
    if not (np.isfinite(values).all() and np.isfinite(errors).all()):
        raise LayoutError(f"{where}: the part {part!r} has values that are not finite")
    try:
        if part == "STEPS":
            boxes, steps = _steps(where, hdus[0])
            return replace(layer, boxes=boxes, steps=steps)
        if part == "CELLS":
            return replace(layer, cells=values.astype(np.float32))
        if part == "DEVIATION":
            return replace(layer, deviation=errors.astype(np.float32))
    except (InvalidImageError, ConfigError) as error:
        raise LayoutError(f"{where}: {error}") from None
    raise LayoutError(f"{where}: {_PART} is {part!r}; known are STEPS, CELLS and DEVIATION")


def _steps(where: str, hdu: Hdu) -> tuple[tuple[tuple[int, int, int, int], ...], NDArray[np.float64]]:
    boxes: list[tuple[int, int, int, int]] = []
    steps: list[float] = []
    while isinstance(section := hdu.cards.get(f"SKYBOX{len(boxes) + 1}"), str):
        step = hdu.cards.get(f"SKYSTEP{len(boxes) + 1}")
        if isinstance(step, bool) or not isinstance(step, int | float) or not math.isfinite(step):
            raise LayoutError(f"{where}: SKYSTEP{len(boxes) + 1} is {step!r}, where a number should stand")
        one = Amplifier.of_section(str(len(boxes) + 1), section)
        boxes.append((*one.y, *one.x))
        steps.append(float(step))
    return tuple(boxes), np.array(steps)


def _layer(
    part: str,
    shape: tuple[int, int],
    values: NDArray[np.float32],
    *,
    xy0: tuple[int, int],
    style: int = CONSTANT,
    errors: NDArray[np.float32] | None = None,
    more: Mapping[str, Any] | None = None,
) -> list[tuple[Block, str]]:
    """Three HDUs that LSST's readers interpolate without fitting."""
    more_cards = cards({**interpolated_cards(shape, xy0=xy0, style=style), _PART: part, **(more or {})})
    values = np.ascontiguousarray(values)
    return layer_blocks(
        values, np.zeros_like(values) if errors is None else np.ascontiguousarray(errors), more_cards
    )
