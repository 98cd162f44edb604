"""What each page of the dashboard says, as values for its template or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skysub.campaign.records import who
from skysub.errors import NotDoneError
from skysub.report.charts import short
from skysub.report.dashboard.pixels import STRETCHES, layers_of
from skysub.report.dashboard.watch import SHOWN
from skysub.report.previews import previewed
from skysub.report.rows import label_of, row_of
from skysub.report.tables import detector_table
from skysub.report.verdict import verdict_of
from skysub.text import printable

if TYPE_CHECKING:
    from skysub.report.dashboard.watch import Snapshot

__all__ = ["PAGE_ROWS", "detector_page", "index_page", "progress_of", "visit_page", "visit_rows"]

PAGE_ROWS = 100
"""Visits that the index shows at once."""
_FAILURES = 200


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
    verdict = verdict_of(status, snapshot.flags())
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
        "failures": [
            {
                "visit": failure.visit,
                "detector": failure.detector,
                "who": "input unreadable" if failure.visit is None else who(failure.visit, failure.detector),
                "step": printable(failure.step),
                "path": printable(failure.path),
                "message": printable(failure.message),
                "traceback": "\n".join(map(printable, failure.traceback.split("\n"))),
                "when": failure.when,
            }
            for failure in status.failures[:_FAILURES]
        ],
        "failures_in_all": len(status.failures),
    }


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
        "failures": [
            {
                "who": who(each.visit or visit, each.detector),
                "message": each.message,
                "step": each.step,
                "path": each.path,
                "traceback": each.traceback,
            }
            for each in state.failures
        ],
        "flags": snapshot.flags(visit),
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
            (*label_of(name, row.unit), value if isinstance(value, str) else short(value))
            for name, value in row.figures.items()
            if isinstance(value, str) or value == value  # noqa: PLR0124 - NaN is not shown
        ],
    }
    return page


def _is_wanted(snapshot: Snapshot, row: dict[str, Any], word: str) -> bool:
    if word in {"failed", "left", "waiting"}:
        return bool(row[word])
    if word.isdigit():
        return word in str(row["visit"])
    summary = snapshot.visits.get(row["visit"])
    return word in row["band"].split(",") or (summary is not None and word in summary.flags)
