"""``skysub report``: one HTML file that shows what a campaign made, and needs nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub._version import __version__
from skysub.campaign.campaign import open_campaign
from skysub.campaign.status import others
from skysub.campaign.store.address import place_at
from skysub.errors import OutputError
from skysub.report.charts import Chart, Point, distribution, short, through_campaign
from skysub.report.failures import failure_groups
from skysub.report.large import part_of, troubled_first, visit_table
from skysub.report.outliers import DEVIATIONS, FEWEST, find_outliers
from skysub.report.panels import common_scales, visit_cards
from skysub.report.reference import reference_of
from skysub.report.rows import Row, common_units, label_of, rows_of
from skysub.report.tables import beside, cost_of, detector_table, figure_names, outlier_table, span
from skysub.report.templating import environment, template_text
from skysub.report.verdict import counted_flags, verdict_of
from skysub.report.views import BUDGET, edge_for, most_pictured, views_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from skysub.campaign.campaign import Campaign
    from skysub.campaign.status import Failure, Status
    from skysub.report.outliers import Outlier
    from skysub.report.reference import Reference
    from skysub.report.views import View

__all__ = ["write_report"]

LARGE = 20_000
"""Detectors of which a report is one file at most; of more it is an index, and visits have pages."""
PAGES = 4
"""Visits of a large campaign that have pages without being asked for."""
MOST_FAILURES = 2_000
"""Failures that an index shows."""
MOST_DISTRIBUTIONS = 12
POINTING = {"ra", "dec", "zenithDistance"}
"""Figures whose distribution says nothing."""


@dataclass(frozen=True)
class _Figure:
    """A chart with its heading."""

    title: str
    unit: str
    chart: Chart


@dataclass(frozen=True)
class _Stat:
    """A number of the summary."""

    label: str
    value: str
    note: str
    alarming: bool = False


def write_report(
    output: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    visits: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    against: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Write what a campaign made as one HTML file that works without a network.

    Of more than 20,000 detectors the file is an index, a row for each visit; visits have pages of their own
    in the folder ``report`` beside it: some, those with failures first, and all that were asked for before.

    Parameters
    ----------
    output
        Folder or address of the campaign, which may still be running.
    path
        The file; ``report.html`` in that folder by default, in the current one for a campaign elsewhere.
        It is replaced whole or not at all.
    visits
        Write the pages of these visits alone, and of a large campaign its index; all by default.
    progress
        Called with the number of detectors that were looked at, and the number of all.
    against
        Campaigns before this one, whose figures say what is usual; pages of detectors compare with them.

    Returns
    -------
    path
        The file that was written. Its pictures have 24 million elements in all at most: detectors are
        binned the more, the more there are, and of more than some 7,000 only a part has pictures, those
        of visits with failures and outliers first. Detectors are read one by one, as many at a time
        as there are cores, four at most.

    Raises
    ------
    CampaignNotFoundError
        When there is no campaign.
    OutputError
        When the file cannot be written, or is an address.
    """
    if path is not None and "://" in os.fspath(path):
        raise OutputError(
            f"the report {os.fspath(path)} cannot be written: a report is written to a local file. "
            "Choose a path on this machine, and copy it from there"
        )
    campaign = open_campaign(output)
    target = campaign.path.local_directory() / "report.html" if path is None else Path(path)
    _check_writable(target)
    reference = reference_of(against)
    status = campaign.status()
    if sum(row["detectors"] for row in status.by_visit) > LARGE:
        return _write_large(campaign, status, target, visits, progress, reference=reference)
    if visits is not None:
        status = part_of(status, visits)
    _write_one(campaign, status, target, visits, progress, reference=reference)
    return target


