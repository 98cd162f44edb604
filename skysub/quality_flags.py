"""Quality flags: their names, what each means, and whether a person should look.

A step gives each flag a sentence with its numbers (``result.flags``, markers, `Campaign.status`). What the
flag means in general stands here, once, for the report, the dashboard and the docs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["QUALITY_FLAGS", "QualityFlag", "asks_for_a_look", "meaning_of"]


@dataclass(frozen=True, slots=True)
class QualityFlag:
    """One quality flag.

    Parameters
    ----------
    name
        Its name in results, markers and reports.
    meaning
        What it says of a detector or a visit, in a sentence.
    kind
        "note": it tells what was done, and nothing is wrong. "doubt": a number may be worse than usual, so
        that a person should look before it is trusted.
    given_by
        The steps or functions that give it.
    """

    name: str
    meaning: str
    kind: Literal["note", "doubt"]
    given_by: str


_SKY, _VISIT, _FINAL, _DESK = "calibrate_image", "visit_background", "reprocess_visit_image", "subtract"
_TEMPLATES = "templates"

_ALL = (
    QualityFlag(
        "again", "The header says that the sky was gone before, and it was subtracted again.", "doubt", _DESK
    ),
    QualityFlag("amplifiers", "The background includes steps and drift of amplifiers.", "note", _SKY),
    QualityFlag(
        "background_extrapolated",
        "No sky was seen in part of the detector; the model is uncertain there, and its uncertainty says so.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "background_not_converged",
        "Mask and background still changed each other after the last turn.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "background_order_reduced",
        "Too few superpixels show sky for the order asked for; the background is simpler.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "checksum", "The file's checksum does not hold, though its pixels can be read.", "doubt", _DESK
    ),
    QualityFlag(
        "crowded",
        "Sources leave no sky between them; the background was measured on the darkest pixels and lies too "
        "high.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "detector_offset", "The detector stands out from the others and has an offset.", "note", _VISIT
    ),
    QualityFlag("detectors_apart", "Some detectors cannot be part of the joint fit.", "doubt", _VISIT),
    QualityFlag("detectors_missing", "Some detectors of the visit are missing or failed.", "doubt", _VISIT),
    QualityFlag(
        "detectors_without_facts",
        "Some detectors were calibrated by a flow that keeps no mask statistics; each keeps its own "
        "background.",
        "doubt",
        _VISIT,
    ),
    QualityFlag(
        "few_visits",
        "The templates were made of few visits and are less certain for it.",
        "doubt",
        _TEMPLATES,
    ),
    QualityFlag(
        "input_mended",
        "Reading the input had to mend something, such as a variance that is bad in some pixels.",
        "doubt",
        "reading",
    ),
    QualityFlag(
        "level_uncertain",
        "Little sky was seen in the detector, and nothing else tells its offset.",
        "doubt",
        _VISIT,
    ),
    QualityFlag(
        "mask_budget",
        "Sources leave little sky; they are masked less far out than usual, and the background may lie too "
        "high.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "mask_ran_away",
        "The source mask grew from turn to turn until it left no sky, and an earlier one was kept.",
        "doubt",
        _SKY,
    ),
    QualityFlag("no_aperture_correction", "An aperture correction is missing.", "doubt", _FINAL),
    QualityFlag(
        "no_calibration_error",
        "The error of the photometric calibration is not known; errors of fluxes do not hold it.",
        "note",
        _FINAL,
    ),
    QualityFlag("no_noise", "The pixels show no noise, so that no source could be found.", "doubt", _SKY),
    QualityFlag(
        "no_photometric_zero_point",
        "No star of the reference has a magnitude and a flux here.",
        "doubt",
        _SKY,
    ),
    QualityFlag("no_psf_stars", "No object looks like a star, so that there is no PSF.", "doubt", _SKY),
    QualityFlag(
        "no_variance", "The variance is missing; noise was measured from neighbouring pixels.", "note", _SKY
    ),
    QualityFlag(
        "no_vote",
        "An object fills the detector; its sky was taken from the other detectors of the visit.",
        "doubt",
        _VISIT,
    ),
    QualityFlag(
        "no_zero_points",
        "There are no zero points, for want of stars or of world coordinates.",
        "doubt",
        _SKY,
    ),
    QualityFlag("noise_unknown", "No noise can be measured.", "doubt", _FINAL),
    QualityFlag(
        "offset_changed", "The detector's offset is not the one that the templates tell.", "doubt", _VISIT
    ),
    QualityFlag("per_detector", "Every detector of the visit keeps its own background.", "doubt", _VISIT),
    QualityFlag(
        "pointings_alike",
        "The visits point alike, so that light on the sky may be in the templates.",
        "doubt",
        _TEMPLATES,
    ),
    QualityFlag(
        "psf_order_reduced",
        "Few stars serve; the PSF varies over the detector by a lower order.",
        "doubt",
        _SKY,
    ),
    QualityFlag("reference_no_matches", "No star matches one of the reference catalogue.", "doubt", _SKY),
    QualityFlag("reference_no_overlap", "The reference catalogue has no star in this field.", "doubt", _SKY),
    QualityFlag("sky_near_zero", "The sky is near zero: it may have been subtracted before.", "doubt", _DESK),
    QualityFlag(
        "sky_structure",
        "The sky has structure that the background does not follow; faint extended light of that brightness "
        "cannot be told from it.",
        "doubt",
        f"{_SKY}, {_VISIT}",
    ),
    QualityFlag(
        "superpixels_starved",
        "Sources leave too little sky in some superpixels, which were not used.",
        "note",
        _SKY,
    ),
    QualityFlag(
        "templates_lack_detectors", "The templates lack some detectors of the visit.", "doubt", _VISIT
    ),
    QualityFlag(
        "templates_unused", "The templates given do not fit the visit and were not used.", "doubt", _VISIT
    ),
    QualityFlag(
        "too_crowded",
        "Part of the image is so crowded that the faintest sources were left out there.",
        "doubt",
        _FINAL,
    ),
    QualityFlag(
        "variance_disagrees",
        "Neighbouring pixels scatter otherwise than the variance says; the sky rests on the pixels.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "variance_repaired",
        "Some usable pixels had no variance above 0 and were given that of the sky near by.",
        "doubt",
        _FINAL,
    ),
    QualityFlag(
        "variance_unknown", "The variance says nothing; noise was measured on the pixels.", "doubt", _FINAL
    ),
    QualityFlag(
        "vignetted",
        "Nearly all pixels are vignetted; the background was measured on them all the same.",
        "doubt",
        _SKY,
    ),
    QualityFlag(
        "visits_left_out",
        "Some visits have no joint fit and were left out of the templates.",
        "note",
        _TEMPLATES,
    ),
    QualityFlag("visits_not_used", "Some visits were not used for the templates.", "note", _TEMPLATES),
    QualityFlag("votes_lost", "Some detectors have no vote on their own level.", "doubt", _VISIT),
)

QUALITY_FLAGS = {flag.name: flag for flag in _ALL}
"""All quality flags that skysub's own steps give, by name."""


def asks_for_a_look(name: str) -> bool:
    """Whether a person should look at what has this flag.

    A name may end in the number of a detector, as the flags of a visit have it. Flags of steps that skysub
    does not know ask for a look.
    """
    flag = _described(name)
    return flag is None or flag.kind == "doubt"


def meaning_of(name: str) -> str:
    """What a flag means; empty where skysub does not know it. A name may end in the number of a detector."""
    flag = _described(name)
    return "" if flag is None else flag.meaning


def _described(name: str) -> QualityFlag | None:
    head, _, number = name.rpartition("_")
    return QUALITY_FLAGS.get(head if number.isdigit() else name)
