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
from skysub.pipeline.joint.rows import observed_of, rows_of, scale_of, trusted, usable_superpixels
from skysub.pipeline.joint.spline import Spline
from skysub.pipeline.joint.structure import structure_of
from skysub.pipeline.joint.system import System
from skysub.pipeline.joint.templates import cells_at_superpixels
from skysub.pipeline.joint.votes import Votes, cast_votes, stated_offsets, suspects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.background.layered import LayeredBackground
    from skysub.background.robust import RobustConfig
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.rows import Scale
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
_WORTH_SAYING = 0.3
"""Structure, in typical errors of a superpixel, that is flagged; less is in the uncertainty all the same."""
_VAGUE = 0.1
"""Share of the light of undetected sources by which it is not defined: sources at the limit are masked in
part."""
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
    priors = {} if templates is None else templates.offset_priors(scale.level)
    priors = {r.detector: priors[r.detector] for r in records if r.detector in priors}
    if templates is not None:
        flags |= templates.flags
    frames = {} if templates is None else _frames(records, templates, scale)
    count = templates.frames if templates is not None and frames else 0
    known = _Known(records, places, spline, scale, frames)
    suspect = suspects(records)
    light = float(np.median([record.light for record in records]))
    amplifiers = sum(len(record.amplifiers) > 1 for record in records) * 2 >= len(records)
    available = ("offset", "amplifier") if amplifiers else ("offset",)

    system = known.system(available, templates=count)
    widths = start_widths(frozenset(available), offset=_START_OFFSET)
    free = fit_system(system, judged, robust, widths, light=light)
    if terms == "auto":
        placebo = known.system(available, templates=count, placebo=True) if amplifiers else None
        many = len(suspect) > _MOST_SUSPECT * len(records)
        heard = judged if many else _unheard(judged, records, suspect)
        candidates = [available[:k] for k in range(len(available) + 1)]
        choice = choose(system, free, heard, candidates, placebo=placebo)
    else:
        choice = Choice(tuple(t for t in terms if t in available))
    offsets = "offset" in choice.terms or bool(priors)
    votes = cast_votes(records, system, free, suspect, offsets=offsets, priors=priors, scale=scale)
    system = known.system(available, templates=count, offsets=stated_offsets(votes, priors, scale))
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


class _Known:
    """What does not change from fit to fit."""

    def __init__(
        self,
        records: Sequence[DetectorRecord],
        places: Mapping[int, NDArray[np.float64]],
        spline: Spline,
        scale: Scale,
        frames: Mapping[int, tuple[NDArray[np.float32], NDArray[np.float64]]],
    ) -> None:
        self.records, self.places, self.spline, self.scale, self.frames = (
            records,
            places,
            spline,
            scale,
            frames,
        )

    def system(
        self,
        terms: Sequence[str],
        *,
        templates: int,
        placebo: bool = False,
        offsets: Mapping[int, tuple[float, float]] | None = None,
    ) -> System:
        """Equations with these terms of every detector."""
        rows = []
        for record in self.records:
            columns = None
            if templates:
                grid = record.background.grid
                columns = (
                    self.frames[record.detector][1]
                    if record.detector in self.frames
                    else np.zeros((grid.shape[0] * grid.shape[1], templates))
                )
            rows.append(
                rows_of(
                    record,
                    self.places[record.detector],
                    self.spline,
                    self.scale,
                    terms=frozenset(terms),
                    templates=columns,
                    placebo=placebo,
                )
            )
        return System(self.spline, rows, templates, offsets)


def _shapes(records: Sequence[DetectorRecord]) -> dict[int, tuple[int, int]]:
    return {record.detector: record.shape for record in records}


def _frames(
    records: Sequence[DetectorRecord], templates: VisitTemplates, scale: Scale
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """By detector: sky frames, and their means over its superpixels in typical errors, (n, K)."""
    found = {}
    for record in records:
        frames = templates.frames_of(record.detector)
        if frames is not None:
            grid = record.background.grid
            means = [cells_at_superpixels(frame, grid).ravel() / scale.unit for frame in frames]
            found[record.detector] = (frames, np.stack(means, axis=1))
    return found


def _unheard(
    observed: Sequence[Observed], records: Sequence[DetectorRecord], numbers: Sequence[int]
) -> list[Observed]:
    """The same without the trust of some detectors."""
    return [
        dataclasses.replace(one, trust=np.zeros_like(one.trust)) if record.detector in numbers else one
        for one, record in zip(observed, records, strict=True)
    ]


def _finished(
    known: _Known,
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
        left = (system.detectors[number].values - system.model(fit.solution, number) + fit.shift) * scale.unit
        seen = one.used.reshape(one.grid)
        error = np.where(seen, one.error.reshape(one.grid), 1.0) * scale.unit
        residual = left.reshape(one.grid)
        lost = detector in votes.lost
        removed = _removed(system, fit, number) * scale.unit
        structure[detector] = math.sqrt(max(0.0, record.structure**2 - removed**2))
        followed = 0.0
        if not lost:
            followed = structure_of(residual, error, seen, light=record.light > _LIT)
            structure[detector] = max(structure[detector], followed)
        unknown = votes.unknown.get(detector, 0.0) * scale.unit
        detector_flags[detector] |= _said(detector, votes, structure[detector], unknown, scale)
        level = LevelTerms(
            shift=correction - fit.shift * scale.unit,
            variance=correction_error**2 + vague**2 + structure[detector] ** 2 + unknown**2,
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
            frames=None if frames is None else frames[0],
        )
        backgrounds[detector] = made
        finer[detector] = made
        if detection and followed > 0:
            far = trusted(record, usable_superpixels(record), reach=_FAR) > 0
            finer[detector] = with_finer_cells(made, residual, error, far)
    rms = math.sqrt(float(np.mean(np.square(list(structure.values())))))
    if rms > _WORTH_SAYING * scale.unit:
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


def _removed(system: System, fit: Fit, number: int) -> float:
    """Rms, over a detector's superpixels, of what its steps and the templates take off, in typical errors."""
    rows = system.detectors[number]
    own = rows.groups == 1
    terms = np.where(own, fit.solution.local[number].terms, 0.0)
    scales = fit.solution.coefficients[system.spline.size :]
    taken = np.einsum("ki,i->k", rows.local, np.concatenate([scales, terms]))
    return float(np.std(taken)) if len(taken) else 0.0


def _said(detector: int, votes: Votes, structure: float, unknown: float, scale: Scale) -> dict[str, str]:
    said = {}
    if detector in votes.lost:
        said["no_vote"] = (
            "An object fills the detector and its level lies above what is expected of it: its sky was taken "
            f"from the others, and its level is known to +-{unknown:.2g}."
        )
    elif detector in votes.suspect and unknown:
        said["level_uncertain"] = (
            "Little sky was seen in the detector, and nothing else tells its offset: the uncertainty of its "
            f"level includes +-{unknown:.2g}."
        )
    if detector in votes.apart:
        said["detector_offset"] = (
            "It stands out among detectors without offsets, and has an offset of its own."
        )
    if structure > _WORTH_SAYING * scale.unit:
        said["sky_structure"] = (
            f"Its sky has structure of about {structure:.2g} that the default background does not follow."
        )
    return said


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
