"""Where a field is so crowded that sources leave no sky between them: the darkest surroundings.

A pixel is chosen by the light round it, its own value left out. The noise of the chosen pixels is then
that of any others, and their mean is not biased by the choice, as the mean of the faintest pixels would be.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.rows import changed_rows, rows_between, sampled
from skysub.sources.detect import smoothed, smoothing_kernel
from skysub.sources.flags import IGNORED, NOT_SKY, SOURCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["keep_darkest"]

_SAMPLE = 100_000
"""Pixels by which the level is told, about."""


def keep_darkest(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    grid: SuperpixelGrid,
    *,
    fraction: float,
    fwhm: float,
    threads: int = 1,
) -> None:
    """Flag as SOURCE all pixels of each superpixel but the ``fraction`` with the darkest surroundings.

    Parameters
    ----------
    image, flags
        (ny, nx) float32 with its sky, and its flags; ignored pixels and NaN neither count nor are chosen.
    fwhm
        Of the PSF, pixel; the surroundings are weighted by a Gaussian of this width.
    """
    kernel = smoothing_kernel(fwhm)
    step = max(1, math.isqrt(flags.size // _SAMPLE))
    values, bits = sampled((image, flags), step)
    usable = values[((bits & IGNORED) == 0) & np.isfinite(values)]
    level = np.float32(np.median(usable)) if usable.size else np.float32(0)
    spans = rows_between(grid.y_edges, margin=len(kernel) - 1)
    changed_rows(
        _keep_darkest,
        flags,
        (image,),
        spans=spans,
        threads=threads,
        grid=grid,
        kernel=kernel,
        fraction=fraction,
        level=level,
    )


def _keep_darkest(
    units: range,
    all_flags: NDArray[np.uint8],
    all_pixels: NDArray[np.float32],
    *,
    grid: SuperpixelGrid,
    kernel: NDArray[np.float32],
    fraction: float,
    level: np.float32,
    threads: int,
) -> None:
    """Do so in some rows of superpixels, whose surroundings are seen against a ``level``."""
    spans = rows_between(grid.y_edges, margin=len(kernel) - 1)
    rows = slice(int(spans[units.start, 0]), int(spans[units.stop - 1, 1]))
    image, flags = all_pixels[rows], all_flags[rows]
    usable = ((flags & IGNORED) == 0) & np.isfinite(image)
    light = np.where(usable, image - level, np.float32(0))
    weight = smoothed(usable.astype(np.float32), kernel, threads=threads)
    around = smoothed(light, kernel, threads=threads)
    own = kernel[0] ** 2
    around -= own * light
    weight -= own * usable
    with np.errstate(divide="ignore", invalid="ignore"):
        around /= weight
    good = (flags & NOT_SKY) == 0
    good &= usable & np.isfinite(around)
    y_edges = grid.y_edges[units.start : units.stop + 1] - rows.start
    for y0, y1 in pairwise(y_edges.tolist()):
        for x0, x1 in zip(grid.x_edges[:-1], grid.x_edges[1:], strict=True):
            cut = (slice(y0, y1), slice(x0, x1))
            values = around[cut][good[cut]]
            if values.size:
                kept = max(2, int(fraction * values.size))
                limit = np.partition(values, min(kept, values.size) - 1)[min(kept, values.size) - 1]
                flags[cut][~(good[cut] & (around[cut] <= limit))] |= SOURCE
