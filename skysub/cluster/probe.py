"""What a process says of itself: sent to workers as text, so that one without skysub can answer as well.

Nothing but the standard library may be imported at the top of this module, and nothing of skysub.
"""

from __future__ import annotations

import importlib
import os
import platform
import socket
import sys
import time
import zlib
from pathlib import Path
from typing import Any

__all__ = ["probe"]


def probe(packages: list[str], variables: list[str], store_check: Any) -> dict[str, Any]:
    """Versions, environment, clock, memory, and what the campaign's store looks like from here."""
    versions, errors = {"python": platform.python_version()}, {}
    for name in packages:
        try:
            module = importlib.import_module(name)
            versions[name] = str(getattr(module, "__version__", "unknown"))
        except BaseException as error:  # noqa: BLE001 - whatever a broken installation raises is an answer
            versions[name] = ""
            errors[name] = f"{type(error).__name__}: {error}"
    answer = {
        "versions": versions,
        "errors": errors,
        "code": code_checksum() if versions.get("skysub") else "",
        "environment": {name: os.environ.get(name) for name in variables},
        "host": socket.gethostname(),
        "python": sys.executable,
        "store": "",
        **_worker(),
    }
    if store_check and versions.get("skysub"):
        module_name, function, arguments = store_check
        try:
            answer["store"] = getattr(importlib.import_module(module_name), function)(*arguments)
        except Exception as error:  # noqa: BLE001 - any error is the answer
            answer["store"] = f"it cannot be asked: {type(error).__name__}: {error}"
    answer["time"] = time.time()
    return answer


def code_checksum() -> str:
    """Checksum of skysub's own source, as two checkouts may have one version number."""
    folder = Path(str(importlib.import_module("skysub").__file__)).parent
    total = 0
    for path in sorted(folder.rglob("*.py"), key=lambda each: each.relative_to(folder).as_posix()):
        total = zlib.crc32(path.read_bytes(), zlib.crc32(path.relative_to(folder).as_posix().encode(), total))
    return f"{total:08x}"


def _worker() -> dict[str, Any]:
    """Threads and memory of the Dask worker that this process is; nothing where it is none."""
    try:
        config, get_worker = (
            importlib.import_module("dask").config,
            importlib.import_module("distributed").get_worker,
        )
        worker = get_worker()
    except (ImportError, ValueError):
        return {}
    return {
        "name": str(worker.name),
        "threads": worker.state.nthreads,
        "memory": worker.memory_manager.memory_limit or 0,
        "pause": config.get("distributed.worker.memory.pause", None),
    }
