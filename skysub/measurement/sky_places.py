"""Places of empty sky, to be measured like sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig

__all__ = ["place_sky_sources"]

_TRIALS = 50
"""Places tried for each that is wanted."""


def place_sky_sources(
    taken: NDArray[np.bool_], config: MeasurementConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres y, x (n,) of discs that touch no taken pixel and lie inside the image, by y and x.

    Places are tried in an order that the image's shape alone decides (a Halton sequence), so that they are
    spread evenly and the same in every rerun; fewer than asked for where there is little empty sky.

    Parameters
    ----------
    taken
        (ny, nx): detected light, and pixels that are not known.
    """
    ny, nx = taken.shape
    radius = int(np.ceil(config.sky_radius))
    if config.sky_sources == 0 or min(ny, nx) < 2 * radius + 1:
        return np.empty(0), np.empty(0)
    i = np.arange(-radius, radius + 1)
    disc = i[:, None] ** 2 + i[None, :] ** 2 <= config.sky_radius**2
    number = np.arange(1, _TRIALS * config.sky_sources + 1)
    rows = radius + (_halton(number, 2) * (ny - 2 * radius)).astype(int)
    columns = radius + (_halton(number, 3) * (nx - 2 * radius)).astype(int)
    found: list[tuple[int, int]] = []
    least = (2 * config.sky_radius) ** 2
    for a, b in zip(rows.tolist(), columns.tolist(), strict=True):
        window = taken[a - radius : a + radius + 1, b - radius : b + radius + 1]
        if (window & disc).any() or any((a - c) ** 2 + (b - d) ** 2 < least for c, d in found):
            continue
        found.append((a, b))
        if len(found) == config.sky_sources:
            break
    y, x = np.array(sorted(found), np.float64).reshape(-1, 2).T
    return y.copy(), x.copy()


def _halton(number: NDArray[np.int64], base: int) -> NDArray[np.float64]:
    """Radical inverse of numbers: their digits mirrored at the point."""
    out = np.zeros(len(number))
    share, left = 1.0 / base, number.copy()
    while left.any():
        out += share * (left % base)
        left //= base
        share /= base
    return out
