"""Rows and columns of the page's tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.figures import FIGURES, figure_named
from skysub.report.charts import short
from skysub.report.colour import css_gradient, sequential
from skysub.report.outliers import numeric_figures
from skysub.report.rows import common_units, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skysub.report.outliers import Outlier
    from skysub.report.reference import Reference
    from skysub.report.rows import Row

__all__ = [
    "Beside",
    "Cell",
    "Column",
    "Cost",
    "Stage",
    "TableRow",
    "beside",
    "cost_of",
    "detector_table",
    "figure_names",
    "outlier_table",
    "span",
]


@dataclass(frozen=True)
class Column:
    """A heading."""

    label: str
    unit: str = ""
    number: bool = True
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and what it is sorted by (None: its words; empty: unknown)."""

    words: str
    sort: str | None = None
    number: bool = False
    link: str = ""
    title: str = ""
    page: str = ""
    """Another file that it leads to."""
    spelled: bool = False
    """Where there is room, the title is shown in place of the words."""


@dataclass(frozen=True)
class TableRow:
    """Cells, and the detector they are about."""

    cells: tuple[Cell, ...]
    key: str = ""


@dataclass(frozen=True)
class Stage:
    """A part of the work and its share of all time."""

    name: str
    share: float
    percent: str
    colour: str


@dataclass(frozen=True)
class Cost:
    """What the campaign cost."""

    words: str
    stages: tuple[Stage, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]


def figure_names(rows: Sequence[Row]) -> list[str]:
    """Figures that are numbers: those with a name for people first, in a fixed order."""
    names = numeric_figures(rows)
    labelled = [name for name, figure in FIGURES.items() if figure.label]
    first = [name for name in labelled if name in names]
    return first + [name for name in names if name not in labelled]


def detector_table(rows: Sequence[Row]) -> tuple[list[Column], list[TableRow]]:
    """All finished detectors, with all their figures."""
    units = common_units(rows)
    names = figure_names(rows)
    columns = [Column("Visit"), Column("Detector"), Column("Band", number=False)]
    columns += [Column(*label_of(name, *units), meaning=figure_named(name).meaning) for name in names]
    columns += [Column("Flags", number=False), Column("Input", number=False)]
    made = []
    for row in rows:
        cells = [_number(row.visit), _number(row.detector, link=row.key), Cell(row.band)]
        cells += [_figure(row.figures.get(name)) for name in names]
        cells.append(Cell(", ".join(row.flags), title="; ".join(row.flags.values()), spelled=True))
        cells.append(Cell(row.path.replace("\\", "/").rsplit("/", 1)[-1], title=row.path))
        made.append(TableRow(tuple(cells), row.key))
    return columns, made


def outlier_table(
    outliers: Sequence[Outlier], median: str = "Median of the band"
) -> tuple[list[Column], list[TableRow]]:
    """Detectors that stand apart, farthest first; ``median`` is what they are compared with."""
    columns = [
        Column("Detector", number=False),
        Column("Band", number=False),
        Column("Figure", number=False),
        Column("Value"),
        Column(median),
        Column("Deviations"),
        Column("Unit", number=False),
    ]
    rows = []
    for each in outliers:
        label, unit = label_of(each.name, each.row.unit, each.row.counts)
        away = f"{each.deviations:+,.1f}".replace("-", "\N{MINUS SIGN}")
        cells = (
            Cell(f"visit {each.row.visit} detector {each.row.detector}", link=each.row.key),
            Cell(each.row.band),
            Cell(label),
            _figure(each.value),
            _figure(each.median),
            Cell(away, f"{each.deviations:.6g}", number=True),
            Cell(unit),
        )
        rows.append(TableRow(cells, each.row.key))
    return columns, rows


@dataclass(frozen=True)
class Beside:
    """A campaign beside those before it."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    """A row for each figure and band."""
    unusual_columns: tuple[Column, ...]
    unusual: tuple[TableRow, ...]
    """Detectors that are far from what they usually are, farthest first."""


def beside(reference: Reference, rows: Sequence[Row], unusual: Sequence[Outlier]) -> Beside:
    """Return what has changed since the campaigns before, and which detectors are unusual."""
    columns = (
        Column("Figure", number=False),
        Column("Band", number=False),
        Column("Median here"),
        Column("Median there"),
        Column("Deviations"),
        Column("Same detectors"),
        Column("Their change"),
        Column("Unit", number=False),
    )
    made = []
    _, counts = common_units(rows)
    for change in reference.changes(rows):
        label, unit = label_of(change.name, change.unit, counts)
        away = f"{change.deviations:+,.1f}".replace("-", "\N{MINUS SIGN}")
        cells = (
            Cell(label),
            Cell(change.band),
            _figure(change.now),
            _figure(change.before),
            Cell(away, f"{change.deviations:.6g}", number=True),
            _number(change.same),
            _figure(change.same_change),
            Cell(unit),
        )
        made.append(TableRow(cells))
    unusual_columns, unusual_rows = outlier_table(unusual, "Usually")
    return Beside(reference.name, columns, tuple(made), tuple(unusual_columns), tuple(unusual_rows))


def cost_of(rows: Sequence[Row]) -> Cost:
    """What each stage of the work took."""
    names = list(dict.fromkeys(name for row in rows for name in row.timings))
    times = {name: np.array([row.timings.get(name, 0.0) for row in rows]) for name in names}
    total = sum(float(each.sum()) for each in times.values())
    whole = np.array([sum(row.timings.values()) for row in rows])
    palette = sequential()
    stages, made = [], []
    for i, name in enumerate(names):
        own = float(times[name].sum())
        share = own / total if total else 0.0
        slowest = rows[int(times[name].argmax())]
        # the dark two thirds of the colours, on which white words can be read
        place = int(20 + 145 * i / max(1, len(names) - 1))
        colour = css_gradient(palette[place : place + 1], 1)[len("linear-gradient(to right, ") : -1]
        stages.append(Stage(name, share, f"{share:.0%}", colour))
        cells = (
            Cell(name),
            _figure(own),
            Cell(f"{share:.1%}", f"{share:.6g}", number=True),
            _figure(float(np.median(times[name]))),
            _figure(float(times[name].max())),
            Cell(f"visit {slowest.visit} detector {slowest.detector}", link=slowest.key),
        )
        made.append(TableRow(cells))
    megapixels = sum(math.prod(row.shape) for row in rows) / 1e6
    hosts = len({row.host for row in rows})
    memory = max(row.peak_memory for row in rows)
    words = (
        f"{span(total)} of work on {hosts} host{'s' if hosts > 1 else ''}: "
        f"{short(float(np.median(whole)))} s for a detector in the median, "
        f"{short(total / megapixels)} s per megapixel; a worker held {memory / 2**20:,.0f} MiB at most."
    )
    columns = (
        Column("Stage", number=False),
        Column("In all", "s"),
        Column("Share"),
        Column("Median", "s"),
        Column("Longest", "s"),
        Column("Where", number=False),
    )
    return Cost(words, tuple(stages), columns, tuple(made))


def span(seconds: float) -> str:
    """Return a time in the two units that matter."""
    if seconds < 60:
        return f"{short(round(seconds, 1))} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def _number(value: int, *, link: str = "") -> Cell:
    return Cell(str(value), str(value), number=True, link=link)


def _figure(value: float | str | None) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    if value is None or not math.isfinite(value):
        return Cell("–", "", number=True)
    return Cell(short(value), f"{value:.9g}", number=True)
