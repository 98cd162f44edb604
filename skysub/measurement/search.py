"""Which sources there are: peaks of the image, then of what a fit of them leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.detect import find_peaks, prominent, significance
from skysub.measurement.extended import Templates, take_extended
from skysub.measurement.solve import StarModel, fit_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.detect import Filters
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["find_sources"]

_KEPT = 0.75
"""A source stays while its flux is this share of the threshold, neighbours' covariance included."""


def find_sources(
    frame: Frame, psf: PsfTable, filters: Filters, values: NDArray[np.float32], config: MeasurementConfig
) -> tuple[StarModel, Templates]:
    """Find and fit sources.

    Parameters
    ----------
    values
        (ny, nx) significance of the image.
    """
    model = StarModel(frame, psf, threads=config.threads)
    templates = Templates.none()
    y, x, peak = find_peaks(values, config.threshold)
    first = prominent(values, y, x, peak, config, reach=5 * psf.sigma)
    model.add(y[first], x[first])
    for turn in range(config.passes + 1):
        if turn:
            y, x = _peaks_left(model, templates, filters, config)
            if not len(y):
                break
            model.add(y, x)
        model.fit(config.fit_steps)
        templates = take_extended(model, templates, config, early=turn < config.passes)
        _settle(model, templates)
        _drop(model, templates, config)
    return model, templates


def _settle(model: StarModel, templates: Templates) -> None:
    """Fit stars and templates in turn."""
    if not len(templates):
        return
    for _ in range(2):
        model.others = templates.painted(model.frame.shape)
        model.subtract()
        model.fit(1)
        templates.refit(model.residual, model.frame, model.psf, threads=model.threads)
    model.others = templates.painted(model.frame.shape)
    model.subtract()


def _peaks_left(
    model: StarModel, templates: Templates, filters: Filters, config: MeasurementConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Peaks of the residual beyond its noise and what the models may miss."""
    frame = model.frame
    left = significance(model.residual, filters, frame, threads=config.threads)
    imperfect = model.painted(np.full(len(model), config.psf_imperfection))
    more = templates.painted(frame.shape, templates.imperfection(config.template_imperfection))
    if more is not None:
        imperfect += more
    doubt = significance(imperfect, filters, frame, threads=config.threads)
    left /= np.sqrt(1 + doubt * doubt)
    y, x, _ = find_peaks(left, config.threshold)
    return y, x


def _drop(model: StarModel, templates: Templates, config: MeasurementConfig) -> None:
    """Leave out stars that their neighbours explain."""
    places = model.places()
    error = places.flux_error
    doubtful = templates.painted(model.frame.shape, templates.imperfection(config.template_imperfection))
    if doubtful is not None:
        under = fit_at(model.frame, model.psf, doubtful, model.y, model.x, threads=model.threads).flux
        error = np.hypot(error, np.nan_to_num(under))
    with np.errstate(invalid="ignore"):
        kept = places.flux > _KEPT * config.threshold * error
    if not kept.all():
        model.keep(kept)
        model.subtract()
        model.fit(1)
        _settle(model, templates)
