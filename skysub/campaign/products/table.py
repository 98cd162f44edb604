"""Tables in Parquet: a file per detector until its visit is finished, then one per visit.

In the visit's file each detector is a row group, so that one is read without the others, and any tool reads
``tables/PRODUCT/*.parquet`` as one table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import google_crc32c
import numpy as np

from skysub.campaign.products.base import Entry, Product, Slot, Storing
from skysub.campaign.records import who
from skysub.campaign.store.local import LocalPath
from skysub.campaign.store.seals import damage
from skysub.campaign.store.storage_path import writing
from skysub.errors import MissingPackageError, how_to_install
from skysub.measurement.visit_numbers import day_of_visit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping
    from pathlib import Path

    from astropy.table import QTable

    from skysub.campaign.products.base import Again
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Table", "annotated", "as_arrow", "as_qtable", "parquet_bytes"]

_ROWS = 20_000
"""Bytes of a table, about, until a step says better."""


@dataclass(frozen=True, kw_only=True)
class Table(Product):
    """A table of any number of rows: astropy's, Arrow's, or columns by name.

    The columns ``visit`` and ``detector`` are added where it has none. Units of columns are kept.
    """

    bytes_per_megapixel: float = _ROWS
    """What it weighs in a plan."""

    by_day: bool = False
    """Visits lie in folders of the day of observation that their numbers begin with, ``day_obs=20241124``;
    those without one in ``day_obs=0``."""

    kind: ClassVar[str] = "table"
    suffix: ClassVar[str] = "parquet"

    def room(
        self, shapes: Collection[tuple[int, int]], config: Any, units: Collection[str]
    ) -> dict[str, Any]:
        del shapes, config, units
        # said before any work is done
        _parquet()
        return {}

    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        del config, storing
        return self.bytes_per_megapixel * (1 if shape is None else shape[0] * shape[1] / 1e6)

    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        table = as_arrow(made.pop(self.name), {"visit": slot.visit, "detector": slot.detector})
        data = parquet_bytes([table])
        whole = slot.detector is None
        place = self._visit_file(slot) if whole else self._detector_file(slot)
        with writing(slot.run.folder):
            place.put(data, durable=storing.durable, scratch=slot.scratch)
        return {
            "rows": table.num_rows,
            "bytes": len(data),
            "crc32c": f"{google_crc32c.value(data):08x}",
            "group": 0 if whole else None,
        }, None

    def read(self, entry: Entry, again: Again | None = None) -> QTable:
        del again
        return as_qtable(self.arrow(entry))

    def arrow(self, entry: Entry, columns: list[str] | None = None) -> Any:
        """Return the table as Arrow's."""
        group = entry.record["group"]
        place = self._visit_file(entry.slot) if group is not None else self._detector_file(entry.slot)
        of = who(entry.slot.visit, entry.slot.detector)
        try:
            sound = _is_sound(place, place.version_token(), entry.record["crc32c"])
        except FileNotFoundError:
            if group is None:
                # its visit may be finished meanwhile
                raise
            raise damage(place, "is gone", of) from None
        if not sound:
            raise damage(place, "is damaged", of)
        with _opened(place) as opened:
            return opened.read_row_group(group or 0, columns=columns)

    def gather(self, entries: Mapping[int, Entry], storing: Storing, *, complete: bool) -> dict[int, Entry]:
        """Write the tables of a visit into one file, a row group each."""
        if not complete:
            return dict(entries)
        tables = [self.arrow(entry) for entry in entries.values()]
        first = next(iter(entries.values())).slot
        for detector, table in zip(entries, tables, strict=True):
            if not table.schema.equals(tables[0].schema):
                raise TypeError(
                    f"{self.name} of detector {detector} has the columns {_columns(table)}, that of "
                    f"detector {next(iter(entries))} {_columns(tables[0])}: all of a visit must have the same"
                )
        with writing(first.run.folder):
            data = parquet_bytes(tables)
            self._visit_file(first).put(data, durable=storing.durable, scratch=first.scratch)
        crc = f"{google_crc32c.value(data):08x}"
        return {
            detector: Entry(
                entry.slot,
                {**entry.record, "bytes": len(data), "crc32c": crc, "group": number},
                None,
            )
            for number, (detector, entry) in enumerate(entries.items())
        }

    def is_sound(self, entry: Entry) -> bool:
        whole = entry.record["group"] is not None
        place = self._visit_file(entry.slot) if whole else self._detector_file(entry.slot)
        return place.exists() and place.checksum() == entry.record["crc32c"]

    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        del options
        return functools.partial(_parquet().write_table, _explained(as_arrow(value, {}), value))

    def _visit_file(self, slot: Slot) -> StoragePath:
        folder = slot.run.folder / "tables" / self.name
        if self.by_day:
            folder /= f"day_obs={day_of_visit(slot.visit) or 0}"
        return folder / f"visit={slot.visit}.parquet"

    def _detector_file(self, slot: Slot) -> StoragePath:
        return slot.scratch / f"{self.name}-{slot.detector}.parquet"


