"""Images of a release: shards are taken as the campaign has them, or made anew where they must be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import google_crc32c
import numpy as np
import zarr

from skysub.campaign.products.table import parquet_bytes
from skysub.campaign.records import who
from skysub.campaign.store.arrays import PLANES, chunk_edge, pixel_codecs, shard_place
from skysub.campaign.store.records import unpacked_text
from skysub.campaign.store.seals import damage
from skysub.campaign.store.shards import ShardFormat, shard_parts
from skysub.errors import ReleaseError
from skysub.release.part import (
    STORE,
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

    from numpy.typing import NDArray

    from skysub.campaign.products.image import Image
    from skysub.release.files import Shelf

__all__ = ["ImagePart"]

_MOST_PLANES = 31

_NUMBERS = {
    "exposure_time": "s",
    "gain": "electron/adu",
    "read_noise": "electron",
    "photo_calib": "nJy per unit of the image's pixels",
}
"""What is known of an image, and its unit."""


class ImagePart(Part):
    """Image, mask and variance (visit, detector, y, x), with what is known of each detector."""

    has_arrays: ClassVar[bool] = True
    product: Image

    @property
    def data(self) -> tuple[str, ...]:
        """Pixel arrays."""
        return tuple(PLANES)

    def recall(self, facts: Mapping[str, Any]) -> None:
        """Take over what was noted."""
        self._shape: list[int] = list(facts.get("shape", (0, 0)))
        self._planes: dict[str, int] = dict(facts.get("planes", {}))
        self._units: list[str] = list(facts.get("units", ()))
        self._variance = bool(facts.get("variance", False))
        self._compression = str(facts.get("compression", "lz4"))

    def look(self, held: Held) -> None:
        """Take note of shape, mask planes and unit."""
        record, shape = held.entry.record, held.entry.slot.shape
        assert shape is not None
        self._shape = [max(pair) for pair in zip(self._shape, shape, strict=True)]
        self._variance |= bool(record["has_variance"])
        self._compression = str(held.finished.run.record.products["compression"])
        if record["unit"] not in self._units:
            self._units.append(record["unit"])
        for plane, bit in record["planes"].items():
            if plane in self._planes:
                continue
            taken = set(self._planes.values())
            free = bit if bit not in taken else next((n for n in range(_MOST_PLANES) if n not in taken), -1)
            if free < 0:
                names = ", ".join([*self._planes, plane])
                raise ReleaseError(
                    f"{self.name}: its masks have more than {_MOST_PLANES} planes in all ({names}): publish "
                    "the instruments one by one, by --select or --visit"
                )
            self._planes[plane] = int(free)

    def facts(self) -> dict[str, Any]:
        """Shape of the largest detector, mask planes, units."""
        return {
            "shape": self._shape,
            "planes": self._planes,
            "units": self._units,
            "variance": self._variance,
            "compression": self._compression,
        }

    def create(self, group: zarr.Group, axes: Axes) -> None:
        """Make image, mask and variance as campaigns do, so that shards can be taken over."""
        chunk = tuple(chunk_edge(length) for length in self._shape)
        shard = tuple(-(-length // edge) * edge for length, edge in zip(self._shape, chunk, strict=True))
        unit = self._units[0] if len(self._units) == 1 else ""
        attributes: dict[str, dict[str, Any]] = {
            "image": {"units": unit} if unit else {},
            "variance": {"units": f"{unit}**2"} if unit else {},
            "mask": {
                "flag_masks": [1 << bit for bit in self._planes.values()],
                "flag_meanings": " ".join(self._planes),
            },
        }
        for plane, (dtype, fill) in PLANES.items():
            if plane == "variance" and not self._variance:
                continue
            group.create_array(
                plane,
                shape=(len(axes.visits), len(axes.detectors), *self._shape),
                dtype=dtype,
                chunks=(1, 1, *chunk),
                shards=(1, 1, *shard),
                compressors=pixel_codecs(self._compression, mask=plane == "mask"),
                fill_value=fill,
                dimension_names=("visit", "detector", "y", "x"),
                chunk_key_encoding={"name": "default", "separator": "."},
                attributes=attributes[plane],
            )
        size = len(axes.visits), len(axes.detectors)
        words = {"description": "cards of a FITS header with the world coordinates of the array's pixels"}
        add_array_by_visit(group, "wcs", "string", size, ("visit", "detector"), words)

    def write(
        self, shelf: Shelf, axes: Axes, visit: int, units: Mapping[int | None, Held], group: zarr.Group
    ) -> dict[int | None, Placed]:
        """Write the shards of a visit's detectors, and their headers as Parquet."""
        import pyarrow as pa

        placed: dict[int | None, Placed] = {}
        headers = []
        coordinates = empty_block(group, "wcs")
        for detector, held in units.items():
            assert detector is not None
            files = self._shards(shelf, (axes.row(visit), axes.column(detector)), held, group)
            record, payload = held.entry.record, held.entry.payload
            ny, nx = held.entry.slot.shape or (0, 0)
            x0, y0 = record["xy0"]
            wcs = None if payload["wcs"] is None else unpacked_text(payload["wcs"])
            coordinates[axes.column(detector)] = wcs or ""
            placed[detector] = Placed(
                tuple(files),
                {
                    "ny": ny,
                    "nx": nx,
                    "y0": y0,
                    "x0": x0,
                    "unit": record["unit"],
                    **{name: record[name] for name in _NUMBERS},
                },
            )
            headers.append(
                {
                    "visit": visit,
                    "detector": detector,
                    "band": record["band"],
                    "unit": record["unit"],
                    **{name: record[name] for name in _NUMBERS},
                    "y0": y0,
                    "x0": x0,
                    "ny": ny,
                    "nx": nx,
                    "notes": list(record["notes"]),
                    "wcs": wcs,
                    "wcs_numbers": json.dumps(payload["wcs_numbers"]),
                    "header": None if payload["header"] is None else unpacked_text(payload["header"]),
                }
            )
        if headers:
            put_block(shelf, self.name, "wcs", group=group, row=axes.row(visit), block=coordinates)
            table = pa.Table.from_pylist(headers, _header_schema())
            shelf.put(f"tables/{self.name}_headers/visit={visit}.parquet", parquet_bytes([table]))
        return placed

    def describe(
        self, group: zarr.Group, axes: Axes, values: Mapping[tuple[int, int], Mapping[str, Any]]
    ) -> None:
        """Add the detectors' own shapes, places, units and calibrations."""
        for name, length in zip(("y", "x"), self._shape, strict=True):
            add_array(group, name, np.arange(length), (name,), {"units": "pixel"})
        size = len(axes.visits), len(axes.detectors)
        along = ("visit", "detector")
        for name in ("ny", "nx", "y0", "x0"):
            whole = np.zeros(size, np.int32)
            for place, each in values.items():
                whole[place] = each[name]
            add_array(group, name, whole, along, {"units": "pixel"})
        for name, unit in _NUMBERS.items():
            numbers = np.full(size, np.nan)
            for place, each in values.items():
                numbers[place] = np.nan if each[name] is None else each[name]
            add_array(group, name, numbers, along, {"units": unit}, fill=np.nan)
        if len(self._units) > 1:
            words = np.full(size, "", object)
            for place, each in values.items():
                words[place] = each["unit"]
            add_array(group, "unit", words, along)

    def _shards(self, shelf: Shelf, index: tuple[int, int], held: Held, group: zarr.Group) -> list[str]:
        record, slot = held.entry.record, held.entry.slot
        moved = self._moved(record["planes"])
        wanted = ["mask", "image", *(["variance"] if record["has_variance"] else [])]
        made: dict[str, NDArray[Any]] = {}
        if record["pixels_crc32c"] is not None:
            # the campaign keeps no pixels of it
            again = held.finished.product(self.name, slot.detector)
            made = {"image": again.image, "variance": again.variance}
            del again
        files = []
        for plane in wanted:
            array = group[plane]
            assert isinstance(array, zarr.Array)
            layout = ShardFormat.of(array)
            assert layout is not None
            name = f"{STORE}/{self.name}/{plane}/c.{index[0]}.{index[1]}.0.0"
            place = shard_place(slot.run.images, self.name, plane, slot.index)
            if plane not in made and not (plane == "mask" and moved) and _is_alike(layout, place.parent):
                data = place.read()
                of = who(slot.visit, slot.detector)
                if data is None:
                    raise damage(place, "is gone", of)
                if f"{google_crc32c.value(data):08x}" != record["shards"][plane]["crc32c"]:
                    raise damage(place, "is damaged", of)
            else:
                pixels = made.pop(plane) if plane in made else self.product.plane(held.entry, plane)
                if plane == "mask" and moved:
                    pixels = _with_moved_planes(pixels, moved)
                data = b"".join(shard_parts(layout, pixels))
            files.append(shelf.put(name, data))
        return files

    def _moved(self, planes: Mapping[str, int]) -> dict[int, int]:
        """Bits of a detector's mask that the release has elsewhere: from where to where; empty if none."""
        there = {int(bit): self._planes[name] for name, bit in planes.items()}
        return there if any(old != new for old, new in there.items()) else {}


def _with_moved_planes(mask: NDArray[Any], moved: Mapping[int, int]) -> NDArray[np.int32]:
    made = np.zeros(mask.shape, np.int32)
    for old, new in moved.items():
        made |= ((mask >> old) & 1).astype(np.int32) << np.int32(new)
    return made


def _is_alike(layout: ShardFormat, array: Any) -> bool:
    """Whether shards of a campaign's array are those that the release would have."""
    own = ShardFormat.of(zarr.open_array(array.zarr_store(), mode="r", zarr_format=3))
    return own is not None and (own.shard, own.chunk, own.compressor, own.dtype) == (
        layout.shard,
        layout.chunk,
        layout.compressor,
        layout.dtype,
    )


def _header_schema() -> Any:
    import pyarrow as pa

    whole, number, text = pa.int64(), pa.float64(), pa.string()
    return pa.schema(
        [
            ("visit", whole),
            ("detector", whole),
            ("band", text),
            ("unit", text),
            *((name, number) for name in _NUMBERS),
            *((name, pa.int32()) for name in ("y0", "x0", "ny", "nx")),
            ("notes", pa.list_(text)),
            *((name, text) for name in ("wcs", "wcs_numbers", "header")),
        ]
    )
