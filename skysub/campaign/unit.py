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
from skysub.campaign.context import run_at, storing_of, working_chain_of
from skysub.campaign.gather import close_visit
from skysub.campaign.given import Given
from skysub.campaign.inputs import content_checksum, stamp
from skysub.campaign.products.base import Entry, Slot
from skysub.campaign.reading import read_and_checksum
from skysub.campaign.records import Failure, Marker, WorkUnit
from skysub.campaign.store.records import numbers
from skysub.campaign.store.storage_path import writing
from skysub.errors import InputChangedError, OutputError
from skysub.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from skysub.campaign.chain import Link
    from skysub.campaign.given import Opener
    from skysub.campaign.steps import Findings
    from skysub.campaign.store.runs import Run

__all__ = [
    "Receipt",
    "commit",
    "failure_of",
    "guarded",
    "process",
    "process_units",
    "slot_in",
]

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETDOWN, errno.ENETUNREACH}
"""Errors of a file system that may be over in a moment: these are left to Dask's retries."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker reports of a unit: a few hundred bytes, never pixels."""

    step: str
    visit: int
    detector: int | None
    state: str
    """"done", "failed" (its traceback lies in the run), or "stopped" (the output cannot be written)."""
    message: str = ""
    timings: tuple[tuple[str, float], ...] = ()
    """Seconds by stage."""
    closing: bool = False
    """Whether it put the results of a visit's detectors together."""


def process_units(folder: str, lines: Sequence[str]) -> list[Receipt]:
    """Do units of the run in ``folder``, one after the other; ``lines`` are the units as JSON."""
    receipts: list[Receipt] = []
    for line in lines:
        receipts.append(guarded(folder, line, process))
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


