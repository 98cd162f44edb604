"""Small arrays of all units of a campaign as one dataset of xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.reading import entry_of
from skysub.errors import MissingPackageError, NotDoneError, how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray

    from skysub.campaign.products.small import Grid
    from skysub.campaign.reading import Finished

__all__ = ["grid_dataset"]


def grid_dataset(product: Grid, found: Iterable[Finished], *, of_visits: bool) -> xarray.Dataset:
    """Put the values of a grid together; see `skysub.campaign.campaign.Campaign.open_dataset`.

    Parameters
    ----------
    found
        Finished units of the step that makes it, visit by visit.
    of_visits
        Whether a value belongs to a visit rather than to a detector.

    Raises
    ------
    NotDoneError
        When no unit has made one, or they are of different numbers of axes.
    MissingPackageError
        When xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise MissingPackageError(
            f"opening a product by name needs xarray; {how_to_install('xarray')}"
        ) from error
    values: dict[tuple[int, ...], np.ndarray[Any, Any]] = {}
    bands: dict[int, str] = {}
    for each in found:
        marker = each.run.markers(each.step).with_payload(each.marker)
        record = marker.products.get(product.name)
        along: list[int | None] = [each.detector]
        if isinstance(record, dict) and "each" in record:
            along = [int(number) for number in record["each"]]
        for detector in along:
            entry = entry_of(each.run, each.plan, marker, product.name, detector)
            if entry is not None:
                place = (each.plan.visit,) if of_visits or detector is None else (each.plan.visit, detector)
                values[place] = product.read(entry)
                bands[each.plan.visit] = each.plan.band
    ranks = {array.ndim for array in values.values()}
    if len(ranks) != 1:
        what = f"arrays of {' and '.join(map(str, sorted(ranks)))} axes" if ranks else "none yet"
        raise NotDoneError(f"{product.name} cannot be opened as one array: units have made {what}")
    names = ["visit"] if of_visits else ["visit", "detector"]
    axes = [sorted({place[axis] for place in values}) for axis in range(len(names))]
    room = tuple(max(array.shape[axis] for array in values.values()) for axis in range(ranks.pop()))
    kind = np.result_type(*{array.dtype for array in values.values()})
    shape = tuple(len(axis) for axis in axes)
    whole = np.full((*shape, *room), np.nan if kind.kind in "fc" else 0, kind)
    done = np.zeros(shape, bool)
    for unit, array in values.items():
        spot = tuple(axis.index(number) for axis, number in zip(axes, unit, strict=True))
        whole[spot][tuple(slice(0, length) for length in array.shape)] = array
        done[spot] = True
    inner = [f"{product.name}_{axis}" for axis in range(len(room))]
    return xr.Dataset(
        {product.name: ((*names, *inner), whole)},
        coords={
            **{name: (name, np.array(axis, np.int64)) for name, axis in zip(names, axes, strict=True)},
            "band": ("visit", np.array([bands[visit] for visit in axes[0]], dtype=str)),
            "done": (tuple(names), done),
        },
    )
