"""What each page of the dashboard says, as values for its template or as JSON."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from skysub.errors import NotDoneError
from skysub.report.charts import short
from skysub.report.dashboard.pixels import STRETCHES, layers_of
from skysub.report.dashboard.watch import SHOWN
from skysub.report.failures import failure_groups
from skysub.report.previews import previewed
from skysub.report.rows import label_of, row_of
from skysub.report.tables import detector_table
from skysub.report.templating import environment
from skysub.report.verdict import verdict_of
from skysub.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skysub.campaign.status import Failure
    from skysub.report.dashboard.watch import Snapshot

__all__ = [
    "PAGE_ROWS",
    "detector_page",
    "index_page",
    "progress_of",
    "state_of",
    "visit_page",
    "visit_rows",
]

PAGE_ROWS = 100
"""Visits that the index shows at once."""
_UNUSUAL = 100
"""Unusual figures that a page shows."""
_REASONS = 200
"""Reasons of failures that the index shows."""


def index_page(snapshot: Snapshot) -> dict[str, Any]:
    """Values of the index."""
    return {
        "columns": [*(label_of(name, "") for name in SHOWN)],
        "settings": [
            {"name": name, "record": snapshot.campaign.run_record(name)}
            for name in reversed(snapshot.campaign.runs)
        ],
    }


def progress_of(snapshot: Snapshot) -> dict[str, Any]:
    """Counts by step, verdict, flags and failures: what the index asks for again and again."""
    status = snapshot.status
    unusual = sum(len(each.unusual) for each in snapshot.visits.values())
    verdict = verdict_of(status, snapshot.flags(), unusual=unusual, against=snapshot.against)
    return {
        "number": snapshot.number,
        "trouble": snapshot.trouble,
        "output": printable(status.output),
        "runs": len(status.runs),
        "steps": [{**row, "step": printable(row["step"])} for row in status.by_step],
        "counts": status.counts,
        "verdict": {"words": verdict.words, "grade": verdict.grade},
        "flags": [
            {
                "name": printable(flag.name),
                "meaning": flag.meaning,
                "count": flag.count,
                "examples": [[visit, detector] for visit, detector in flag.examples],
            }
            for flag in snapshot.flags()
        ],
        "failures": _failure_articles(status.failures, one_step=len(status.by_step) < 2),
        "failures_in_all": len(status.failures),
        "against": printable(snapshot.against),
        "unusual": _unusual(snapshot, sorted(snapshot.visits, reverse=True)),
        "unusual_in_all": unusual,
    }


def _failure_articles(failures: Sequence[Failure], *, one_step: bool) -> str:
    """Failures as the template of reports writes them."""
    groups = failure_groups(failures, one_step=one_step)[:_REASONS]
    parts: Any = environment().get_template("parts.html").module
    return str(parts.failures(groups, linked=True))


def visit_rows(snapshot: Snapshot, *, first: int, wanted: str) -> dict[str, Any]:
    """Rows of the table of visits, the latest visit first, from place ``first`` on.

    ``wanted`` narrows them: a part of a visit's number, a band, "failed", "left", "waiting", or a flag.
    """
    words = wanted.split()
    rows = [
        row
        for row in reversed(snapshot.status.by_visit)
        if all(_is_wanted(snapshot, row, each) for each in words)
    ]
    made = []
    for row in rows[first : first + PAGE_ROWS]:
        summary = snapshot.visits.get(row["visit"])
        medians = summary.medians if summary is not None else {}
        made.append(
            {
                **{name: row[name] for name in ("visit", "detectors", "done", "failed", "waiting", "left")},
                "band": printable(row["band"]),
                "flags": sum(map(len, summary.flags.values())) if summary is not None else 0,
                "medians": [short(medians[name]) if name in medians else "–" for name in SHOWN],
            }
        )
    return {"rows": made, "first": first, "in_all": len(rows), "page": PAGE_ROWS}


def state_of(snapshot: Snapshot, visit: int) -> Any:
    """What the page of a visit rests on; None where the visit is under way, or there is none."""
    rows = [row for row in snapshot.status.by_visit if row["visit"] == visit]
    if not rows or rows[0]["left"] or visit not in snapshot.visits:
        return None
    visits = [row["visit"] for row in snapshot.status.by_visit]
    return snapshot.campaign.runs, tuple(rows[0].items()), visits[0], visits[-1], len(visits)


def visit_page(snapshot: Snapshot, visit: int) -> dict[str, Any]:
    """Values of a visit's page.

    Raises
    ------
    NotDoneError
        When the campaign has no such visit.
    """
    campaign = snapshot.campaign
    detectors = campaign.detectors(visit)
    state = campaign.visit_status(visit)
    rows, card = previewed(campaign, visit, state.failures)
    columns, table = detector_table(rows) if rows else ([], [])
    visits = [row["visit"] for row in snapshot.status.by_visit]
    at = visits.index(visit)
    return {
        "visit": visit,
        "card": card,
        "band": ", ".join(dict.fromkeys(campaign.exposure(visit, each).band for each in detectors)),
        "words": ", ".join(f"{count:,} {name}" for name, count in state.counts.items() if count),
        "failures": failure_groups(state.failures, one_step=len(snapshot.status.by_step) < 2),
        "flags": snapshot.flags(visit),
        "unusual": _unusual(snapshot, [visit]),
        "against": snapshot.against,
        "columns": columns,
        "rows": table,
        "before": visits[at - 1] if at else None,
        "after": visits[at + 1] if at + 1 < len(visits) else None,
    }


def detector_page(snapshot: Snapshot, visit: int, detector: int) -> dict[str, Any]:
    """Values of a detector's page.

    Raises
    ------
    NotDoneError
        When the campaign has no such detector; one that is not done has a page that says why.
    """
    campaign = snapshot.campaign
    exposure = campaign.exposure(visit, detector)
    detectors = campaign.detectors(visit)
    at = detectors.index(detector)
    page: dict[str, Any] = {
        "visit": visit,
        "detector": detector,
        "before": detectors[at - 1] if at else None,
        "after": detectors[at + 1] if at + 1 < len(detectors) else None,
        "band": exposure.band,
        "path": exposure.path,
        "shape": exposure.shape,
        "trouble": "",
        "layers": {},
        "facts": [],
        "flags": {},
        "timings": [],
        "unit": exposure.unit,
        "stretches": STRETCHES,
    }
    try:
        row = row_of(campaign, visit, detector)
    except NotDoneError as error:
        return page | {"trouble": str(error)}
    page |= {
        "layers": layers_of(campaign, visit, detector),
        "unit": row.unit,
        "flags": dict(row.flags),
        "timings": [(name, short(seconds)) for name, seconds in row.timings.items()],
        "facts": [
            (*label_of(name, row.unit, row.counts), value if isinstance(value, str) else short(value))
            for name, value in row.figures.items()
            if isinstance(value, str) or value == value  # noqa: PLR0124 - NaN is not shown
        ],
    }
    return page


def _unusual(snapshot: Snapshot, visits: Iterable[int]) -> list[dict[str, Any]]:
    """Figures far from what the campaigns before have, visit by visit, the farthest of each first."""
    found = (
        (visit, each)
        for visit in visits
        if visit in snapshot.visits
        for each in snapshot.visits[visit].unusual
    )
    return [
        {
            "visit": visit,
            "detector": each.detector,
            "figure": label_of(each.name)[0],
            "value": short(each.value),
            "usual": short(each.usual),
            "deviations": f"{each.deviations:+,.1f}".replace("-", "\N{MINUS SIGN}"),
        }
        for visit, each in itertools.islice(found, _UNUSUAL)
    ]


def _is_wanted(snapshot: Snapshot, row: dict[str, Any], word: str) -> bool:
    if word in {"failed", "left", "waiting"}:
        return bool(row[word])
    if word == "unusual":
        there = snapshot.visits.get(row["visit"])
        return there is not None and bool(there.unusual)
    if word.isdigit():
        return word in str(row["visit"])
    summary = snapshot.visits.get(row["visit"])
    return word in row["band"].split(",") or (summary is not None and word in summary.flags)
