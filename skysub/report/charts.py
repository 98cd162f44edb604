"""Charts as plain geometry in a frame of fixed size; the page's template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Chart", "Dot", "Point", "Tick", "distribution", "short", "through_campaign"]

MOST_DOTS = 240
"""Values up to which a distribution shows each of them."""
MOST_POINTS = 3000


@dataclass(frozen=True)
class Point:
    """A value of one detector."""

    value: float
    key: str
    """Which detector, as the page links it."""
    name: str
    """The same for people."""
    outlying: bool = False


@dataclass(frozen=True)
class Dot:
    """A point where it is drawn."""

    x: float
    y: float
    point: Point
    words: str


@dataclass(frozen=True)
class Bar:
    """A rectangle, with what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Tick:
    """A number at an axis."""

    at: float
    words: str


@dataclass(frozen=True)
class Chart:
    """What is drawn, in units of the frame; y runs downward as on a screen."""

    width: float
    height: float
    left: float
    """Where the axis begins."""
    base: float
    """Height of the lower axis."""
    dots: tuple[Dot, ...] = ()
    bars: tuple[Bar, ...] = ()
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    radius: float = 3.0
    right: float = 10.0
    """Room to the right of the axis."""


def distribution(points: Sequence[Point]) -> Chart:
    """How values are spread: stacked dots, one per detector, or bars where there are too many.

    Points must be finite; where outliers would squeeze the rest, the axis still reaches them.
    """
    width, height, left, base = 320.0, 112.0, 10.0, 84.0
    values = np.array([point.value for point in points])
    low, high = _span(values)
    inner = width - 2 * left
    x = left + (values - low) / (high - low) * inner
    ticks = tuple(Tick(left + (t - low) / (high - low) * inner, w) for t, w in _round_ticks(low, high, 4))
    if len(points) <= MOST_DOTS:
        columns = 32 if len(points) <= 48 else 48
        column = np.clip(((x - left) / inner * columns).astype(int), 0, columns - 1)
        tallest = int(np.bincount(column).max())
        pitch = min(inner / columns, (base - 10) / tallest)
        heights: dict[int, int] = {}
        dots = []
        for i in np.argsort(values, kind="stable"):
            above = heights.get(int(column[i]), 0)
            heights[int(column[i])] = above + 1
            at = left + (column[i] + 0.5) / columns * inner
            dots.append(_dot(float(at), base - 0.6 * pitch - pitch * above, points[i]))
        return Chart(width, height, left, base, dots=tuple(dots), x_ticks=ticks, radius=0.45 * pitch)
    counts, edges = np.histogram(values, bins=48, range=(low, high))
    tallest = int(counts.max())
    bars = tuple(
        Bar(
            left + i / 48 * inner + 0.4,
            base - (base - 14) * count / tallest,
            inner / 48 - 0.8,
            (base - 14) * count / tallest,
            f"{count} from {short(edges[i])} to {short(edges[i + 1])}",
        )
        for i, count in enumerate(counts.tolist())
        if count
    )
    dots = [_dot(float(x[i]), base - 4, point) for i, point in enumerate(points) if point.outlying]
    return Chart(width, height, left, base, dots=tuple(dots), bars=bars, x_ticks=ticks)


def through_campaign(visits: Sequence[tuple[str, Sequence[Point]]]) -> Chart:
    """One column per visit, in order: the range of its detectors as a bar, and each as a dot.

    Points must be finite; with more than `MOST_POINTS` only those that stand apart are dots.
    """
    width, height, left, base = 960.0, 200.0, 58.0, 168.0
    values = np.array([point.value for _, points in visits for point in points])
    low, high = _span(values)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    inner, tall = width - left - 12, base - 10
    pitch = inner / len(visits)
    dots, bars, x_ticks = [], [], []
    every = max(1, math.ceil(len(visits) * 62 / inner))
    for i, (name, points) in enumerate(visits):
        middle = left + (i + 0.5) * pitch
        if i % every == 0:
            x_ticks.append(Tick(middle, name))
        if not points:
            continue
        own = np.array([point.value for point in points])
        y = base - (own - low) / (high - low) * tall
        broad = min(0.7 * pitch, 44.0)
        bars.append(
            Bar(
                middle - broad / 2,
                float(y.min()) - 1,
                broad,
                float(np.ptp(y)) + 2,
                f"visit {name}: {short(own.min())} to {short(own.max())}, median {short(np.median(own))}",
            )
        )
        for j, point in enumerate(points):
            if len(values) <= MOST_POINTS or point.outlying:
                # side by side within the bar, so that equal values do not hide each other
                aside = ((j + 0.5) / len(points) - 0.5) * 0.7 * broad
                dots.append(_dot(middle + aside, float(y[j]), point))
    y_ticks = tuple(Tick(base - (t - low) / (high - low) * tall, w) for t, w in _round_ticks(low, high, 5))
    crowd = max(len(points) for _, points in visits)
    radius = float(np.clip(min(0.3 * pitch, 20 / math.sqrt(crowd)), 1.2, 3.2))
    return Chart(
        width, height, left, base, tuple(dots), tuple(bars), tuple(x_ticks), y_ticks=y_ticks, radius=radius
    )


def short(value: float) -> str:
    """Return a number in four digits or so."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _dot(x: float, y: float, point: Point) -> Dot:
    return Dot(x, y, point, f"{point.name}: {short(point.value)}")


def _span(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        room = 0.5 if low == 0 else 0.01 * abs(low)
        return low - room, high + room
    return low, high


def _round_ticks(low: float, high: float, about: int) -> list[tuple[float, str]]:
    """Round numbers between two, about so many, each with its words."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [
        (number * step, f"{number * step:,.{digits}f}".replace("-", "\N{MINUS SIGN}"))
        for number in range(first, last + 1)
    ]
