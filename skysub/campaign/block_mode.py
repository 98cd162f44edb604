"""A detector cut into blocks of rows: for one visit soonest, and for detectors larger than a worker.

A task leads a unit: it runs the step, whose functions of pixels go over planes in blocks, and commits the
unit as any other. What it gathers is small; pixels stay with the tasks of the blocks, which read and write
them.
"""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.row_blocks import RowBlocks
from skysub.campaign.block_cuts import block_cuts
from skysub.campaign.context import ingest_of, run_at, working_chain_of
from skysub.campaign.inputs import content_checksum, known_ingest
from skysub.campaign.reading import check_planned, check_shape
from skysub.campaign.records import WorkUnit
from skysub.campaign.unit import Receipt, guarded, process, process_units
from skysub.visit.amplifiers import find_amplifiers
from skysub.visit.fits.assemble import check_variance, lost_variance
from skysub.visit.fits.read import companion_files, image_rows, read_rows, verify_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Client
    from numpy.typing import NDArray

    from skysub.campaign.records import Exposure
    from skysub.campaign.store.runs import Run
    from skysub.visit.fits.header import Window
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap

__all__ = ["process_units_in_blocks"]

_MEMORY = 2 << 30
"""Bytes of a worker whose memory is not limited."""
_HALO = 64
"""Rows that a block holds beside its own: more than kernels, cells and stamps need."""
_TAKEN, _KEPT = 700 << 20, 4
"""Bytes of a worker that libraries, flags and tasks need; of what is left it keeps pixels in this part."""


def process_units_in_blocks(
    folder: str, lines: Sequence[str], workers: Sequence[str] | None
) -> list[Receipt]:
    """Do units one after the other, each by tasks that this one leads.

    Parameters
    ----------
    workers
        Addresses of those that may be given such tasks; None: all.
    """
    work = functools.partial(_process, workers=workers)
    receipts: list[Receipt] = []
    for line in lines:
        closing = WorkUnit.from_json(line).closing
        receipts += process_units(folder, [line]) if closing else [guarded(folder, line, work)]
    return receipts


def _process(run: Run, unit: WorkUnit, *, workers: Sequence[str] | None) -> dict[str, float]:
    from distributed import worker_client

    with worker_client() as client:
        opened = functools.partial(_opened, step=unit.step, tasks=_Tasks(client, workers))
        return process(run, unit, opened)


class _Tasks:
    """Tasks of one unit, each block on the same worker as long as that lives."""

    def __init__(self, client: Client, workers: Sequence[str] | None) -> None:
        self._client = client
        self.workers = sorted(workers or client.nthreads())
        self.blocks = len(self.workers)
        known = client.scheduler_info()["workers"].values()
        self.memory = min((each["memory_limit"] or _MEMORY for each in known), default=_MEMORY)
        """Bytes of the worker that has least."""
        # new names each time: a task of an earlier attempt may still be around
        self._attempt, self._count = uuid.uuid4().hex, 0

    def submit(self, block: int, function: Callable[..., Any], *args: Any) -> Any:
        self._count += 1
        return self._client.submit(
            function,
            *args,
            key=f"{function.__name__.strip('_')}-{self._attempt}-{self._count}",
            pure=False,
            workers=[self.workers[block * len(self.workers) // self.blocks]],
            allow_other_workers=True,
        )

    def results(self, futures: Sequence[Any]) -> list[Any]:
        found: list[Any] = self._client.gather(futures)
        return found


@dataclass(frozen=True)
class _File:
    """The file of a detector, of which each worker reads the rows that it needs."""

    folder: str
    exposure: Exposure
    key: str
    """Of the attempt: a file that is written anew between two is another one."""

    def rows(self, name: str, rows: range) -> dict[str, NDArray[Any]]:
        """Rows of a plane, and of what must be read with it."""
        run, exposure = run_at(self.folder), self.exposure
        ingest = known_ingest(ingest_of(run, exposure.source), exposure.known)
        check_planned(exposure)
        if name == "image":
            return {name: image_rows(exposure.path, ingest, exposure.detector, rows)}
        read, _ = read_rows(exposure.path, ingest, exposure.detector, rows, own=range(0))
        planes = {"image": read.image, "mask": read.mask, "variance": read.variance}
        return {name: array for name, array in planes.items() if array is not None}

    def seen(self, own: range) -> Window:
        """What some rows show of the variance."""
        exposure = self.exposure
        ingest = known_ingest(ingest_of(run_at(self.folder), exposure.source), exposure.known)
        check_planned(exposure)
        _, header = read_rows(exposure.path, ingest, exposure.detector, own, own=own)
        assert header.rows is not None
        return header.rows


def _opened(run: Run, exposure: Exposure, *, step: str, tasks: _Tasks) -> tuple[VisitImage, str]:
    """Image of a detector whose planes lie in blocks, and the checksum of its file."""
    ingest = known_ingest(ingest_of(run, exposure.source), exposure.known)
    check_planned(exposure)
    checksum = tasks.submit(0, _checked, exposure.path, ingest)
    first, header = read_rows(exposure.path, ingest, exposure.detector, range(1), own=range(0), bare=False)
    shape = header.shape
    check_shape(exposure, shape)
    source = _File(str(run.folder), exposure, uuid.uuid4().hex)
    link = working_chain_of(run)[step]
    assert link.step.blocks is not None
    cuts = block_cuts(shape, link.step.blocks(shape, link.config), len(tasks.workers))
    tasks.blocks = len(cuts) - 1
    group = RowBlocks(
        shape,
        cuts,
        halo=_HALO,
        source=source,
        dtypes={"image": np.float32, "mask": first.mask.dtype, "variance": np.float32},
        executor=tasks,
        held=max(0, tasks.memory - _TAKEN) // _KEPT,
    )
    planes, notes = header.planes, first.notes
    if first.variance is not None:
        own = [range(a, b) for a, b in pairwise(cuts)]
        looked = tasks.results([tasks.submit(i, source.seen, rows) for i, rows in enumerate(own)])
        unmasked, bad = sum(each.unmasked for each in looked), sum(each.without_variance for each in looked)
        place = next((each.first for each in looked if each.first is not None), None)
        check_variance(header, ingest, unmasked=unmasked, bad=bad, first=place)
        if bad:
            planes = planes.with_plane("BAD", "NO_DATA")
            notes += (lost_variance(bad, unmasked),)
    opened = first.replace(
        image=group.plane("image"),
        mask=group.plane("mask"),
        variance=None if first.variance is None else group.plane("variance"),
        planes=planes,
        notes=notes,
        amplifiers=find_amplifiers(header, ingest.amplifiers),
    )
    return opened, tasks.results([checksum])[0]


def _checked(path: str, ingest: IngestMap) -> str:
    """Checksum of a file whose data have the sums that it states."""
    for each in (path, *companion_files(path)):
        if each == path or Path(each).exists():
            verify_file(each, ingest)
    return content_checksum(path)
