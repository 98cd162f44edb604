"""``source`` in Parquet: units and descriptions where astropy and LSST's butler look for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from skysub.errors import MissingPackageError, OutputError, how_to_install
from skysub.measurement.columns import COLUMNS

if TYPE_CHECKING:
    import os

    from skysub.measurement.table import SourceTable

__all__ = ["source_schema", "write_sources"]

_ARROW = {"str": "string", "bool": "bool_"}
_LENGTHS = ("table::len::", "lsst::arrow::len::")
"""Before a column's name: how many letters its texts have, for astropy and for LSST's butler."""


@functools.cache
def source_schema(letters: tuple[int, ...]) -> Any:
    """Arrow's schema of ``source``.

    Parameters
    ----------
    letters
        Length of the texts in each column of texts, in their order.

    Raises
    ------
    MissingPackageError
        When pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingPackageError(f"tables of sources need pyarrow; {how_to_install('parquet')}") from error
    fields = []
    for known in COLUMNS:
        kind = getattr(pa, _ARROW.get(known.dtype, known.dtype))()
        metadata = {"description": known.description}
        if known.unit:
            metadata["unit"] = known.unit
        fields.append(pa.field(known.name, kind, nullable=False, metadata=metadata))
    texts = [known.name for known in COLUMNS if known.dtype == "str"]
    metadata = {
        f"{prefix}{name}": str(length)
        for prefix in _LENGTHS
        for name, length in zip(texts, letters, strict=True)
    }
    return pa.schema(fields, metadata={"table_meta_yaml": _astropy_yaml(), **metadata})


def write_sources(table: SourceTable, path: str | os.PathLike[str]) -> None:
    """Write a table of sources as Parquet, one row group.

    Raises
    ------
    MissingPackageError
        When pyarrow is not installed.
    OutputError
        When the file cannot be written.
    """
    arrow = table.to_arrow()
    from pyarrow import parquet

    try:
        parquet.write_table(arrow, path, compression="zstd", row_group_size=max(1, arrow.num_rows))
    except OSError as error:
        raise OutputError(f"{path}: the table of sources cannot be written: {error}") from error


def _astropy_yaml() -> str:
    """Units and descriptions as astropy keeps them in Parquet."""
    from astropy.table import Column, Table
    from astropy.table.meta import get_yaml_from_table

    table = Table(
        [
            Column(
                name=known.name,
                dtype="U1" if known.dtype == "str" else known.dtype,
                unit=known.unit or None,
                description=known.description,
            )
            for known in COLUMNS
        ]
    )
    return "\n".join(get_yaml_from_table(table))
