"""Where a field is so crowded that sources leave no sky between them: the darkest surroundings.

A pixel is chosen by the light round it, its own value left out. The noise of the chosen pixels is then
that of any others, and their mean is not biased by the choice, as the mean of the faintest pixels would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.sources.detect import smoothed, smoothing_kernel
from skysub.sources.flags import IGNORED, NOT_SKY, SOURCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["keep_darkest"]


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
    usable = ((flags & IGNORED) == 0) & np.isfinite(image)
    level = np.float32(np.median(image[usable][:: max(1, usable.size // 100000)])) if usable.any() else 0
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
    for y0, y1 in zip(grid.y_edges[:-1], grid.y_edges[1:], strict=True):
        for x0, x1 in zip(grid.x_edges[:-1], grid.x_edges[1:], strict=True):
            cut = (slice(y0, y1), slice(x0, x1))
            values = around[cut][good[cut]]
            if values.size:
                kept = max(2, int(fraction * values.size))
                limit = np.partition(values, min(kept, values.size) - 1)[min(kept, values.size) - 1]
                flags[cut][~(good[cut] & (around[cut] <= limit))] |= SOURCE
