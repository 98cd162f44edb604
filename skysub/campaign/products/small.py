"""Small products, which markers hold themselves: arrays over a detector or a visit, and objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from skysub.campaign.products.base import Entry, Product, Slot, Storing
from skysub.campaign.store.backgrounds import packed, unpacked
from skysub.campaign.store.objects import object_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from skysub.campaign.products.base import Again

__all__ = ["Grid", "Object"]

_GRID = 4000
_OBJECT = 4000
"""Bytes of a grid and of an object, about."""


@dataclass(frozen=True, kw_only=True)
class Grid(Product):
    """A small array of any shape, such as the noise of each superpixel."""

    kind: ClassVar[str] = "grid"

    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        del shape, config, storing
        return _GRID

    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        del slot, storing
        values = np.asarray(made.pop(self.name))
        if values.dtype.kind not in "biufc":
            raise TypeError(f"{self.name} must be an array of numbers, not of {values.dtype}")
        return {"shape": list(values.shape), "dtype": values.dtype.str}, packed(values)

    def read(self, entry: Entry, again: Again | None = None) -> np.ndarray[Any, Any]:
        del again
        return unpacked(entry.payload)

    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        del options

        def write(path: Path) -> None:
            from astropy.io import fits

            array = np.asarray(value)
            stored = array.astype(np.uint8) if array.dtype == bool else array
            fits.PrimaryHDU(stored).writeto(path, overwrite=True)

        return write


@dataclass(frozen=True, kw_only=True)
class Object(Product):
    """A dataclass of arrays and numbers, or mappings and lists of such: a PSF, a fit's result."""

    classes: tuple[type, ...] = ()
    """Dataclasses that it may consist of beside those of skysub; nothing is ever unpickled."""

    kind: ClassVar[str] = "object"
    suffix: ClassVar[str] = "json"

    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        del shape, config, storing
        return _OBJECT

    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        del slot, storing
        value = made.pop(self.name)
        return {"class": type(value).__name__}, text_of(value, self.classes)

    def read(self, entry: Entry, again: Again | None = None) -> Any:
        del again
        return object_of(entry.payload, self.classes)

    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        del options

        def write(path: Path) -> None:
            path.write_text(json.dumps(text_of(value, self.classes), indent=1))

        return write
