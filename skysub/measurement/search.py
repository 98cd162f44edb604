"""Which sources there are: peaks of the image, then of what a fit of them leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.detect import find_peaks, significance
from skysub.measurement.solve import StarModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.detect import Filters
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["find_stars"]

_CLOSE = 0.35
"""A new peak nearer to a star than this, in widths of the PSF, is that star's misfit."""


def find_stars(
    frame: Frame, psf: PsfTable, filters: Filters, values: NDArray[np.float32], config: MeasurementConfig
) -> StarModel:
    """Find and fit sources.

    Parameters
    ----------
    values
        (ny, nx) significance of the image.
    """
    model = StarModel(frame, psf, threads=config.threads)
    y, x, _ = find_peaks(values, config.threshold)
    model.add(y, x)
    model.fit(config.fit_steps)
    _drop(model, config.threshold)
    for _ in range(config.passes):
        left = significance(model.residual, filters, frame, threads=config.threads)
        imperfect = model.painted(np.full(len(model), config.psf_imperfection))
        doubt = significance(imperfect, filters, frame, threads=config.threads)
        left /= np.sqrt(1 + doubt * doubt)
        y, x, _ = find_peaks(left, config.threshold)
        before = len(model)
        model.add(y, x)
        model.fit(config.fit_steps)
        _drop(model, config.threshold)
        if len(model) <= before:
            break
    return model


def _drop(model: StarModel, threshold: float) -> None:
    """Leave out stars that their neighbours explain."""
    places = model.places()
    with np.errstate(invalid="ignore"):
        known = np.isfinite(places.flux_error)
        kept = ~known | (places.flux > threshold * places.flux_error * 0.8)
    kept &= known
    if not kept.all():
        model.keep(kept)
        model.fit(2)