def _write_large(
    campaign: Campaign,
    status: Status,
    target: Path,
    visits: Collection[int] | None,
    progress: Callable[[int, int], None] | None,
    *,
    reference: Reference | None,
) -> Path:
    """Write the index of a large campaign, and pages of some visits."""
    folder = target.with_suffix("")
    with _writing(folder):
        folder.mkdir(exist_ok=True)
    for visit in troubled_first(status)[:PAGES] if visits is None else visits:
        alone = part_of(status, [visit])
        _write_one(campaign, alone, folder / f"{visit}.html", [visit], progress, reference=reference)
    pages = {path.stem for path in folder.glob("*.html")}
    columns, rows = visit_table(campaign, status, {page: f"{folder.name}/{page}.html" for page in pages})
    shown = replace(status, failures=status.failures[:MOST_FAILURES])
    context = _frame(campaign, shown, [("visits", "Visits")], has_rows=True)
    context |= {
        "summary": _summary(status, []),
        "verdict": verdict_of(status, []),
        "visits": rows,
        "visit_columns": columns,
        "visits_note": (
            "Figures are medians over the detectors of a visit. A click on a heading sorts. Linked visits "
            f"have a page; `skysub report {status.output} --visit NUMBER` makes those of others."
        ),
        "folder": folder.name,
    }
    _save(target, environment().get_template("index.html").generate(context))
    return target


def _write_one(
    campaign: Campaign,
    status: Status,
    target: Path,
    visits: Collection[int] | None,
    progress: Callable[[int, int], None] | None,
    *,
    reference: Reference | None,
) -> None:
    rows = list(rows_of(campaign, visits))
    chosen = _pictured(rows, status.failures, find_outliers(rows))
    edge = edge_for(max(1, len(chosen)))
    views = list(views_of(campaign, [(row.visit, row.detector) for row in chosen], edge, progress))
    rows = _with_shares(rows, views)
    _save(target, _page(campaign, status, rows, views, reference))


def _page(
    campaign: Campaign, status: Status, rows: list[Row], views: list[View], reference: Reference | None
) -> Iterable[str]:
    sections = []
    if rows:
        sections = [("visits", "Visits"), ("distributions", "Distributions"), ("outliers", "Outliers")]
        sections += [("against", f"Beside {reference.name}")] if reference is not None else []
        sections += [("detectors", "Detectors"), ("cost", "Cost")]
    context = _frame(campaign, status, sections, has_rows=bool(rows))
    outliers = find_outliers(rows)
    flags = counted_flags((name, row.visit, (row.detector,)) for row in reversed(rows) for name in row.flags)
    context |= {
        "summary": _summary(status, rows),
        "done": bool(rows),
        "verdict": verdict_of(status, flags, len(outliers)),
        "flags": flags,
        "against": None,
    }
    if rows and reference is not None:
        unusual = reference.outliers(rows)
        name = reference.name
        context |= {
            "verdict": verdict_of(status, flags, len(outliers), unusual=len(unusual), against=name),
            "against": beside(reference, rows, unusual),
        }
    if rows:
        context |= _results(rows, views, status.failures, outliers)
    return environment().get_template("report.html").generate(context)


def _frame(
    campaign: Campaign, status: Status, sections: Sequence[tuple[str, str]], *, has_rows: bool
) -> dict[str, Any]:
    """What all pages have."""
    records = [(name, campaign.run_record(name)) for name in reversed(campaign.runs)]
    script = template_text("report.js")
    # a policy of the page itself: this very script, and nothing from anywhere else
    script_hash = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    failed = [("failures", "Failures")] if status.failures else []
    return {
        "title": place_at(status.output).absolute().name,
        "step": status.step,
        "lede": _lede(status, records, has_rows=has_rows),
        "sections": [("summary", "Summary"), *failed, *sections, ("settings", "Settings")],
        "failures": failure_groups(status.failures, one_step=len(status.by_step) < 2),
        "failures_note": _failures_note(status),
        "runs": [_record(name, record) for name, record in records],
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "style": template_text("report.css"),
        "script": script,
        "script_hash": script_hash,
    }


