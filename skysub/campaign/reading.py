"""Products of finished units, read where their markers say they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skysub.campaign.context import chain_of, ingest_of
from skysub.campaign.inputs import is_unchanged, known_ingest, stamp
from skysub.campaign.products.base import Entry, Slot
from skysub.campaign.products.image import Image
from skysub.errors import InputChangedError, NotDoneError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from skysub.campaign.current import VisitView
    from skysub.campaign.records import Exposure, Marker, VisitPlan
    from skysub.campaign.store.runs import Run
    from skysub.visit.image import VisitImage

__all__ = [
    "Finished",
    "check_planned",
    "check_shape",
    "entry_of",
    "finished_of",
    "read_and_checksum",
    "read_file",
]

_LOOKS = 3
"""How often a product is looked for: the visit's marker may take the place of its detectors' meanwhile."""


@dataclass(frozen=True)
class Finished:
    """A finished unit of a step: its run, and what that run planned of its visit."""

    run: Run
    plan: VisitPlan
    step: str
    detector: int | None
    marker: Marker
    _kept: dict[str, Any] = field(default_factory=dict, compare=False)

    def product(self, name: str, detector: int | None = None) -> Any:
        """Return a product by name; ``detector`` says of which, where a visit's unit made one of each.

        An optional product that the unit did not make is None.

        Raises
        ------
        NotDoneError
            When the unit made none of that detector.
        """
        product = chain_of(self.run)[self.step].step.output(name)
        for look in range(_LOOKS):
            marker = self.run.markers(self.step).with_payload(self.marker)
            if look:
                again = self.run.markers(self.step).of_unit(self.plan.visit, self.detector, payload=True)
                marker = again or marker
            entry = entry_of(self.run, self.plan, marker, name, detector)
            if entry is None:
                return None
            try:
                return product.read(entry, self)
            except FileNotFoundError:
                if look == _LOOKS - 1:
                    raise
        return None

    def without_pixels(self, name: str, detector: int | None = None) -> VisitImage:
        """Return an image that the unit made, its pixels NaN and not read.

        Raises
        ------
        RecipeError
            When the product is no image.
        NotDoneError
            When the unit made none of that detector.
        """
        product = chain_of(self.run)[self.step].step.output(name)
        marker = self.run.markers(self.step).with_payload(self.marker)
        entry = entry_of(self.run, self.plan, marker, name, detector)
        if not isinstance(product, Image) or entry is None:
            raise RecipeError(f"{name} is no image, but {product.kind}")
        return product.without_pixels(entry, self)

    def visit_image(self) -> VisitImage:
        """Return the unit's input, read anew."""
        assert self.detector is not None
        return read_file(self.run, self.plan.exposures[self.detector], self.marker.input)

    def outputs(self) -> Mapping[str, Any]:
        """Do the unit again, and return what it makes."""
        from skysub.campaign.given import Given
        from skysub.campaign.planned import work_unit

        link = chain_of(self.run)[self.step]
        unit = work_unit(
            self.run, self.plan, self.step, self.detector, missing=dict.fromkeys(self.marker.missing, "")
        )
        return link.step.work(Given(self.run, unit), link.config).products

    def versions(self) -> Mapping[str, str]:
        """What the unit was done with."""
        return self.marker.versions


def entry_of(
    run: Run, plan: VisitPlan, marker: Marker, name: str, detector: int | None = None
) -> Entry | None:
    """What a marker says of a product; None where the unit did not make it.

    Raises
    ------
    NotDoneError
        When a visit's unit made none of that detector.
    """
    if name not in marker.products:
        return None
    record, payload = marker.products[name], marker.payload.get(name)
    of = marker.detector
    if of is None and isinstance(record, dict) and "each" in record:
        if detector is None or str(detector) not in record["each"]:
            raise NotDoneError(f"visit {plan.visit} detector {detector} has no {name}: its step left it out")
        of = detector
        record, payload = record["each"][str(detector)], (payload or {}).get("each", {}).get(str(detector))
    return Entry(slot_of(run, plan, marker.step, of), record, payload)


def finished_of(view: VisitView, step: str) -> Iterator[Finished]:
    """Go through the finished units of a step of a visit, each from its current run."""
    read: dict[str, dict[int | None, Marker]] = {}
    for detector, speaker in view.units.get(step, {}).items():
        run = speaker.run
        if run.name not in read:
            read[run.name] = run.markers(step).of_visit(view.visit)
        marker = read[run.name].get(detector)
        if marker is not None:
            yield Finished(run, speaker.plan, step, detector, marker)


def slot_of(run: Run, plan: VisitPlan, step: str, detector: int | None) -> Slot:
    """Where products of a unit lie."""
    return Slot(
        run=run,
        step=step,
        visit=plan.visit,
        detector=detector,
        visit_index=plan.index,
        detector_index=-1 if detector is None else plan.places[detector],
        shape=None if detector is None else plan.exposures[detector].shape,
    )


def read_file(run: Run, exposure: Exposure, was: Mapping[str, Any] | None = None) -> VisitImage:
    """Read the file of a detector as it was planned; ``was``: what its marker says of the file.

    Raises
    ------
    InputChangedError
        When the file is another one now.
    SkysubError
        What `skysub.read_visit_image` raises.
    """
    return read_and_checksum(run, exposure, was)[0]


def read_and_checksum(
    run: Run, exposure: Exposure, was: Mapping[str, Any] | None = None
) -> tuple[VisitImage, str | None]:
    """Read the file of a detector as `read_file` does, and the checksum of its bytes where that is known."""
    from skysub.visit.fits.read import read_with_checksum

    ingest = ingest_of(run, exposure.source)
    check_planned(exposure, was)
    visit_image, crc32c = read_with_checksum(
        exposure.path, known_ingest(ingest, exposure.known), detector=exposure.detector
    )
    check_shape(exposure, visit_image.shape)
    return visit_image, crc32c


def check_planned(exposure: Exposure, was: Mapping[str, Any] | None = None) -> None:
    """Refuse a file that is another one than planned; ``was``: what a marker says of it.

    Raises
    ------
    InputChangedError
        When it is.
    """
    planned = (exposure.size, exposure.mtime_ns)
    crc = was["crc32c"] if was and stamp(exposure.path) != planned else None
    if not is_unchanged(exposure.path, planned, was=crc):
        raise InputChangedError(
            f"{exposure.path} changed since the campaign was planned: start the same command again"
        )


def check_shape(exposure: Exposure, shape: tuple[int, int]) -> None:
    """Refuse an image of another shape than planned.

    Raises
    ------
    InputChangedError
        When it has one.
    """
    if shape != exposure.shape:
        raise InputChangedError(f"{exposure.path} has the shape {shape}, not {exposure.shape} as planned")
