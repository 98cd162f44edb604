"""What a release asks of every kind of product; there is one part for each product of the release."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from zarr import Array
from zarr.codecs import BloscCodec, Crc32cCodec

from skysub.campaign.store.arrays import encoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import zarr
    from numpy.typing import NDArray

    from skysub.campaign.products.base import Entry, Product, Scope
    from skysub.campaign.reading import Finished
    from skysub.release.files import Shelf

__all__ = [
    "STORE",
    "Axes",
    "Held",
    "Part",
    "Placed",
    "add_array",
    "add_array_by_visit",
    "empty_block",
    "put_block",
]

STORE = "release.zarr"
"""Name of the release's Zarr store."""


@dataclass(frozen=True)
class Axes:
    """First two axes of all arrays of a release."""

    visits: tuple[int, ...]
    detectors: tuple[int, ...]

    def row(self, visit: int) -> int:
        """Place of a visit along the first axis."""
        return int(np.searchsorted(self.visits, visit))

    def column(self, detector: int) -> int:
        """Place of a detector along the second axis."""
        return int(np.searchsorted(self.detectors, detector))


class Held(NamedTuple):
    """A product of a finished unit, as the campaign has it."""

    finished: Finished
    entry: Entry


@dataclass(frozen=True)
class Placed:
    """Where a product of one detector (or of a visit) went."""

    files: tuple[str, ...]
    values: Mapping[str, Any]
    """Numbers and words that become coordinates over (visit, detector)."""


class Part(ABC):
    """One product of a release.

    Parameters
    ----------
    product
        As its step declares it.
    of
        What one value of it belongs to.
    facts
        What `facts` gave before, where it has been gone through already.
    """

    has_arrays: ClassVar[bool] = False
    """Whether it is a group of the Zarr store; else it is Parquet alone."""

    looks_into_payload: ClassVar[bool] = False
    """Whether `look` needs what is heavy in markers."""

    def __init__(self, product: Product, of: Scope, facts: Mapping[str, Any] | None = None) -> None:
        self.product = product
        self.name = product.name
        self.of = of
        self.recall(facts or {})

    @property
    def data(self) -> tuple[str, ...]:
        """Names of its arrays that are data; all others are coordinates."""
        return ()

    def recall(self, facts: Mapping[str, Any]) -> None:  # noqa: B027 - tables have nothing to note
        """Take over what `facts` gave; an empty mapping at the beginning."""

    def look(self, held: Held) -> None:  # noqa: B027
        """Take note of what the arrays must have room for; called with each value before any is written."""

    def facts(self) -> dict[str, Any]:
        """What was noted, ready for JSON."""
        return {}

    def create(self, group: zarr.Group, axes: Axes) -> None:  # noqa: B027
        """Make its arrays, without their values."""

    @abstractmethod
    def write(
        self, shelf: Shelf, axes: Axes, visit: int, units: Mapping[int | None, Held], group: zarr.Group
    ) -> dict[int | None, Placed]:
        """Write the values of one visit, by detector (None: that of the visit itself).

        ``group`` has the arrays that `create` made; their metadata alone are used.
        """

    def describe(  # noqa: B027
        self, group: zarr.Group, axes: Axes, values: Mapping[tuple[int, int], Mapping[str, Any]]
    ) -> None:
        """Add coordinates, by (row, column): what `Placed` said of all that was written."""


def add_array(
    group: zarr.Group,
    name: str,
    values: NDArray[Any],
    dimensions: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    *,
    fill: Any = None,
) -> None:
    """Add a small array as one chunk, with its values."""
    text = values.dtype.kind in "TOU"
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if text else values.dtype,
        chunks=tuple(max(1, length) for length in values.shape),
        compressors=None if text else [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
        fill_value=fill if fill is not None else ("" if text else 0),
        dimension_names=tuple(dimensions),
        attributes=dict(attributes or {}),
        config={"write_empty_chunks": True},
    )
    array[...] = values.astype(object) if text else values


def add_array_by_visit(  # noqa: PLR0917 - as create_array has them
    group: zarr.Group,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dimensions: Sequence[str],
    attributes: Mapping[str, Any],
) -> None:
    """Make an array of one chunk per visit."""
    text = dtype == "string"
    fill: Any = "" if text else (np.nan if np.dtype(dtype).kind in "fc" else 0)
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(1, *(max(1, length) for length in shape[1:])),
        compressors=[
            BloscCodec(
                cname="zstd",
                clevel=3,
                shuffle="noshuffle" if text else "bitshuffle",
                typesize=1 if text else None,
            ),
            Crc32cCodec(),
        ],
        fill_value=fill,
        dimension_names=tuple(dimensions),
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=dict(attributes),
    )


def empty_block(group: zarr.Group, name: str) -> NDArray[Any]:
    """One visit's part of an array, with nothing in it: NaN, 0 or no text."""
    array = group[name]
    assert isinstance(array, Array)
    text = array.dtype.kind in "TOU"
    return np.full(array.shape[1:], "" if text else array.fill_value, object if text else array.dtype)


def put_block(
    shelf: Shelf, product: str, name: str, *, group: zarr.Group, row: int, block: NDArray[Any]
) -> str:
    """Write one visit's part of an array that `add_array_by_visit` made; returns the file's name."""
    array = group[name]
    assert isinstance(array, Array)
    key = ".".join(("c", str(row), *("0" for _ in block.shape)))
    return shelf.put(f"{STORE}/{product}/{name}/{key}", encoded(array, (row,), block).data)
