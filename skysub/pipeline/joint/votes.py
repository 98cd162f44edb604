"""Which detectors have no vote on their own level, because an object fills them.

A detector is suspect when it is starved of sky or its own fit is extrapolated. A suspect loses its vote when
its level lies above what is expected of it, by other visits or by the other detectors: light only ever adds.
Without that rule the light of such an object would become the detector's sky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.joint.rows import usable_superpixels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.pipeline.joint.fit import Fit
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.rows import Scale
    from skysub.pipeline.joint.system import System

__all__ = ["OffsetPrior", "Votes", "cast_votes", "stated_offsets", "suspects"]

_STARVED = 0.3
"""Share of superpixels without sky from which a detector is suspect;"""
_EXTRAPOLATED = 0.01
"""the same where the sky of its own fit is extrapolated."""
_STARVED_TOO = 0.25
"""Share of superpixels without sky that an extrapolated detector must have as well, where no other visit
tells its offset: the scatter of a few detectors is a poor prior, and a large offset is likelier than an
object that fills a detector and leaves its superpixels their sky."""
_DISAGREES, _DISAGREES_STARVED = 3.0, 6.0
"""Standard deviations above its prior at which a suspect loses its vote: one whose sky is extrapolated,
and one that is starved but has seen sky all round."""
_STANDS_OUT = 5.0
"""Standard deviations by which a detector that has seen its sky must be off to have an offset of its own
where the others have none, and at least so many times the typical error of a superpixel,"""
_WORTH_WHILE = 3.0
_FEWEST = 3
"""Detectors of which a scatter can be known."""
_WIDEST = 1e4
"""Width of a prior that lets an offset be what it is, in typical errors."""


@dataclass(frozen=True, slots=True)
class OffsetPrior:
    """What other visits say of a detector's offset, unit of the image."""

    mean: float
    deviation: float


@dataclass(frozen=True, eq=False)
class Votes:
    """What became of the detectors' offsets; all by detector number."""

    suspect: tuple[int, ...]
    """Detectors with too little sky for their level to be taken on trust."""
    lost: tuple[int, ...]
    """Those of them whose level comes from their neighbours or other visits alone."""
    apart: tuple[int, ...]
    """Detectors with an offset of their own in a visit that has none."""
    width: float
    """Standard deviation of offsets among detectors with a vote, in typical errors."""
    unknown: Mapping[int, float]
    """By suspect whose offset no other visit tells: what is not known of its level, in typical errors."""
    changed: tuple[int, ...] = ()
    """Detectors that have seen their sky, and whose offset is another one than other visits told."""
    wider: float = 1.0
    """What standard deviations of told offsets are multiplied by, as the visit's own scatter about them."""


def suspects(records: Sequence[DetectorRecord]) -> tuple[int, ...]:
    """Detectors that are starved of sky, or whose own fit is extrapolated."""
    return tuple(
        record.detector
        for record in records
        if _starved(record) >= _STARVED or _outside(record) >= _EXTRAPOLATED
    )


def _starved(record: DetectorRecord) -> float:
    """Share of its superpixels without sky."""
    return 1 - float(np.mean(usable_superpixels(record)))


def _outside(record: DetectorRecord) -> float:
    """Share of the detector over which its own fit is extrapolated."""
    return 0.0 if record.extrapolated is None else float(np.mean(record.extrapolated))


