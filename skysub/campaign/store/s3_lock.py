"""The lock of a campaign in a bucket: an object that its owner renews, and that a successor may take over.

It is written only if absent. Its owner writes it again every few seconds, on condition that it is still the
owner's. One that was not renewed for long, or whose process on this machine is gone, is dead: a successor
replaces it, on condition that nobody else did so meanwhile. Ages are told by the server's clock alone.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from skysub.campaign.store import owner as owners
from skysub.campaign.store.s3_client import AbsentError
from skysub.campaign.store.storage_path import Hold, parsed
from skysub.errors import OutputError, OutputInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.campaign.store.s3_object import S3Object

__all__ = ["locked"]

_LOG = logging.getLogger("skysub.campaign")

_HELD: set[str] = set()
"""Tokens of the locks that this process holds."""


@dataclass(frozen=True, slots=True)
class _Seen:
    content: dict[str, Any]
    tag: str
    age: float
    """Seconds since it was written."""


@contextmanager
def locked(lock: S3Object, folder: S3Object) -> Iterator[Hold]:
    """Hold a campaign's output for one coordinator; it is renewed until the end of the block.

    Raises
    ------
    OutputInUseError
        When another process holds it and is alive: which, where and since when.
    OutputError
        When the bucket cannot be written, or does not know conditional writes.
    """
    owner = _Owner(lock, folder)
    owner.take()
    beating = threading.Thread(target=owner.beat, daemon=True)
    beating.start()
    _HELD.add(owner.token)
    try:
        yield owner.hold
    finally:
        _HELD.discard(owner.token)
        owner.over.set()
        beating.join()
        # the output may be out of reach by now; then the lock becomes stale
        with suppress(OutputError):
            owner.release()


class _Owner:
    def __init__(self, lock: S3Object, folder: S3Object) -> None:
        self.hold = Hold()
        self.over = threading.Event()
        self.token = uuid.uuid4().hex
        self._lock = lock
        self._folder = folder
        self._tag = ""
        self._beats = 0
        self._content = owners.owner(self.token)

    def take(self) -> None:
        """Take the lock; wait to see whether an owner that was heard of lately is alive."""
        first = None
        while True:
            tag = self._lock.put_if(self._data(), IfNoneMatch="*")
            if tag is None:
                seen = _look(self._lock)
                if seen is None:
                    # given back a moment ago
                    continue
                tag = self._tag_of_mine(seen) or self._succeed(seen, first or seen)
                if tag is None and first is None:
                    first = seen
                    who = seen.content.get("holder", "another process")
                    _LOG.warning("%s: waiting to see whether %s is alive", self._folder, who)
            if tag is not None:
                self._tag = tag
                self._check_conditions()
                return
            time.sleep(min(1.0, owners.BEAT / 5))

    def beat(self) -> None:
        """Renew the lock every few seconds, until it is over or lost."""
        while not self.over.wait(owners.BEAT):
            # while the server is away nobody else can take the lock either
            with suppress(OutputError):
                if not self._renewed():
                    return

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        seen = _look(self._lock)
        if seen is not None and self._is_mine(seen):
            self._lock.remove()

    def _renewed(self) -> bool:
        self._beats += 1
        tag = self._lock.put_if(self._data(), IfMatch=self._tag)
        if tag is None:
            seen = _look(self._lock)
            tag = None if seen is None else self._tag_of_mine(seen)
            if tag is None:
                taken_by = "nobody" if seen is None else seen.content.get("holder", "another process")
                self.hold.lost = (
                    f"{self._folder} is not held by this process any more, but by {taken_by}: this one was "
                    "not heard of for too long. What is done is safe"
                )
                return False
        self._tag = tag
        return True

    def _succeed(self, seen: _Seen, first: _Seen) -> str | None:
        """Take over the lock of an owner that is gone; None where that is not known yet.

        Raises
        ------
        OutputInUseError
            When the owner is alive.
        """
        alive = owners.is_alive(seen.content, _HELD) if seen.age < owners.STALE else False
        if alive or (alive is None and seen.tag != first.tag):
            who = seen.content.get("holder", "another process")
            raise OutputInUseError(
                f"{self._folder} is in use by {who}, heard of {seen.age:.0f} s ago: wait for it, stop it, or "
                "choose another output"
            )
        if alive is None:
            return None
        _LOG.warning("%s: taking over from %s, which is gone", self._folder, seen.content.get("holder"))
        return self._lock.put_if(self._data(), IfMatch=seen.tag)

    def _check_conditions(self) -> None:
        """Make sure that the server refuses to write what is there already.

        Raises
        ------
        OutputError
            When it writes in spite of the condition.
        """
        if self._lock.put_if(self._data(), IfNoneMatch="*") is not None:
            self._lock.remove()
            raise OutputError(
                f"{self._folder} cannot hold a campaign: its server overwrites an object although it was "
                "told not to (If-None-Match). Use one that knows conditional writes, or a local folder"
            )

    def _tag_of_mine(self, seen: _Seen) -> str | None:
        # written by an attempt whose answer was lost
        return seen.tag if self._is_mine(seen) else None

    def _is_mine(self, seen: _Seen) -> bool:
        return bool(seen.content.get("token") == self.token)

    def _data(self) -> bytes:
        return json.dumps({**self._content, "beats": self._beats}).encode()


def _look(lock: S3Object) -> _Seen | None:
    try:
        answer = lock.get()
    except AbsentError:
        return None
    sent = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(sent).timestamp() if sent else time.time()
    return _Seen(
        content=parsed(answer["Body"]) or {},
        tag=answer["ETag"],
        age=max(0.0, now - answer["LastModified"].timestamp()),
    )
