"""The joint fit of a visit from records to backgrounds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from skysub.background.faint_light import FaintLight
from skysub.pipeline.joint.choice import Choice, choose
from skysub.pipeline.joint.detector import LevelTerms, detector_background, with_finer_cells
from skysub.pipeline.joint.fit import Fit, Observed, fit_system, start_widths
from skysub.pipeline.joint.focal_plane import extent
from skysub.pipeline.joint.known import Known
from skysub.pipeline.joint.reconsidered import reconsidered
from skysub.pipeline.joint.rows import observed_of, scale_of, trusted, usable_superpixels
from skysub.pipeline.joint.spline import Spline
from skysub.pipeline.joint.structure import structure_of
from skysub.pipeline.joint.votes import Votes, cast_votes, stated_offsets, suspects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.background.layered import LayeredBackground
    from skysub.background.robust import RobustConfig
    from skysub.pipeline.joint.known import DetectorFrames
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.rows import Scale
    from skysub.pipeline.joint.system import System
    from skysub.pipeline.joint.templates import VisitTemplates

__all__ = ["JointSky", "solve_visit"]

_START_OFFSET = 10.0
"""Width of the prior on offsets to start from, in typical errors of a superpixel."""
_NEAR = 1
"""Superpixels round large objects that neither fit nor score when terms are chosen."""
_FAR = 2
"""Superpixels round large objects in which the background for detection follows nothing."""
_LIT = 0.5
"""How sure a detector must be of large light for what lies above the model not to be structure of the sky."""
_FLAGGED_ABOVE = 0.3
"""Structure, in typical errors of a superpixel, that is flagged; less is in the uncertainty all the same."""
_VAGUE = 0.1
"""Share of the light of undetected sources by which it is not defined: sources at the limit are masked in
part."""
_FRAMES_SPREAD = 1.1
"""What sky frames are multiplied by before they count as structure that is gone: cells are coarser than what
was measured of the detector's own structure, and posterior means are smaller than the patterns."""
_MOST_SUSPECT = 0.5
"""Share of the detectors beyond which suspects are heard when terms are chosen: there are no others."""


@dataclass(frozen=True, eq=False)
class JointSky:
    """What the joint fit of a visit gives; see `skysub.VisitBackground`."""

    backgrounds: Mapping[int, LayeredBackground]
    detection: Mapping[int, LayeredBackground]
    spline: Spline
    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    offsets: Mapping[int, tuple[float, float]]
    choice: Choice
    votes: Votes
    faint_light: FaintLight | None
    structure: Mapping[int, float]
    flags: dict[str, str] = field(default_factory=dict)
    detector_flags: dict[int, dict[str, str]] = field(default_factory=dict)


def solve_visit(
    records: Sequence[DetectorRecord],
    places: Mapping[int, NDArray[np.float64]],
    *,
    knots: float,
    terms: Literal["auto"] | tuple[str, ...],
    robust: RobustConfig,
    detection: bool,
    templates: VisitTemplates | None,
) -> JointSky:
    """Fit detectors whose places are known, all of one unit and band, in the order of their numbers.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the equations have no answer.
    """
    flags: dict[str, str] = {}
    if templates is not None:
        first = records[0]
        why = templates.why_not(unit=first.unit, band=first.band, camera=first.camera)
        if why:
            flags["templates_unused"] = f"{why} They were not used."
            templates = None
    scale = scale_of(records)
    spline = Spline.over(extent({r.detector: places[r.detector] for r in records}, _shapes(records)), knots)
    observed = [observed_of(record, scale) for record in records]
    # more of them, nearer to objects, when terms are chosen: what is left far away may be too little to tell
    judged = [observed_of(record, scale, reach=_NEAR) for record in records]
    if templates is not None:
        flags |= templates.flags
        others = [r.detector for r in records if templates.of(r.detector, r.shape) is None]
        if others:
            flags["templates_lack_detectors"] = (
                f"The templates have nothing of {len(others)} detectors, or of another shape: "
                f"{', '.join(map(str, others[:10]))}."
            )
    known = Known(records, places, spline, scale, templates)
    priors = known.offsets
    suspect = suspects(records)
    light = float(np.median([record.light for record in records]))
    amplifiers = sum(len(record.amplifiers) > 1 for record in records) * 2 >= len(records)
    available = ("offset", "amplifier") if amplifiers else ("offset",)

    system = known.system(available)
    widths = start_widths(frozenset(available), offset=_START_OFFSET)
    free = fit_system(system, judged, robust, widths, light=light)
    settled = reconsidered(known, free, judged, robust, light=light) if known.count else None
    if settled is not None:
        known, records = settled, settled.records
        system = known.system(available)
        free = fit_system(system, judged, robust, widths, light=light)
    if terms == "auto":
        placebo = known.system(available, placebo=True) if amplifiers else None
        many = len(suspect) > _MOST_SUSPECT * len(records)
        heard = judged if many else _unheard(judged, records, suspect)
        candidates = [available[:k] for k in range(len(available) + 1)]
        shown = sum(record.background.amplifiers is not None for record in records) * 2 > len(records)
        choice = choose(system, free, heard, candidates, placebo=placebo, seen=shown)
    else:
        choice = Choice(tuple(t for t in terms if t in available))
    offsets = "offset" in choice.terms or bool(priors)
    votes = cast_votes(records, system, free, suspect, offsets=offsets, priors=priors, scale=scale)
    system = known.system(available, offsets=stated_offsets(votes, priors, scale))
    # a mask takes the higher of two amplifiers for an object, so what lies near one is needed
    seen = judged if "amplifier" in choice.terms else observed
    fit = fit_system(
        system,
        _unheard(seen, records, votes.lost),
        robust,
        free.solution.widths.only(choice.terms),
        light=light,
        start=free.weights,
    )
    return _finished(known, system, fit, seen, choice=choice, votes=votes, flags=flags, detection=detection)


