"""The joint fit of all stars, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.fitted import Places
from skysub.measurement.stars import Tiles, paint, paint_radius, project

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["StarFit", "fit_at", "fit_stars"]

_STRAY = 1.0
"""Standard deviation, pixel, of the prior on how far a star lies from its peak."""
_LONGEST = 0.5
"""A star moves by no more than this in one step, pixel."""


@dataclass(frozen=True, eq=False)
class StarFit:
    """Stars of an image, fit together."""

    places: Places
    model: NDArray[np.float32]
    residual: NDArray[np.float32]
    """(ny, nx): light of all stars, and what is left of the image."""


def fit_stars(
    frame: Frame, psf: PsfTable, y: NDArray[np.float64], x: NDArray[np.float64], config: MeasurementConfig
) -> StarFit:
    """Fit fluxes and places of stars that were seen at (y, x)."""
    y, x = y.copy(), x.copy()
    flux = np.zeros(len(y))
    noise = frame.noise_at(y, x)
    full = np.full(len(y), psf.half)
    residual = frame.image.copy()
    tiles = Tiles.of(y, x, psf, frame.shape)
    sums = project(residual, frame, tiles, psf, y, x, full, threads=config.threads)
    for step in range(config.fit_steps + 1):
        pp = np.maximum(sums[:, 3], 1e-30)
        new = sums[:, 0] / pp
        if step == 0:
            new = np.maximum(new, 0)
        flux += new
        with np.errstate(divide="ignore", invalid="ignore"):
            bright = flux > 3 * noise / np.sqrt(pp)
            ridge = (noise / (np.maximum(flux, 1e-30) * _STRAY)) ** 2
            move_y = sums[:, 1] / ((sums[:, 6] + ridge) * flux)
            move_x = sums[:, 2] / ((sums[:, 8] + ridge) * flux)
        if 0 < step < config.fit_steps:
            y += np.where(bright, np.clip(np.nan_to_num(move_y), -_LONGEST, _LONGEST), 0)
            x += np.where(bright, np.clip(np.nan_to_num(move_x), -_LONGEST, _LONGEST), 0)
        np.clip(y, -0.5, frame.shape[0] - 0.5, out=y)
        np.clip(x, -0.5, frame.shape[1] - 0.5, out=x)
        tiles = Tiles.of(y, x, psf, frame.shape)
        residual[:] = frame.image
        radius = paint_radius(flux, noise, psf)
        paint(residual, tiles, psf, y, x, -flux, radius, threads=config.threads)
        residual[(frame.state & 1) != 0] = 0
        sums = project(residual, frame, tiles, psf, y, x, full, threads=config.threads)
    model = np.zeros(frame.shape, np.float32)
    paint(model, tiles, psf, y, x, flux, radius, threads=config.threads)
    return StarFit(places=_places(sums, y, x, flux), model=model, residual=residual)


def fit_at(
    frame: Frame,
    psf: PsfTable,
    light: NDArray[np.float32],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    *,
    threads: int = 1,
) -> Places:
    """Flux of the PSF at each of some places by itself, on the image ``light``; places stay where they are."""
    tiles = Tiles.of(y, x, psf, frame.shape)
    sums = project(light, frame, tiles, psf, y, x, np.full(len(y), psf.half), threads=threads)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _places(sums, y, x, sums[:, 0] / sums[:, 3])


def _places(
    sums: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64], flux: NDArray[np.float64]
) -> Places:
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = sums[:, 9] / sums[:, 3]
        return Places(
            y=y,
            x=x,
            flux=flux,
            flux_error=np.sqrt(variance / sums[:, 3]),
            y_error=np.sqrt(variance / sums[:, 6]) / np.abs(flux),
            x_error=np.sqrt(variance / sums[:, 8]) / np.abs(flux),
            chi2=sums[:, 10] / sums[:, 11],
            good=sums[:, 11],
        )
