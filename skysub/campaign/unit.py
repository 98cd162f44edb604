"""One unit of work, as a worker does it: read, step, write, and the marker last."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import resource
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub._version import __version__
from skysub.campaign.context import configured_step, ingest_of, run_at
from skysub.campaign.inputs import content_checksum, is_unchanged, known_ingest, stamp
from skysub.campaign.store.arrays import write_plane
from skysub.campaign.store.backgrounds import inline, packed
from skysub.campaign.store.objects import text_of
from skysub.campaign.store.place import writing
from skysub.campaign.store.records import described, narrow_mask, numbers, pixels_checksum
from skysub.campaign.store.runs import Unit
from skysub.errors import InputChangedError, OutputError
from skysub.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.campaign.steps import Findings
    from skysub.campaign.store.runs import Run
    from skysub.visit.image import VisitImage

__all__ = [
    "Receipt",
    "commit",
    "failure_record",
    "guarded",
    "now",
    "process_units",
    "read_input",
    "write_product",
]

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETDOWN, errno.ENETUNREACH}
"""Errors of a file system that may be over in a moment: these are left to Dask's retries."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker reports of a unit: a few hundred bytes, never pixels."""

    visit: int
    detector: int
    state: str
    """"done", "failed" (its traceback lies in the run), or "stopped" (the output cannot be written)."""
    message: str = ""
    timings: tuple[tuple[str, float], ...] = ()
    """Seconds by stage."""


def process_units(folder: str, lines: Sequence[str]) -> list[Receipt]:
    """Do units of the run in ``folder``, one after the other; ``lines`` are the units as JSON."""
    receipts: list[Receipt] = []
    for line in lines:
        receipts.append(guarded(folder, line, _process))
        _settle()
        if receipts[-1].state == "stopped":
            break
    return receipts


