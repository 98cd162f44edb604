"""Apertures, moments and the like of rows of a table: sources, blends and empty sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads
from skysub.measurement.config import APERTURES
from skysub.measurement.stars import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["Photometry", "measure_places"]

_ITERATIONS = 40
_BAND = 128
"""Rows of places whose apertures share their running sums."""


@dataclass(frozen=True, eq=False)
class Photometry:
    """Measurements at places (n,)."""

    apertures: NDArray[np.float64]
    """(n, radii): sums of light, counts."""
    aperture_errors: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    """(n, radii): discs that reach beyond the image."""
    shapes: NDArray[np.float64]
    """(n, 8) as `skysub.measurement.photometry_kernels.shape_of_child` has them."""


def measure_places(
    frame: Frame,
    psf: PsfTable,
    light: NDArray[np.float32],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    flux: NDArray[np.float64],
    *,
    threads: int = 1,
) -> Photometry:
    """Measure places on an image ``light``, with a star of ``flux`` put back at each while it is measured."""
    from skysub.measurement import child_kernels, photometry_kernels

    n, radii = len(y), np.array(APERTURES)
    sums, spread = np.zeros((2, n, len(radii)))
    ny, nx = frame.shape
    by_row = np.argsort(y, kind="stable")
    reach = int(np.ceil(radii[-1])) + 1
    rows = np.clip(np.rint(y[by_row]), 0, ny - 1)

    def band(numbers: range) -> None:
        for number in numbers:
            low, high = np.searchsorted(rows, [number * _BAND, (number + 1) * _BAND])
            if low == high:
                continue
            chosen = by_row[low:high]
            first = max(0, int(rows[low]) - reach)
            last = min(ny, int(rows[high - 1]) + reach + 1)
            running = np.empty((last - first, nx + 1))
            for image, out in ((light, sums), (frame.variance, spread)):
                photometry_kernels.running_sums(image, first, running)
                part = np.zeros((len(chosen), len(radii)))
                photometry_kernels.aperture_sums(running, first, y[chosen], x[chosen], radii, part)
                out[chosen] = part

    in_threads(band, -(-ny // _BAND), threads)
    shapes = np.empty((n, child_kernels.SHAPE))
    tiles = Tiles.of(y, x, psf, frame.shape)
    tiles.each_row(
        lambda part: child_kernels.measure_stars(
            psf.table,
            tiles.nodes_y,
            tiles.nodes_x,
            tiles.starts,
            tiles.order,
            part,
            y,
            x,
            flux,
            light,
            radii,
            psf.sigma**2,
            _ITERATIONS,
            sums,
            shapes,
        ),
        threads,
    )
    near = np.minimum(np.minimum(y + 0.5, ny - 0.5 - y), np.minimum(x + 0.5, nx - 0.5 - x))
    return Photometry(
        apertures=sums,
        aperture_errors=np.sqrt(np.maximum(spread, 0)),
        truncated=near[:, None] < radii[None, :],
        shapes=shapes,
    )