def guarded(folder: str, line: str, work: Callable[[Run, WorkUnit], dict[str, float]]) -> Receipt:
    """Do one unit and report; what goes wrong is recorded, and nothing raised but to be tried again.

    ``work`` leaves the marker, and returns the seconds of its stages.
    """
    unit = WorkUnit.from_json(line)
    receipt = functools.partial(Receipt, *unit.name, closing=unit.closing)
    try:
        run = run_at(folder)
    except OutputError as error:
        return receipt("stopped", str(error))
    try:
        if _is_done(run, unit):
            # a copy of this task was done elsewhere when its worker was taken for lost
            return receipt("done")
        timings = work(run, unit)
    except OutputError as error:
        return receipt("stopped", str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise
        try:
            # what is written into an output that is gone fails in many ways
            run_at(folder)
        except OutputError as gone:
            return receipt("stopped", str(gone))
        message = unit.reason(_in_one_line(error))
        try:
            with writing(run.folder):
                run.markers(unit.step).fail(failure_of(run, unit, message, traceback.format_exc()))
        except OutputError as full:
            return receipt("stopped", str(full))
        return receipt("failed", message)
    return receipt("done", timings=tuple(timings.items()))


def failure_of(run: Run, unit: WorkUnit, message: str, trace: str) -> Failure:
    """What the failure of a unit leaves behind."""
    return Failure(
        path="" if unit.detector is None else unit.exposures[0].path,
        message=message,
        visit=unit.visit,
        detector=unit.detector,
        step=unit.step,
        run=run.name,
        traceback=trace,
        when=_now(),
        host=socket.gethostname(),
    )


def commit(
    run: Run,
    unit: WorkUnit,
    found: Findings,
    *,
    products: Mapping[str, Any],
    payload: Mapping[str, Any],
    crc32c: str | None,
    timings: Mapping[str, float],
    started: str,
) -> None:
    """Leave the marker of a unit whose products are written; what was mended on reading is a flag."""
    own = unit.exposures[0] if unit.detector is not None else None
    marker = Marker(
        step=unit.step,
        visit=unit.visit,
        detector=unit.detector,
        key=unit.key,
        input=None
        if own is None or crc32c is None
        else {"path": own.path, "size": own.size, "mtime_ns": own.mtime_ns, "crc32c": crc32c},
        missing=tuple(sorted(unit.missing)),
        figures=numbers(found.figures),
        flags=_mended(products) | dict(found.flags),
        timings={name: round(seconds, 6) for name, seconds in timings.items()},
        shape=None if own is None else own.shape,
        products=products,
        payload=payload,
        peak_memory=_peak_memory(),
        started=started,
        host=socket.gethostname(),
        process=os.getpid(),
        versions={"skysub": __version__, "python": platform.python_version()},
    )
    with writing(run.folder):
        run.markers(unit.step).finish(marker)


def slot_in(run: Run, unit: WorkUnit, detector: int | None) -> Slot:
    """Where products of a unit lie; ``detector``: of a visit's unit, those of one detector."""
    shapes = {each.detector: each.shape for each in unit.exposures}
    return Slot(
        run=run,
        step=unit.step,
        visit=unit.visit,
        detector=detector,
        visit_index=unit.visit_index,
        detector_index=-1 if detector is None else unit.places[detector],
        shape=None if detector is None else shapes[detector],
    )


def _now() -> str:
    """Time of day as markers have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _is_done(run: Run, unit: WorkUnit) -> bool:
    markers = run.markers(unit.step)
    if unit.detector is None:
        return markers.is_finished(unit.visit)
    return markers.of_unit(unit.visit, unit.detector) is not None


def process(run: Run, unit: WorkUnit, opened: Opener = read_and_checksum) -> dict[str, float]:
    """Do one unit, whose file ``opened`` opens; returns the seconds of its stages."""
    if unit.closing:
        with writing(run.folder):
            close_visit(run, unit)
        return {}
    link = working_chain_of(run)[unit.step]
    started, clock = _now(), time.perf_counter()
    path = unit.exposures[0].path
    stamped = stamp(path) if link.reads_file else None
    given = Given(run, unit, opened)
    result = link.step.work(given, link.config)
    working = time.perf_counter() - clock
    timings = {"read": given.seconds, **result.timings}
    # what the step does not say of its time is its own
    rest = working - sum(timings.values())
    if not result.timings:
        timings["work"] = max(0.0, rest)
    crc = None
    if stamped is not None:
        clock = time.perf_counter()
        crc = content_checksum(path, given.checksum)
        if stamp(path) != stamped:
            raise InputChangedError(f"{path} changed while it was read: start the same command again")
        timings["checksum"] = time.perf_counter() - clock
    clock = time.perf_counter()
    found, made = result.findings(), dict(result.products)
    del result, given
    products, payload = _written(run, unit, link, made)
    timings["write"] = time.perf_counter() - clock
    commit(
        run,
        unit,
        found,
        products=products,
        payload=payload,
        crc32c=crc,
        timings=timings,
        started=started,
    )
    return timings


def _written(
    run: Run, unit: WorkUnit, link: Link, made: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the products of a unit, and let go of each; returns what its marker says of them."""
    storing = storing_of(run)
    step = link.step
    unknown = made.keys() - {product.name for product in step.outputs}
    lacking = [each.name for each in step.outputs if not each.optional and made.get(each.name) is None]
    if unknown or lacking:
        what = (
            f"made {', '.join(sorted(unknown))}, which it does"
            if unknown
            else f"did not make {lacking[0]}, which it does"
        )
        raise TypeError(f"step {step.name} {what}{' not' if unknown else ''} declare as a product")
    products: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    for product in step.outputs:
        if made.get(product.name) is None:
            made.pop(product.name, None)
            continue
        if step.scope == "visit" and step.of(product) == "detector":
            each = dict(made.pop(product.name))
            entries = {}
            for detector in sorted(each):
                if detector not in unit.places:
                    raise TypeError(
                        f"step {step.name} made {product.name} of detector {detector}, which its visit lacks"
                    )
                slot = slot_in(run, unit, detector)
                entries[detector] = Entry(
                    slot, *product.write(slot, {product.name: each.pop(detector)}, storing)
                )
            if entries:
                entries = product.gather(entries, storing, complete=True)
            products[product.name] = {"each": {str(key): entry.record for key, entry in entries.items()}}
            payload[product.name] = {"each": {str(key): entry.payload for key, entry in entries.items()}}
            continue
        record, kept = product.write(slot_in(run, unit, unit.detector), made, storing)
        products[product.name] = record
        if kept is not None:
            payload[product.name] = kept
    return products, payload


def _mended(products: Mapping[str, Any]) -> dict[str, str]:
    """What reading had to mend, as images carry it with them."""
    notes = dict.fromkeys(
        note for record in products.values() if isinstance(record, dict) for note in record.get("notes", ())
    )
    return {"input_mended": "; ".join(notes)} if notes else {}


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
