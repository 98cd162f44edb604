"""Files of a release: written with their SHA-256, listed as ``sha256sum`` does, compared with the list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.address import place_at
from skysub.campaign.store.seals import unsealed
from skysub.campaign.store.storage_path import writing
from skysub.errors import ReleaseError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from skysub.campaign.store.storage_path import StoragePath

__all__ = [
    "BUILDING",
    "RECORD",
    "SUMS",
    "Shelf",
    "Verified",
    "Written",
    "files_below",
    "read_record",
    "verify_release",
]

RECORD = "release.json"
"""File that says what a release is; written last, so without it a release is not complete."""

SUMS = "SHA256SUMS"
"""File with the checksums of all others but `RECORD`, which holds that of this one."""

BUILDING = "building"
"""Folder beside the files of a release that is not complete yet."""


@dataclass(frozen=True)
class Written:
    """A file of a release."""

    name: str
    """Path below the release's folder."""
    bytes: int
    sha256: str

    @property
    def line(self) -> str:
        """Line of ``SHA256SUMS``."""
        return f"{self.sha256}  {self.name}"


@dataclass
class Shelf:
    """Where files of a release are put, and those that were."""

    root: StoragePath
    written: list[Written] = field(default_factory=list)

    def put(self, name: str, data: bytes | memoryview) -> str:
        """Write a whole file; returns its name."""
        with writing(self.root):
            (self.root / name).put(data)
        self.written.append(Written(name, len(data), hashlib.sha256(data).hexdigest()))
        return name


@dataclass(frozen=True)
class Verified:
    """What a comparison of a release with its checksums came to."""

    name: str
    files: int
    bytes: int
    problems: tuple[str, ...]
    """What is damaged, gone, or there without being listed, for people."""


def read_record(target: StoragePath) -> dict[str, Any] | None:
    """Content of ``release.json``; None where there is no complete release.

    Raises
    ------
    ReleaseError
        When it is not as it was written.
    """
    data = (target / RECORD).read()
    if not data:
        return None
    record = unsealed(data)
    if record is None:
        raise ReleaseError(f"{target / RECORD} is damaged: it no longer has its checksum")
    return record


def verify_release(target: str | os.PathLike[str]) -> Verified:
    """Compare all files of a release with their checksums, and look for files that are not listed.

    A file that is not listed counts, as Zarr and Parquet readers would take it for a part of the release.

    Raises
    ------
    ReleaseError
        When there is no complete release at ``target``, or its list of checksums is gone or damaged.
    """
    place = place_at(target)
    record = read_record(place)
    if record is None:
        begun = bool((place / BUILDING).names())
        raise ReleaseError(
            f"{target} holds no complete release: "
            + (
                "the same `skysub publish` that began it goes on"
                if begun
                else f"it has no {RECORD}, which `skysub publish` writes last"
            )
        )
    sums = (place / SUMS).read()
    if sums is None or hashlib.sha256(sums).hexdigest() != record["sums_sha256"]:
        what = "is gone" if sums is None else f"is not the one that {RECORD} names"
        raise ReleaseError(f"{place / SUMS} {what}: nothing can be compared without it")
    problems, total = [], 0
    listed: set[str] = set()
    for line in sums.decode().splitlines():
        sha, name = line[:64], line[66:]
        listed.add(name)
        data = (place / name).read()
        if data is None:
            problems.append(f"{name} is gone")
            continue
        total += len(data)
        if hashlib.sha256(data).hexdigest() != sha:
            problems.append(f"{name} is damaged")
    problems += [
        f"{name} is not of this release"
        for name in sorted(files_below(place))
        # what a kill left in the very last moment is read by nobody
        if name not in listed and name not in {RECORD, SUMS} and not name.startswith(f"{BUILDING}/")
    ]
    return Verified(record["name"], len(listed), total, tuple(problems))


def files_below(folder: StoragePath, inner: str = "") -> Iterator[str]:
    """Go through the paths of all files below a folder."""
    here = folder / inner if inner else folder
    files = here.sizes()
    for name in sorted({*files, *here.names()}):
        path = f"{inner}/{name}" if inner else name
        if name in files:
            yield path
        else:
            yield from files_below(folder, path)
