"""Cosmic rays by L.A.Cosmic (van Dokkum 2001, PASP 113, 1420), where something is sharper than a star."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import for_kernels, once
from skysub.background.rows import changed_rows, made_rows, over_rows, rows_between
from skysub.errors import ConfigError
from skysub.sources.flags import COSMIC_RAY, IGNORED, SATURATED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.model import Background

__all__ = ["CosmicRayConfig", "find_cosmic_rays"]
_BLOCK = 32
"""Only blocks of so many pixels are searched that hold a pixel sharper than a star,"""
_REACH = 4
"""with so many around them, for tracks that run on from there,"""
_MARGIN = 12
"""and so many more that only tell these what lies around them."""
_EDGE = _BLOCK + 2 * (_REACH + _MARGIN)
_STRIP = 512
"""Rows for which the sky is evaluated at once."""
_LEAST_CONTRAST = 0.3


@dataclass(frozen=True, slots=True)
class CosmicRayConfig:
    """How cosmic rays are found.

    Parameters
    ----------
    sigma, neighbours, contrast
        Threshold in units of the noise; share of it for neighbours; and how much sharper than the PSF a
        cosmic ray must be (``sigclip``, ``sigfrac``, ``objlim`` of other programs).
    iterations
        Of the search.
    interpolate
        Replace their pixels by what their neighbours say, and mark them INTRP as well.
    """

    sigma: float = 4.5
    neighbours: float = 0.3
    contrast: float = 5.0
    iterations: int = 2
    interpolate: bool = False

    def __post_init__(self) -> None:
        for name in ("sigma", "neighbours", "contrast"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be a positive number, not {getattr(self, name)!r}")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ConfigError(f"iterations must be a whole number of at least 1, not {self.iterations!r}")


def find_cosmic_rays(
    image: NDArray[np.float32],
    sky: Background,
    flags: NDArray[np.uint8],
    config: CosmicRayConfig,
    *,
    noise: float,
    fwhm: float,
) -> NDArray[np.float32]:
    """Flag pixels hit by cosmic rays, and return the image to go on with.

    Parameters
    ----------
    image
        (ny, nx) float32: pixels with their sky.
    sky
        About what the sky is.
    flags
        (ny, nx) uint8 of `skysub.sources.flags`: what is IGNORED or SATURATED is not judged; hit pixels get
        IGNORED and COSMIC_RAY in place.
    noise
        Per pixel of the sky, unit of the image.
    fwhm
        Of the PSF, pixel: decides how finely the contrast is judged.

    Returns
    -------
    image
        The image given, or with ``config.interpolate`` a copy whose hit pixels are interpolated.
    """
    edges = np.append(np.arange(0, image.shape[0], _BLOCK), image.shape[0])
    parts = over_rows(
        _search,
        (image, flags),
        spans=rows_between(edges, margin=_REACH + _MARGIN + 1),
        sky=sky,
        config=config,
        noise=noise,
        fwhm=fwhm,
    )
    hits = _Hits(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    # only now: blocks see each other's margins as they were
    changed_rows(_flag, flags, hits=hits)
    if not config.interpolate:
        return image
    clean: NDArray[np.float32] = made_rows(_replace, (image,), np.float32, hits=hits)
    return clean


@dataclass(frozen=True, eq=False)
class _Hits:
    """Pixels hit by cosmic rays, in the order in which they were found, and their light without them."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    value: NDArray[np.float32]

    def within(self, first: int, last: int) -> _Hits:
        """Those in the rows from ``first`` to ``last`` - 1."""
        own = (self.y >= first) & (self.y < last)
        return _Hits(self.y[own], self.x[own], self.value[own])


def _flag(rows: range, flags: NDArray[np.uint8], *, hits: _Hits, threads: int) -> None:
    del rows, threads
    flags[hits.y, hits.x] |= IGNORED | COSMIC_RAY


def _replace(
    rows: range, clean: NDArray[np.float32], image: NDArray[np.float32], *, hits: _Hits, threads: int
) -> None:
    del threads
    clean[rows.start : rows.stop] = image[rows.start : rows.stop]
    clean[hits.y, hits.x] = hits.value