def _shapes(records: Sequence[DetectorRecord]) -> dict[int, tuple[int, int]]:
    return {record.detector: record.shape for record in records}


def _unheard(
    observed: Sequence[Observed], records: Sequence[DetectorRecord], numbers: Sequence[int]
) -> list[Observed]:
    """The same without the trust of some detectors."""
    return [
        dataclasses.replace(one, trust=np.zeros_like(one.trust)) if record.detector in numbers else one
        for one, record in zip(observed, records, strict=True)
    ]


def _finished(
    known: Known,
    system: System,
    fit: Fit,
    observed: Sequence[Observed],
    *,
    choice: Choice,
    votes: Votes,
    flags: dict[str, str],
    detection: bool,
) -> JointSky:
    records, scale = known.records, known.scale
    faint = _pooled_faint_light(records)
    correction = float(np.median([record.correction for record in records]))
    correction_error = float(np.median([record.correction_error for record in records]))
    vague = 0.0 if faint is None else _VAGUE * faint.value
    backgrounds, finer, structure, offsets = {}, {}, {}, {}
    detector_flags: dict[int, dict[str, str]] = {record.detector: {} for record in records}
    for number, (record, one) in enumerate(zip(records, observed, strict=True)):
        detector = record.detector
        frames = known.frames.get(detector)
        strengths = fit.solution.coefficients[known.spline.size :]
        unsure = 0.0 if frames is None else float(np.sum((strengths * frames.errors) ** 2))
        left = (system.detectors[number].values - system.model(fit.solution, number) + fit.shift) * scale.unit
        seen = one.used.reshape(one.grid)
        error = np.where(seen, one.error.reshape(one.grid), 1.0) * scale.unit
        residual = left.reshape(one.grid)
        lost = detector in votes.lost
        removed = _removed(system, fit, number, frames, scale)
        structure[detector] = math.sqrt(max(0.0, record.structure**2 - removed**2))
        followed = 0.0
        if not lost:
            followed = structure_of(residual, error, seen, light=record.light > _LIT)
            structure[detector] = max(structure[detector], followed)
        unknown = votes.unknown.get(detector, 0.0) * scale.unit
        detector_flags[detector] |= _said(detector, votes, structure[detector], unknown, scale)
        level = LevelTerms(
            shift=correction - fit.shift * scale.unit,
            variance=correction_error**2 + vague**2 + structure[detector] ** 2 + unknown**2 + unsure,
        )
        made, offsets[detector] = detector_background(
            record,
            known.places[detector],
            system,
            fit,
            number,
            scale=scale,
            level=level,
            faint_light=faint,
            frames=None if frames is None else frames.frames,
        )
        backgrounds[detector] = made
        finer[detector] = made
        if detection and followed > 0:
            far = trusted(record, usable_superpixels(record), reach=_FAR) > 0
            finer[detector] = with_finer_cells(made, residual, error, far)
    rms = math.sqrt(float(np.mean(np.square(list(structure.values())))))
    if rms > _FLAGGED_ABOVE * scale.unit:
        flags["sky_structure"] = (
            f"The sky has structure of about {rms:.2g} that the default background does not follow; it is in "
            "its uncertainty, and the background for detection follows what is larger than some 400 pixels."
        )
    if votes.lost:
        flags["votes_lost"] = (
            f"{len(votes.lost)} of {len(records)} detectors have no vote on their own level: "
            f"{', '.join(map(str, votes.lost[:10]))}."
        )
    solution = fit.solution
    assert solution.covariance is not None
    p = known.spline.size
    units = np.concatenate([np.full(p, scale.unit), np.ones(len(solution.coefficients) - p)])
    coefficients = solution.coefficients * units
    coefficients[:p] += scale.level + correction - fit.shift * scale.unit
    return JointSky(
        backgrounds=backgrounds,
        detection=finer,
        spline=known.spline,
        coefficients=coefficients,
        covariance=solution.covariance * fit.inflation * np.outer(units, units),
        offsets=offsets,
        choice=choice,
        votes=votes,
        faint_light=faint,
        structure=structure,
        flags=flags,
        detector_flags=detector_flags,
    )


