"""From many visits to templates of their camera."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub._version import __version__
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import ConfigError, TemplatesError
from skysub.pipeline.joint.rows import amplifier_shares
from skysub.pipeline.joint.templates import DetectorTemplate, StepTemplate, VisitTemplates
from skysub.pipeline.templates.frames import Frames, nodes_of, sky_frames
from skysub.pipeline.templates.lesson import Lesson, TemplateVisit, amplifier_means, lesson_of
from skysub.pipeline.templates.series import Series, regressed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.pipeline.joint.record import Box

__all__ = ["ENOUGH_VISITS", "TemplatesConfig", "make_templates"]

ENOUGH_VISITS = 10
"""Visits below which templates are flagged: unshrunk ones from one or two took half of the true strength."""
_REAL_STEPS = 3.0
"""Power of jumps at amplifiers' boundaries over that in their middles, from which amplifiers have steps."""
_STRIP = 2
"""Cells on either side of a boundary that are compared."""
_ALIKE = 0.25
"""Distance of visits from their middle, in detectors, below which they may have the same light everywhere."""
_ALIGNED = 2
"""How often visits' offsets are moved onto the others'."""
_TOLD = 0.5
"""Share of the visits that must have had a vote for a detector's offset to be told."""


@dataclass(frozen=True, slots=True)
class TemplatesConfig:
    """Settings of `skysub.make_templates`.

    Parameters
    ----------
    frames
        Sky frames that are tried at most; each is taken only where it foretells cells that it has not seen.
    rounds
        How often visits are fit with what was found of them before.
    """

    frames: int = 2
    rounds: int = 2

    def __post_init__(self) -> None:
        for name, least in (("frames", 0), ("rounds", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")


def make_templates(visits: Sequence[TemplateVisit], config: TemplatesConfig | None = None) -> VisitTemplates:
    """Find what the detectors of a camera add to the sky of every visit.

    Parameters
    ----------
    visits
        Calibrated visits of one camera in one band, in any order; the more their pointings differ, the less
        of what lies on the sky is taken for the camera's.
    config
        Settings; ``TemplatesConfig()`` by default.

    Returns
    -------
    templates
        Offsets of detectors and steps of amplifiers, each a constant and a share of the sky; and sky frames.
        All are posterior means. Below 10 visits they are flagged ``few_visits``.

    Raises
    ------
    TemplatesError
        When visits are of several bands, cameras or units, one is there twice, or fewer than two could be fit
        jointly.
    """
    config = config or TemplatesConfig()
    visits = sorted(visits, key=lambda visit: visit.visit)
    unit, band, camera = _what(visits)
    shapes = _shapes(visits)
    templates = whole = None
    lessons: list[Lesson] = []
    frames = Frames({}, {}, np.zeros((0, 0)), ())
    steps: dict[int, StepTemplate] = {}
    for _ in range(config.rounds):
        terms = ("offset", "amplifier") if steps else ("offset",)
        found = [lesson_of(visit, templates, terms=terms) for visit in visits]
        lessons = [lesson for lesson in found if lesson is not None]
        if len(lessons) < 2:
            raise TemplatesError(
                f"{len(lessons)} of {len(visits)} visits could be fit jointly; templates need two at least, "
                f"and {ENOUGH_VISITS} to be good: detectors need world coordinates, and two or more a visit"
            )
        boxes = _boxes(visits)
        steps, taken = _steps(lessons, shapes, boxes, frames)
        frames = _frames(lessons, shapes, taken, most=config.frames)
        whole = _assembled(lessons, shapes, frames, steps, unit=unit, band=band, camera=camera)
        templates = _frames_alone(whole)
    assert whole is not None
    flags = {}
    if len(lessons) < ENOUGH_VISITS:
        flags["few_visits"] = (
            f"The templates were made of {len(lessons)} visits; {ENOUGH_VISITS} or more would be better."
        )
    apart = _pointings_apart(visits)
    if apart is not None and apart < _ALIKE * max(max(shape) for shape in shapes.values()):
        flags["pointings_alike"] = (
            f"Visits point within some {apart:.3g} pixels of each other: light on the sky that is larger "
            "cannot be told from the camera's, and may be in the templates."
        )
    left_out = sorted({visit.visit for visit in visits} - {lesson.visit for lesson in lessons})
    if left_out:
        flags["visits_left_out"] = f"Visits without a joint fit were left out: {_listed(left_out)}."
    provenance = {"skysub": __version__, "settings": repr(config)}
    provenance |= {f"frame_{k}": sentence for k, sentence in enumerate(frames.why, 1)}
    return dataclasses.replace(whole, flags=flags, provenance=provenance)


def _pointings_apart(visits: Sequence[TemplateVisit]) -> float | None:
    """Median distance of visits from their middle, pixel, by a detector that they share; None if unknown."""
    seen: dict[int, list[NDArray[np.float64]]] = {}
    pixel = []
    for visit in visits:
        for record in visit.records:
            if record.directions is not None:
                # of 3 x 3 points the middle, and the ends of the middle row
                left, middle, right = record.directions[3:6]
                seen.setdefault(record.detector, []).append(middle)
                pixel.append(float(np.linalg.norm(right - left)) / max(1, record.shape[1] - 1))
    if not seen:
        return None
    most = max(seen.values(), key=len)
    points = np.stack(most)
    distances = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return float(np.median(distances)) / max(float(np.median(pixel)), 1e-300)


def _what(visits: Sequence[TemplateVisit]) -> tuple[str, str, str]:
    twice = [number for number, count in Counter(v.visit for v in visits).items() if count > 1]
    if twice:
        raise TemplatesError(f"visit {twice[0]} is there more than once")
    told = []
    for name in ("unit", "band", "camera"):
        values = Counter(getattr(record, name) for visit in visits for record in visit.records)
        if len(values) > 1:
            shown = " and ".join(repr(each) for each in sorted(values))
            raise TemplatesError(f"templates are of one {name}, and the visits are of {shown}: choose one")
        told.append(next(iter(values), ""))
    return told[0], told[1], told[2]


def _shapes(visits: Sequence[TemplateVisit]) -> dict[int, tuple[int, int]]:
    """Shape by detector; one that changes from visit to visit is left out."""
    shapes: dict[int, set[tuple[int, int]]] = {}
    for visit in visits:
        for record in visit.records:
            shapes.setdefault(record.detector, set()).add(record.shape)
    return {number: next(iter(found)) for number, found in sorted(shapes.items()) if len(found) == 1}


def _boxes(visits: Sequence[TemplateVisit]) -> dict[int, tuple[Box, ...]]:
    """Boxes of amplifiers by detector, where all visits have the same two or more."""
    boxes: dict[int, set[tuple[Box, ...]]] = {}
    for visit in visits:
        for record in visit.records:
            boxes.setdefault(record.detector, set()).add(tuple(record.amplifiers))
    return {n: made for n, found in boxes.items() if len(found) == 1 and len(made := next(iter(found))) > 1}


def _levels(lessons: Sequence[Lesson]) -> NDArray[np.float64]:
    return np.array([lesson.level for lesson in lessons])


def _offsets(lessons: Sequence[Lesson], numbers: Sequence[int]) -> Series:
    nothing = (math.nan, math.nan)
    table = np.array([[lesson.offsets.get(n, nothing) for n in numbers] for lesson in lessons])
    values, levels = table[..., 0], _levels(lessons)
    # what is common to all detectors is the sky's, and most of what is not known of any of them
    known = np.any(np.isfinite(table[..., 1]), axis=1)
    least = np.zeros(len(lessons))
    least[known] = np.nanmin(table[known, :, 1], axis=1)
    errors = np.sqrt(np.maximum(table[..., 1] ** 2 - least[:, None] ** 2, 0.0))
    values[known] -= np.nanmedian(values[known], axis=1)[:, None]
    series = regressed(values, errors, levels)
    for _ in range(_ALIGNED):
        # detectors that a visit lacks shift the others' mean
        off = values - np.einsum("vj,nj->vn", np.stack([np.ones_like(levels), levels], axis=1), series.terms)
        values[known] -= np.nanmedian(off[known], axis=1)[:, None]
        series = regressed(values, errors, levels)
    told = series.visits > 0
    middle = np.array([1.0, float(np.median(levels))])
    terms = series.terms.copy()
    terms[:, 0] -= float(np.mean(np.einsum("nj,j->n", terms[told], middle))) if told.any() else 0.0
    return dataclasses.replace(series, terms=terms)


def _steps(
    lessons: Sequence[Lesson],
    shapes: Mapping[int, tuple[int, int]],
    boxes: Mapping[int, tuple[Box, ...]],
    frames: Frames,
) -> tuple[dict[int, StepTemplate], list[dict[int, NDArray[np.float32]]]]:
    """Steps of amplifiers, and by visit and detector what they add to its cells.

    Patterns in the silicon make amplifiers differ as well, but do not end at their boundaries: jumps there
    must beat those in the middle of amplifiers.
    """
    nothing: list[dict[int, NDArray[np.float32]]] = [{} for _ in lessons]
    numbers = [n for n in shapes if n in boxes]
    if not numbers:
        return {}, nothing
    known = len(frames.strengths) == len(lessons)
    left = [_without_frames(lesson, frames, k) if known else lesson.cells for k, lesson in enumerate(lessons)]
    true = _regressed_steps(lessons, left, shapes, {n: boxes[n] for n in numbers})
    powers = [_jumps(left, shapes, boxes, numbers, displaced_by=half) for half in (0.0, 0.5)]
    if true is None or not powers[0] > _REAL_STEPS * powers[1]:
        return {}, nothing
    found, first = {}, 0
    for n in numbers:
        own = slice(first, first := first + len(boxes[n]))
        found[n] = StepTemplate(boxes[n], true.terms[own], true.covariance[own], true.deviation[own])
    taken = []
    for lesson in lessons:
        maps = {}
        for n in lesson.cells:
            if n in found:
                cy, cx = lesson.cells[n].shape
                grid = SuperpixelGrid.of_counts(shapes[n], gy=cy, gx=cx)
                shares = amplifier_shares(grid, boxes[n])
                values, _ = found[n].expected(lesson.level)
                maps[n] = np.einsum("kq,q->k", shares, values).reshape(cy, cx).astype(np.float32)
        taken.append(maps)
    return found, taken


def _jumps(
    cells: Sequence[Mapping[int, NDArray[np.float32]]],
    shapes: Mapping[int, tuple[int, int]],
    boxes: Mapping[int, tuple[Box, ...]],
    numbers: Sequence[int],
    *,
    displaced_by: float,
) -> float:
    """Mean square of jumps of the mean of all visits across boundaries, or lines a part of a box away."""
    squares = []
    for n in numbers:
        maps = [each[n] for each in cells if n in each]
        if not maps:
            continue
        seen = np.isfinite(maps)
        mean = np.sum(np.where(seen, maps, 0.0), axis=0) / np.maximum(np.sum(seen, axis=0), 1)
        mean[~seen.any(axis=0)] = np.nan
        for y0, y1, x0, x1 in boxes[n]:
            for sky, (low, high), (first, last), (length, across) in (
                (mean, (x0, x1), (y0, y1), shapes[n][::-1]),
                (mean.T, (y0, y1), (x0, x1), shapes[n]),
            ):
                edge = round((low + displaced_by * (high - low)) / length * sky.shape[1])
                if not _STRIP <= edge <= sky.shape[1] - _STRIP or (displaced_by == 0 and low == 0):
                    continue
                rows = slice(*(round(each / across * sky.shape[0]) for each in (first, last)))
                sides = sky[rows, edge : edge + _STRIP], sky[rows, edge - _STRIP : edge]
                if all(np.isfinite(side).any() for side in sides):
                    squares.append(float(np.nanmean(sides[0]) - np.nanmean(sides[1])) ** 2)
    return float(np.mean(squares)) if squares else 0.0


def _regressed_steps(
    lessons: Sequence[Lesson],
    cells: Sequence[Mapping[int, NDArray[np.float32]]],
    shapes: Mapping[int, tuple[int, int]],
    boxes: Mapping[int, tuple[Box, ...]],
) -> Series | None:
    values, errors = [], []
    for lesson, left in zip(lessons, cells, strict=True):
        found = []
        for n, own in boxes.items():
            if n in left:
                found.append(amplifier_means(left[n], lesson.errors[n], shapes[n], own))
            else:
                found.append((np.full(len(own), math.nan), np.full(len(own), math.nan)))
        values.append(np.concatenate([value for value, _ in found]))
        errors.append(np.concatenate([error for _, error in found]))
    table, deviations = np.array(values), np.array(errors)
    return regressed(table, deviations, _levels(lessons)) if np.isfinite(table).any() else None


def _without_frames(lesson: Lesson, frames: Frames, k: int) -> dict[int, NDArray[np.float32]]:
    left = dict(lesson.cells)
    for n, found in frames.frames.items():
        if n in left and found.shape[1:] == left[n].shape:
            taken = np.einsum("f,fyx->yx", frames.strengths[k], found.astype(np.float64))
            left[n] = (left[n] - taken).astype(np.float32)
    return left


def _frames(
    lessons: Sequence[Lesson],
    shapes: Mapping[int, tuple[int, int]],
    taken: Sequence[Mapping[int, NDArray[np.float32]]],
    *,
    most: int,
) -> Frames:
    values: dict[int, list[NDArray[np.float32] | None]] = {}
    errors: dict[int, list[NDArray[np.float32] | None]] = {}
    for n in shapes:
        values[n] = [
            lesson.cells[n] - steps.get(n, np.float32(0)) if n in lesson.cells else None
            for lesson, steps in zip(lessons, taken, strict=True)
        ]
        errors[n] = [lesson.errors.get(n) for lesson in lessons]
    return sky_frames(values, errors, most=most)


def _assembled(
    lessons: Sequence[Lesson],
    shapes: Mapping[int, tuple[int, int]],
    frames: Frames,
    steps: Mapping[int, StepTemplate],
    *,
    unit: str,
    band: str,
    camera: str,
) -> VisitTemplates:
    numbers = list(shapes)
    series = _offsets(lessons, numbers)
    detectors = {}
    for k, n in enumerate(numbers):
        told = series.visits[k] >= max(2, math.ceil(_TOLD * len(lessons)))
        detectors[n] = DetectorTemplate(
            shape=shapes[n],
            constant=float(series.terms[k, 0]) if told else 0.0,
            proportional=float(series.terms[k, 1]) if told else 0.0,
            covariance=series.covariance[k] if told else None,
            deviation=float(series.deviation[k]) if told else 0.0,
            steps=steps.get(n),
            frames=None
            if n not in frames.frames
            else np.stack([nodes_of(frame) for frame in frames.frames[n]]),
            frame_errors=frames.errors.get(n),
        )
    return VisitTemplates(
        detectors=detectors,
        visits=tuple(lesson.visit for lesson in lessons),
        frames=frames.count,
        strengths=frames.strengths,
        levels=_levels(lessons),
        unit=unit,
        band=band,
        camera=camera,
    )


def _frames_alone(templates: VisitTemplates) -> VisitTemplates:
    """The same for the visits that they were made of, whose offsets and steps are not to be told twice."""
    detectors = {
        n: dataclasses.replace(one, deviation=0.0, steps=None) for n, one in templates.detectors.items()
    }
    return dataclasses.replace(templates, detectors=detectors)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
