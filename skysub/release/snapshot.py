"""The arrays of a release as a snapshot of icechunk, whose tag is the release's name.

Icechunk's stores have one way to name chunks and no consolidated metadata, so keys and metadata are put in
its words; chunks and shards keep their bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from skysub.campaign.store.address import place_at
from skysub.errors import MissingPackageError, OutputError, ReleaseError, how_to_install
from skysub.release.files import files_below, read_record
from skysub.release.part import STORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["write_snapshot"]

_BRANCH = "main"

_AT_ONCE = 4
"""Chunks and shards that are held and written at once."""


def write_snapshot(release: StoragePath, repository: str, say: Callable[[str], object] = print) -> str:
    """Commit the Zarr store of a complete release to a repository, made where there is none, with a tag.

    Snapshots of other releases stay, by their tags. A kill leaves the repository as it was, but for chunks
    that no snapshot names and that icechunk's ``garbage_collect`` removes.

    Returns
    -------
    snapshot
        Its id. One that is there already with the same content and tag is returned as it is.

    Raises
    ------
    MissingPackageError
        When icechunk is not installed.
    ReleaseError
        When the tag belongs to another release, or the release is not complete.
    OutputError
        When the repository cannot be opened or written.
    """
    try:
        import icechunk
    except ImportError as error:
        raise MissingPackageError(
            f"a snapshot needs icechunk; {how_to_install('icechunk')}; the release itself is complete"
        ) from error
    record = read_record(release)
    if record is None:
        raise ReleaseError(f"{release} is no complete release: publish it first")
    name, identity = record["name"], record["identity"]
    try:
        found = icechunk.Repository.open_or_create(_storage(icechunk, repository))
        if name in found.list_tags():
            snapshot = found.lookup_tag(name)
            if _identity(found, snapshot) != identity:
                raise ReleaseError(
                    f"{repository} has a tag {name!r} of other content, and a tag never moves: publish under "
                    "another name"
                )
            return str(snapshot)
        # a kill may have come between commit and tag
        tip = found.lookup_branch(_BRANCH)
        if _identity(found, tip) != identity:
            session = found.writable_session(_BRANCH)
            asyncio.run(_copied(release / STORE, session.store, say))
            tip = session.commit(f"release {name}", {"identity": identity, "name": name})
        found.create_tag(name, snapshot_id=tip)
    except icechunk.IcechunkError as error:
        first = str(error).strip().splitlines()[0].removeprefix("x ").strip()
        raise OutputError(f"the icechunk repository {repository} cannot be used: {first}") from None
    return str(tip)


def _identity(repository: Any, snapshot: str) -> str:
    """Identity of the release that a snapshot holds; empty for one that holds none."""
    first = next(iter(repository.ancestry(snapshot_id=snapshot)))
    return str((first.metadata or {}).get("identity", ""))


async def _copied(source: StoragePath, store: Any, say: Callable[[str], object]) -> None:
    from zarr.core.buffer import default_buffer_prototype

    buffer = default_buffer_prototype().buffer
    # a release stands for itself: nothing of an earlier one stays in it
    await store.clear()
    files = list(files_below(source))
    metadata = [name for name in files if name.rpartition("/")[2] == "zarr.json"]
    for name in metadata:
        await store.set(name, buffer.from_bytes(_translated(await asyncio.to_thread((source / name).read))))
    waiting = [name for name in files if name not in set(metadata)]
    say(f"icechunk: {len(waiting)} chunks")
    gate = asyncio.Semaphore(_AT_ONCE)

    async def copy(name: str) -> None:
        async with gate:
            data = await asyncio.to_thread((source / name).read)
            if data is None:
                raise ReleaseError(f"{source / name} is gone: the release is not as it was published")
            folder, _, key = name.rpartition("/")
            path = f"{folder}/{key.replace('.', '/')}" if key.startswith("c.") else name
            await store.set(path, buffer.from_bytes(data))

    await asyncio.gather(*map(copy, waiting))


def _translated(data: bytes | None) -> bytes:
    values = json.loads(data or b"{}")
    values.pop("consolidated_metadata", None)
    if "chunk_key_encoding" in values:
        values["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "/"}}
    return json.dumps(values).encode()


def _storage(icechunk: Any, repository: str) -> Any:
    place = place_at(repository)
    if "://" not in repository:
        return icechunk.local_filesystem_storage(str(place.absolute()))
    from botocore.session import Session
    from fsspec.config import conf

    # the settings of every other address of skysub
    given = dict(conf.get("s3", {}))
    session = Session(profile=given.get("profile"))
    found = session.get_credentials()
    keys = found.get_frozen_credentials() if found is not None else None
    endpoint = (
        given.get("endpoint_url")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    bucket, _, prefix = repository.removeprefix("s3://").partition("/")
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix or None,
        region=session.get_config_variable("region") or "us-east-1",
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=bool(endpoint),
        access_key_id=given.get("key") or (keys.access_key if keys else None),
        secret_access_key=given.get("secret") or (keys.secret_key if keys else None),
        session_token=given.get("token") or (keys.token if keys else None),
    )
