"""One unit of work, as a worker does it: read, step, write, and the marker last."""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import resource
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skysub._version import __version__
from skysub.background.model import BackgroundList
from skysub.campaign.arrays import background_rows, write_background_rows, write_plane
from skysub.campaign.backgrounds import FIELDS, as_arrays, from_arrays, inline, outline, packed
from skysub.campaign.files import writing
from skysub.campaign.inputs import content_checksum, is_unchanged, known_ingest, stamp
from skysub.campaign.recipe import built
from skysub.campaign.records import described, narrow_mask, numbers, pixels_checksum
from skysub.campaign.runs import Run, Unit
from skysub.campaign.steps import find_step
from skysub.errors import InputChangedError, OutputError
from skysub.visit.ingest import IngestMap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skysub.campaign.steps import Step, StepResult
    from skysub.visit.image import VisitImage

__all__ = [
    "Receipt",
    "configured_step",
    "failure_record",
    "gather_visit",
    "process_unit",
    "read_input",
    "stored_background",
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


def process_unit(folder: str, line: str) -> Receipt:
    """Do one unit of the run in ``folder``; ``line`` is the unit as JSON. Never raises but to be retried."""
    run, unit = _run(folder), Unit.from_json(line)
    try:
        if run.markers.of_detector(unit.visit, unit.detector) is not None:
            # a copy of this task was done elsewhere when its worker was taken for lost
            return Receipt(unit.visit, unit.detector, "done")
        timings = _process(run, unit)
    except OutputError as error:
        return Receipt(unit.visit, unit.detector, "stopped", str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise
        message = _in_one_line(error)
        try:
            with writing(run.folder):
                run.markers.fail(
                    unit.visit, unit.detector, failure_record(run, unit, message, traceback.format_exc())
                )
        except OutputError as full:
            return Receipt(unit.visit, unit.detector, "stopped", str(full))
        return Receipt(unit.visit, unit.detector, "failed", message)
    return Receipt(unit.visit, unit.detector, "done", timings=tuple(timings.items()))


def gather_visit(folder: str, lines: list[str]) -> str:
    """Move the backgrounds of a visit's detectors from their markers into the store, as one chunk.

    The visit's marker takes the place of its detectors', unless one of them is not done. Returns what
    keeps the output from being written; nothing where all is well.
    """
    run = _run(folder)
    units = [Unit.from_json(line) for line in lines]
    visit = units[0].visit
    try:
        with writing(run.folder):
            _gather(run, visit, units)
    except OutputError as error:
        return str(error)
    return ""


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

    ingest = _ingest(run, unit.source)
    marker = run.markers.of_detector(unit.visit, unit.detector)
    was = None if marker is None else marker["input"]["crc32c"]
    if not is_unchanged(unit.path, (unit.size, unit.mtime_ns), was=was):
        raise InputChangedError(
            f"{unit.path} changed since the campaign was planned: start the same command again"
        )
    return read_visit_image(unit.path, known_ingest(ingest, unit.known), detector=unit.detector)


def stored_background(run: Run, marker: Mapping[str, Any], index: tuple[int, int]) -> BackgroundList:
    """Background of a finished unit: from its marker, or from the store once its visit was gathered."""
    described_layers = marker["background"]
    if all("arrays" in layer for layer in described_layers):
        return outline(described_layers)
    rows = background_rows(run.backgrounds, find_step(marker["step"]).background_product, *index)
    return BackgroundList(
        [
            from_arrays(layer, {name: rows[name][number] for name in FIELDS})
            for number, layer in enumerate(described_layers)
        ]
    )


def failure_record(run: Run, unit: Unit, message: str, trace: str) -> dict[str, Any]:
    """What the failure of a unit leaves behind."""
    return {
        "step": run.record["step"],
        "visit": unit.visit,
        "detector": unit.detector,
        "path": unit.path,
        "message": message,
        "traceback": trace,
        "when": _now(),
        "host": socket.gethostname(),
    }


def _process(run: Run, unit: Unit) -> dict[str, float]:
    step, config = configured_step(run)
    durable = bool(run.record["products"]["durable"])
    started, clock = _now(), time.perf_counter()
    stamped = stamp(unit.path)
    visit_image = read_input(run, unit)
    timings = {"read": time.perf_counter() - clock}
    if visit_image.shape != unit.shape:
        raise InputChangedError(f"{unit.path} has the shape {visit_image.shape}, not {unit.shape} as planned")
    result = step.work(visit_image, config)
    del visit_image
    timings |= result.timings
    clock = time.perf_counter()
    crc = content_checksum(unit.path)
    if stamp(unit.path) != stamped:
        raise InputChangedError(f"{unit.path} changed while it was read: start the same command again")
    timings["checksum"] = time.perf_counter() - clock
    clock = time.perf_counter()
    with writing(run.folder):
        shards, planes = _write_pixels(run, unit, step, result, durable=durable)
        timings["write"] = time.perf_counter() - clock
        record = {
            "step": step.name,
            "visit": unit.visit,
            "detector": unit.detector,
            "key": unit.key,
            "input": {"path": unit.path, "size": unit.size, "mtime_ns": unit.mtime_ns, "crc32c": crc},
            "figures": numbers(result.figures),
            "flags": dict(result.flags),
            "timings": {name: round(seconds, 6) for name, seconds in timings.items()},
            "shards": shards,
            "pixels_crc32c": None if "image" in shards else pixels_checksum(result.visit_image.image),
            "image": described(result.visit_image, planes),
            "shape": list(unit.shape),
            "background": inline(result.background),
            "maps": {name: packed(array) for name, array in result.maps.items()},
            "peak_memory": _peak_memory(),
            "started": started,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "versions": {"skysub": __version__, "python": platform.python_version()},
        }
        run.markers.finish(unit.visit, unit.detector, record)
    return timings


def _write_pixels(run: Run, unit: Unit, step: Step, result: StepResult, *, durable: bool) -> tuple[Any, Any]:
    made = result.visit_image
    mask, planes = narrow_mask(made.mask, made.planes)
    arrays: dict[str, Any] = {"mask": mask}
    if run.record["products"]["pixels"] == "stored":
        arrays["image"] = made.image
        if made.variance is not None:
            arrays["variance"] = made.variance
    index = (unit.visit_index, unit.detector_index)
    shards = {
        name: write_plane(run.images, step.product, name, index, pixels, durable=durable)
        for name, pixels in arrays.items()
    }
    return shards, planes


def _gather(run: Run, visit: int, units: list[Unit]) -> None:
    step, _ = configured_step(run)
    markers = run.markers.of_visit(visit)
    if not markers:
        return
    at = {unit.detector: unit.detector_index for unit in units}
    index = units[0].visit_index
    layers = {
        detector: stored_background(run, marker, (index, at[detector]))
        for detector, marker in markers.items()
    }
    unfit = write_background_rows(
        run.backgrounds,
        step.background_product,
        index,
        {at[detector]: [as_arrays(layer) for layer in found] for detector, found in layers.items()},
    )
    if len(markers) < len(units):
        return
    for detector, marker in markers.items():
        if at[detector] not in unfit:
            # the arrays are in the store now; what describes them stays
            marker["background"] = [
                {name: value for name, value in layer.items() if name != "arrays"}
                for layer in marker["background"]
            ]
    record = {
        "step": step.name,
        "visit": visit,
        "detectors": {str(detector): markers[detector] for detector in sorted(markers)},
    }
    run.markers.finish_visit(visit, record)


@functools.lru_cache(maxsize=4)
def _run(folder: str) -> Run:
    return Run(Path(folder))


def configured_step(run: Run) -> tuple[Step, Any]:
    """Step of a run, and its settings."""
    return _configured(run.record["step"], json.dumps(run.record["settings"]))


@functools.lru_cache(maxsize=4)
def _configured(name: str, settings: str) -> tuple[Step, Any]:
    step = find_step(name)
    return step, step.configured(json.loads(settings))


def _ingest(run: Run, source: int) -> IngestMap:
    ingest: IngestMap = built(IngestMap, run.record["ingests"][source], f"inputs.{source}.ingest")
    return ingest


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (
        text
        if text and hasattr(error, "__module__") and type(error).__module__ == "skysub.errors"
        else (f"{type(error).__name__}: {text}" if text else type(error).__name__)
    )


def _peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
