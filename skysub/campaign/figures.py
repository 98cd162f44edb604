"""Figures of all finished units of a step, as columns; those of finished visits are read column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.status import Looked
from skysub.campaign.store.container import column

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from skysub.campaign.current import Current
    from skysub.campaign.records import Marker
    from skysub.campaign.store.runs import Run

__all__ = ["figures_of", "markers_of", "step_of"]

_FIGURE = "figures."


def step_of(current: Current, run: Run | None = None) -> str:
    """The last step over detectors of a run, the newest by default; of none, the last step."""
    steps = (run or current.runs[-1]).record.steps
    over = [step.name for step in steps if step.scope == "detector"]
    return over[-1] if over else steps[-1].name


def markers_of(
    current: Current,
    step: str | None,
    *,
    visits: Collection[int] | None = None,
    payload: bool = False,
) -> Iterator[tuple[int, int | None, Run, Marker]]:
    """Go through visit, detector, run and marker of finished units; by default each detector's last step."""
    for view in current.views(visits):
        wanted: dict[int | None, str] = (
            dict.fromkeys(view.units.get(step, {}), step)
            if step is not None
            else {
                detector: name
                for detector, run in sorted(view.newest.items())
                if detector in view.units.get(name := step_of(current, run), {})
            }
        )
        read: dict[tuple[str, str], dict[int | None, Marker]] = {}
        for detector, name in wanted.items():
            run = view.units[name][detector].run
            if (run.name, name) not in read:
                read[run.name, name] = run.markers(name).of_visit(view.visit, payload=payload)
            marker = read[run.name, name].get(detector)
            if marker is not None:
                yield view.visit, detector, run, marker


def figures_of(
    current: Current, step: str, only: Collection[str] | None, visits: Collection[int] | None = None
) -> dict[str, NDArray[Any] | list[str]]:
    """Columns by name: visit, detector, band, run, seconds, flags, and figures (all, or ``only`` these)."""
    parts = list(_parts(current, step, only, visits))
    names = list(dict.fromkeys(name for part in parts for name in part))
    counts = [len(part["visit"]) for part in parts]
    return {
        name: _joined([part.get(name) for part in parts], counts)
        for name in names
        if name != "detector" or any(each is not None for part in parts for each in part["detector"])
    }


def _parts(
    current: Current, step: str, only: Collection[str] | None, visits: Collection[int] | None
) -> Iterator[dict[str, Any]]:
    """Columns of one visit after the other."""
    looked = Looked()
    for visit in current.visits if visits is None else sorted(visits):
        naming = current.naming(int(visit))
        if len(naming) == 1:
            run, place = naming[0]
            index = run.index
            alone = not index.holds[place] and "," not in index.band[place]
            if alone and int(visit) in looked.finished(run, step):
                yield _columns(run, step, int(visit), index.band[place], only)
                continue
        view = current.view(int(visit))
        if view is None or step not in view.units:
            continue
        rows = []
        for detector, speaker in view.units[step].items():
            marker = speaker.run.markers(step).of_unit(int(visit), detector)
            if marker is None:
                continue
            row: dict[str, Any] = {"visit": int(visit), "detector": detector}
            row["band"] = speaker.plan.band if detector is None else view.exposures[detector].band
            row |= {"run": speaker.run.name, "seconds": marker.seconds, "flags": ",".join(marker.flags)}
            rows.append(row | {k: v for k, v in marker.figures.items() if only is None or k in only})
        if rows:
            names = dict.fromkeys(name for row in rows for name in row)
            yield {name: [row.get(name) for row in rows] for name in names}


def _columns(run: Run, step: str, visit: int, band: str, only: Collection[str] | None) -> dict[str, Any]:
    markers = run.markers(step)
    place = markers.visit_path(visit)
    header = markers.header(visit)
    if header is None:
        return {"visit": [], "detector": []}
    count = len(header.detectors)
    part: dict[str, Any] = {
        "visit": np.full(count, visit),
        "detector": list(header.detectors),
        "band": [band] * count,
        "run": [run.name] * count,
    }
    for name in header.columns:
        figure = name.removeprefix(_FIGURE)
        wanted = figure in only if only is not None and name.startswith(_FIGURE) else name != "peak_memory"
        if wanted:
            part[figure] = column(place, name)
    return part


def _joined(pieces: list[Any], counts: list[int]) -> NDArray[Any] | list[str]:
    """One column: whole numbers, numbers with NaN where unknown, or words with none where unknown."""
    numbers = [
        np.full(n, np.nan) if piece is None else _numbers(piece)
        for piece, n in zip(pieces, counts, strict=True)
    ]
    if all(each is not None for each in numbers):
        known = [each for each in numbers if each is not None]
        return np.concatenate(known) if known else np.empty(0)
    words: list[str] = []
    for piece, n in zip(pieces, counts, strict=True):
        values = [None] * n if piece is None else list(piece)
        words += ["" if value is None else str(value) for value in values]
    return words


def _numbers(piece: Any) -> NDArray[Any] | None:
    """A piece of a column as numbers; None where it has words."""
    if isinstance(piece, np.ndarray):
        return piece
    if all(type(value) is int for value in piece):
        return np.array(piece, np.int64)
    if all(value is None or (isinstance(value, (int, float)) and type(value) is not bool) for value in piece):
        return np.array([np.nan if value is None else value for value in piece], np.float64)
    return None
