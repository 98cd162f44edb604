"""How close a model of the sky came to the truth: the metrics M1 to M12.

Throughout, d = model - true sky, electron per pixel. Every metric is a function of its own; a metric that
a scene has nothing to say about is NaN. ``docs/metrics.md`` has the definitions in one place.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError
from skysub.simulation.metrics import (
    REFERENCE_TERMS,
    amplifier_step,
    aperture_noise,
    cirrus_transfer,
    detector_steps,
    edge_deviation,
    galaxy_losses,
    good_pixels,
    magnitude_shift,
    mean_bias,
    pulls,
    relative_scatter,
    star_rings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.simulation.truth import Truth

__all__ = ["Scores", "combine_scores", "score_model", "score_visits"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics of one model, or of many together; NaN where there is nothing to measure."""

    visit: int | None = None
    detector: int | None = None
    """None: over all visits or detectors."""
    rho: float = math.nan
    """M1: scatter of superpixels about their mean, in units of what noise allows."""
    bias_sky: float = math.nan
    """M2 against the sky alone (T1), electron."""
    bias_faint: float = math.nan
    """M2 against sky and sources below the detection limit (T2), electron."""
    edge: float = math.nan
    """M3, electron."""
    lost_small: float = math.nan
    """M4 for galaxies of 5 to 20 pixels: median flux lost, per cent (negative: gained)."""
    lost_large: float = math.nan
    """M4 for the large galaxy, per cent."""
    large_radius: float = math.nan
    """Effective radius of the large galaxy, pixel."""
    ring: float = math.nan
    """M5: mean d about the large galaxy minus far from it, electron."""
    star_ring: float = math.nan
    """M6: the worst annulus about a star of magnitude 8 to 14, electron."""
    detector_step_median: float = math.nan
    detector_step_max: float = math.nan
    """M7 between neighbouring detectors, electron."""
    amplifier_step: float = math.nan
    """M7 between amplifiers, root mean square, electron."""
    aperture_mean: float = math.nan
    """M8: mean flux of empty apertures over its noise."""
    aperture_scatter: float = math.nan
    """M8: their standard deviation over the expected one."""
    shift_24: float = math.nan
    """M9: magnitude offset of a point source of magnitude 24, mmag."""
    star_density: float = math.nan
    """Stars brighter than 24.5 per arcmin2, for M10: its figure is ``bias_sky``."""
    cirrus: float = math.nan
    """M11: cirrus power that survives at 2 arcmin and less."""
    pull: float = math.nan
    """M12: root mean square of d over the model's uncertainty."""
    coverage: float = math.nan
    """M12: share of pixels whose 95 % interval holds the truth."""

    def to_dict(self) -> dict[str, float | int | None]:
        """As JSON takes it: NaN becomes None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def score_model(
    model: NDArray[np.floating],
    truth: Truth,
    *,
    uncertainty: NDArray[np.floating] | None = None,
    image: NDArray[np.floating] | None = None,
    terms: int = REFERENCE_TERMS,
) -> Scores:
    """Score the model of one detector's sky.

    Parameters
    ----------
    model
        (ny, nx), electron per pixel.
    truth
        Of the same detector.
    uncertainty
        (ny, nx) standard deviation of the model, electron; None: M12 is NaN.
    image
        (ny, nx) the simulated image with its sky, electron; None: M8 is NaN.
    terms
        Free coefficients in M1's floor: 28, those of order 6, for all methods alike.

    Returns
    -------
    scores
        Without M7's steps between detectors, which take a whole visit: see `score_visits`.

    Raises
    ------
    InvalidImageError
        When shapes disagree, or the model is not finite everywhere.
    """
    return _scores(_deviation(model, truth), model, truth, uncertainty=uncertainty, image=image, terms=terms)


def _deviation(model: NDArray[np.floating], truth: Truth) -> NDArray[np.float64]:
    where = _where(truth)
    if model.shape != truth.shape:
        raise InvalidImageError(f"{where}: the model has the shape {model.shape}, the truth {truth.shape}")
    if not np.isfinite(model).all():
        count = int(np.count_nonzero(~np.isfinite(model)))
        raise InvalidImageError(
            f"{where}: the model is not finite in {count} pixels; it must cover all of them"
        )
    # in float64 before the difference, so that no rounding of float32 is added to the model's own
    d: NDArray[np.float64] = np.subtract(model, truth.sky, dtype=np.float64)
    lightless = truth.lightless
    if lightless is not None:
        # no one looks at the sky there: such pixels take the mean of the others
        d[lightless] = d[~lightless].mean()
    return d


def _where(truth: Truth) -> str:
    return f"visit {truth.visit} detector {truth.detector}"


def _scores(
    d: NDArray[np.float64],
    model: NDArray[np.floating],
    truth: Truth,
    *,
    uncertainty: NDArray[np.floating] | None,
    image: NDArray[np.floating] | None,
    terms: int = REFERENCE_TERMS,
) -> Scores:
    for name, array in (("uncertainty", uncertainty), ("image", image)):
        if array is not None and array.shape != truth.shape:
            raise InvalidImageError(
                f"{_where(truth)}: the {name} has the shape {array.shape}, the truth {truth.shape}"
            )
    sigma = truth.sigma
    good = good_pixels(truth)
    bias_sky, bias_faint = mean_bias(d, truth)
    losses = galaxy_losses(d, truth)
    aperture_mean, aperture_scatter = (math.nan, math.nan)
    if image is not None:
        aperture_mean, aperture_scatter = aperture_noise(image - np.asarray(model, np.float32), truth, good)
    pull, coverage = (math.nan, math.nan)
    if uncertainty is not None:
        pull, coverage = pulls(d, uncertainty)
    stars = truth.catalog
    on = (stars["x"] > -0.5) & (stars["x"] < truth.shape[1] - 0.5)
    on &= (stars["y"] > -0.5) & (stars["y"] < truth.shape[0] - 0.5)
    density = np.count_nonzero(on & (stars["type"] == "star") & (stars["magnitude"] < 24.5)) / (
        d.size * (0.2 / 60) ** 2
    )
    return Scores(
        visit=truth.visit,
        detector=truth.detector,
        rho=relative_scatter(d, good, sigma, terms=terms),
        bias_sky=bias_sky,
        bias_faint=bias_faint,
        edge=edge_deviation(d),
        lost_small=losses.small,
        lost_large=losses.large,
        large_radius=losses.radius,
        ring=losses.ring,
        star_ring=star_rings(d, truth),
        amplifier_step=amplifier_step(d),
        aperture_mean=aperture_mean,
        aperture_scatter=aperture_scatter,
        shift_24=magnitude_shift(bias_sky, truth),
        star_density=float(density),
        cirrus=cirrus_transfer(d, truth),
        pull=pull,
        coverage=coverage,
    )


def score_visits(
    models: Mapping[tuple[int, int], NDArray[np.floating]],
    truths: Mapping[tuple[int, int], Truth],
    *,
    uncertainties: Mapping[tuple[int, int], NDArray[np.floating] | None] | None = None,
    images: Mapping[tuple[int, int], NDArray[np.floating] | None] | None = None,
) -> tuple[list[Scores], Scores]:
    """Score models of many detectors, keyed by (visit, detector), one after the other.

    The mappings may load an array when it is asked for; one detector is held at a time.

    Returns
    -------
    scores
        Per detector, in the order of ``models``.
    total
        Over all of them (`combine_scores`), with M7's steps between neighbouring detectors.
    """
    scores, strips, places = [], {}, {}
    for key in models:
        truth, model = truths[key], models[key]
        d = _deviation(model, truth)
        scores.append(
            _scores(
                d,
                model,
                truth,
                uncertainty=None if uncertainties is None else uncertainties.get(key),
                image=None if images is None else images.get(key),
            )
        )
        strips[key], places[key] = _edge_strips(d), truth.observation
    steps = detector_steps(strips, places)
    return scores, combine_scores(scores, steps=steps)


def _edge_strips(d: NDArray[np.float64], *, width: int = 64) -> dict[str, float]:
    """Mean of d in the strips along the four edges, as M7 compares them between neighbours."""
    return {
        "left": float(d[:, :width].mean()),
        "right": float(d[:, -width:].mean()),
        "bottom": float(d[:width].mean()),
        "top": float(d[-width:].mean()),
    }


_WORST = ("edge", "star_ring")


def combine_scores(scores: Sequence[Scores], *, steps: Sequence[float] = ()) -> Scores:
    """One line for many detectors.

    M3 and M6 are the worst of all; M1, M7 among amplifiers and M12's pull are root mean squares; the
    others are means. A detector without a metric does not count toward it.
    """
    combined: dict[str, Any] = {}
    for item in fields(Scores):
        if item.name in {"visit", "detector"}:
            continue
        values = np.array([getattr(score, item.name) for score in scores], dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        if item.name in _WORST:
            combined[item.name] = float(values[np.argmax(np.abs(values))])
        elif item.name in {"rho", "amplifier_step", "pull"}:
            combined[item.name] = float(np.sqrt(np.mean(values**2)))
        else:
            combined[item.name] = float(values.mean())
    if len(steps):
        combined["detector_step_median"] = float(np.median(np.abs(steps)))
        combined["detector_step_max"] = float(np.max(np.abs(steps)))
    return Scores(**combined)
