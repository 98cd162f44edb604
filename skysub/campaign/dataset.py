"""The Zarr arrays of a run as xarray sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.campaign.steps import find_step
from skysub.errors import MissingPackageError, NotDoneError, how_to_install

if TYPE_CHECKING:
    import xarray

    from skysub.campaign.store.runs import Run

__all__ = ["open_dataset"]


def open_dataset(run: Run, product: str) -> xarray.Dataset:
    """Open one product of a run; see `skysub.campaign.campaign.Campaign.open_dataset`.

    Raises
    ------
    NotDoneError
        When the run makes no such product.
    MissingPackageError
        When xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise MissingPackageError(
            f"opening a product by name needs xarray; {how_to_install('xarray')}"
        ) from error

    step = find_step(run.record["step"])
    stores = {step.product: run.images, step.background_product: run.backgrounds}
    if product not in stores:
        raise NotDoneError(f"run {run.name} makes no {product!r}; it makes {' and '.join(stores)}")
    dataset = xr.open_zarr(
        stores[product].zarr_store(),
        group=product,
        consolidated=False,
        zarr_format=3,
        chunks=None,
        mask_and_scale=False,
    )
    visits, detectors = dataset["visit"].to_numpy(), dataset["detector"].to_numpy()
    visit_at = {int(visit): i for i, visit in enumerate(visits)}
    detector_at = {int(detector): i for i, detector in enumerate(detectors)}
    done = np.zeros((len(visits), len(detectors)), bool)
    bands = [""] * len(visits)
    gathered = run.markers.gathered()
    for visit, units in run.visits():
        bands[visit_at[visit]] = units[0].band
        detectors_of = [unit.detector for unit in units]
        for detector in detectors_of if visit in gathered else run.markers.done(visit, detectors_of):
            done[visit_at[visit], detector_at[detector]] = True
    opened: xarray.Dataset = dataset.assign_coords(
        band=("visit", np.array(bands, dtype=str)),
        done=(("visit", "detector"), done),
    )
    return opened
