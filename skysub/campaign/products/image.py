"""Images: pixels with mask and variance, one shard per plane and detector."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from skysub.background.rows import Plane
from skysub.campaign.products.base import Entry, Product, Slot, Storing
from skysub.campaign.records import who
from skysub.campaign.store.arrays import create_images, read_plane, shard_place, write_plane
from skysub.campaign.store.previews import packed_preview, unpacked_preview
from skysub.campaign.store.records import (
    described,
    narrow_mask,
    pixels_checksum,
    sky_positions,
    visit_image_fields,
    wcs_of,
)
from skysub.campaign.store.storage_path import writing
from skysub.errors import InvalidImageError, NotDoneError
from skysub.pipeline.preview import preview_of
from skysub.visit.image import VisitImage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from skysub.campaign.products.base import Again
    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Image"]

_STORED = {"lz4": 0.9, "zstd": 0.88, "none": 1.0}
_MASK_STORED = 0.02
"""Stored bytes per byte of noise-like pixels and of masks."""

_HEAVY = ("wcs", "wcs_numbers", "header")
"""What is long in the description of an image."""


@dataclass(frozen=True, kw_only=True)
class Image(Product):
    """A `skysub.VisitImage` of a detector."""

    less: str = ""
    """Background by which its pixels are less than the input's, where that is all the step does to them:
    pixels made on demand are then made by subtraction."""
    sky: tuple[str, ...] = ()
    """Backgrounds that the step subtracts, where ``less`` does not say it: the first that the chain makes."""
    objects: tuple[tuple[str, str], ...] = ()
    """Fields of the image that are other products of the unit: field and product, as ("psf", "psf")."""

    kind: ClassVar[str] = "image"

    def room(
        self, shapes: Collection[tuple[int, int]], config: Any, units: Collection[str]
    ) -> dict[str, Any]:
        del config
        return {
            "shape": [max((shape[axis] for shape in shapes), default=0) for axis in (0, 1)],
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
        ny, nx = room["shape"]
        return create_images(
            run.images,
            self.name,
            planes=self.arrays(storing),
            visits=visits,
            detectors=detectors,
            shape=(ny, nx),
            compression=storing.compression,
            unit=room["unit"],
        )

    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        del config
        ny, nx = shape or (0, 0)
        pixels = 8 * _STORED[storing.compression] if storing.pixels == "stored" else 0
        return (4 * _MASK_STORED + pixels) * ny * nx

    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        visit_image: VisitImage = made.pop(self.name)
        if visit_image.shape != slot.shape:
            raise InvalidImageError(
                f"{self.name} has the shape {visit_image.shape}, its detector {slot.shape}"
            )
        mask, planes = narrow_mask(visit_image.mask, visit_image.planes)
        description = described(visit_image, planes)
        preview = self.previewed(visit_image)
        # each array is let go of once it is written, and the mask, which compresses to nothing, comes first:
        # compressing another takes as much again
        arrays: dict[str, Any] = {}
        pixels_crc = None
        if storing.pixels == "stored":
            arrays = {"image": visit_image.image, "variance": visit_image.variance}
        else:
            pixels_crc = pixels_checksum(visit_image.image)
        arrays["mask"] = mask
        del visit_image, mask
        shards = {}
        if isinstance(arrays["mask"], Plane):
            # nothing of them is held here: all at once
            there = {name: plane for name, plane in arrays.items() if plane is not None}
            with ThreadPoolExecutor(len(there)) as pool:
                write = functools.partial(self.write_plane, slot, storing=storing)
                written = pool.map(write, there, there.values())
                return self.written(description, dict(zip(there, written, strict=True)), pixels_crc, preview)
        while arrays:
            name, pixels = arrays.popitem()
            if pixels is not None:
                shards[name] = self.write_plane(slot, name, pixels, storing)
            del pixels
        return self.written(description, shards, pixels_crc, preview)

    def previewed(self, visit_image: VisitImage) -> dict[str, Any]:
        """Small pictures of an image, as a marker keeps them."""
        return packed_preview(preview_of(visit_image))

    def write_plane(self, slot: Slot, name: str, pixels: NDArray[Any], storing: Storing) -> dict[str, Any]:
        """Write one array of a detector as its shard; returns its size and checksum."""
        with writing(slot.run.folder):
            return write_plane(
                slot.run.images,
                self.name,
                name,
                slot.index,
                pixels,
                durable=storing.durable,
                scratch=slot.scratch,
            )

    def written(
        self,
        description: Mapping[str, Any],
        shards: Mapping[str, Any],
        pixels_crc: str | None,
        preview: Mapping[str, Any],
    ) -> tuple[Any, Any]:
        """What a marker says of an image whose planes are written, and what it keeps of it."""
        light = {name: value for name, value in description.items() if name not in _HEAVY}
        record = {**light, "shards": shards, "pixels_crc32c": pixels_crc}
        return record, {**{name: description[name] for name in _HEAVY}, "preview": preview}

    def read(self, entry: Entry, again: Again) -> VisitImage:
        record = entry.record
        if record["pixels_crc32c"] is None:
            image = self.plane(entry, "image")
            variance = self.plane(entry, "variance") if record["has_variance"] else None
        else:
            image, variance = self._made_again(record, again)
        return self._visit_image(entry, again, image, variance)

    def without_pixels(self, entry: Entry, again: Again) -> VisitImage:
        """Return the image with its mask and all that is known of it, its pixels NaN and not read."""
        assert entry.slot.shape is not None
        nothing = np.broadcast_to(np.float32(np.nan), entry.slot.shape)
        return self._visit_image(entry, again, nothing, None)

    def _visit_image(self, entry: Entry, again: Again, image: Any, variance: Any) -> VisitImage:
        record, slot = entry.record, entry.slot
        assert slot.detector is not None
        return VisitImage(
            image=image,
            mask=self.plane(entry, "mask"),
            variance=variance,
            visit=slot.visit,
            detector=slot.detector,
            **{field: again.product(product) for field, product in self.objects},
            **visit_image_fields({**record, **entry.payload}),
        )

    def plane(self, entry: Entry, name: str) -> NDArray[Any]:
        """Return one array (ny, nx) of a detector that is stored."""
        shape = entry.slot.shape
        assert shape is not None
        slot = entry.slot
        return read_plane(
            slot.run.images, self.name, name, slot.index, shape, of=who(slot.visit, slot.detector)
        )

    def wcs(self, entry: Entry) -> WCS | None:
        """World coordinates of an image; None where it has none."""
        return wcs_of({**entry.record, **entry.payload})

    def sky_positions(
        self, entry: Entry, x: Sequence[float], y: Sequence[float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Longitude and latitude, degrees, of some pixels, quickly; None without celestial coordinates."""
        return sky_positions({**entry.record, **entry.payload}, x, y)

    def preview(self, entry: Entry) -> dict[str, NDArray[np.float32]]:
        """Small pictures of an image, as `skysub.pipeline.preview.preview_of` makes them."""
        return unpacked_preview(entry.payload["preview"])

    def is_sound(self, entry: Entry) -> bool:
        for name, written in entry.record["shards"].items():
            shard = shard_place(entry.slot.run.images, self.name, name, entry.slot.index)
            if not shard.exists() or shard.checksum() != written["crc32c"]:
                return False
        return True

    def arrays(self, storing: Storing) -> tuple[str, ...]:
        return ("image", "mask", "variance") if storing.pixels == "stored" else ("mask",)

    def serves(self, run: Run, storing: Storing) -> bool:
        return storing.pixels == "on_demand" or run.record.pixels == "stored"

    def store(self, run: Run) -> StoragePath | None:
        return run.images

    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        compression = options.get("compression", "lossless")
        if options.get("layout") == "lsst-images":
            from skysub.visit.fits.lsst_archive import write_lsst_images

            return functools.partial(write_lsst_images, value, compression=compression)
        from skysub.visit.fits.write import write_visit_image

        return functools.partial(write_visit_image, value, compression=compression)

    def _made_again(self, record: Mapping[str, Any], again: Again) -> tuple[Any, Any]:
        """Image and variance, from the unit's input."""
        if self.less:
            visit_image = again.visit_image()
            image = visit_image.image
            for layer in again.product(self.less):
                image = layer.subtract_from(image)
            if pixels_checksum(image) == record["pixels_crc32c"]:
                return image, visit_image.variance
        # the step did more to the pixels than subtract
        made: VisitImage = again.outputs()[self.name]
        if pixels_checksum(made.image) != record["pixels_crc32c"]:
            raise NotDoneError(
                f"the pixels of {who(made.visit, made.detector)} cannot be made again bit for bit: "
                f"skysub {again.versions()['skysub']} made them; run the campaign again with this version"
            )
        return made.image, made.variance
