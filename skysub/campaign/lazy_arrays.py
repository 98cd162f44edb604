"""Lazy arrays for xarray whose reading says in our words what is damaged, and whose it is."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray import Variable
from xarray.backends import BackendArray
from xarray.core import indexing

from skysub.campaign.records import who
from skysub.campaign.store.address import place_at
from skysub.campaign.store.arrays import read_block
from skysub.errors import DamagedError

if TYPE_CHECKING:
    import xarray
    from numpy.typing import NDArray

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["checked_variable"]


def checked_variable(
    variable: xarray.DataArray, place: StoragePath, visits: NDArray[np.int64], detectors: NDArray[np.int64]
) -> Variable:
    """Return a variable like one of Zarr's array at ``place``, over (visit, detector, ...), read as lazily.

    Reading what is damaged raises `skysub.errors.DamagedError`.
    """
    array = _CheckedArray(variable.shape, variable.dtype, str(place.absolute()), visits, detectors)
    lazy = indexing.LazilyIndexedArray(array)
    return Variable(variable.dims, lazy, variable.attrs, encoding=variable.encoding)


class _CheckedArray(BackendArray):
    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        place: str,
        visits: NDArray[np.int64],
        detectors: NDArray[np.int64],
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._place = place
        self._visits = visits
        self._detectors = detectors

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        place = place_at(self._place)
        try:
            return read_block(place, key)
        except DamagedError:
            along = [
                np.atleast_1d(np.arange(length)[each])
                for length, each in zip(self.shape, key[:2], strict=False)
            ]
            for visit, detector in product(*along):
                named = who(int(self._visits[visit]), int(self._detectors[detector]))
                read_block(place, (int(visit), int(detector)), of=named)
            raise
