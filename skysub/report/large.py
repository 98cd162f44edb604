"""What the index of a large campaign says of its visits, and which of them have pages."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.figures import figure_named
from skysub.report.charts import short
from skysub.report.rows import label_of
from skysub.report.tables import Cell, Column, TableRow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from skysub.campaign.campaign import Campaign
    from skysub.campaign.status import Status

__all__ = ["part_of", "troubled_first", "visit_table"]

_SHOWN = (
    "sky",
    "chi2_per_freedom",
    "psfSigma",
    "zeroPoint",
    "magLim",
    "skyNoise",
    "superpixels_used",
    "order",
)
"""Figures that an index shows, where a campaign has them."""


def part_of(status: Status, visits: Collection[int]) -> Status:
    """Return the status of some visits alone."""
    rows = tuple(row for row in status.by_visit if row["visit"] in visits)
    counts = Counter(dict.fromkeys(status.counts, 0))
    for row in rows:
        counts.update({name: row[name] for name in ("done", "failed", "waiting", "left")})
    return replace(
        status,
        by_visit=rows,
        by_step=status.by_step[:1] if len(status.by_step) == 1 else (),
        counts=dict(counts),
        failures=tuple(each for each in status.failures if each.visit in visits),
    )


def troubled_first(status: Status) -> list[int]:
    """Visits of which something is done, those with failures first."""
    there = [row for row in status.by_visit if row["done"]]
    return [row["visit"] for row in sorted(there, key=lambda row: (not row["failed"], row["visit"]))]


def visit_table(
    campaign: Campaign, status: Status, pages: Mapping[str, str]
) -> tuple[list[Column], list[TableRow]]:
    """A row for each visit: counts, and medians of figures over its detectors; ``pages`` by visit."""
    figures = campaign.figures(only=_SHOWN)
    names = [name for name in (*_SHOWN, "seconds") if name in figures.colnames]
    medians = _medians(figures, names)
    columns = [Column("Visit"), Column("Band", number=False), Column("Detectors")]
    columns += [Column(word) for word in ("Done", "Failed", "Waiting", "Left")]
    columns += [Column(*label_of(name), meaning=figure_named(name).meaning) for name in names]
    rows = []
    for row in status.by_visit:
        visit = row["visit"]
        cells = [Cell(str(visit), str(visit), number=True, page=pages.get(str(visit), "")), Cell(row["band"])]
        cells += [_count(row[name]) for name in ("detectors", "done", "failed", "waiting", "left")]
        cells += [_median(value) for value in medians.get(visit, [None] * len(names))]
        rows.append(TableRow(tuple(cells)))
    return columns, rows


def _medians(figures: Any, names: list[str]) -> dict[int, list[float | None]]:
    if not len(figures):
        return {}
    visits: NDArray[np.int64] = np.asarray(figures["visit"])
    starts = np.flatnonzero(np.diff(visits, prepend=visits[0] - 1))
    found: dict[int, list[float | None]] = {int(visits[start]): [] for start in starts}
    for name in names:
        values = np.asarray(figures[name])
        for start, piece in zip(starts, np.split(values, starts[1:]), strict=True):
            known = piece[np.isfinite(piece)] if piece.dtype.kind in "fiu" else piece[:0]
            found[int(visits[start])].append(float(np.median(known)) if known.size else None)
    return found


def _count(value: int) -> Cell:
    return Cell(f"{value:,}", str(value), number=True)


def _median(value: float | None) -> Cell:
    if value is None:
        return Cell("–", "", number=True)
    return Cell(short(value), f"{value:.9g}", number=True)