def cast_votes(
    records: Sequence[DetectorRecord],
    system: System,
    fit: Fit,
    suspect: Sequence[int],
    *,
    offsets: bool,
    priors: Mapping[int, OffsetPrior],
    scale: Scale,
) -> Votes:
    """Hear the detectors of a fit with free offsets.

    Parameters
    ----------
    records
        In the order of the system's detectors.
    system, fit
        With an offset per detector, the first of its own terms.
    suspect
        Numbers of suspect detectors.
    offsets
        Whether the visit was found to have offsets.
    priors
        Offsets by other visits, where they are known.
    """
    found: dict[int, float] = {}
    variance: dict[int, float] = {}
    for rows, local in zip(system.detectors, fit.solution.local, strict=True):
        place = len(local.covariance) - len(local.terms)
        found[rows.detector] = float(local.terms[0])
        variance[rows.detector] = fit.inflation * float(local.covariance[place, place])
    sound = [number for number in found if number not in suspect]
    width = _scatter([found[number] for number in sound]) if len(sound) >= _FEWEST else math.nan
    if not offsets and math.isfinite(width):
        width = min(width, fit.solution.widths.offset) if fit.solution.widths.offset > 0 else width
    lost: list[int] = []
    apart: list[int] = []
    unknown: dict[int, float] = {}
    outside = {record.detector: _outside(record) >= _EXTRAPOLATED for record in records}
    starved = {record.detector: _starved(record) for record in records}
    centre = float(np.median([found[number] for number in sound])) if sound else 0.0
    # most of what is not known of an offset is common to all, and the spline's
    least = min(variance.values(), default=0.0)
    common, wider = _told_wrongly(found, {n: v - least for n, v in variance.items()}, sound, priors, scale)
    changed: list[int] = []
    for number, value in found.items():
        prior = priors.get(number)
        if prior is not None:
            off, expected = value - prior.mean / scale.unit - common, wider * prior.deviation / scale.unit
            own = variance[number] - least
        else:
            off, expected, own = value - centre, width, variance[number]
        if not math.isfinite(expected):
            continue
        deviation = math.hypot(expected, math.sqrt(max(0.0, own)))
        if number in suspect:
            bar = math.inf
            if outside[number] and (prior is not None or starved[number] >= _STARVED_TOO):
                bar = _DISAGREES
            elif starved[number] >= _STARVED:
                bar = _DISAGREES_STARVED
            if off > bar * deviation:
                lost.append(number)
            if prior is None:
                # either the detector is right or the others are: half the difference covers both, beside the
                # scatter that an offset has in any case
                unknown[number] = math.hypot(expected, 0.5 * abs(off))
        elif prior is not None:
            if abs(off) > max(_STANDS_OUT * deviation, _WORTH_WHILE):
                changed.append(number)
        elif not offsets and abs(off) > max(_STANDS_OUT * deviation, _WORTH_WHILE):
            apart.append(number)
    if len(lost) == len(found):
        # somebody has to have seen the sky
        lost = []
    known = width if math.isfinite(width) else fit.solution.widths.offset
    return Votes(
        tuple(suspect), tuple(lost), tuple(apart), known, unknown, changed=tuple(changed), wider=wider
    )


def _told_wrongly(
    found: Mapping[int, float],
    variance: Mapping[int, float],
    sound: Sequence[int],
    priors: Mapping[int, OffsetPrior],
    scale: Scale,
) -> tuple[float, float]:
    """What all offsets have in common beside what was told, and how much wider they scatter; at least 1.

    The level of all is the spline's, so that a common part says nothing.
    """
    told = [n for n in sound if n in priors]
    if len(told) < _FEWEST:
        return 0.0, 1.0
    off = np.array([found[n] - priors[n].mean / scale.unit for n in told])
    expected = np.array(
        [math.hypot(priors[n].deviation / scale.unit, math.sqrt(max(0.0, variance[n]))) for n in told]
    )
    common = float(np.median(off))
    return common, max(1.0, _scatter((off - common) / expected))


def stated_offsets(
    votes: Votes, priors: Mapping[int, OffsetPrior], scale: Scale
) -> dict[int, tuple[float, float]]:
    """Return prior mean and standard deviation, in typical errors, of offsets that have their own prior."""
    stated = dict.fromkeys(votes.apart, (0.0, _WIDEST))
    for n, prior in priors.items():
        deviation = votes.wider * prior.deviation / scale.unit
        stated[n] = (prior.mean / scale.unit, _WIDEST if n in votes.changed else deviation)
    return stated


def _scatter(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Standard deviation, that one value far off does not move."""
    spread = np.asarray(values) - float(np.median(values))
    # a median deviation of few values is too small by about this much (Croux & Rousseeuw 1992)
    few = len(spread) / (len(spread) - 0.8)
    return 1.4826 * few * float(np.median(np.abs(spread)))
