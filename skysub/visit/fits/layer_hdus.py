"""The three HDUs of each layer of LSST's BackgroundList FITS: values, a mask of zeros, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.visit.fits.emit import Block, cards, plain_image
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONSTANT", "LINEAR", "interpolated_cards", "layer_blocks"]

CONSTANT, LINEAR = 0, 1
"""Styles by which readers interpolate between the values."""
_REDUCE, _NOT_APPROXIMATED = 1, -1


def layer_blocks(
    values: NDArray[np.float32], errors: NDArray[np.float32], more: str, *, primary: bool = False
) -> list[tuple[Block, str]]:
    """Blocks and further cards of the HDUs of a layer; ``primary``: of the first one in its file."""
    planes = cards({f"MP_{name}": AFW_PLANES[name] for name in AFW_PLANES.names})
    return [
        (plain_image(values, primary=primary), more),
        (plain_image(np.zeros(values.shape, np.int32)), more + planes),
        (plain_image(errors), more),
    ]


def interpolated_cards(shape: tuple[int, int], *, xy0: tuple[int, int], style: int) -> dict[str, Any]:
    """Cards of a layer over (ny, nx) pixels that readers interpolate by a style, without fitting it."""
    return {
        "INTERPSTYLE": style,
        "UNDERSAMPLESTYLE": _REDUCE,
        "APPROXSTYLE": _NOT_APPROXIMATED,
        "APPROXORDERX": -1,
        "APPROXORDERY": -1,
        "APPROXWEIGHTING": False,
        "BKGD_X0": xy0[0],
        "BKGD_Y0": xy0[1],
        "BKGD_WIDTH": shape[1],
        "BKGD_HEIGHT": shape[0],
    }