def as_arrow(value: Any, known: Mapping[str, Any]) -> Any:
    """Return a table as Arrow's, with constant columns of what is ``known`` in front where it has none.

    Raises
    ------
    TypeError
        When it is no table.
    """
    import pyarrow as pa

    if not isinstance(value, pa.Table):
        columns = value if isinstance(value, dict) else _columns_of(value)
        arrays, fields = [], []
        for name, column in columns.items():
            array = _arrow_column(pa, column)
            unit = getattr(column, "unit", None)
            words = getattr(getattr(column, "info", None), "description", None)
            described = {"unit": str(unit) if unit else "", "description": words or ""}
            arrays.append(array)
            fields.append(
                pa.field(name, array.type, metadata={k: v for k, v in described.items() if v} or None)
            )
        value = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    there = [name for name, number in known.items() if number is not None and name not in value.column_names]
    for name in reversed(there):
        constant = pa.array(np.full(value.num_rows, known[name], np.int64))
        value = value.add_column(0, pa.field(name, pa.int64()), constant)
    return value


def annotated(tables: list[Any]) -> list[Any]:
    """Arrow tables of one schema with units and descriptions also where astropy looks for them in Parquet."""
    import pyarrow as pa
    from pyarrow import compute

    whole = pa.concat_tables(tables)
    explained = _explained(whole, as_qtable(whole.slice(0, 0))).schema.metadata
    lengths = {
        f"table::len::{field.name}": str(max(1, compute.max(compute.utf8_length(column)).as_py() or 0))
        for field, column in zip(whole.schema, whole.columns, strict=True)
        if pa.types.is_string(field.type)
    }
    return [table.replace_schema_metadata({**explained, **lengths}) for table in tables]


def as_qtable(table: Any) -> QTable:
    """Return an Arrow table as astropy's; what is null is masked."""
    from astropy.table import MaskedColumn, QTable
    from astropy.units import Unit

    made: dict[str, Any] = {}
    for field, chunked in zip(table.schema, table.columns, strict=True):
        array = chunked.combine_chunks()
        size = getattr(field.type, "list_size", None)
        flat = array.flatten() if size else array
        values = np.asarray(flat.to_numpy(zero_copy_only=False))
        if values.dtype == object:
            values = np.array(["" if each is None else each for each in values], dtype=str)
        if size:
            values = values.reshape(-1, size)
        elif flat.null_count:
            values = MaskedColumn(
                flat.fill_null(_nothing(flat)).to_numpy(zero_copy_only=False),
                mask=flat.is_null().to_numpy(zero_copy_only=False),
            )
        unit = (field.metadata or {}).get(b"unit")
        made[field.name] = values if unit is None else values * Unit(unit.decode())
    made = QTable(made)
    for field in table.schema:
        words = (field.metadata or {}).get(b"description")
        if words:
            made[field.name].info.description = words.decode()
    return made


def _explained(table: Any, value: Any) -> Any:
    """The Arrow table with units and descriptions where astropy looks for them in Parquet."""
    from astropy.table import Table as AstropyTable
    from astropy.table.meta import get_yaml_from_table

    if not isinstance(value, AstropyTable):
        return table
    plain = AstropyTable(value, copy=False)[:0]
    lengths = {
        f"table::len::{name}": str(max(1, value[name].dtype.itemsize // 4))
        for name in value.colnames
        if value[name].dtype.kind == "U"
    }
    yaml = "\n".join(get_yaml_from_table(plain))
    return table.replace_schema_metadata(
        {**(table.schema.metadata or {}), **lengths, "table_meta_yaml": yaml}
    )


def _nothing(array: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_string(array.type):
        return ""
    return False if pa.types.is_boolean(array.type) else 0


def _columns_of(value: Any) -> dict[str, Any]:
    names = getattr(value, "colnames", None)
    if names is None and getattr(getattr(value, "dtype", None), "names", None):
        names = value.dtype.names
    if names is None:
        raise TypeError(f"a table must be astropy's, Arrow's or columns by name, not {type(value).__name__}")
    return {name: value[name] for name in names}


def _arrow_column(pa: Any, column: Any) -> Any:
    mask = np.asarray(column.mask) if hasattr(column, "mask") else None
    values = np.asarray(getattr(column, "value", column))
    if values.dtype.kind == "U":
        return pa.array(values.tolist(), pa.string(), mask=mask)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values, mask=mask)


def parquet_bytes(tables: list[Any]) -> bytes:
    """Bytes of a Parquet file of Arrow tables of one schema, each a row group of its own."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with _parquet().ParquetWriter(sink, tables[0].schema, compression="zstd") as writer:
        for table in tables:
            # one row group each, of no rows as well
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    data: bytes = sink.getvalue().to_pybytes()
    return data


@functools.lru_cache(maxsize=4096)
def _is_sound(place: StoragePath, _made: Hashable, crc: str) -> bool:
    """Whether a file has the bytes that were written; each is looked at once, as it never changes."""
    return place.checksum() == crc


def _opened(place: StoragePath) -> Any:
    import pyarrow as pa

    if isinstance(place, LocalPath):
        return _parquet().ParquetFile(place.path)
    data = place.read()
    if data is None:
        raise FileNotFoundError(str(place))
    return _parquet().ParquetFile(pa.BufferReader(data))


def _columns(table: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(f"tables need pyarrow; {how_to_install('parquet')}") from error
    return parquet
