"""Which files a recipe means, and what their headers say; no pixel is read."""

from __future__ import annotations

import csv
import dataclasses
import glob
import itertools
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skysub.campaign.input_index import InputIndex
from skysub.campaign.recipe import built, short_hash
from skysub.campaign.records import Exposure
from skysub.campaign.store.local import checksum
from skysub.errors import InputChangedError, InputsError, SkysubError
from skysub.text import printable
from skysub.visit.ingest import IngestMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from skysub.campaign.recipe import Source

__all__ = [
    "Unreadable",
    "content_checksum",
    "found_inputs",
    "ingest_maps",
    "is_unchanged",
    "known_ingest",
    "stamp",
]


_AT_ONCE = 8
"""Files that are looked at at once: most of the time goes into waiting for a file system."""

_LARGE = 256 * 2**20
_HOLLOW = 50
"""Bytes from which on a file is asked for holes, and how few of its bytes may be there: no file system
compresses pixels with noise to that."""

_BATCH = 512
"""Files that are gone through together."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An input file that cannot be planned, and why."""

    path: str
    reason: str


def found_inputs(
    sources: Sequence[Source], index: InputIndex | None = None
) -> Iterator[Exposure | Unreadable]:
    """Open the headers of all input files, several at once, in the order of the sources and of their names.

    ``index`` knows what headers said before; files that it knows and that have not changed stay closed.

    Raises
    ------
    InputsError
        When a source matches no file or names an address, a table has no column ``path``, or there is no
        source at all.
    """
    if not sources:
        raise InputsError("the recipe names no inputs: give --inputs 'raw/*.fits', or inputs: in the recipe")
    known_files = index or InputIndex(None, keep=False)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number, (source, ingest) in enumerate(zip(sources, ingest_maps(sources), strict=True)):
            paths = iter(_paths(source))
            while batch := list(itertools.islice(paths, _BATCH)):
                yield from _looked_at(pool, batch, _Mapping(number, ingest, short_hash(ingest)), known_files)


@dataclass(frozen=True)
class _Mapping:
    source: int
    ingest: IngestMap
    name: str

    def word(self, known: dict[str, Any]) -> str:
        """Name of the mapping together with what is known without headers."""
        return f"{self.name} {known}" if known else self.name


def _looked_at(
    pool: ThreadPoolExecutor,
    batch: list[tuple[str, dict[str, Any]]],
    mapping: _Mapping,
    index: InputIndex,
) -> Iterator[Exposure | Unreadable]:
    pieces = [batch[i::_AT_ONCE] for i in range(_AT_ONCE)]
    stamps: list[tuple[int, int] | None] = [None] * len(batch)
    for i, found in enumerate(pool.map(_stamps, pieces)):
        stamps[i::_AT_ONCE] = found
    looking: dict[int, Future[list[Exposure | Unreadable]]] = {}
    kept: dict[int, list[Exposure]] = {}
    for i, ((path, known), stamped) in enumerate(zip(batch, stamps, strict=True)):
        exposures = None if stamped is None else index.find(path, mapping.word(known), stamped)
        if exposures is None:
            looking[i] = pool.submit(_look, path, known, mapping.source, mapping.ingest)
        else:
            kept[i] = [dataclasses.replace(each, source=mapping.source) for each in exposures]
    for i, (path, known) in enumerate(batch):
        if i in kept:
            yield from kept[i]
            continue
        seen = looking[i].result()
        sound = [each for each in seen if isinstance(each, Exposure)]
        stamped = stamps[i]
        if stamped is not None and sound and len(sound) == len(seen):
            index.add(path, mapping.word(known), stamped, sound)
        yield from seen


