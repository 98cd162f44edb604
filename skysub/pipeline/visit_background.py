"""One sky per visit: the superpixel statistics of all its detectors, fit together."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from skysub.background.robust import RobustConfig
from skysub.errors import ConfigError, InvalidImageError
from skysub.pipeline.joint.focal_plane import place_detectors
from skysub.pipeline.joint.rows import usable_superpixels
from skysub.pipeline.joint.solved import solve_visit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.background.faint_light import FaintLight
    from skysub.background.model import Background
    from skysub.pipeline.joint.choice import Choice
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.solved import JointSky
    from skysub.pipeline.joint.spline import Spline
    from skysub.pipeline.joint.templates import VisitTemplates
    from skysub.pipeline.joint.votes import Votes

__all__ = ["VisitBackground", "VisitBackgroundConfig", "VisitSky", "visit_background"]

Which = Literal["faint_light", "detection"]


@dataclass(frozen=True, slots=True)
class VisitBackgroundConfig:
    """Settings of `skysub.visit_background`.

    Parameters
    ----------
    mode
        ``"joint"``: one smooth sky over the focal plane. ``"per_detector"``: every detector keeps its own.
    knots
        Least distance between the knots of the sky, pixel. Finer ones follow the light round bright objects,
        and neither hidden blocks nor evidence notice.
    terms
        ``"auto"``: offsets of detectors and steps of amplifiers where hidden superpixels ask for them. Or the
        terms themselves, of "offset" and "amplifier".
    least_detectors
        A visit of fewer detectors is not fit jointly.
    detection
        Also make the background for detection, which follows structure of some 400 pixels.
    robust
        Weights over superpixels.
    """

    mode: Literal["joint", "per_detector"] = "joint"
    knots: float = 2000.0
    terms: Literal["auto"] | tuple[str, ...] = "auto"
    least_detectors: int = 2
    detection: bool = True
    robust: RobustConfig = field(default_factory=RobustConfig)

    def __post_init__(self) -> None:
        if self.mode not in {"joint", "per_detector"}:
            raise ConfigError(f"mode must be joint or per_detector, not {self.mode!r}")
        if not (math.isfinite(self.knots) and self.knots > 0):
            raise ConfigError(f"knots must be a positive number of pixels, not {self.knots!r}")
        if self.terms != "auto":
            if not set(self.terms) <= {"offset", "amplifier"}:
                raise ConfigError(f"terms must be auto, or some of offset and amplifier, not {self.terms!r}")
            object.__setattr__(self, "terms", tuple(self.terms))
        count = self.least_detectors
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"least_detectors must be a whole number of at least 1, not {count!r}")


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitSky:
    """What a visit's fit found, all detectors together: small arrays and numbers."""

    visit: int
    mode: str
    """``"joint"``, or ``"per_detector"`` where nothing was fit together."""
    joint: tuple[int, ...]
    """Detectors of the joint fit; the others keep a background of their own."""
    spline: Spline | None = None
    coefficients: NDArray[np.float64] | None = None
    """(p + K,) of the spline over the focal plane, then scales of templates; unit of the image."""
    covariance: NDArray[np.float32] | None = None
    """(p + K, p + K) float32; right where one detector, or the penalty, has two coefficients in common,
    else 0."""
    offsets: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """By detector: offset and its standard deviation, unit of the image."""
    choice: Choice | None = None
    votes: Votes | None = None
    templates: str = ""
    """Which templates were used: their file or visits; empty where none were."""
    faint_light: FaintLight | None = None
    """Light of undetected sources, of all detectors together."""
    structure: Mapping[int, float] = field(default_factory=dict)
    """By detector: rms of structure that the default set leaves, unit of the image; it is in the
    uncertainty."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """What a person should know of the visit, by a short name;"""
    detector_flags: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """and of its detectors."""

    def __repr__(self) -> str:
        terms = "" if self.choice is None else f", terms={'+'.join(self.choice.terms) or 'smooth'}"
        return (
            f"{type(self).__name__}(visit={self.visit}, mode={self.mode!r}, joint={len(self.joint)}{terms}, "
            f"flags={' '.join(self.flags) or 'none'})"
        )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class VisitBackground(VisitSky):
    """The sky of a visit, with the backgrounds of its detectors."""

    backgrounds: Mapping[int, Background]
    """By detector: the faint-light-preserving set, the sky to subtract for photometry and low surface
    brightness."""
    detection: Mapping[int, Background]
    """By detector: the same plus structure of some 400 pixels away from large objects, for clean
    detection."""

    def summary(self) -> VisitSky:
        """Return the same without the backgrounds."""
        return VisitSky(**{each.name: getattr(self, each.name) for each in fields(VisitSky)})

    def background(self, detector: int, which: Which = "faint_light") -> Background:
        """Background of one detector, of either set.

        Raises
        ------
        KeyError
            When the visit has no such detector.
        """
        return (self.detection if which == "detection" else self.backgrounds)[detector]


def visit_background(
    detectors: Sequence[DetectorRecord],
    config: VisitBackgroundConfig | None = None,
    *,
    templates: VisitTemplates | None = None,
    expected: Sequence[int] = (),
) -> VisitBackground:
    """Fit the sky of all detectors of a visit together.

    Parameters
    ----------
    detectors
        One record for each detector that was calibrated (`skysub.record_of`), in any order.
    config
        Settings; ``VisitBackgroundConfig()`` by default.
    templates
        Offsets and sky frames of many visits (`skysub.templates`).
    expected
        Numbers of all detectors that the visit should have; missing ones are flagged.

    Returns
    -------
    sky
        The bits depend neither on the order of the records nor on who computes. A detector that cannot take
        part (no place, another unit, no usable superpixel) keeps its own background, and a flag says why.

    Raises
    ------
    InvalidImageError
        When there is no record, or records are of several visits or twice of one detector.
    """
    config = config or VisitBackgroundConfig()
    records = sorted(detectors, key=lambda record: record.detector)
    if not records:
        raise InvalidImageError("a visit without any calibrated detector has no sky")
    visits = sorted({record.visit for record in records})
    if len(visits) > 1:
        raise InvalidImageError(f"records are of one visit at a time, not of {visits}")
    twice = [number for number, count in Counter(r.detector for r in records).items() if count > 1]
    if twice:
        raise InvalidImageError(f"visit {visits[0]}: there is more than one record of detector {twice[0]}")
    flags: dict[str, str] = {}
    missing = sorted(set(expected) - {record.detector for record in records})
    if missing:
        flags["detectors_missing"] = (
            f"{len(missing)} of {len(set(expected))} detectors are missing: {_listed(missing)}."
        )
    apart = _cannot_take_part(records)
    usable = [record for record in records if record.detector not in apart]
    places = place_detectors(usable)
    for record in usable:
        if record.detector not in places:
            apart[record.detector] = (
                "no_place",
                "Its place on the focal plane is not known (no world coordinates, or of another field).",
            )
    joint = [record for record in usable if record.detector in places]
    solved: JointSky | None = None
    if config.mode == "per_detector":
        flags["per_detector"] = "Every detector keeps its own background, as the settings say."
    elif len(joint) < config.least_detectors:
        flags["per_detector"] = (
            f"{len(joint)} of {len(records)} detectors can take part in a joint fit, which needs "
            f"{config.least_detectors}: every detector keeps its own background."
        )
    else:
        try:
            solved = solve_visit(
                joint,
                places,
                knots=config.knots,
                terms=config.terms,
                robust=config.robust,
                detection=config.detection,
                templates=templates,
            )
        except np.linalg.LinAlgError as error:
            flags["per_detector"] = (
                f"The joint fit failed ({error}): every detector keeps its own background."
            )
    named = "" if templates is None else _named(templates)
    return _assembled(visits[0], records, solved, apart, flags, templates=named)


def _cannot_take_part(records: Sequence[DetectorRecord]) -> dict[int, tuple[str, str]]:
    """By detector, a flag and why it cannot be fit with the others."""
    apart: dict[int, tuple[str, str]] = {}
    for name in ("unit", "band", "camera"):
        values = Counter(getattr(record, name) for record in records)
        # the most frequent; of equally frequent ones the first of the alphabet, whatever the order
        common = min(values, key=lambda value: (-values[value], value))
        for record in records:
            if getattr(record, name) != common:
                apart[record.detector] = (
                    f"other_{name}",
                    f"Its {name} is {getattr(record, name)!r}, that of the visit {common!r}.",
                )
    for record in records:
        if not usable_superpixels(record).any():
            apart[record.detector] = (
                "no_usable_superpixels",
                "None of its superpixels has a value with an error and enough unmasked pixels.",
            )
    return apart


def _assembled(
    visit: int,
    records: Sequence[DetectorRecord],
    solved: JointSky | None,
    apart: Mapping[int, tuple[str, str]],
    flags: dict[str, str],
    *,
    templates: str,
) -> VisitBackground:
    detector_flags: dict[int, dict[str, str]] = {record.detector: {} for record in records}
    own = {record.detector: record.background for record in records}
    for number, (name, why) in apart.items():
        detector_flags[number][name] = f"{why} It keeps its own background."
    if solved is None:
        return VisitBackground(
            visit=visit,
            mode="per_detector",
            backgrounds=own,
            detection=own,
            joint=(),
            flags=flags,
            detector_flags=detector_flags,
        )
    if apart:
        flags["detectors_apart"] = (
            f"{len(apart)} of {len(records)} detectors are not part of the joint fit: "
            f"{_listed(sorted(apart))}."
        )
    flags |= solved.flags
    for number, quality_flags in solved.detector_flags.items():
        detector_flags[number] |= quality_flags
    return VisitBackground(
        visit=visit,
        mode="joint",
        backgrounds=own | dict(solved.backgrounds),
        detection=own | dict(solved.detection),
        joint=tuple(sorted(solved.backgrounds)),
        spline=solved.spline,
        coefficients=solved.coefficients,
        covariance=solved.covariance.astype(np.float32),
        offsets=solved.offsets,
        templates="" if "templates_unused" in flags else templates,
        choice=solved.choice,
        votes=solved.votes,
        faint_light=solved.faint_light,
        structure=solved.structure,
        flags=flags,
        detector_flags=detector_flags,
    )


def _named(templates: VisitTemplates) -> str:
    return templates.name or f"{len(templates.visits)} visits in band {templates.band!r}"


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
