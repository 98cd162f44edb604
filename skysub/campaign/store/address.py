"""Which place a path or an address means."""

from __future__ import annotations

import os

from skysub.campaign.store.local import LocalPath
from skysub.campaign.store.storage_path import StoragePath
from skysub.errors import OutputError

__all__ = ["place_at"]


def place_at(where: str | os.PathLike[str] | StoragePath) -> StoragePath:
    """Return the place of a path, or of an ``s3://bucket/prefix`` address.

    Raises
    ------
    OutputError
        When it is an address of another kind, or the packages for it are not installed.
    """
    if isinstance(where, StoragePath):
        return where
    text = os.fspath(where)
    kind, separator, _ = text.partition("://")
    if not separator:
        return LocalPath(text)
    if kind != "s3":
        raise OutputError(
            f"{text}: a campaign is kept in a folder or at s3://BUCKET/PREFIX, not at {kind}://"
        )
    # most campaigns need nothing of it
    from skysub.campaign.store.s3 import S3Path

    return S3Path.at(text)
