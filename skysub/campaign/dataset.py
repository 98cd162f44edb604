"""The Zarr arrays of a campaign as xarray sees them: of one run, or of several put together."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.context import chain_of, storing_of
from skysub.campaign.reading import entry_of
from skysub.campaign.records import who
from skysub.campaign.store.address import place_at
from skysub.campaign.store.arrays import check_arrays, read_block
from skysub.campaign.store.seals import damage
from skysub.errors import MissingPackageError, NotDoneError, how_to_install

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray
    from numpy.typing import NDArray

    from skysub.campaign.current import Current
    from skysub.campaign.records import VisitPlan
    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["open_current", "open_dataset"]


def open_current(current: Current, product: str) -> xarray.Dataset:
    """Open one product of all units, each from its current run.

    Where one run is the current one of all of them this is `open_dataset`. Else the arrays are Dask's, with
    one chunk per detector, as large as the largest run's; runs that do not make the product are left out.

    Raises
    ------
    NotDoneError
        When no run makes such a product, or it has no arrays.
    """
    making = [run for run in current.runs if product in chain_of(run).makers]
    if len(making) < 2:
        return open_dataset(making[0] if making else current.runs[-1], product)
    held: dict[tuple[int, int], tuple[VisitPlan, Run]] = {}
    for view in current.views():
        for detector in view.exposures:
            for step, units in view.units.items():
                speaker = units.get(detector, units.get(None))
                if speaker is not None and chain_of(speaker.run).makers.get(product) == step:
                    held[view.visit, detector] = (speaker.plan, speaker.run)
    runs = {run.name: run for _, run in held.values()}
    if len(runs) == 1:
        return open_dataset(next(iter(runs.values())), product)
    return _combined(held, product)


def open_dataset(run: Run, product: str) -> xarray.Dataset:
    """Open one product of a run; see `skysub.campaign.campaign.Campaign.open_dataset`.

    Raises
    ------
    NotDoneError
        When the run makes no such product, or it has no arrays.
    MissingPackageError
        When xarray is not installed.
    DamagedError
        When its metadata or coordinates are not as they were written, or a file of what is done is gone.
    """
    xr = _xarray()
    # it imports xarray
    from skysub.campaign.lazy_arrays import checked_variable

    chain = chain_of(run)
    if product not in chain.makers:
        raise NotDoneError(f"run {run.name} makes no {product!r}; it makes {' and '.join(chain.products)}")
    step = chain.makers[product]
    store, declared = _store(run, product), chain.products[product]
    names = declared.arrays(storing_of(run))
    check_arrays(store, product, names)
    dataset = xr.open_zarr(
        store.zarr_store(),
        group=product,
        consolidated=False,
        zarr_format=3,
        chunks=None,
        mask_and_scale=False,
    )
    for each in dataset.variables.values():
        each.attrs.pop("crc32c", None)
    dataset.attrs.pop("crc32c", None)
    visits, detectors = dataset["visit"].to_numpy(), dataset["detector"].to_numpy()
    detector_at = {int(detector): i for i, detector in enumerate(detectors)}
    done = np.zeros((len(visits), len(detectors)), bool)
    bands = [""] * len(visits)
    markers = run.markers(step)
    finished = markers.finished()
    seen: tuple[int, int] | None = None
    for plan in run.plans():
        if plan.index < 0:
            continue
        bands[plan.index] = plan.band
        named = plan.steps.get(step)
        own = [] if named is None else named.own
        there = set(own) if plan.visit in finished else markers.done(plan.visit, own)
        for detector in plan.exposures:
            if detector in there or None in there:
                done[plan.index, detector_at[detector]] = True
                seen = seen or (plan.visit, detector)
    for name in names:
        _check_files(run, product, store / product / name, done, finished)
        dataset[name] = checked_variable(dataset[name], store / product / name, visits, detectors)
    opened: xarray.Dataset = dataset.assign_coords(
        band=("visit", np.array(bands, dtype=str)),
        done=(("visit", "detector"), done),
    )
    if "mask" in opened and seen is not None:
        opened["mask"].attrs |= _flags(run, product, *seen)
    return opened


def _check_files(
    run: Run, product: str, array: StoragePath, done: NDArray[np.bool_], finished: set[int]
) -> None:
    """Look whether a file is there for all that is done: what is not there would be read as the fill value.

    Raises
    ------
    DamagedError
        When one is gone.
    """
    chain = chain_of(run)
    step = chain[chain.makers[product]].step
    there = {name for name, size in array.sizes().items() if size}
    image = chain.products[product].kind == "image"
    for plan in run.plans():
        if plan.index < 0 or (not image and plan.visit not in finished):
            continue
        for detector, place in plan.places.items():
            last = f"{place}.0.0" if image else ""
            begin = f"c.{plan.index}.{last}"
            if not done[plan.index, place] or begin in there or (not image and _begins(there, begin)):
                continue
            whole = step.scope == "visit"
            marker = run.markers(step.name).of_unit(plan.visit, None if whole else detector, payload=True)
            entry = None if marker is None else entry_of(run, plan, marker, product, detector)
            if entry is not None and (array.name in entry.record.get("shards", ()) if image else True):
                raise damage(array / begin, "is gone or empty", who(plan.visit, detector))


def _begins(names: set[str], begin: str) -> bool:
    return any(name.startswith(begin) for name in names)


def _xarray() -> Any:
    try:
        import xarray as xr
    except ImportError as error:
        raise MissingPackageError(
            f"opening a product by name needs xarray; {how_to_install('xarray')}"
        ) from error
    return xr


def _store(run: Run, product: str) -> StoragePath:
    declared = chain_of(run).products[product]
    store = declared.store(run)
    if store is None:
        raise NotDoneError(
            f"{product} is of kind {declared.kind}, which has no arrays: campaign.product returns it"
        )
    return store


def _flags(run: Run, product: str, visit: int, detector: int) -> dict[str, Any]:
    """Mask planes of a finished detector, as CF has them."""
    chain = chain_of(run)
    step = chain.makers[product]
    plan = run.plan_of(visit)
    marker = run.markers(step).of_unit(visit, None if chain[step].scope == "visit" else detector)
    entry = None if plan is None or marker is None else entry_of(run, plan, marker, product, detector)
    planes = entry.record["planes"] if entry is not None else {}
    return {
        "flag_masks": [1 << bit for bit in planes.values()],
        "flag_meanings": " ".join(planes),
        "flags_of": f"visit {visit} detector {detector}",
    }


def _combined(held: Mapping[tuple[int, int], tuple[VisitPlan, Run]], product: str) -> xarray.Dataset:
    import dask.array as da

    xr = _xarray()
    runs = {run.name: run for _, run in held.values()}
    parts = {name: open_dataset(run, product) for name, run in sorted(runs.items())}
    folders = {name: str(_store(run, product).absolute()) for name, run in runs.items()}
    visits, detectors = (sorted({key[axis] for key in held}) for axis in (0, 1))
    bands = {plan.visit: plan.band for plan, _ in held.values()}
    done = np.zeros((len(visits), len(detectors)), bool)
    table: dict[tuple[int, int], tuple[str, str, int, int]] = {}
    made = {name: part["done"].to_numpy() for name, part in parts.items()}
    visit_at, detector_at = ({n: i for i, n in enumerate(along)} for along in (visits, detectors))
    for (visit, detector), (plan, run) in held.items():
        inner = (plan.index, plan.places[detector])
        if made[run.name][inner]:
            place = visit_at[visit], detector_at[detector]
            done[place] = True
            table[place] = (run.name, folders[run.name], *inner)
    variables = {}
    for name in dict.fromkeys(name for part in parts.values() for name in part.data_vars):
        having = {run: part[name] for run, part in parts.items() if name in part}
        first = next(reversed(having.values()))
        sizes = tuple(max(each.shape[axis] for each in having.values()) for axis in range(2, first.ndim))
        own = {key: entry[1:] for key, entry in table.items() if entry[0] in having}
        array = da.map_blocks(  # type: ignore[no-untyped-call]
            functools.partial(_block, own, f"{product}/{name}", sizes, first.dtype),
            chunks=((1,) * len(visits), (1,) * len(detectors), *((size,) for size in sizes)),
            dtype=first.dtype,
            meta=np.empty((0,) * first.ndim, first.dtype),
        )
        common = [each.attrs for each in having.values()]
        attributes = {
            key: value for key, value in first.attrs.items() if all(a.get(key) == value for a in common)
        }
        variables[name] = (first.dims, array, attributes)
    dataset: xarray.Dataset = xr.Dataset(variables)
    coordinates: dict[str, Any] = {
        "visit": ("visit", np.array(visits, np.int64)),
        "detector": ("detector", np.array(detectors, np.int64)),
        "band": ("visit", np.array([bands[visit] for visit in visits], dtype=str)),
        "done": (("visit", "detector"), done),
    }
    for name in {"y", "x"} & dataset.sizes.keys():
        coordinates[name] = (name, np.arange(dataset.sizes[name]), {"units": "pixel"})
    return dataset.assign_coords(coordinates)


def _block(
    held: Mapping[tuple[int, int], tuple[str, int, int]],
    array: str,
    sizes: tuple[int, ...],
    dtype: np.dtype[Any],
    block_info: Any = None,
) -> NDArray[Any]:
    """One detector's part of an array, from the run that holds it."""
    block = np.full((1, 1, *sizes), np.nan if dtype.kind == "f" else 0, dtype)
    visit, detector, *_ = block_info[None]["chunk-location"]
    if (visit, detector) in held:
        folder, *index = held[visit, detector]
        values = read_block(place_at(folder) / array, (index[0], index[1]))
        block[0, 0][tuple(slice(0, length) for length in values.shape)] = values
    return block
