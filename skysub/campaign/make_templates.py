"""Templates of a finished campaign: which visits, read detector by detector, and what they have in common."""

from __future__ import annotations

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from skysub.campaign.campaign import Campaign, open_campaign
from skysub.campaign.selection import Selection
from skysub.errors import NotDoneError, SkysubError, TemplatesError
from skysub.pipeline.joint.record import DetectorRecord
from skysub.pipeline.templates.cells import cells_of
from skysub.pipeline.templates.lesson import TemplateVisit
from skysub.pipeline.templates.make import make_templates

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from skysub.pipeline.joint.templates import VisitTemplates
    from skysub.pipeline.templates.cells import SkyCells
    from skysub.pipeline.templates.make import TemplatesConfig

__all__ = ["bands_of", "templates_of_campaign"]

_IMAGE, _BACKGROUND, _FACTS = (
    "preliminary_visit_image",
    "preliminary_visit_image_background",
    "sky_facts",
)


def bands_of(output: str | os.PathLike[str] | Campaign) -> list[str]:
    """Bands of a campaign's visits, each once, in order."""
    campaign = output if isinstance(output, Campaign) else open_campaign(output)
    return sorted({str(band) for band in campaign.visits["band"]})


def templates_of_campaign(
    output: str | os.PathLike[str] | Campaign,
    *,
    band: str | None = None,
    visits: Collection[int] | None = None,
    select: str = "",
    config: TemplatesConfig | None = None,
    threads: int = 1,
    tell: Callable[[str], object] | None = None,
) -> VisitTemplates:
    """Make templates of the visits of a campaign that ran ``calibrate_image``.

    Its images are read once, to bin them into cells; nothing of the campaign is changed.

    Parameters
    ----------
    output
        Folder or address of the campaign, or the campaign itself.
    band
        Of the visits to take; needed where they have several.
    visits, select
        Visits by number, and a condition as ``skysub run --select`` takes it; all by default.
    config
        Settings; ``TemplatesConfig()`` by default.
    threads
        Detectors that are read at a time; the answer is the same.
    tell
        Called with a line for each visit.

    Raises
    ------
    TemplatesError
        When no visit is chosen, they are of several bands, or too few are done.
    CampaignNotFoundError
        When there is no campaign.
    """
    campaign = output if isinstance(output, Campaign) else open_campaign(output)
    numbers = _chosen(campaign, band, visits, select)
    found: list[TemplateVisit] = []
    skipped: dict[int, str] = {}
    for visit in numbers:
        made, why = _visit(campaign, visit, threads)
        if made is None:
            skipped[visit] = why
        else:
            found.append(made)
        if tell is not None:
            tell(f"visit {visit}: " + (why if made is None else f"{len(made.records)} detectors"))
    if len(found) < 2:
        reasons = "; ".join(f"visit {visit}: {why}" for visit, why in list(skipped.items())[:3])
        raise TemplatesError(
            f"{campaign.path}: templates need two visits at least, and {len(found)} of {len(numbers)} "
            f"can be used{f' ({reasons})' if reasons else ''}"
        )
    templates = make_templates(found, config)
    flags = dict(templates.flags)
    if skipped:
        shown = ", ".join(map(str, list(skipped)[:10]))
        flags["visits_not_used"] = f"{len(skipped)} visits were not used: {shown}."
    provenance = {"campaign": str(campaign.path), "runs": " ".join(campaign.runs), **templates.provenance}
    return dataclasses.replace(templates, flags=flags, provenance=provenance)


def _chosen(campaign: Campaign, band: str | None, visits: Collection[int] | None, select: str) -> list[int]:
    table = campaign.visits
    numbers = [int(visit) for visit in table["visit"]]
    unknown = sorted(set(visits or ()) - set(numbers))
    if unknown:
        raise TemplatesError(f"{campaign.path}: there is no visit {', '.join(map(str, unknown[:10]))}")
    if visits is not None:
        numbers = [visit for visit in numbers if visit in visits]
    if select:
        is_meant = Selection(condition=select).chooser()
        numbers = [
            visit
            for visit in numbers
            if is_meant(visit, {n: campaign.exposure(visit, n) for n in campaign.detectors(visit)})
        ]
    bands = {int(visit): str(name) for visit, name in zip(table["visit"], table["band"], strict=True)}
    if band is not None:
        numbers = [visit for visit in numbers if bands[visit] == band]
    of_band = Counter(bands[visit] for visit in numbers)
    if len(of_band) > 1:
        shown = ", ".join(f"{name or 'unknown'} ({count} visits)" for name, count in sorted(of_band.items()))
        raise TemplatesError(f"{campaign.path}: templates are of one band, and there are {shown}: choose one")
    if not numbers:
        known = ", ".join(sorted(set(bands.values()))) or "none"
        raise TemplatesError(
            f"{campaign.path}: no visit is chosen{f' in band {band!r}' if band is not None else ''}; its "
            f"bands are {known}"
        )
    return numbers


def _visit(campaign: Campaign, visit: int, threads: int) -> tuple[TemplateVisit | None, str]:
    """Records and cells of a visit; None, and why, where no detector can be used."""

    def read(detector: int) -> tuple[DetectorRecord, SkyCells] | str:
        try:
            facts = campaign.product(_FACTS, visit, detector)
            if facts is None:
                return "calibrated by a flow that keeps no mask statistics"
            layers = campaign.background(_BACKGROUND, visit, detector)
            image = campaign.visit_image(visit, detector, _IMAGE)
            return DetectorRecord.of(facts, layers[0]), cells_of(image)
        except NotDoneError as error:
            return str(error)
        except SkysubError as error:
            return f"visit {visit} detector {detector}: {error}"

    detectors = campaign.detectors(visit)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        answers = list(pool.map(read, detectors))
    pairs = [answer for answer in answers if not isinstance(answer, str)]
    if not pairs:
        return None, next((answer for answer in answers if isinstance(answer, str)), "it has no detectors")
    records = [record for record, _ in pairs]
    return TemplateVisit(records, {record.detector: cells for record, cells in pairs}), ""