def _results(
    rows: list[Row], views: list[View], failures: Sequence[Failure], outliers: list[Outlier]
) -> dict[str, Any]:
    outlier_columns, outlier_rows = outlier_table(outliers)
    detector_columns, detector_rows = detector_table(rows)
    outlying = {(each.row.key, each.name) for each in outliers}
    compared = [name for name in figure_names(rows) if name not in POINTING]
    distributions = [made for name in compared if (made := _distribution(rows, name, outlying)) is not None]
    return {
        "visits": visit_cards(rows, views, failures, common_scales(views)),
        "pictures_note": _pictures_note(rows, views),
        "through": _through(rows, outlying),
        "distributions": distributions[:MOST_DISTRIBUTIONS],
        "outliers": outlier_rows,
        "outlier_columns": outlier_columns,
        "outliers_note": _outliers_note(rows, outliers),
        "detectors": detector_rows,
        "detector_columns": detector_columns,
        "cost": cost_of(rows),
    }


def _pictured(rows: list[Row], failures: Sequence[Failure], outliers: list[Outlier]) -> list[Row]:
    """Detectors that get pictures: all, or else whole visits, those in trouble first."""
    room = most_pictured()
    if len(rows) <= room:
        return rows
    by_visit: dict[int, list[Row]] = {}
    for row in rows:
        by_visit.setdefault(row.visit, []).append(row)
    first = dict.fromkeys(
        [
            *(failure.visit for failure in failures if failure.visit in by_visit),
            *(outlier.row.visit for outlier in outliers),
            *by_visit,
        ]
    )
    chosen = set()
    for visit in first:
        own = by_visit[visit] if visit is not None else []
        if len(own) <= room:
            chosen.add(visit)
            room -= len(own)
    return [row for row in rows if row.visit in chosen]


def _with_shares(rows: list[Row], views: list[View]) -> list[Row]:
    """Rows with what only the pixels tell: covered by sources, covered by defects, rms of residuals."""
    seen = {(view.visit, view.detector): view for view in views if view.pictures}
    made = []
    for row in rows:
        view = seen.get((row.visit, row.detector))
        if view is not None:
            residual = view.pictures["residual"]
            known = residual[np.isfinite(residual)].astype(np.float64)
            figures = {
                **row.figures,
                "residual": float(np.sqrt(np.mean(known**2))) if known.size else math.nan,
                "covered_by_sources": 100 * float(view.pictures["sources"].mean()),
                "covered_by_defects": 100 * float(view.pictures["defects"].mean()),
            }
            made.append(replace(row, figures=figures))
        else:
            made.append(row)
    return made


def _summary(status: Status, rows: list[Row]) -> list[_Stat]:
    counts = status.counts
    unreadable = others({"unreadable": counts["unreadable"]}).removeprefix(", ")
    detectors = sum(row["detectors"] for row in status.by_visit)
    waiting = [f"{counts['waiting']:,} waiting for these"] if counts["waiting"] else []
    bands = ", ".join(sorted({row.band for row in rows} - {""}))
    tiles = [
        _Stat("Visits", f"{len(status.by_visit):,}", f"band {bands}" if bands else ""),
        _Stat("Detectors", f"{detectors:,}", "planned"),
        _Stat(
            "Done", f"{counts['done']:,}", f"{counts['left']:,} left" if counts["left"] else "nothing left"
        ),
        _Stat(
            "Failed",
            f"{counts['failed']:,}",
            ", ".join([*waiting, *([f"and {unreadable}"] if unreadable else [])]),
            alarming=counts["failed"] + counts["unreadable"] > 0,
        ),
    ]
    if len(status.by_step) > 1:
        tiles += [
            _Stat(
                each["step"],
                f"{each['done']:,}",
                f"of {each['units']:,} {each['scope']}s{others(each)}",
                alarming=each["failed"] > 0,
            )
            for each in status.by_step
        ]
    levels: dict[str, list[float]] = {}
    for row in rows:
        value = row.figures.get("sky")
        if isinstance(value, (int, float)) and math.isfinite(value):
            levels.setdefault(row.unit, []).append(value)
    for unit, values in levels.items():
        low, high = short(min(values)), short(max(values))
        value = low if low == high else f"{low} – {high}"
        tiles.append(_Stat("Sky level", value, f"{unit} per pixel"))
    if rows:
        seconds = [sum(row.timings.values()) for row in rows]
        note = f"{short(float(np.median(seconds)))} s per detector"
        tiles.append(_Stat("Work", span(sum(seconds)), note))
    return tiles


