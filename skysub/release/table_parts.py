"""Tables and objects of a release: a Parquet file per visit, each detector a row group."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from skysub.campaign.products.table import Table, annotated, parquet_bytes
from skysub.campaign.records import who
from skysub.errors import ReleaseError
from skysub.measurement.visit_numbers import day_of_visit
from skysub.release.part import Axes, Held, Part, Placed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr

    from skysub.release.files import Shelf

__all__ = ["ObjectPart", "TablePart"]


class TablePart(Part):
    """Rows of all detectors of a visit, with units and descriptions of columns."""

    product: Table

    def write(
        self, shelf: Shelf, axes: Axes, visit: int, units: Mapping[int | None, Held], group: zarr.Group
    ) -> dict[int | None, Placed]:
        """Write one file."""
        del axes, group
        if not units:
            return {}
        tables = [self.product.arrow(held.entry) for held in units.values()]
        for detector, table in zip(units, tables, strict=True):
            if not table.schema.equals(tables[0].schema):
                raise ReleaseError(
                    f"{self.name} of {who(visit, detector)} has other columns than that of "
                    f"{who(visit, next(iter(units)))}, which are no one table: publish them one by one"
                )
        folder = f"tables/{self.name}"
        if self.product.by_day:
            folder += f"/day_obs={day_of_visit(visit) or 0}"
        file = shelf.put(f"{folder}/visit={visit}.parquet", parquet_bytes(annotated(tables)))
        return {detector: Placed((file,), {}) for detector in units}


class ObjectPart(Part):
    """Objects as JSON, in the column ``value``."""

    def write(
        self, shelf: Shelf, axes: Axes, visit: int, units: Mapping[int | None, Held], group: zarr.Group
    ) -> dict[int | None, Placed]:
        """Write one file."""
        del axes, group
        if not units:
            return {}
        import pyarrow as pa

        columns: dict[str, Any] = {"visit": pa.array([visit] * len(units), pa.int64())}
        if None not in units:
            columns["detector"] = pa.array(list(units), pa.int64())
        columns["value"] = pa.array([json.dumps(held.entry.payload) for held in units.values()], pa.string())
        file = shelf.put(f"tables/{self.name}/visit={visit}.parquet", parquet_bytes([pa.table(columns)]))
        return {detector: Placed((file,), {}) for detector in units}