def _stamps(batch: list[tuple[str, dict[str, Any]]]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for path, _ in batch:
        try:
            found.append(stamp(path))
        except (InputChangedError, OSError):
            found.append(None)
    return found


def ingest_maps(sources: Sequence[Source]) -> list[IngestMap]:
    """Mapping of each source's files.

    Raises
    ------
    RecipeError
        Where a mapping has an unknown key or a value that is no good.
    """
    return [
        built(IngestMap, source.ingest or {}, f"inputs.{number}.ingest")
        for number, source in enumerate(sources)
    ]


def known_ingest(ingest: IngestMap, known: Iterable[tuple[str, Any]]) -> IngestMap:
    """Return the mapping with what a pattern or a table says (visit, detector, band) in place of headers."""
    says: dict[str, Any] = {name: f"={value}" if name == "band" else value for name, value in known}
    return dataclasses.replace(ingest, **says)


def stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds of an input; sum and latest of several files.

    Raises
    ------
    InputChangedError
        When a file is gone.
    """
    try:
        stats = [os.stat(each) for each in _files(path)]
    except FileNotFoundError as error:
        raise InputChangedError(f"{error.filename} is gone since the campaign was planned") from None
    return sum(each.st_size for each in stats), max(each.st_mtime_ns for each in stats)


def content_checksum(path: str, known: str | None = None) -> str:
    """CRC-32C of an input's bytes; of several files, one after the other.

    ``known`` is that of the file itself, where it was worked out as the file was read.
    """
    first, *beside = _files(path)
    return "-".join([known or checksum(Path(first)), *(checksum(Path(each)) for each in beside)])


def is_unchanged(path: str, planned: tuple[int, int], *, was: str | None = None) -> bool:
    """Whether an input is the one that was planned.

    Equal size and time of change: yes. Another size: no. Another time alone: only if the bytes still
    have the checksum ``was`` (None: unknown, so no), as after a copy or a ``touch``.
    """
    size, mtime_ns = stamp(path)
    if (size, mtime_ns) == planned:
        return True
    return size == planned[0] and was is not None and content_checksum(path) == was


def _files(path: str) -> list[str]:
    """The input, and the files that belong to it."""
    from skysub.visit.fits.read import companion_files

    return [path, *(each for each in companion_files(path) if Path(each).exists())]


def _paths(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in (source.table or "", source.pattern or "", *source.files):
        _check_local(each)
    if source.table:
        yield from _table_rows(source.table)
        return
    if source.pattern:
        wanted, search = _compiled(source.pattern)
        matches = [(path, search.fullmatch(path)) for path in _globbed(wanted)]
        hits = [(path, match) for path, match in matches if match]
        if not hits:
            raise InputsError(f"no file matches the pattern {source.pattern!r}{_why_not(wanted)}")
        for path, match in hits:
            says: dict[str, Any] = {name: value for name, value in match.groupdict().items() if value}
            yield path, {name: value if name == "band" else int(value) for name, value in says.items()}
        return
    seen = set()
    for each in source.files:
        found = _globbed(each)
        if not found and Path(each).expanduser().is_dir():
            raise InputsError(f"{each} is a folder: give '{each.rstrip('/')}/*.fits'")
        if not found:
            raise InputsError(f"no file matches {each!r}{_why_not(each)}")
        for path in found:
            if path not in seen:
                seen.add(path)
                yield path, {}


def _check_local(text: str, where: str = "") -> None:
    if "://" in text:
        raise InputsError(f"{where}{text}: inputs are local files; fetch them, or mount what they lie in")


def _globbed(text: str) -> list[str]:
    absolute = str(Path(text).expanduser().absolute())
    return sorted(path for path in glob.glob(absolute, recursive=True) if not Path(path).is_dir())


def _why_not(text: str) -> str:
    folder = Path(text).expanduser()
    while any(mark in folder.name for mark in "*?[") or not folder.exists():
        if folder == folder.parent:
            break
        folder = folder.parent
    if folder.is_dir():
        count = sum(1 for _ in folder.iterdir())
        return f": {folder.absolute()} holds {count} files and folders, none of that name"
    return f": {folder.absolute()} is a file" if folder.exists() else ""


def _compiled(pattern: str) -> tuple[str, re.Pattern[str]]:
    absolute = str(Path(pattern).expanduser().absolute())
    parts = re.split(r"(\{visit\}|\{detector\}|\{band\}|\*)", absolute)
    groups = {"{visit}": r"(?P<visit>\d+)", "{detector}": r"(?P<detector>\d+)", "{band}": r"(?P<band>\w+?)"}
    seen: set[str] = set()
    expression, wanted = "", ""
    for part in parts:
        if part in groups:
            expression += f"(?P={part[1:-1]})" if part in seen else groups[part]
            wanted += "*"
            seen.add(part)
        elif part == "*":
            expression += "[^/]*"
            wanted += "*"
        else:
            expression += re.escape(part)
            wanted += glob.escape(part)
    return wanted, re.compile(expression)


def _table_rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(name).expanduser()
    kinds = {".csv": "csv", ".ecsv": "ascii.ecsv", ".parquet": "parquet"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InputsError(
            f"{path}: a table of inputs is {', '.join(kinds)}, not {path.suffix or 'without a suffix'}"
        )
    rows = _csv_rows(path) if kind == "csv" else _table(path, kind)
    number = 0
    for number, row in enumerate(rows, 1):
        if not row.get("path"):
            raise InputsError(
                f"{path} has no column 'path'; its columns are {', '.join(row)}"
                if "path" not in row
                else f"{path}, row {number}: the path is missing"
            )
        _check_local(row["path"], f"{path}, row {number}: ")
        file = Path(row["path"]).expanduser()
        file = file if file.is_absolute() else path.absolute().parent / file
        known: dict[str, Any] = {}
        for key in ("visit", "detector"):
            if key in row:
                try:
                    known[key] = int(row[key])
                except ValueError:
                    raise InputsError(
                        f"{path}, row {number}: {key} must be a whole number, not {row[key]!r}"
                    ) from None
        if "band" in row:
            known["band"] = row["band"]
        yield str(file), known
    if not number:
        raise InputsError(f"{path} has no rows")


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows one after the other: a survey's table need not fit into memory."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, restval="", skipinitialspace=True):
                yield {str(key).strip(): str(value).strip() for key, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputsError(f"{path} cannot be read as a table: {error}") from None


def _table(path: Path, kind: str) -> Iterator[dict[str, str]]:
    from astropy.table import Table

    try:
        table = Table.read(path, format=kind)
    except Exception as error:  # noqa: BLE001 - table readers raise errors of all kinds
        raise InputsError(f"{path} cannot be read as a table: {error}") from None
    for row in table:
        yield {name: str(row[name]) for name in table.colnames}


def _hollow(path: str) -> str:
    """What is wrong with a file that was made long and never written; empty where nothing is."""
    found = os.stat(path)
    # some network file systems do not say what is written; those that compress may say less than there is
    there = 512 * found.st_blocks
    if found.st_size < _LARGE or not there or _HOLLOW * there > found.st_size:
        return ""
    return f"of its {found.st_size} bytes {there} were ever written, so the pixels are not there"


def _look(path: str, known: dict[str, Any], number: int, ingest: IngestMap) -> list[Exposure | Unreadable]:
    from skysub.visit.fits.read import read_visit_headers

    try:
        size, mtime_ns = stamp(path)
        if hollow := _hollow(path):
            return [Unreadable(path, hollow)]
        headers = read_visit_headers(path, known_ingest(ingest, known.items()))
    except InputChangedError:
        return [Unreadable(path, "there is no such file")]
    except (SkysubError, OSError) as error:
        return [Unreadable(path, str(error).removeprefix(f"{printable(path)}: "))]
    # one strange file must not keep the others from being planned
    except Exception as error:  # noqa: BLE001
        return [Unreadable(path, printable(f"{type(error).__name__}: {error}"))]
    return [
        Exposure(
            visit=header.visit,
            detector=header.detector,
            band=header.band,
            exposure_time=header.exposure_time if math.isfinite(header.exposure_time) else None,
            unit=header.unit,
            path=path,
            size=size,
            mtime_ns=mtime_ns,
            shape=header.shape,
            source=number,
            known=tuple(known.items()),
        )
        for header in headers
    ]
