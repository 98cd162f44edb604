"""Colour maps of pictures: cividis for levels, vik for departures from zero, and the mask's own.

cividis: J. R. Nuñez, C. R. Anderton, R. S. Renslow, PLoS ONE 13, e0199239 (2018). vik: F. Crameri, Scientific
colour maps (2018), doi:10.5281/zenodo.1243862. Both read the same to people with other colour vision. The
mask's colours are mixed in OKLab (B. Ottosson, "A perceptual color space for image processing", 2020).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["css_gradient", "diverging", "mask_palette", "mask_swatches", "sequential"]

LEVELS = 255
"""Colours of a map; the 256th place of a palette stands for nothing known."""

_LMS_OF_LAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_RGB_OF_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_MASK_CLEAN, _MASK_SOURCE, _MASK_DEFECT = (0.93, 0.0, 230.0), (0.55, 0.11, 230.0), (0.62, 0.18, 42.0)


_CIVIDIS = (
    "00224e 002656 002a5f 002d68 003070 083370 163770 203a6f 273e6e 2e416d 34456c 3a486c 3f4c6c "
    "444f6c 49536c 4e566c 535a6d 575d6d 5c616e 60646f 656870 696b71 6d6f72 727274 767676 7a7a78 "
    "7e7d78 838179 888578 8d8878 928c78 969077 9b9476 a09875 a59c74 aaa073 afa471 b5a86f baac6d "
    "bfb06b c4b468 c9b965 cfbd62 d4c15f dac65b dfca57 e5cf52 ead34c f0d846 f6dd3f fce236 fee838"
)
_VIK = (
    "001261 011a66 02226b 022a70 023175 02397a 03417f 034984 055189 08598f 106294 196b9a 2575a1 "
    "337fa8 4289af 5194b6 619ebd 71a8c4 80b2ca 90bcd1 a0c5d8 b0cfde c0d8e4 cfe0e8 dee6e9 e8e7e5 "
    "eee3dc eedbd0 ecd1c3 e8c8b5 e4bea8 dfb49a dbaa8d d7a081 d39774 cf8e68 cc855d c87c51 c47445 "
    "c06b3a bc622f b65824 af4c18 a5400f 9a3508 8f2b06 852206 7c1b06 731406 6a0d07 620607 590008"
)
"""Every fifth of the 256 colours of each map; colours between them lie within 4 of 255 of the map's own."""


@functools.cache
def sequential() -> NDArray[np.uint8]:
    """cividis: dark blue by way of grey to yellow, (255, 3) uint8 sRGB."""
    return _levels(_CIVIDIS)


@functools.cache
def diverging() -> NDArray[np.uint8]:
    """vik, blue by way of near white in the middle to brown, (255, 3) uint8 sRGB."""
    return _levels(_VIK)


@functools.cache
def mask_palette() -> NDArray[np.uint8]:
    """(256, 3) uint8 sRGB at 16 * defects + sources, each a share in fifteenths: what covers a cell."""
    clean, source, defect = (_lab(colour) for colour in (_MASK_CLEAN, _MASK_SOURCE, _MASK_DEFECT))
    # small shares should still be seen
    share = np.sqrt(np.arange(16) / 15)
    covered = clean + share[:, None] * (source - clean)
    mixed = covered[None] + share[:, None, None] * (defect - covered[None])
    return _srgb(mixed.reshape(-1, 3))


def mask_swatches() -> dict[str, str]:
    """CSS colours of the mask's legend."""
    palette = mask_palette()
    return {"clean": _css(palette[0]), "sources": _css(palette[15]), "defects": _css(palette[240])}


def css_gradient(palette: NDArray[np.uint8], stops: int = 18) -> str:
    """CSS background that shows a palette from left to right."""
    places = np.linspace(0, len(palette) - 1, stops).round().astype(int)
    return f"linear-gradient(to right, {', '.join(_css(palette[place]) for place in places)})"


def _levels(colours: str) -> NDArray[np.uint8]:
    knots = np.frombuffer(bytes.fromhex(colours), np.uint8).reshape(-1, 3)
    at = np.linspace(0, len(knots) - 1, LEVELS)
    parts = [np.interp(at, np.arange(len(knots)), part) for part in knots.T]
    return np.stack(parts, axis=1).round().astype(np.uint8)


def _lab(colour: tuple[float, float, float]) -> NDArray[np.float64]:
    light, chroma, hue = colour
    return np.array([light, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))])


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    linear = np.clip((lab @ _LMS_OF_LAB.T) ** 3 @ _RGB_OF_LMS.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = (encoded * 255).round().astype(np.uint8)
    return colours


def _css(colour: NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
