"""The step ``reprocess_visit_image``: final images and tables of sources from earlier steps' products."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from skysub.campaign.products.image import Image
from skysub.campaign.products.small import Object
from skysub.campaign.products.table import Table
from skysub.campaign.steps import RAW, Step, StepResult
from skysub.pipeline.reprocess_config import ReprocessVisitImageConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from skysub.campaign.given import Given
    from skysub.pipeline.characterise import ApertureCorrection
    from skysub.visit.photometric import ChebyshevField
    from skysub.visit.summary_file import VisitSummary

__all__ = ["REPROCESS_VISIT_IMAGE"]

_PRELIMINARY = "preliminary_visit_image"
_FINAL_SKY, _PRELIMINARY_SKY = "visit_image_background", "preliminary_visit_image_background"
_SUMMARY = "visit_summary"
_BYTES_PER_MEGAPIXEL = 150_000.0
"""Of a table of sources in Parquet, about: 600 bytes a row at 6 stars and 50 galaxies per arcmin2."""


def _reprocess_visit_image(given: Given, config: ReprocessVisitImageConfig) -> StepResult:
    from skysub.pipeline.reprocess_visit_image import reprocess_visit_image
    from skysub.visit.calibrations import find_calibrations

    row, row_name = None, "visit summary"
    if f"table:{_SUMMARY}" in given.inputs:
        path = given.table_path(_SUMMARY)
        row, row_name = (
            _summary(path, path.stat().st_mtime_ns, given.visit).row(given.visit, given.detector),
            path.name,
        )
    preliminary = given.without_pixels(_PRELIMINARY)
    visit_image = given.visit_image()
    calibrations = find_calibrations(
        visit_image,
        row=row,
        row_name=row_name,
        calibrated=preliminary,
        aperture_corrections=_fields(given.product("aperture_correction")),
    )
    sky = _FINAL_SKY if _FINAL_SKY in given.inputs else _PRELIMINARY_SKY
    result = reprocess_visit_image(
        visit_image,
        given.product(sky),
        calibrations,
        config,
        mask=preliminary.mask,
        planes=preliminary.planes,
        overwrite=True,
    )
    provenance = {f"calibration_{part}": source for part, source in calibrations.provenance.items()}
    return StepResult(
        products={
            "visit_image": result.visit_image.replace(psf=None),
            "visit_image_psf": calibrations.psf,
            "source": result.source.to_arrow(),
        },
        figures={**provenance, "background": sky, **result.figures},
        flags=result.flags,
        timings=result.timings,
    )


@functools.lru_cache(maxsize=2)
def _summary(path: Path, _written: int, visit: int) -> VisitSummary:
    """Rows of a visit, kept for its other detectors as long as the file is the same."""
    from skysub.visit.summary_file import read_visit_summary

    return read_visit_summary(path, visit=visit)


def _fields(correction: ApertureCorrection | None) -> Mapping[str, ChebyshevField] | None:
    """What calibrate_image found, as fields by flux; its scatter of one star is no error of the field."""
    if correction is None:
        return None
    from skysub.pipeline.aperture_fields import fields_of

    return fields_of(correction)


REPROCESS_VISIT_IMAGE = Step(
    name="reprocess_visit_image",
    version=1,
    configuration=ReprocessVisitImageConfig,
    work=_reprocess_visit_image,
    inputs=(
        RAW,
        _PRELIMINARY,
        f"{_FINAL_SKY}|{_PRELIMINARY_SKY}",
        "aperture_correction",
        f"table:{_SUMMARY}?",
    ),
    outputs=(
        Image(name="visit_image", sky=(_FINAL_SKY, _PRELIMINARY_SKY), objects=(("psf", "visit_image_psf"),)),
        Object(name="visit_image_psf"),
        Table(name="source", by_day=True, bytes_per_megapixel=_BYTES_PER_MEGAPIXEL),
    ),
    memory_images=8.0,
    seconds_per_megapixel=0.5,
)
