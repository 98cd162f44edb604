"""The end of a publication: tables over all visits, metadata, checksums, and last of all ``release.json``."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.seals import read_sealed, sealed
from skysub.campaign.store.storage_path import writing
from skysub.errors import ReleaseError
from skysub.release.files import BUILDING, RECORD, SUMS, Shelf, Written
from skysub.release.part import STORE, Axes
from skysub.release.readme import readme
from skysub.release.zarr_store import metadata_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from skysub.campaign.store.storage_path import StoragePath
    from skysub.release.contents import Source, VisitContents
    from skysub.release.part import Part

__all__ = ["finish"]

_ROWS = 50_000
"""Rows of a table that are held at once."""


def finish(  # noqa: PLR0917 - all of a release
    place: StoragePath,
    source: Source,
    plan: Mapping[str, Any],
    parts: Mapping[str, Part],
    axes: Axes,
    visits: Iterable[VisitContents],
) -> dict[str, Any]:
    """Write what is of all visits together; returns the content of ``release.json``.

    Raises
    ------
    ReleaseError
        When the receipt of a visit is gone or damaged.
    """
    chosen = list(visits)
    shelf = Shelf(place)
    record = _record(plan, source)
    for key, data in metadata_of(parts, axes, chosen, _values(place, parts, axes), _attributes(record)):
        if key != "zarr.json":
            shelf.put(f"{STORE}/{key}", data)
        else:
            root = data
    for run in plan["contents"]["runs"]:
        text = json.dumps(source.current.runs[-1].other(run).record.as_json(), indent=1)
        shelf.put(f"provenance/runs/{run}.json", text.encode())
    _put_rows(shelf, "provenance/products.parquet", lambda: _rows(place, "provenance"), _provenance_types())
    _put_rows(shelf, "provenance/absent.parquet", lambda: _absent(chosen), _absent_types())
    _put_rows(shelf, "tables/visits.parquet", lambda: _visits(chosen), _visit_types())
    for step in source.steps:

        def rows(step: str = step) -> Iterator[dict[str, Any]]:
            for figures in _receipts(place, "figures"):
                yield from figures.get(step, ())

        types = _types_of(rows())
        if types:
            _put_rows(shelf, f"figures/{step.replace(':', '.')}.parquet", rows, types)
    shelf.put("README.md", readme(record).encode())
    # an archive without it opens as nothing at all
    shelf.put(f"{STORE}/zarr.json", root)
    return _sealed_record(place, shelf, record)


def _sealed_record(place: StoragePath, shelf: Shelf, record: dict[str, Any]) -> dict[str, Any]:
    """Write checksums of all files, and then what the release is."""
    sums = hashlib.sha256()
    count = total = 0

    def lines() -> Iterator[str]:
        nonlocal count, total
        for written in _all_files(place, shelf):
            count += 1
            total += written.bytes
            sums.update(f"{written.line}\n".encode())
            yield written.line

    with writing(place):
        (place / SUMS).put_lines(lines())
        record |= {"files": count, "bytes": total, "sums_sha256": sums.hexdigest()}
        # all of it must outlive a power failure if its record does
        place.sync_tree()
        (place / RECORD).put(sealed(json.dumps(record, indent=1).encode()), durable=True)
    return record


def _all_files(place: StoragePath, shelf: Shelf) -> Iterator[Written]:
    for files in _receipts(place, "files"):
        for each in files:
            yield Written(*each)
    yield from shelf.written


def _record(plan: Mapping[str, Any], source: Source) -> dict[str, Any]:
    contents, request = plan["contents"], plan["request"]
    return {
        "format": plan["format"],
        "name": request["name"],
        "created": plan["created"],
        "identity": contents["identity"],
        "campaign": plan["campaign"],
        "request": request,
        "skysub": plan["skysub"],
        "runs": contents["runs"],
        "steps": source.steps,
        "products": {
            name: {"kind": each["kind"], "of": each["of"], "step": each["step"]}
            for name, each in contents["products"].items()
        },
        "visits": len(contents["visits"]),
        "detectors": len(contents["detectors"]),
        "counts": contents["counts"],
    }


def _attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("name", "created", "identity", "skysub")}


def _values(
    place: StoragePath, parts: Mapping[str, Part], axes: Axes
) -> dict[str, dict[tuple[int, int], Mapping[str, Any]]]:
    """What was said of each value, by product and place along the first two axes."""
    found: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = {name: {} for name in parts}
    for row, values in enumerate(_receipts(place, "values")):
        for name, placed in values.items():
            for detector, each in placed:
                found[name][row, 0 if detector is None else axes.column(detector)] = each
    return found


def _receipts(place: StoragePath, key: str) -> Iterator[Any]:
    """Go through one entry of the receipts of all visits, in order."""
    folder = place / BUILDING / "receipts"
    names = sorted(folder.sizes(), key=lambda name: int(name.partition(".")[0]))
    for name in names:
        receipt = read_sealed(folder / name)
        if receipt is None:
            raise ReleaseError(
                f"{folder / name} is empty or gone: remove it and publish again, which goes on"
            )
        yield receipt[key]


def _rows(place: StoragePath, key: str) -> Iterator[dict[str, Any]]:
    for rows in _receipts(place, key):
        yield from rows


def _absent(visits: Iterable[VisitContents]) -> Iterator[dict[str, Any]]:
    for visit in visits:
        for step, detector, state, reason in visit.absent:
            yield {
                "step": step,
                "visit": visit.visit,
                "detector": detector,
                "state": state,
                "reason": reason,
            }


def _visits(visits: Iterable[VisitContents]) -> Iterator[dict[str, Any]]:
    for visit in visits:
        yield {
            "visit": visit.visit,
            "band": visit.band,
            "exposure_time": visit.exposure_time,
            "detectors": len(visit.detectors),
            "units_done": sum(map(len, visit.units.values())),
            "units_absent": len(visit.absent),
        }


def _put_rows(shelf: Shelf, name: str, rows: Any, types: Mapping[str, Any]) -> None:
    """Write rows as one Parquet file, some at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(list(types.items()))
    sink = pa.BufferOutputStream()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        held: list[dict[str, Any]] = []
        for row in rows():
            held.append(row)
            if len(held) == _ROWS:
                writer.write_table(pa.Table.from_pylist(held, schema))
                held = []
        writer.write_table(pa.Table.from_pylist(held, schema))
    shelf.put(name, sink.getvalue().to_pybytes())


