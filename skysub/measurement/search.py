"""Which sources there are: peaks of the image, then of what a fit of them leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.crowding import DENSE, Budget, crowding
from skysub.measurement.detect import find_peaks, prominent, significance
from skysub.measurement.extended import Templates, take_extended
from skysub.measurement.large import coarse_significance, is_sharp, take_giants, take_large
from skysub.measurement.pedestal import pedestal
from skysub.measurement.saturated import find_saturated
from skysub.measurement.solve import StarModel, fit_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.detect import Filters
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["find_sources"]

SATURATED_MARGIN = 2.5
"""Peaks within so many sigma of the PSF of a saturated pixel are those of its star."""
_FEW = 0.02
"""Share of new sources up to which the residual is not searched again."""
_KEPT = 0.9
"""A source stays while its flux is this share of the threshold, neighbours' covariance included."""


def find_sources(
    frame: Frame, psf: PsfTable, filters: Filters, values: NDArray[np.float32], config: MeasurementConfig
) -> tuple[StarModel, Templates, Budget]:
    """Find and fit sources.

    Parameters
    ----------
    values
        (ny, nx) significance of the image.
    """
    model = StarModel(frame, psf, threads=config.threads)
    coarse = coarse_significance(frame.image, frame, threads=config.threads)
    core_y, core_x, near = find_saturated(frame, SATURATED_MARGIN * psf.sigma)
    templates = take_giants(model, coarse, near)
    if len(templates):
        y, x, peak = _peaks_left(model, templates, filters, values, config)
        coarse = coarse_significance(model.residual, frame, threads=config.threads)
    else:
        y, x, peak = find_peaks(values, config.threshold)
    first = prominent(values, y, x, peak, config, reach=5 * psf.sigma)
    first &= is_sharp(coarse, y, x, peak) | (crowding(frame, psf, y, x, y, x) > DENSE)
    budget = Budget(frame, config)
    if near is not None:
        model.add(core_y, core_x, saturated=True)
        first &= ~near[np.rint(y).astype(int), np.rint(x).astype(int)]
    first[first] = budget.accept(model.y, model.x, y[first], x[first], peak[first])
    model.add(y[first], x[first])
    model.fit(config.fit_steps)
    templates = templates.with_more(take_large(model))
    for turn in range(config.passes + 1):
        last = turn == config.passes
        if turn:
            y, x, peak = _peaks_left(model, templates, filters, values, config)
            accepted = budget.accept(model.y, model.x, y, x, peak)
            last = last or bool(np.count_nonzero(accepted) <= _FEW * len(model))
            model.add(y[accepted], x[accepted])
        model.fit(config.fit_steps)
        templates = take_extended(model, templates, config, early=not last)
        _settle(model, templates)
        _drop(model, templates, config)
        if last:
            break
    for _ in range(2):
        _settle(model, templates)
    _drop(model, templates, config)
    model.others = templates.painted(frame.shape)
    model.subtract()
    return model, templates, budget


def _settle(model: StarModel, templates: Templates) -> None:
    """Fit stars, then templates, to what the others leave."""
    model.fit(2)
    templates.refit(model.residual, model.frame, model.psf, threads=model.threads)


def _peaks_left(
    model: StarModel,
    templates: Templates,
    filters: Filters,
    values: NDArray[np.float32],
    config: MeasurementConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Peaks of the residual beyond its noise and what the models may miss."""
    frame = model.frame
    left = significance(model.residual, filters, frame, threads=config.threads)
    # the filter is linear: what it gave of the image less this is what it gives of the models
    doubt = values - left
    doubt *= np.float32(config.psf_imperfection)
    share = templates.imperfection(config.template_imperfection) - config.psf_imperfection
    more = templates.painted(frame.shape, share)
    cells = _cells_of(templates, frame)
    if model.saturated.any():
        wings = model.painted(np.where(model.saturated, config.saturated_imperfection, 0.0))
        more = wings if more is None else more + wings
        cells[:] = True
    if more is not None:
        doubt += significance(more, filters, frame, only=cells, threads=config.threads)
    doubt *= doubt
    doubt += 1
    level = pedestal(model.residual, frame)
    if level is not None:
        left -= significance(level, filters, frame, threads=config.threads)
    left /= np.sqrt(doubt, out=doubt)
    return find_peaks(left, config.threshold)


def _cells_of(templates: Templates, frame: Frame) -> NDArray[np.bool_]:
    """Cells (gy, gx) that the windows of templates reach into."""
    out = np.zeros(frame.grid.shape, np.bool_)
    edges = frame.grid.y_edges, frame.grid.x_edges
    span = [
        [np.searchsorted(e, c + sign * templates.halves, side="right") - 1 for sign in (-1, 1)]
        for e, c in zip(edges, (templates.y, templates.x), strict=True)
    ]
    for a, b, c, d in zip(*span[0], *span[1], strict=True):
        out[max(a, 0) : b + 1, max(c, 0) : d + 1] = True
    return out


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
    kept |= model.saturated
    if not kept.all():
        model.keep(kept)
