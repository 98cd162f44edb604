"""A visit summary: one row per detector of what upstream work has found, from Parquet, ECSV or FITS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import UpstreamFailureError, VisitSummaryError, how_to_install

if TYPE_CHECKING:
    import os

__all__ = ["DETECTOR_NAMES", "VISIT_NAMES", "VisitSummary", "read_visit_summary", "write_visit_summary"]

VISIT_NAMES = ("visit", "visitId", "visit_id")
DETECTOR_NAMES = ("detector", "detectorId", "detector_id", "id")
"""What LSST's tables call the two keys: CcdVisit and visit_summary do not agree."""
_SHOWN = 5
_FORMATS = {".ecsv": "ascii.ecsv", ".fits": "fits", ".fit": "fits"}


class VisitSummary(Mapping[tuple[int, int], Mapping[str, Any]]):
    """Rows of a visit summary by visit and detector.

    Parameters
    ----------
    columns
        Values by column, one for each row; arrays of a row are its elements.
    name
        What messages call it: the file's path.

    Raises
    ------
    VisitSummaryError
        When there is no column of visits or detectors, a key is not a whole number, or a detector of a visit
        has two rows.
    """

    def __init__(self, columns: Mapping[str, Any], *, name: str = "visit summary") -> None:
        self.name = name
        self._columns = {str(column): values for column, values in columns.items()}
        visits, detectors = (self._keys(names) for names in (VISIT_NAMES, DETECTOR_NAMES))
        self._row_of: dict[tuple[int, int], int] = {}
        twice = []
        for row, key in enumerate(zip(visits, detectors, strict=True)):
            if self._row_of.setdefault(key, row) != row:
                twice.append(key)
        if twice:
            shown = ", ".join(f"visit {v} detector {d}" for v, d in twice[:_SHOWN])
            more = f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
            raise VisitSummaryError(
                f"{name}: a visit summary has one row per detector; it has another for {shown}{more}: "
                "leave the right one of each"
            )

    def __getitem__(self, key: tuple[int, int]) -> Mapping[str, Any]:
        row = self._row_of[key]
        return {column: values[row] for column, values in self._columns.items()}

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self._row_of)

    def __repr__(self) -> str:
        return f"VisitSummary({len(self)} rows, name={self.name!r}, columns={' '.join(self._columns)})"

    def row(self, visit: int, detector: int) -> Mapping[str, Any]:
        """The row of a detector, value by column.

        Raises
        ------
        UpstreamFailureError
            When it has none.
        """
        try:
            return self[visit, detector]
        except KeyError:
            raise UpstreamFailureError(
                f"visit {visit} detector {detector}: {self.name} has no row for it: upstream work has not "
                "calibrated this detector",
                ("visit_summary row",),
            ) from None

    def _keys(self, names: tuple[str, ...]) -> list[int]:
        for name in names:
            if name in self._columns:
                return [self._whole(name, value) for value in self._columns[name]]
        raise VisitSummaryError(
            f"{self.name}: a visit summary needs a column {' or '.join(names)}; it has "
            f"{', '.join(self._columns) or 'none'}"
        )

    def _whole(self, name: str, value: Any) -> int:
        good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not good or value != value or int(value) != value or value < 0:  # noqa: PLR0124
            raise VisitSummaryError(f"{self.name}: {name} has the value {value!r}; it must be a whole number")
        return int(value)


def read_visit_summary(path: str | os.PathLike[str], *, visit: int | None = None) -> VisitSummary:
    """Read a visit summary.

    Parameters
    ----------
    path
        Local file: .parquet, .ecsv or .fits. What its columns mean stands in ``docs/formats.md``.
    visit
        Read the rows of this visit alone, where the file has those of many; of Parquet the others are not
        even unpacked where they lie in row groups of their own.

    Raises
    ------
    VisitSummaryError
        When the file cannot be read, lacks the columns of visits and detectors, or has a detector twice.
    """
    path = Path(path)
    if not path.is_file():
        raise VisitSummaryError(f"{path}: there is no such visit summary")
    try:
        if path.suffix.lower() == ".parquet":
            return VisitSummary(_of_parquet(path, visit), name=str(path))
        if path.suffix.lower() in _FORMATS:
            return VisitSummary(_of_astropy(path, visit), name=str(path))
    except VisitSummaryError:
        raise
    except ImportError as error:
        raise VisitSummaryError(
            f"{path}: reading Parquet needs pyarrow; {how_to_install('parquet')}"
        ) from error
    except Exception as error:
        raise VisitSummaryError(f"{path}: cannot be read as a visit summary: {error}") from error
    raise VisitSummaryError(
        f"{path}: a visit summary is a file .parquet, .ecsv or .fits, not {path.suffix!r}"
    )


def write_visit_summary(rows: list[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write rows of equal columns, as `skysub.visit.calibrations.summary_row` makes them.

    Columns whose arrays differ in shape from row to row are refused in FITS, which has no room for them.

    Raises
    ------
    VisitSummaryError
        When there is no row, columns differ, or the file cannot be written in its format.
    """
    path = Path(path)
    names = list(rows[0]) if rows else []
    if not rows or any(list(row) != names for row in rows):
        raise VisitSummaryError(
            f"{path}: rows of a visit summary must be at least one, and of the same columns"
        )
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet

            arrays = {name: [_plain(row[name]) for row in rows] for name in names}
            pyarrow.parquet.write_table(pa.table(arrays), path)
            return
        from astropy.table import Table

        Table({name: np.array([row[name] for row in rows]) for name in names}).write(
            path, format=_FORMATS[path.suffix.lower()], overwrite=True
        )
    except ImportError as error:
        raise VisitSummaryError(
            f"{path}: writing Parquet needs pyarrow; {how_to_install('parquet')}"
        ) from error
    except (KeyError, ValueError, OSError) as error:
        raise VisitSummaryError(f"{path}: cannot be written as a visit summary: {error}") from error


def _of_parquet(path: Path, visit: int | None) -> dict[str, list[Any]]:
    import pyarrow.parquet

    names = pyarrow.parquet.read_schema(path).names
    key = next((name for name in VISIT_NAMES if name in names), None)
    filters = None if visit is None or key is None else [(key, "=", visit)]
    # ParquetDataset would take a folder's name, such as visit=7, for a column of its own
    table = pyarrow.parquet.read_table(path, filters=filters, partitioning=None)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _of_astropy(path: Path, visit: int | None) -> dict[str, list[Any]]:
    from astropy.table import Table

    table = Table.read(path, format=_FORMATS[path.suffix.lower()])
    key = next((name for name in VISIT_NAMES if name in table.colnames), None)
    if visit is not None and key is not None:
        table = table[np.asarray(table[key]) == visit]
    return {name: [_value(value) for value in table[name]] for name in table.colnames}


def _value(value: Any) -> Any:
    """A cell as Python has it; None where it is masked."""
    if value is np.ma.masked:
        return None
    if isinstance(value, np.ma.MaskedArray):
        return value.filled(np.nan) if value.dtype.kind == "f" else value.data
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
