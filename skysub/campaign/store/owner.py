"""Who holds the lock of an output: what an owner says of itself, and whether it lives."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from skysub.campaign.store.storage_path import holder

__all__ = ["BEAT", "STALE", "is_alive", "machine", "owner"]

BEAT = 5.0
"""Seconds between two writings of a lock that is held."""

STALE = 30.0
"""Seconds after which a lock that was not renewed is its owner's no more."""


def owner(token: str) -> dict[str, Any]:
    """Return what this process writes into a lock that it holds under a token of its own."""
    return {
        "token": token,
        "holder": holder(),
        "machine": machine(),
        "process": os.getpid(),
        "born": psutil.Process().create_time(),
    }


def is_alive(content: dict[str, Any], held_here: set[str]) -> bool | None:
    """Whether an owner's process lives; None where it runs on another machine.

    ``held_here`` are the tokens of locks that this process holds.
    """
    if not content.get("machine") or content["machine"] != machine():
        return None
    if content["process"] == os.getpid():
        # one that could not be given back, as the server was away
        return content["token"] in held_here
    try:
        process = psutil.Process(content["process"])
        # numbers of processes are used again
        same = abs(process.create_time() - content["born"]) < 1
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@cache
def machine() -> str:
    """What tells this machine, and this container on it, from all others; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""