def _search(
    units: range,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    sky: Background,
    config: CosmicRayConfig,
    noise: float,
    fwhm: float,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Row, column and light without them of the pixels that were hit, by some rows of blocks."""
    from skysub.sources import cosmic_ray_kernels, kernels

    del threads
    ny, nx = image.shape
    pixels = for_kernels(image)
    blocks = np.zeros((-(-ny // _BLOCK), -(-nx // _BLOCK)), bool)
    # a star is no sharper than this against its neighbours
    contrast = max(_LEAST_CONTRAST, 1.3 * (1 - math.exp(-4 * math.log(2) / fwhm**2)))
    unusable = IGNORED | SATURATED
    end = min(ny, units.stop * _BLOCK)
    for start in range(units.start * _BLOCK, end, _STRIP):
        rows = slice(max(0, start - 1), min(end + 1, ny, start + _STRIP + 1))
        kernels.sharp_blocks(
            pixels[rows],
            sky.evaluate(y=rows),
            flags[rows],
            unusable,
            noise,
            config.sigma,
            contrast,
            _BLOCK,
            rows.start,
            blocks,
        )
    compile_once()
    planes = np.empty((cosmic_ray_kernels.PLANES, _EDGE, _EDGE), np.float32)
    hits, light = np.empty((_EDGE, _EDGE), np.uint8), np.empty((_EDGE, _EDGE), np.float32)
    level = np.zeros((_EDGE, _EDGE), np.float32)
    sigma, psf = np.float32(config.sigma), _psf(fwhm)
    found_y, found_x, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for j, i in np.argwhere(blocks):
        top, left = (n * _BLOCK - _REACH - _MARGIN for n in (int(j), int(i)))
        outer, within = _cut(top, left, 0, (ny, nx))
        level[within] = sky.evaluate(y=outer[0], x=outer[1])
        if not cosmic_ray_kernels.search_block(
            pixels,
            level,
            flags,
            np.uint8(unusable),
            top,
            left,
            np.float32(noise),
            psf,
            sigma,
            np.float32(config.neighbours) * sigma,
            np.float32(config.contrast),
            config.iterations,
            planes,
            hits,
            light,
        ):
            continue
        inner, within = _cut(top, left, _MARGIN, (ny, nx))
        y, x = np.nonzero(hits[within] == 1)
        found_y.append(y + inner[0].start)
        found_x.append(x + inner[1].start)
        values.append((light[within] * np.float32(noise) + level[within])[y, x])
    return np.concatenate(found_y), np.concatenate(found_x), np.concatenate(values)


def _cut(
    top: int, left: int, margin: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Part of the image that a window without its margin covers, and that part of the window."""
    image, window = [], []
    for start, length in zip((top, left), shape, strict=True):
        first, last = max(0, start + margin), min(length, start + _EDGE - margin)
        image.append(slice(first, last))
        window.append(slice(first - start, last - start))
    return tuple(image), tuple(window)


@functools.lru_cache(maxsize=4)
def _psf(fwhm: float) -> NDArray[np.float32]:
    """Round Gaussian on 7 x 7 pixels, sum 1."""
    square = (np.arange(7) - 3) ** 2
    profile = np.exp(-4 * math.log(2) * (square[:, None] + square[None, :]) / fwhm**2)
    psf: NDArray[np.float32] = (profile / profile.sum()).astype(np.float32)
    return psf


def compile_once() -> None:
    """Compile or load the kernel that searches a block."""
    from skysub.sources import cosmic_ray_kernels as kernels

    def search_nothing() -> None:
        plane = np.zeros((_EDGE, _EDGE), np.float32)
        flags, hits = np.zeros((2, _EDGE, _EDGE), np.uint8)
        planes = np.zeros((kernels.PLANES, _EDGE, _EDGE), np.float32)
        one = np.float32(1)
        kernels.search_block(
            plane,
            plane.copy(),
            flags,
            np.uint8(1),
            0,
            0,
            one,
            _psf(4.0),
            one,
            one,
            one,
            1,
            planes,
            hits,
            plane,
        )

    once(kernels, "cosmic rays", search_nothing)
