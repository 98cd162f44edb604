"""Backgrounds: layers of superpixel statistics and coefficients, one chunk per visit."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from skysub.background.model import BackgroundList
from skysub.campaign.products.base import Entry, Product, Slot, Storing
from skysub.campaign.records import who
from skysub.campaign.store.arrays import background_rows, create_backgrounds, write_background_rows
from skysub.campaign.store.backgrounds import FIELDS, as_arrays, from_arrays, inline, outline
from skysub.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from skysub.campaign.products.base import Again
    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Background", "Layout"]


class Layout(NamedTuple):
    """Room that a background needs in the store."""

    layers: int
    grid: tuple[int, int]
    """Superpixels (gy, gx)."""
    terms: int
    """Coefficients of a layer."""


@dataclass(frozen=True, kw_only=True)
class Background(Product):
    """A `skysub.BackgroundList` of a detector."""

    sets: tuple[tuple[str, str], ...] = ()
    """Sets of coefficients that may stand in for each other: word and product, as ("detection", "sky_2")."""
    layout: Callable[[tuple[int, int], Any], Layout]
    """From the shape (ny, nx) of a detector and the step's configuration."""

    kind: ClassVar[str] = "background"

    def room(
        self, shapes: Collection[tuple[int, int]], config: Any, units: Collection[str]
    ) -> dict[str, Any]:
        layouts = [self.layout(shape, config) for shape in shapes]
        return {
            "layers": max((layout.layers for layout in layouts), default=0),
            "grid": [max((layout.grid[axis] for layout in layouts), default=0) for axis in (0, 1)],
            "terms": max((layout.terms for layout in layouts), default=0),
            "unit": next(iter(units)) if len(units) == 1 else "",
        }

    def create(
        self,
        run: Run,
        room: Mapping[str, Any],
        storing: Storing,
        *,
        visits: Sequence[int],
        detectors: Sequence[int],
    ) -> list[StoragePath]:
        del storing
        gy, gx = room["grid"]
        return create_backgrounds(
            run.backgrounds,
            self.name,
            visits=visits,
            detectors=detectors,
            layers=room["layers"],
            grid=(gy, gx),
            terms=room["terms"],
            unit=room["unit"],
        )

    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        del storing
        if shape is None:
            return 0
        layout = self.layout(shape, config)
        gy, gx = layout.grid
        return layout.layers * (13 * gy * gx + 8 * layout.terms * (layout.terms + 1))

    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        del slot, storing
        layers = made.pop(self.name)
        # a unit may write whole chunks alone, so arrays wait in markers until the visit's are all there
        return {"layers": len(layers)}, inline(layers)

    def read(self, entry: Entry, again: Again | None = None) -> BackgroundList:
        del again
        if all("arrays" in layer for layer in entry.payload):
            return outline(entry.payload)
        slot = entry.slot
        rows = background_rows(
            slot.run.backgrounds, self.name, *slot.index, of=who(slot.visit, slot.detector)
        )
        return BackgroundList(
            [
                from_arrays(layer, {name: rows[name][number] for name in FIELDS})
                for number, layer in enumerate(entry.payload)
            ]
        )

    def gather(self, entries: Mapping[int, Entry], storing: Storing, *, complete: bool) -> dict[int, Entry]:
        """Write the backgrounds of a visit as one chunk; their arrays leave the markers, where they fit."""
        first = next(iter(entries.values())).slot
        unfit = write_background_rows(
            first.run.backgrounds,
            self.name,
            first.visit_index,
            {
                each.slot.detector_index: [as_arrays(layer) for layer in self.read(each)]
                for each in entries.values()
            },
            # the markers that hold them otherwise go right after
            durable=storing.durable,
            scratch=first.scratch,
        )
        if not complete:
            return dict(entries)
        return {
            detector: entry
            if entry.slot.detector_index in unfit
            else Entry(entry.slot, entry.record, [_bare(layer) for layer in entry.payload])
            for detector, entry in entries.items()
        }

    def is_sound(self, entry: Entry) -> bool:
        try:
            self.read(entry)
        except DamagedError:
            return False
        return True

    def arrays(self, storing: Storing) -> tuple[str, ...]:
        del storing
        return tuple(FIELDS)

    def store(self, run: Run) -> StoragePath | None:
        return run.backgrounds

    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        from skysub.visit.fits.background import write_background

        del options
        return functools.partial(write_background, value)


def _bare(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in layer.items() if name != "arrays"}
