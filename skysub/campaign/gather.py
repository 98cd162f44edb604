"""A visit whose detectors are done: their backgrounds move from the markers into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skysub.background.model import BackgroundList
from skysub.campaign.context import configured_step, run_at
from skysub.campaign.steps import product_names
from skysub.campaign.store.arrays import background_rows, remove_partial, write_background_rows
from skysub.campaign.store.backgrounds import FIELDS, as_arrays, from_arrays, outline
from skysub.campaign.store.place import writing
from skysub.campaign.store.runs import Unit
from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skysub.campaign.store.runs import Run

__all__ = ["gather_visit", "stored_background"]


def gather_visit(folder: str, lines: list[str]) -> str:
    """Move the backgrounds of a visit's detectors from their markers into the store, as one chunk.

    The visit's marker takes the place of its detectors', unless one of them is not done. Returns what
    keeps the output from being written; nothing where all is well.
    """
    units = [Unit.from_json(line) for line in lines]
    visit = units[0].visit
    try:
        run = run_at(folder)
        with writing(run.folder):
            _gather(run, visit, units)
    except OutputError as error:
        return str(error)
    return ""


def stored_background(run: Run, marker: Mapping[str, Any], index: tuple[int, int]) -> BackgroundList:
    """Background of a finished unit: from its marker, or from the store once its visit was gathered."""
    described_layers = marker["background"]
    if all("arrays" in layer for layer in described_layers):
        return outline(described_layers)
    rows = background_rows(run.backgrounds, product_names(run.record)[1], *index)
    return BackgroundList(
        [
            from_arrays(layer, {name: rows[name][number] for name in FIELDS})
            for number, layer in enumerate(described_layers)
        ]
    )


def _gather(run: Run, visit: int, units: list[Unit]) -> None:
    step, _ = configured_step(run)
    markers = run.markers.of_visit(visit)
    if not markers:
        return
    at = {unit.detector: unit.detector_index for unit in units}
    index = units[0].visit_index
    layers = {
        detector: stored_background(run, marker, (index, at[detector]))
        for detector, marker in markers.items()
    }
    unfit = write_background_rows(
        run.backgrounds,
        step.background_product,
        index,
        {at[detector]: [as_arrays(layer) for layer in found] for detector, found in layers.items()},
        # the markers that hold them otherwise go right after
        durable=run.record["products"]["durable"],
    )
    for unit in units:
        remove_partial(run.images, step.product, (index, unit.detector_index))
    if len(markers) < len(units):
        return
    for detector, marker in markers.items():
        if at[detector] not in unfit:
            # the arrays are in the store now; what describes them stays
            marker["background"] = [
                {name: value for name, value in layer.items() if name != "arrays"}
                for layer in marker["background"]
            ]
    record = {
        "step": step.name,
        "visit": visit,
        "detectors": {str(detector): markers[detector] for detector in sorted(markers)},
    }
    run.markers.finish_visit(visit, record)