def _lede(status: Status, records: list[tuple[str, dict[str, Any]]], *, has_rows: bool) -> str:
    runs = f"{len(records)} run{'s' if len(records) > 1 else ''}"
    versions = records[0][1].get("versions", {})
    made_by = f", last planned by skysub {versions['skysub']}" if "skysub" in versions else ""
    if not has_rows:
        return f"{runs}{made_by}; nothing is done yet."
    return f"{runs}{made_by}, in {place_at(status.output).absolute()}"


def _pictures_note(rows: list[Row], views: list[View]) -> str:
    edge = max((max(view.pictures["image"].shape) for view in views if view.pictures), default=0)
    words = (
        "The focal plane as the camera sees it, row 0 at the bottom. Model and superpixels of a visit share "
        "one scale; residuals, errors and noise have one over the whole campaign. Residuals are image minus "
        "model, without masked pixels; grey is what is left out or unknown, hatched a detector that failed. "
        f"A click shows a detector full size, in {edge} cells a side"
    )
    if len(views) == len(rows):
        return f"{words}, so that the pictures have {BUDGET // 10**6} million elements at most."
    visits = len({view.visit for view in views})
    return (
        f"{words}. With {len(rows):,} detectors only {visits:,} visits have pictures: those with failures "
        "and outliers, then the first ones."
    )


def _outliers_note(rows: list[Row], outliers: list[Outlier]) -> str:
    rule = (
        f"A detector is named when a figure lies more than {DEVIATIONS:g} robust standard deviations from "
        f"the median of its band; it takes {FEWEST} detectors of a band to say so."
    )
    if outliers:
        return rule
    return f"{rule} There are none." if len(rows) >= FEWEST else rule


def _distribution(rows: list[Row], name: str, outlying: set[tuple[str, str]]) -> _Figure | None:
    points = _points(rows, name, outlying)
    if len(points) < 2 or len({point.value for point in points}) < 2:
        return None
    label, unit = label_of(name, *common_units(rows))
    return _Figure(label, unit, distribution(points))


def _through(rows: list[Row], outlying: set[tuple[str, str]]) -> _Figure | None:
    units = list(dict.fromkeys(row.unit for row in rows))
    by_visit: dict[int, list[Row]] = {}
    for row in rows:
        by_visit.setdefault(row.visit, []).append(row)
    # one axis cannot hold several units
    if len(units) > 1 or len(by_visit) < 2:
        return None
    visits = [(str(visit), _points(own, "sky", outlying)) for visit, own in by_visit.items()]
    if not any(points for _, points in visits):
        return None
    return _Figure("Sky level, visit by visit", f"{units[0]} per pixel", through_campaign(visits))


def _points(rows: list[Row], name: str, outlying: set[tuple[str, str]]) -> list[Point]:
    points = []
    for row in rows:
        value = row.figures.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            who = f"visit {row.visit} detector {row.detector}"
            points.append(Point(float(value), row.key, who, (row.key, name) in outlying))
    return points


def _failures_note(status: Status) -> str:
    counts = {name: status.counts[name] for name in ("failed", "waiting", "unreadable")}
    return f"{status.counts['done']} units done{others(counts)}."


def _record(name: str, record: dict[str, Any]) -> dict[str, str]:
    # lists of a survey's detectors would fill the page
    text = json.dumps({key: value for key, value in record.items() if key != "detectors"}, indent=2)
    return {"name": name, "when": str(record.get("created", "")), "text": text}


def _check_writable(target: Path) -> None:
    """Refuse what `_save` could not write, before all detectors are read."""
    if target.is_dir():
        raise OutputError(f"the report {target} cannot be written: it is a folder. Name a file in it")
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"the report {target} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the report {target} cannot be written: {folder} is read-only for you")


def _save(target: Path, parts: Iterable[str]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    try:
        with _writing(target):
            with partial.open("w", encoding="utf-8") as file:
                file.writelines(parts)
            os.replace(partial, target)  # noqa: PTH105
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"the report {target} cannot be written: {error}") from error
