"""Whether a worker sees the store of a campaign as its coordinator does, and may write there."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from skysub.campaign.store.address import place_at
from skysub.campaign.store.storage_path import writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["reachable", "seen_from_here"]

_PREFIX = "reach-"


@contextmanager
def reachable(output: StoragePath) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Leave a sign in the store for a while; what a worker is to call is given: module, function, arguments.

    Raises
    ------
    OutputError
        When the store cannot be written from here.
    """
    for name in output.names():
        if name.startswith(_PREFIX):
            # of a coordinator that was killed
            (output / name).remove()
    token = uuid.uuid4().hex
    sign = output / f"{_PREFIX}{token}"
    with writing(output):
        sign.put(token.encode())
    try:
        yield __name__, seen_from_here.__name__, (str(output), token)
    finally:
        sign.remove()


def seen_from_here(output: str, token: str) -> str:
    """Say in a sentence what is wrong with the store as seen from this process; empty where nothing is."""
    place, here = place_at(output), f"on {socket.gethostname()}"
    try:
        if (place / f"{_PREFIX}{token}").read() != token.encode():
            return (
                f"{output} {here} is not what the coordinator sees under that name: give an output on a file "
                "system that all machines share, or at s3://"
            )
        own = place / f"{_PREFIX}{token}-{uuid.uuid4().hex}"
        own.put(token.encode())
        back = own.read()
        own.remove()
    except OSError as error:
        return f"{output} cannot be written {here} ({error}): let user {os.geteuid()} write there"
    return "" if back == token.encode() else f"{output} {here} does not give back what was written to it"