def _removed(system: System, fit: Fit, number: int, frames: DetectorFrames | None, scale: Scale) -> float:
    """Rms over a detector of what its steps and sky frames take off, unit of the image."""
    taken = _steps_at_superpixels(system, fit, number)
    steps = float(np.std(taken)) * scale.unit if len(taken) else 0.0
    if frames is None:
        return steps
    strengths = fit.solution.coefficients[system.spline.size :]
    pattern = np.einsum("k,kyx->yx", strengths, frames.frames.astype(np.float64))
    return math.hypot(steps, _FRAMES_SPREAD * float(np.std(pattern)))


def _steps_at_superpixels(system: System, fit: Fit, number: int) -> NDArray[np.float64]:
    """(n,) what steps of amplifiers add to a detector's superpixels, in typical errors."""
    rows = system.detectors[number]
    terms = np.where(rows.groups == 1, fit.solution.local[number].terms, 0.0)
    added: NDArray[np.float64] = np.einsum("ki,i->k", rows.local[:, system.templates :], terms)
    return added


def _said(detector: int, votes: Votes, structure: float, unknown: float, scale: Scale) -> dict[str, str]:
    quality_flags: dict[str, str] = {}
    if detector in votes.lost:
        quality_flags["no_vote"] = (
            "An object fills the detector and its level lies above what is expected of it: its sky was taken "
            f"from the others, and its level is known to +-{unknown:.2g}."
        )
    elif detector in votes.suspect and unknown:
        quality_flags["level_uncertain"] = (
            "Little sky was seen in the detector, and nothing else tells its offset: the uncertainty of its "
            f"level includes +-{unknown:.2g}."
        )
    if detector in votes.changed:
        quality_flags["offset_changed"] = (
            "Its offset is another one than the templates say, and was fit anew."
        )
    if detector in votes.apart:
        quality_flags["detector_offset"] = (
            "It stands out among detectors without offsets, and has an offset of its own."
        )
    if structure > _FLAGGED_ABOVE * scale.unit:
        quality_flags["sky_structure"] = (
            f"Its sky has structure of about {structure:.2g} that the default background does not follow."
        )
    return quality_flags


def _pooled_faint_light(records: Sequence[DetectorRecord]) -> FaintLight | None:
    """Light of undetected sources of the visit: the median of its detectors'.

    What all detectors assume alike is not known better for being assumed often: only their scatter averages
    out.
    """
    lights = [record.background.faint_light for record in records]
    found = [light for light in lights if light is not None]
    if not found:
        return None
    values = np.array([light.value for light in found])
    typical = float(np.median([light.uncertainty for light in found]))
    scatter = min(typical, float(np.std(values)))
    uncertainty = math.sqrt(typical**2 - scatter**2 * (1 - 1 / len(found)))
    return FaintLight(
        float(np.median(values)), uncertainty, f"median of {len(found)} detectors; {found[0].provenance}"
    )
