"""Backgrounds and small arrays of a release: one chunk per visit in each array of the Zarr store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from skysub.background.model import BackgroundList
from skysub.campaign.store.backgrounds import FIELDS, as_arrays, described
from skysub.errors import ReleaseError
from skysub.release.part import (
    Axes,
    Held,
    Part,
    Placed,
    add_array,
    add_array_by_visit,
    empty_block,
    put_block,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr

    from skysub.release.files import Shelf

__all__ = ["BackgroundPart", "GridPart"]

_CHEBYSHEV = (
    "sum over i + j <= order of c_ij T_i(u) T_j(v) with u = (2 x + 1) / nx - 1, v = (2 y + 1) / ny - 1 and "
    "pixels counted from 0; terms in the order 00, 10, 01, 20, 11, 02, ... (i along x). Layers add up. A "
    "layer whose description has parts or amplifiers has these on top, and one whose config names another "
    "model is that model of the superpixels"
)


class BackgroundPart(Part):
    """Statistics of superpixels and coefficients (visit, detector, layer, ...) of each layer."""

    has_arrays: ClassVar[bool] = True
    looks_into_payload: ClassVar[bool] = True

    @property
    def data(self) -> tuple[str, ...]:
        """Arrays of a layer."""
        return tuple(FIELDS)

    def recall(self, facts: Mapping[str, Any]) -> None:
        """Take over what was noted."""
        self._sizes: dict[str, int] = dict(
            facts.get("sizes", dict.fromkeys(("layer", "gy", "gx", "term"), 0))
        )
        self._units: list[str] = list(facts.get("units", ()))

    def look(self, held: Held) -> None:
        """Take note of layers, superpixels and terms."""
        layers = held.entry.payload
        sizes = {"layer": len(layers), **dict.fromkeys(("gy", "gx", "term"), 0)}
        for layer in layers:
            gy, gx = layer["grid"]
            terms = (layer["order"] + 1) * (layer["order"] + 2) // 2
            for name, size in (("gy", gy), ("gx", gx), ("term", terms)):
                sizes[name] = max(sizes[name], int(size))
        self._sizes = {name: max(size, sizes[name]) for name, size in self._sizes.items()}
        detector = held.entry.slot.detector
        assert detector is not None
        unit = held.finished.plan.exposures[detector].unit
        if unit not in self._units:
            self._units.append(unit)

    def facts(self) -> dict[str, Any]:
        """Room that all of them need, and units."""
        return {"sizes": self._sizes, "units": self._units}

    def create(self, group: zarr.Group, axes: Axes) -> None:
        """Make the arrays of `skysub.campaign.store.backgrounds.FIELDS`, and one of descriptions."""
        unit = self._units[0] if len(self._units) == 1 else ""
        units = dict.fromkeys(("mean", "error", "coefficients"), unit) | {"covariance": f"{unit}**2"}
        sizes = {**self._sizes, "term_2": self._sizes["term"]}
        for name, (dtype, dimensions) in FIELDS.items():
            attributes = {"units": units[name]} if unit and name in units else {}
            if name == "coefficients":
                attributes["description"] = _CHEBYSHEV
            add_array_by_visit(
                group,
                name,
                dtype,
                (
                    len(axes.visits),
                    len(axes.detectors),
                    sizes["layer"],
                    *(sizes[each] for each in dimensions),
                ),
                ("visit", "detector", "layer", *dimensions),
                attributes,
            )
        add_array_by_visit(
            group,
            "description",
            "string",
            (len(axes.visits), len(axes.detectors)),
            ("visit", "detector"),
            {"description": "JSON: shape, grid, order, settings of each layer, what no polynomial holds"},
        )

    def write(
        self, shelf: Shelf, axes: Axes, visit: int, units: Mapping[int | None, Held], group: zarr.Group
    ) -> dict[int | None, Placed]:
        """Write one chunk of each array."""
        blocks = {name: empty_block(group, name) for name in (*FIELDS, "description")}
        placed: dict[int | None, Placed] = {}
        for detector, held in units.items():
            assert detector is not None
            column = axes.column(detector)
            layers = held.finished.product(self.name, detector)
            assert isinstance(layers, BackgroundList)
            for number, layer in enumerate(layers):
                for name, values in as_arrays(layer).items():
                    blocks[name][column, number][tuple(slice(0, length) for length in values.shape)] = values
            blocks["description"][column] = json.dumps([described(layer) for layer in layers])
            placed[detector] = Placed((), {"layers": len(layers)})
        files = tuple(
            put_block(shelf, self.name, name, group=group, row=axes.row(visit), block=block)
            for name, block in blocks.items()
        )
        return {detector: Placed(files, each.values) for detector, each in placed.items()}

    def describe(
        self, group: zarr.Group, axes: Axes, values: Mapping[tuple[int, int], Mapping[str, Any]]
    ) -> None:
        """Add how many layers each detector has."""
        layers = np.zeros((len(axes.visits), len(axes.detectors)), np.int32)
        for place, each in values.items():
            layers[place] = each["layers"]
        add_array(group, "layers", layers, ("visit", "detector"))


class GridPart(Part):
    """A small array (visit, detector, ...), or (visit, ...) of a whole visit, by the product's own name."""

    has_arrays: ClassVar[bool] = True

    @property
    def data(self) -> tuple[str, ...]:
        """The one array."""
        return (self.name,)

    def recall(self, facts: Mapping[str, Any]) -> None:
        """Take over what was noted."""
        self._shape: list[int] | None = facts.get("shape")
        self._dtype: str = facts.get("dtype", "")

    def look(self, held: Held) -> None:
        """Take note of shape and type."""
        record = held.entry.record
        shape = [int(length) for length in record["shape"]]
        if self._shape is not None and len(shape) != len(self._shape):
            raise ReleaseError(
                f"{self.name} has {len(shape)} dimensions in visit {held.entry.slot.visit}, and "
                f"{len(self._shape)} in others, which are no one array: leave it out, by naming the other "
                "products with --product"
            )
        self._shape = [max(pair) for pair in zip(self._shape or shape, shape, strict=True)]
        known = np.dtype(self._dtype) if self._dtype else np.dtype(record["dtype"])
        self._dtype = np.result_type(known, np.dtype(record["dtype"])).newbyteorder("<").str

    def facts(self) -> dict[str, Any]:
        """Largest shape, and a type that holds all."""
        return {"shape": self._shape, "dtype": self._dtype}

    def create(self, group: zarr.Group, axes: Axes) -> None:
        """Make the array; nothing where no unit made one."""
        if self._shape is None:
            return
        along = ("visit", "detector") if self.of == "detector" else ("visit",)
        own = tuple(f"{self.name}_{axis}" for axis in range(len(self._shape)))
        lengths = {"visit": len(axes.visits), "detector": len(axes.detectors)}
        shape = (*(lengths[each] for each in along), *self._shape)
        add_array_by_visit(group, self.name, np.dtype(self._dtype).name, shape, (*along, *own), {})

    def write(
        self, shelf: Shelf, axes: Axes, visit: int, units: Mapping[int | None, Held], group: zarr.Group
    ) -> dict[int | None, Placed]:
        """Write one chunk."""
        if self._shape is None or not units:
            return {}
        block = empty_block(group, self.name)
        shapes = {}
        for detector, held in units.items():
            values = self.product.read(held.entry, held.finished)
            inner = block if detector is None else block[axes.column(detector)]
            inner[tuple(slice(0, length) for length in values.shape)] = values
            shapes[detector] = {f"size_{axis}": length for axis, length in enumerate(values.shape)}
        file = put_block(shelf, self.name, self.name, group=group, row=axes.row(visit), block=block)
        return {detector: Placed((file,), shape) for detector, shape in shapes.items()}

    def describe(
        self, group: zarr.Group, axes: Axes, values: Mapping[tuple[int, int], Mapping[str, Any]]
    ) -> None:
        """Add the true lengths where not all values have the same shape."""
        shapes = {tuple(each.values()) for each in values.values()}
        if len(shapes) < 2:
            return
        for axis in range(len(self._shape or ())):
            sizes = np.zeros((len(axes.visits), len(axes.detectors)), np.int32)
            for place, each in values.items():
                sizes[place] = each[f"size_{axis}"]
            if self.of == "detector":
                add_array(group, f"size_{axis}", sizes, ("visit", "detector"))
            else:
                add_array(group, f"size_{axis}", sizes[:, 0], ("visit",))
