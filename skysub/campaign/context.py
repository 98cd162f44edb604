"""What a worker keeps between units of one run: the plan's record, the steps and their settings."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c

from skysub.campaign.chain import Chain, chained, linked
from skysub.campaign.described import step_described
from skysub.campaign.products.base import Storing
from skysub.campaign.recipe import built
from skysub.campaign.steps import loaded_step
from skysub.campaign.store.address import place_at
from skysub.campaign.store.local import checksum
from skysub.campaign.store.runs import Run
from skysub.errors import InputChangedError, OutputError
from skysub.visit.ingest import IngestMap

if TYPE_CHECKING:
    from collections.abc import Hashable

    from astropy.table import QTable

    from skysub.campaign.steps import Step

__all__ = [
    "chain_of",
    "files_of",
    "ingest_of",
    "path_of_table",
    "run_at",
    "storing_of",
    "table_of",
    "working_chain_of",
]


def run_at(folder: str) -> Run:
    """Run in a folder; its record is read once, unless another run takes the folder's place.

    Raises
    ------
    OutputError
        When it is gone.
    """
    place = place_at(folder) / "run.json"
    try:
        return _opened(folder, place.version_token())
    except FileNotFoundError:
        raise OutputError(f"{place} is gone: the output was removed while a run worked on it") from None


def chain_of(run: Run) -> Chain:
    """Steps of a run, with their settings; nothing that the store names is imported.

    A step whose module this process has not imported by its own will is as the run describes it: its products
    can be read, not made.
    """
    return _described(
        run.record.chain, tuple(loaded_step(name) is not None for name in run.record.step_names)
    )


def working_chain_of(run: Run) -> Chain:
    """Steps of a run, imported: for workers, whose coordinator compared their names with its own recipe's."""
    return _chained(run.record.chain)


def storing_of(run: Run) -> Storing:
    """What a run keeps of its products."""
    return Storing(**run.record.products)


def ingest_of(run: Run, source: int) -> IngestMap:
    """Mapping by which a run reads the files of one source."""
    return _ingest(json.dumps(run.record.ingests[source]), source)


def table_of(run: Run, name: str) -> QTable:
    """Table that the recipe named, as it was planned; the caller's own.

    Raises
    ------
    InputChangedError
        When the file is another one now.
    """
    entry = run.record.tables[name]
    return _table(entry["path"], entry["crc32c"]).copy()


def path_of_table(run: Run, name: str) -> Path:
    """Path of a table that the recipe named, once it is seen to be the one that was planned.

    Raises
    ------
    InputChangedError
        When the file is another one now.
    """
    entry = run.record.tables[name]
    return _unchanged(entry["path"], entry["crc32c"])


def files_of(run: Run, step: str) -> dict[str, bytes]:
    """Contents of the files that a step's settings name, by path, once they are seen to be those planned.

    Raises
    ------
    InputChangedError
        When one is another one now.
    """
    own = {name: entry for name, entry in run.record.tables.items() if name.startswith(f"{step}/")}
    return {entry["path"]: _content(entry["path"], entry["crc32c"]) for _, entry in sorted(own.items())}


@functools.lru_cache(maxsize=4)
def _opened(folder: str, _made: Hashable) -> Run:
    return Run(place_at(folder))


@functools.lru_cache(maxsize=8)
def _chained(text: str) -> Chain:
    steps, tables = json.loads(text)
    return chained({name: settings for name, _, _, settings, _ in steps}, tables)


@functools.lru_cache(maxsize=16)
def _described(text: str, _loaded: tuple[bool, ...]) -> Chain:
    steps, tables = json.loads(text)
    found: list[tuple[Step, Any]] = []
    for name, version, scope, settings, description in steps:
        step = loaded_step(name)
        if step is None:
            found.append((step_described(name, version, scope, description), settings))
        else:
            found.append((step, step.configured(settings)))
    return linked(found, tables)


@functools.lru_cache(maxsize=64)
def _ingest(settings: str, source: int) -> IngestMap:
    ingest: IngestMap = built(IngestMap, json.loads(settings), f"inputs.{source}.ingest")
    return ingest


@functools.lru_cache(maxsize=4)
def _table(path: str, crc: str) -> QTable:
    from astropy.table import QTable

    return QTable.read(_unchanged(path, crc))


@functools.lru_cache(maxsize=8)
def _content(path: str, crc: str) -> bytes:
    try:
        data = place_at(path).read()
    except OSError:
        data = None
    if data is None or f"{google_crc32c.value(data):08x}" != crc:
        raise InputChangedError(
            f"{path} changed since the campaign was planned: start the same command again"
        )
    return data


@functools.lru_cache(maxsize=8)
def _unchanged(path: str, crc: str) -> Path:
    try:
        same = checksum(Path(path)) == crc
    except OSError:
        same = False
    if not same:
        raise InputChangedError(
            f"{path} changed since the campaign was planned: start the same command again"
        )
    return Path(path)
