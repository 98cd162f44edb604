"""What amplifiers add to a background, as a layer of LSST's BackgroundList FITS."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.amplifiers import Amplifier, AmplifierBackground, do_tile
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import ConfigError, LayoutError
from skysub.visit.amplifiers import amplifier_cards
from skysub.visit.fits.emit import Block, cards
from skysub.visit.fits.layer_hdus import CONSTANT, interpolated_cards, layer_blocks
from skysub.visit.fits.pixels import read_float

if TYPE_CHECKING:
    from skysub.visit.fits.file import FitsFile, Hdu

__all__ = ["amplifier_layer_blocks", "is_amplifier_layer", "read_amplifier_layer"]

_ROWS = "AMPROWS"


def amplifier_layer_blocks(
    layer: AmplifierBackground, *, xy0: tuple[int, int] = (0, 0)
) -> list[tuple[Block, str]]:
    """Blocks and further cards of the three HDUs of the layer: values, a mask of zeros, errors.

    The values stand on the coarsest even grid none of whose cells crosses a boundary of amplifiers or of bins
    of drift. INTERPSTYLE = 0 asks readers for constants, so that LSST's give the layer as it is.
    """
    ny, nx = layer.shape
    size = layer.rows_per_bin if layer.drift else max(ny, nx)
    y_edges = itertools.chain(*([*range(a.y[0], a.y[1], size), a.y[1]] for a in layer.amplifiers))
    dy, dx = math.gcd(ny, *y_edges), math.gcd(nx, *(edge for a in layer.amplifiers for edge in a.x))
    values, errors = (plane[::dy, ::dx].copy() for plane in (layer.evaluate(), layer.uncertainty()))
    more = cards(
        {
            **interpolated_cards((ny, nx), xy0=xy0, style=CONSTANT),
            _ROWS: (layer.rows_per_bin if layer.drift else 0, "rows of a bin of drift; 0: steps alone"),
            **amplifier_cards(layer.amplifiers),
        }
    )
    return layer_blocks(values, errors, more)


def is_amplifier_layer(hdus: list[Hdu]) -> bool:
    """Whether three HDUs are such a layer."""
    return _ROWS in hdus[0].cards


def read_amplifier_layer(where: str, file: FitsFile, hdus: list[Hdu]) -> AmplifierBackground:
    """Read such a layer; each pixel has the very value that was written.

    Raises
    ------
    LayoutError
        When its cards or images do not fit together.
    """
    found = {name: hdus[0].cards.get(name) for name in ("BKGD_HEIGHT", "BKGD_WIDTH", _ROWS)}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**20:
            raise LayoutError(f"{where}: {name} is {value!r}, where a whole number should stand")
    ny, nx, size = found.values()
    mean, error = read_float(file, hdus[0]), read_float(file, hdus[2])
    gy, gx = mean.shape
    if mean.shape != error.shape or not (0 < gy <= ny and 0 < gx <= nx):
        raise LayoutError(
            f"{where}: values {mean.shape} and errors {error.shape} do not fit an image of {(ny, nx)}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(error).all() and (error >= 0).all()):
        raise LayoutError(f"{where}: values and errors of amplifiers must be finite")
    try:
        amplifiers = tuple(Amplifier.of_section(*each) for each in _sections(where, hdus[0]).items())
    except ConfigError as reason:
        raise LayoutError(f"{where}: {reason}") from None
    if not do_tile(amplifiers, (ny, nx)):
        raise LayoutError(f"{where}: its amplifiers do not tile an image of {(ny, nx)}")
    grid = SuperpixelGrid.of_counts((ny, nx), gy=gy, gx=gx)
    row_of = np.searchsorted(grid.y_edges, np.arange(ny), side="right") - 1
    column_of = np.searchsorted(grid.x_edges, [a.x[0] for a in amplifiers], side="right") - 1
    steps, step_errors, drift, drift_errors = [], [], [], []
    for amplifier, column in zip(amplifiers, column_of, strict=True):
        rows = row_of[np.arange(*amplifier.y, size or amplifier.shape[0])]
        values, errors = (plane[rows, column].astype(np.float64) for plane in (mean, error))
        level = float(np.mean(values)) if size else float(values[0])
        steps.append(level)
        step_errors.append(0.0 if size else float(errors[0]))
        drift.append(values - level)
        drift_errors.append(errors)
    try:
        return AmplifierBackground(
            shape=(ny, nx),
            amplifiers=amplifiers,
            steps=np.array(steps),
            step_errors=np.array(step_errors),
            rows_per_bin=size,
            drift=tuple(drift) if size else (),
            drift_errors=tuple(drift_errors) if size else (),
        )
    except ConfigError as reason:
        raise LayoutError(f"{where}: {reason}") from None


def _sections(where: str, hdu: Hdu) -> dict[str, str]:
    sections: dict[str, Any] = {}
    for keyword in hdu.cards.keywords("AMPSEC"):
        number = keyword.removeprefix("AMPSEC")
        name, section = hdu.cards.get(f"AMPNAM{number}", number), hdu.cards.get(keyword)
        if not isinstance(section, str) or str(name) in sections:
            raise LayoutError(f"{where}: {keyword} is {section!r} of amplifier {name!r}")
        sections[str(name)] = section
    if not sections:
        raise LayoutError(f"{where}: no card AMPSECn says which pixels its amplifiers have")
    return sections
