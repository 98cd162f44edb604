"""Metadata and coordinates of a release's Zarr store, consolidated so that one file opens all of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from skysub.release.part import Axes, add_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from skysub.release.contents import VisitContents
    from skysub.release.part import Part

__all__ = ["metadata_of", "skeleton"]


def skeleton(parts: Mapping[str, Part], axes: Axes) -> dict[str, zarr.Group]:
    """Groups in memory with the arrays of all products, but no values: how shards and chunks are encoded."""
    groups = {}
    root = zarr.open_group(MemoryStore(), mode="a", zarr_format=3)
    for name, part in parts.items():
        groups[name] = root.create_group(name)
        part.create(groups[name], axes)
    return groups


def metadata_of(
    parts: Mapping[str, Part],
    axes: Axes,
    visits: Sequence[VisitContents],
    values: Mapping[str, Mapping[tuple[int, int], Mapping[str, Any]]],
    attributes: Mapping[str, Any],
) -> Iterator[tuple[str, bytes]]:
    """Make all files of the store but chunks of products: path and bytes, that of the root group last.

    Parameters
    ----------
    visits
        In the order of ``axes``.
    values
        By product and (row, column), what `Part.write` said of each value.
    attributes
        Of the root group.
    """
    made: dict[str, Any] = {}
    root = zarr.open_group(MemoryStore(made), mode="a", zarr_format=3)
    root.attrs.update(dict(attributes))
    groups = [name for name, part in parts.items() if part.has_arrays]
    for name in groups:
        part = parts[name]
        group = root.create_group(name)
        part.create(group, axes)
        done = np.zeros((len(axes.visits), len(axes.detectors)), bool)
        for place in values.get(name, {}):
            done[place] = True
        add_array(group, "visit", np.array(axes.visits, np.int64), ("visit",))
        add_array(group, "band", np.array([each.band for each in visits], object), ("visit",))
        if part.of == "detector":
            add_array(group, "detector", np.array(axes.detectors, np.int64), ("detector",))
            add_array(group, "done", done, ("visit", "detector"), _DONE)
        else:
            add_array(group, "done", done[:, 0], ("visit",), _DONE)
        part.describe(group, axes, values.get(name, {}))
        # by which xarray knows coordinates from data
        others = sorted(set(group.array_keys()) - set(part.data) - {"visit", "detector", "y", "x"})
        group.attrs["coordinates"] = " ".join(others)
    with warnings.catch_warnings():
        # Zarr 3 has no word on consolidated metadata yet, and readers that do not know them go without
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata")
        for name in (*groups, ""):
            zarr.consolidate_metadata(MemoryStore(made), path=name or None, zarr_format=3)
    last = {f"{name}/zarr.json" for name in groups} | {"zarr.json"}
    for key in sorted(made, key=lambda key: (key in last, key == "zarr.json", key)):
        yield key, made[key].to_bytes()


_DONE = {"description": "whether there is a value; elsewhere arrays hold their fill value"}
