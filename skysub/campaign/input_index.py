"""What the headers of inputs said, kept beside a campaign: a start opens new and changed files alone.

A cache and no more: where it cannot be read or written, files are opened again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import google_crc32c

from skysub.campaign.records import Exposure
from skysub.campaign.store.local import LocalPath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["InputIndex", "opened_index"]

_VERSION = 2
"""Of what is kept of a file; an index of another version is made anew."""

_COMMIT_EVERY = 20_000


class InputIndex:
    """Headers by path, mapping, size and time of change.

    Parameters
    ----------
    path
        Of its file; None: it knows nothing, and keeps nothing.
    """

    def __init__(self, path: Path | None, *, keep: bool) -> None:
        self._keep = keep
        self._added = 0
        self._database: sqlite3.Connection | None = None
        if path is None or not (keep or path.exists()):
            return
        try:
            self._database = self._opened(path)
        except sqlite3.Error:
            if keep:
                # what is no index, or of another version, is made anew
                with suppress(OSError, sqlite3.Error):
                    path.unlink(missing_ok=True)
                    self._database = self._opened(path)

    @property
    def added(self) -> int:
        """Files that were added."""
        return self._added

    def find(self, path: str, mapping: str, stamp: tuple[int, int]) -> list[Exposure] | None:
        """Detectors of a file that has not changed; None where it must be opened."""
        if self._database is None:
            return None
        try:
            row = self._database.execute(
                "SELECT size, mtime_ns, facts FROM inputs WHERE path = ? AND mapping = ?",
                (os.fsencode(path), mapping),
            ).fetchone()
        except sqlite3.Error:
            self.close()
            return None
        if row is None or (row[0], row[1]) != stamp:
            return None
        kept = row[2] if isinstance(row[2], str) else ""
        crc, facts = kept[:8], kept[8:]
        if crc != _crc(facts):
            return None
        return [Exposure.from_values(values) for values in json.loads(facts)]

    def add(self, path: str, mapping: str, stamp: tuple[int, int], exposures: Sequence[Exposure]) -> None:
        """Keep what a file's headers said."""
        if self._database is None or not self._keep:
            return
        facts = json.dumps([each.values() for each in exposures], separators=(",", ":"))
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO inputs VALUES (?, ?, ?, ?, ?)",
                (os.fsencode(path), mapping, *stamp, _crc(facts) + facts),
            )
            self._added += 1
            if not self._added % _COMMIT_EVERY:
                self._database.commit()
        except sqlite3.Error:
            self.close()

    def close(self) -> None:
        """Write what was added."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                if self._keep:
                    self._database.commit()
            self._database.close()
            self._database = None

    def _opened(self, path: Path) -> sqlite3.Connection:
        mode = "rwc" if self._keep else "ro"
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                if version or not self._keep:
                    raise sqlite3.DatabaseError("of another version")
                database.execute(
                    "CREATE TABLE inputs (path BLOB, mapping TEXT, size INTEGER, mtime_ns INTEGER, "
                    "facts TEXT, PRIMARY KEY (path, mapping)) WITHOUT ROWID"
                )
                database.execute(f"PRAGMA user_version = {_VERSION}")
                database.commit()
        except sqlite3.Error:
            database.close()
            raise
        return database


def _crc(text: str) -> str:
    return f"{google_crc32c.value(text.encode()):08x}"


@contextmanager
def opened_index(output: StoragePath, *, keep: bool) -> Iterator[InputIndex]:
    """Open the index of a campaign; ``keep``: also add to it. Only under the lock, where it is kept."""
    place = output / "inputs.sqlite"
    if isinstance(place, LocalPath):
        index = InputIndex(place.path, keep=keep and place.path.parent.is_dir())
        try:
            yield index
        finally:
            index.close()
        return
    with TemporaryDirectory(prefix="skysub-") as folder:
        local = Path(folder) / place.name
        kept = place.read()
        if kept is not None:
            local.write_bytes(kept)
        index = InputIndex(local, keep=keep)
        try:
            yield index
        finally:
            index.close()
        if index.added:
            place.put(local.read_bytes())
