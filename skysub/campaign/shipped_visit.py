"""The steps over visits that skysub brings, as plain functions of its pipeline."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.model import BackgroundList
from skysub.background.superpixels import candidate_grids
from skysub.campaign.products.background import Background, Layout
from skysub.campaign.products.small import Object
from skysub.campaign.steps import Step, StepResult
from skysub.campaign.store.address import place_at
from skysub.errors import ConfigError, InputsError, InvalidImageError
from skysub.pipeline.config import SkyConfig
from skysub.pipeline.joint.detector import ORDER
from skysub.pipeline.visit_background import VisitBackgroundConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skysub.campaign.given import Given
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.joint.templates import VisitTemplates
    from skysub.pipeline.visit_background import VisitBackground

__all__ = ["VISIT_BACKGROUND", "VisitBackgroundStep"]

_INPUT = "preliminary_visit_image_background"
_FACTS = "sky_facts"
_DEFAULT, _DETECTION, _SKY = "visit_image_background", "visit_image_detection_background", "visit_sky"
_SETS = (("faint_light", _DEFAULT), ("detection", _DETECTION))


@dataclass(frozen=True)
class VisitBackgroundStep:
    """Settings of the step ``visit_background``.

    Parameters
    ----------
    fit
        The joint fit.
    missing
        How many detectors of a visit may be missing because they failed; the others are fit without them.
    templates
        Files that ``skysub templates`` made, or folders of such files, of which the newest of each band
        counts. A visit takes the one of its band and camera.
    """

    fit: VisitBackgroundConfig = field(default_factory=VisitBackgroundConfig)
    missing: int = 10
    templates: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.templates, str):
            object.__setattr__(self, "templates", (self.templates,) if self.templates else ())
        if isinstance(self.missing, bool) or not isinstance(self.missing, int) or self.missing < 0:
            raise ConfigError(f"missing must be a whole number of at least 0, not {self.missing!r}")


def _visit_background(given: Given, config: VisitBackgroundStep) -> StepResult:
    from skysub.pipeline.joint.record import DetectorRecord
    from skysub.pipeline.visit_background import visit_background

    started = time.perf_counter()
    records: list[DetectorRecord] = []
    own: dict[int, BackgroundList] = {}
    for detector, layers in given.products(_INPUT):
        facts = given.product(_FACTS, detector)
        if facts is None:
            own[detector] = layers
        else:
            records.append(DetectorRecord.of(facts, layers[0]))
    read = time.perf_counter() - started
    if not records:
        raise InvalidImageError(
            f"visit {given.visit}: no detector has what a joint fit needs; calibrate them with flow: default"
        )
    templates, refused = _templates_for(records[0], given.files())
    sky = visit_background(
        records, config.fit, templates=templates, expected=sorted({*given.detectors, *given.missing})
    )
    flags = dict(sky.flags)
    if refused:
        flags["templates_unused"] = refused
    if own:
        flags["detectors_without_facts"] = (
            f"{len(own)} detectors were calibrated by a flow that keeps no mask statistics; each keeps its "
            "own background."
        )
    for detector, quality_flags in sky.detector_flags.items():
        flags |= {f"{name}_{detector}": text for name, text in quality_flags.items()}
    return StepResult(
        products={
            _DEFAULT: own | {n: BackgroundList([layer]) for n, layer in sky.backgrounds.items()},
            _DETECTION: own | {n: BackgroundList([layer]) for n, layer in sky.detection.items()},
            _SKY: sky.summary(),
        },
        figures=_figures(sky),
        flags=flags,
        timings={"reading": read, "joint fit": time.perf_counter() - started - read},
    )


def _templates_for(record: DetectorRecord, files: Mapping[str, bytes]) -> tuple[VisitTemplates | None, str]:
    """The first templates that are of a visit's unit, band and camera; or why none are."""
    refused = []
    for path, data in files.items():
        templates = _read(data, path)
        why = templates.why_not(unit=record.unit, band=record.band, camera=record.camera)
        if not why:
            return templates, ""
        refused.append(why)
    return None, f"{' '.join(refused)} The visit was fit without templates." if refused else ""


@functools.lru_cache(maxsize=4)
def _read(data: bytes, path: str) -> VisitTemplates:
    from skysub.campaign.template_file import templates_of_bytes

    return templates_of_bytes(data, path)


def _files(config: VisitBackgroundStep) -> list[str]:
    """Paths of templates, of folders those of the newest file of each band."""
    from skysub.campaign.template_file import latest_files

    found = []
    for text in config.templates:
        place = place_at(text)
        inside = [] if text.endswith(".fits") else latest_files(place)
        if not inside and not text.endswith(".fits"):
            raise InputsError(
                f"steps.visit_background.templates: {text} holds no file templates-BAND-DATE.fits: "
                "`skysub templates` makes them"
            )
        found += [str(each) for each in inside] or [text]
    return found


def _figures(sky: VisitBackground) -> dict[str, float | int | str]:
    levels = [float(layer.coefficients[0]) for layer in sky.backgrounds.values()]
    figures: dict[str, float | int | str] = {
        "sky": float(np.median(levels)),
        "mode": sky.mode,
        "detectors": len(levels),
        "detectors_joint": len(sky.joint),
    }
    if sky.choice is not None and sky.votes is not None:
        figures |= {
            "terms": " ".join(sky.choice.terms),
            "votes_lost": len(sky.votes.lost),
            "offsets_rms": float(np.std([offset for offset, _ in sky.offsets.values()])),
            "structure": float(np.sqrt(np.mean(np.square(list(sky.structure.values()))))),
        }
    if sky.templates:
        figures["templates"] = sky.templates
    if sky.faint_light is not None:
        figures["faint_light"] = sky.faint_light.value
    return figures


def _layout(shape: tuple[int, int], config: Any) -> Layout:
    del config
    # superpixels of another size, or a list of several layers, stay in the visit's marker
    background = SkyConfig().for_shape(shape).background
    return Layout(
        layers=1, grid=candidate_grids(shape, background)[0].shape, terms=(ORDER + 1) * (ORDER + 2) // 2
    )


VISIT_BACKGROUND = Step(
    name="visit_background",
    version=1,
    configuration=VisitBackgroundStep,
    work=_visit_background,
    scope="visit",
    inputs=(_INPUT, _FACTS),
    outputs=(
        Background(name=_DEFAULT, per="detector", layout=_layout, sets=_SETS),
        Background(name=_DETECTION, per="detector", layout=_layout, sets=_SETS),
        Object(name=_SKY),
    ),
    files=_files,
    missing=lambda config: config.missing,
    memory_images=8.0,
    seconds_per_megapixel=0.001,
)
"""One sky for all detectors of a visit, from what ``calibrate_image`` keeps of each."""
