"""Colour maps whose steps look equally large, made in the OKLab space.

OKLab: B. Ottosson, "A perceptual color space for image processing" (2020). Distances in it follow what
people see; a map is a path of evenly rising lightness, walked at even speed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["css_gradient", "diverging", "lightness", "mask_palette", "mask_swatches", "sequential"]

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


@functools.cache
def sequential() -> NDArray[np.uint8]:
    """Dark blue by way of green to pale yellow, (255, 3) uint8 sRGB."""
    return _path(
        [(0.17, 0.05, 290), (0.33, 0.095, 272), (0.52, 0.085, 232), (0.72, 0.095, 178), (0.97, 0.09, 108)]
    )


@functools.cache
def diverging() -> NDArray[np.uint8]:
    """Blue by way of near white in the middle to red, (255, 3) uint8 sRGB; both arms alike in lightness."""
    half = LEVELS // 2 + 1
    low = _path([(0.36, 0.12, 258), (0.60, 0.11, 245), (0.82, 0.06, 235), (0.975, 0.0, 235)], half)
    high = _path([(0.36, 0.12, 28), (0.60, 0.14, 38), (0.82, 0.08, 55), (0.975, 0.0, 55)], half)
    return np.concatenate([low, high[-2::-1]])


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


def lightness(palette: NDArray[np.uint8]) -> NDArray[np.float64]:
    """OKLab's lightness of sRGB colours (n, 3), 0 to 1."""
    encoded = palette / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lms = np.cbrt(linear @ np.linalg.inv(_RGB_OF_LMS).T)
    value: NDArray[np.float64] = (lms @ np.linalg.inv(_LMS_OF_LAB).T)[:, 0]
    return value


def _path(knots: list[tuple[float, float, float]], levels: int = LEVELS) -> NDArray[np.uint8]:
    """Colours at even distances along straight lines between knots (lightness, chroma, hue in degrees)."""
    points = np.stack([_lab(knot) for knot in knots])
    # bends are rounded off by a parabola through the knots' own parameters
    along = np.linspace(0, len(points) - 1, 2048)
    fine = np.stack([_smooth(along, points[:, axis]) for axis in range(3)], axis=1)
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    even = np.linspace(0, walked[-1], levels)
    return _srgb(np.stack([np.interp(even, walked, fine[:, axis]) for axis in range(3)], axis=1))


def _smooth(along: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic Hermite interpolation at unit steps, with the slopes of Catmull and Rom."""
    slopes = np.gradient(values)
    i = np.clip(along.astype(int), 0, len(values) - 2)
    t = along - i
    h00, h10 = (1 + 2 * t) * (1 - t) ** 2, t * (1 - t) ** 2
    h01, h11 = t**2 * (3 - 2 * t), t**2 * (t - 1)
    smooth: NDArray[np.float64] = (
        h00 * values[i] + h10 * slopes[i] + h01 * values[i + 1] + h11 * slopes[i + 1]
    )
    return smooth


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