@functools.cache
def _settle() -> None:
    """Give free memory back to the system, once: after the first unit.

    Workers keep what a unit frees for the next one. What the first unit leaves for good (libraries, compiled
    code) lies scattered in it, and arrays that no longer fit between would need as much again.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def guarded(folder: str, line: str, work: Callable[[Run, Unit], dict[str, float]]) -> Receipt:
    """Do one unit and report; what goes wrong is recorded, and nothing raised but to be tried again.

    ``work`` leaves the marker, and returns the seconds of its stages.
    """
    unit = Unit.from_json(line)
    try:
        run = run_at(folder)
    except OutputError as error:
        return Receipt(unit.visit, unit.detector, "stopped", str(error))
    try:
        if run.markers.of_detector(unit.visit, unit.detector) is not None:
            # a copy of this task was done elsewhere when its worker was taken for lost
            return Receipt(unit.visit, unit.detector, "done")
        timings = work(run, unit)
    except OutputError as error:
        return Receipt(unit.visit, unit.detector, "stopped", str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise
        message = unit.reason(_in_one_line(error))
        try:
            with writing(run.folder):
                run.markers.fail(
                    unit.visit, unit.detector, failure_record(run, unit, message, traceback.format_exc())
                )
        except OutputError as full:
            return Receipt(unit.visit, unit.detector, "stopped", str(full))
        return Receipt(unit.visit, unit.detector, "failed", message)
    return Receipt(unit.visit, unit.detector, "done", timings=tuple(timings.items()))


def read_input(run: Run, unit: Unit) -> VisitImage:
    """Read the input of a unit as it was planned.

    Raises
    ------
    InputChangedError
        When the file is another one now.
    SkysubError
        What `skysub.read_visit_image` raises.
    """
    from skysub.visit.fits.read import read_visit_image

    ingest = ingest_of(run, unit.source)
    planned = (unit.size, unit.mtime_ns)
    # without a look at the store, where nothing changed
    marker = None if stamp(unit.path) == planned else run.markers.of_detector(unit.visit, unit.detector)
    was = None if marker is None else marker["input"]["crc32c"]
    if not is_unchanged(unit.path, planned, was=was):
        raise InputChangedError(
            f"{unit.path} changed since the campaign was planned: start the same command again"
        )
    visit_image = read_visit_image(unit.path, known_ingest(ingest, unit.known), detector=unit.detector)
    if visit_image.shape != unit.shape:
        raise InputChangedError(f"{unit.path} has the shape {visit_image.shape}, not {unit.shape} as planned")
    return visit_image


def failure_record(run: Run, unit: Unit, message: str, trace: str) -> dict[str, Any]:
    """What the failure of a unit leaves behind."""
    return {
        "step": run.record["step"],
        "visit": unit.visit,
        "detector": unit.detector,
        "path": unit.path,
        "message": message,
        "traceback": trace,
        "when": now(),
        "host": socket.gethostname(),
    }


def commit(
    run: Run,
    unit: Unit,
    found: Findings,
    *,
    image: Mapping[str, Any],
    shards: Mapping[str, Any],
    crc32c: str,
    pixels_crc32c: str | None,
    timings: Mapping[str, float],
    started: str,
) -> None:
    """Leave the marker of a unit whose products are written; what was mended on reading is a flag."""
    mended = {"input_mended": "; ".join(image["notes"])} if image["notes"] else {}
    record = {
        "step": run.record["step"],
        "visit": unit.visit,
        "detector": unit.detector,
        "key": unit.key,
        "input": {"path": unit.path, "size": unit.size, "mtime_ns": unit.mtime_ns, "crc32c": crc32c},
        "figures": numbers(found.figures),
        "flags": mended | dict(found.flags),
        "timings": {name: round(seconds, 6) for name, seconds in timings.items()},
        "shards": shards,
        "pixels_crc32c": pixels_crc32c,
        "image": image,
        "shape": list(unit.shape),
        "background": inline(found.background),
        "maps": {name: packed(array) for name, array in found.maps.items()},
        "objects": {name: text_of(value) for name, value in found.objects.items()},
        "peak_memory": _peak_memory(),
        "started": started,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "versions": {"skysub": __version__, "python": platform.python_version()},
    }
    with writing(run.folder):
        run.markers.finish(unit.visit, unit.detector, record)


def write_product(run: Run, unit: Unit, name: str, pixels: NDArray[Any]) -> dict[str, Any]:
    """Write one array of a unit as its shard; returns what the marker says of it."""
    step, _ = configured_step(run)
    index = (unit.visit_index, unit.detector_index)
    with writing(run.folder):
        return write_plane(
            run.images, step.product, name, index, pixels, durable=run.record["products"]["durable"]
        )


def now() -> str:
    """Time of day as markers have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _process(run: Run, unit: Unit) -> dict[str, float]:
    step, config = configured_step(run)
    started, clock = now(), time.perf_counter()
    stamped = stamp(unit.path)
    visit_image = read_input(run, unit)
    timings = {"read": time.perf_counter() - clock}
    result = step.work(visit_image, config)
    del visit_image
    timings |= result.timings
    clock = time.perf_counter()
    crc = content_checksum(unit.path)
    if stamp(unit.path) != stamped:
        raise InputChangedError(f"{unit.path} changed while it was read: start the same command again")
    timings["checksum"] = time.perf_counter() - clock
    clock = time.perf_counter()
    found, made = result.without_pixels(), result.visit_image
    mask, planes = narrow_mask(made.mask, made.planes)
    image, pixels_crc = described(made, planes), None
    # each array is let go of once it is written, and the mask, which compresses to nothing, comes first:
    # compressing another takes as much again
    arrays: dict[str, Any] = {}
    if run.record["products"]["pixels"] == "stored":
        arrays = {"image": made.image, "variance": made.variance}
    else:
        pixels_crc = pixels_checksum(made.image)
    arrays["mask"] = mask
    del result, made, mask
    shards = {}
    while arrays:
        name, pixels = arrays.popitem()
        if pixels is not None:
            shards[name] = write_product(run, unit, name, pixels)
        del pixels
    timings["write"] = time.perf_counter() - clock
    commit(
        run,
        unit,
        found,
        image=image,
        shards=shards,
        crc32c=crc,
        pixels_crc32c=pixels_crc,
        timings=timings,
        started=started,
    )
    return timings


def _in_one_line(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    return (
        text
        if text and hasattr(error, "__module__") and type(error).__module__ == "skysub.errors"
        else (f"{type(error).__name__}: {text}" if text else type(error).__name__)
    )


def _peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
