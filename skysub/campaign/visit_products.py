"""Products of one visit, all detectors together: each marker is read once, and no look is taken twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skysub.campaign.context import chain_of
from skysub.campaign.figures import step_of
from skysub.campaign.products.image import Image
from skysub.campaign.reading import Finished, entry_of
from skysub.errors import NotDoneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.campaign.current import Current, Speaker, VisitView
    from skysub.campaign.products.base import Entry, Product
    from skysub.campaign.records import Marker

__all__ = ["VisitProducts"]


class VisitProducts:
    """What the finished units of a visit made.

    Of a visit that is under way it is what was done when it was first asked for.
    """

    def __init__(self, current: Current, view: VisitView) -> None:
        self._current = current
        self._view = view
        self._read: dict[tuple[str, str], dict[int | None, Marker]] = {}

    @property
    def visit(self) -> int:
        """Its number."""
        return self._view.visit

    def markers(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Go through the finished detectors of the last step over detectors, and their markers."""
        for detector in self._view.exposures:
            step = step_of(self._current, self._view.newest[detector])
            found = self._finished(step, detector)
            if found is not None:
                yield detector, found.marker.as_json()

    def names(self, kind: str) -> dict[str, str]:
        """Products of a kind that belong to detectors, in the order they are made, and their steps."""
        chain = chain_of(self._current.runs[-1])
        return {
            name: chain.makers[name]
            for name, product in chain.products.items()
            if product.kind == kind and chain[chain.makers[name]].step.of(product) == "detector"
        }

    def value(self, name: str, detector: int) -> Any:
        """Return a product of a detector, None where it is not there (yet).

        Raises
        ------
        DamagedError
            When it is not as it was written.
        """
        found = self._maker(name, detector)
        try:
            return None if found is None else found.product(name, detector)
        except NotDoneError:
            return None

    def image(self, name: str, detector: int) -> tuple[Image, Entry] | None:
        """Return an image without reading it, and what its marker says of it; None where it is not there."""
        found = self._maker(name, detector)
        if found is None:
            return None
        product: Product = chain_of(found.run)[found.step].step.output(name)
        try:
            entry = entry_of(found.run, found.plan, found.marker, name, detector)
        except NotDoneError:
            return None
        return (product, entry) if isinstance(product, Image) and entry is not None else None

    def _maker(self, name: str, detector: int) -> Finished | None:
        for run in reversed(self._current.runs):
            chain = chain_of(run)
            if name in chain.makers:
                step = chain[chain.makers[name]].step
                return self._finished(step.name, None if step.scope == "visit" else detector)
        return None

    def _finished(self, step: str, detector: int | None) -> Finished | None:
        speaker: Speaker | None = self._view.units.get(step, {}).get(detector)
        if speaker is None:
            return None
        key = speaker.run.name, step
        if key not in self._read:
            self._read[key] = speaker.run.markers(step).of_visit(self._view.visit, payload=True)
        marker = self._read[key].get(detector)
        return None if marker is None else Finished(speaker.run, speaker.plan, step, detector, marker)
