"""What a campaign asks of every kind of product; it knows none of them by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.storage_path import StoragePath
    from skysub.visit.image import VisitImage

__all__ = ["Again", "Entry", "Product", "Scope", "Slot", "Storing"]

Scope = Literal["detector", "visit"]


@dataclass(frozen=True)
class Storing:
    """What a recipe says of products in general."""

    pixels: str = "stored"
    """"stored", or "on_demand": pixels are made from the input again when somebody asks for them."""
    compression: str = "lz4"
    durable: bool = False


@dataclass(frozen=True)
class Slot:
    """Where a product of one unit lies."""

    run: Run
    step: str
    visit: int
    detector: int | None
    visit_index: int
    detector_index: int
    shape: tuple[int, int] | None
    """(ny, nx) of the detector; None for a whole visit."""

    @property
    def index(self) -> tuple[int, int]:
        """Places along the first two axes of the run's arrays."""
        return self.visit_index, self.detector_index

    @property
    def scratch(self) -> StoragePath:
        """Folder of what goes away once the visit is finished."""
        return self.run.markers(self.step).visit_folder(self.visit)


class Again(Protocol):
    """How a unit is looked at again, for a product that is not stored."""

    def visit_image(self) -> VisitImage:
        """Return the unit's input, read anew."""

    def product(self, name: str) -> Any:
        """Return another product of the same unit."""

    def outputs(self) -> Mapping[str, Any]:
        """Do the unit again, and return what it makes."""

    def versions(self) -> Mapping[str, str]:
        """What the unit was done with."""


@dataclass(frozen=True)
class Entry:
    """What the marker of a unit says of one product."""

    slot: Slot
    record: Any
    payload: Any


@dataclass(frozen=True, kw_only=True)
class Product(ABC):
    """A product that a step makes.

    A unit of the step makes one value of it; a step over visits may also make one for each detector
    (``per="detector"``): then the value is a mapping from detectors.
    """

    name: str
    per: Scope | None = None
    """What it belongs to; None: what the step goes over."""
    optional: bool = False
    """Whether units may leave it out."""

    kind: ClassVar[str]
    suffix: ClassVar[str] = "fits"
    """Of its exported files."""

    def room(
        self,
        shapes: Collection[tuple[int, int]],  # noqa: ARG002
        config: Any,  # noqa: ARG002
        units: Collection[str],  # noqa: ARG002
    ) -> dict[str, Any]:
        """What its arrays must have room for: from the shapes of detectors and the units of their pixels."""
        return {}

    def create(
        self,
        run: Run,  # noqa: ARG002
        room: Mapping[str, Any],  # noqa: ARG002
        storing: Storing,  # noqa: ARG002
        *,
        visits: Sequence[int],  # noqa: ARG002
        detectors: Sequence[int],  # noqa: ARG002
    ) -> list[StoragePath]:
        """Make what must be there before work starts, at full length; nothing by default.

        What is there already and sound stays; returns the files that were written.
        """
        return []

    @abstractmethod
    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        """Bytes that one value will take in the store, about."""

    @abstractmethod
    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        """Write the value that ``made`` has under the product's name, and take it out of there.

        Returns what the marker says of it, and what it keeps in the marker; both ready for JSON.
        """

    @abstractmethod
    def read(self, entry: Entry, again: Again) -> Any:
        """Return the value."""

    def gather(self, entries: Mapping[int, Entry], storing: Storing, *, complete: bool) -> dict[int, Entry]:
        """Put a visit's values together, by detector; ``complete``: all that the run plans of them.

        Returns what markers say of them from now on.
        """
        del storing, complete
        return dict(entries)

    def is_sound(self, entry: Entry) -> bool:  # noqa: ARG002
        """Whether what was written is what the marker says."""
        return True

    def serves(self, run: Run, storing: Storing) -> bool:  # noqa: ARG002
        """Whether what a run kept is all that a recipe wants to be kept."""
        return True

    def store(self, run: Run) -> StoragePath | None:  # noqa: ARG002
        """Zarr store whose group of the product's name has its arrays; None where there are none."""
        return None

    def arrays(self, storing: Storing) -> tuple[str, ...]:  # noqa: ARG002
        """Names of its arrays in that group, coordinates left out."""
        return ()

    @abstractmethod
    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        """Return what writes a value to a file of its own."""
