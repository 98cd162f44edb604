"""A visit whose detectors are done: what they made is put together, under one marker in place of theirs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from skysub.campaign.context import chain_of, storing_of
from skysub.campaign.products.base import Entry, Slot

if TYPE_CHECKING:
    from skysub.campaign.records import Marker, WorkUnit
    from skysub.campaign.store.runs import Run

__all__ = ["close_visit"]


def close_visit(run: Run, unit: WorkUnit) -> None:
    """Put the products of a visit's detectors together, as each kind of product does.

    The visit's marker takes the place of its detectors', unless one of them is not done.
    """
    markers = run.markers(unit.step)
    done = markers.of_visit(unit.visit, payload=True)
    planned = {each.detector: each for each in unit.exposures}
    found: dict[int, Marker] = {key: done[key] for key in sorted(planned) if key in done}
    if not found:
        return
    complete = len(found) == len(planned)
    for product in chain_of(run)[unit.step].step.outputs:
        entries = {
            detector: Entry(
                Slot(
                    run=run,
                    step=unit.step,
                    visit=unit.visit,
                    detector=detector,
                    visit_index=unit.visit_index,
                    detector_index=unit.places[detector],
                    shape=planned[detector].shape,
                ),
                marker.products[product.name],
                marker.payload.get(product.name),
            )
            for detector, marker in found.items()
            if product.name in marker.products
        }
        if not entries:
            continue
        for detector, entry in product.gather(entries, storing_of(run), complete=complete).items():
            marker = found[detector]
            found[detector] = dataclasses.replace(
                marker,
                products={**marker.products, product.name: entry.record},
                payload=marker.payload
                if entry.payload is None and product.name not in marker.payload
                else {**marker.payload, product.name: entry.payload},
            )
    if complete:
        markers.finish_visit(unit.visit, list(found.values()))
    else:
        markers.visit_folder(unit.visit).remove_partial()
        markers.failure_path(unit.visit, None).remove()