def _types_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Types of columns that hold all values: whole numbers, numbers, truths or words."""
    import pyarrow as pa

    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            known = kinds.setdefault(name, set())
            if value is not None:
                known.add(type(value))
    types = {}
    for name, known in kinds.items():
        if known == {bool}:
            types[name] = pa.bool_()
        elif known == {int}:
            types[name] = pa.int64()
        elif known <= {int, float}:
            types[name] = pa.float64()
        else:
            types[name] = pa.string()
    return types


def _provenance_types() -> dict[str, Any]:
    import pyarrow as pa

    whole, text = pa.int64(), pa.string()
    return {
        "product": text,
        "visit": whole,
        "detector": whole,
        "step": text,
        "step_version": whole,
        "run": text,
        "key": text,
        "settings_hash": text,
        "missing": pa.list_(whole),
        "input_path": text,
        "input_bytes": whole,
        "input_crc32c": text,
        "skysub": text,
        "versions": text,
        "started": text,
        "host": text,
        "files": pa.list_(text),
    }


def _absent_types() -> dict[str, Any]:
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    return {"step": text, "visit": whole, "detector": whole, "state": text, "reason": text}


def _visit_types() -> dict[str, Any]:
    import pyarrow as pa

    whole = pa.int64()
    return {
        "visit": whole,
        "band": pa.string(),
        "exposure_time": pa.float64(),
        "detectors": whole,
        "units_done": whole,
        "units_absent": whole,
    }
