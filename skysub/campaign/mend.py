"""What ``run --verify`` does before it plans: plans, metadata and markers of a store are made sound again.

Products are compared with their markers as the plan is made (see `skysub.campaign.history`). What cannot be
made again of other files is taken away where it counts as done, so that its units are done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.campaign.context import chain_of, storing_of
from skysub.campaign.records import RunRecord, VisitPlan
from skysub.campaign.status import REMOVED
from skysub.campaign.store.runs import Columns, PlanCopy, Run, holds_work
from skysub.campaign.store.seals import unsealed
from skysub.campaign.store.storage_path import writing
from skysub.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["mend_store"]


def mend_store(output: StoragePath) -> Iterator[str]:
    """Go through what was damaged, each mended as it is named; only under the output's lock.

    Raises
    ------
    DamagedError
        When a plan and its copy are both lost.
    """
    with writing(output):
        # a cache, whose damage might look like an answer
        (output / "inputs.sqlite").remove()
        for name in ("unreadable.json", REMOVED):
            data = (output / name).read()
            if data and unsealed(data) is None:
                (output / name).remove()
                yield f"{output / name} was damaged"
        for name in sorted((output / "runs").names()):
            run = Run(output / "runs" / name)
            if name.isdigit() and (run.record_file.size() or holds_work(run)):
                yield from _mend_run(run)


def _mend_run(run: Run) -> Iterator[str]:
    yield from _mend_plan(run)
    # what was read of it before may be damaged
    run = Run(run.folder)
    yield from _mend_arrays(run)
    for step in run.record.step_names:
        markers = run.markers(step)
        for visit in sorted(markers.finished() | markers.begun()):
            yield from markers.mend(visit)
        for visit in sorted(markers.troubled()):
            place = markers.failure_path(visit, None)
            if (data := place.read()) and unsealed(data) is None:
                place.remove()
                yield f"{place} was damaged"


def _mend_plan(run: Run) -> Iterator[str]:
    copy = PlanCopy.read(run.copy_file)
    record = run.record_file.read() or b""
    if unsealed(record) is None:
        if copy is None:
            raise _lost(run, run.record_file)
        record = copy[0]
        run.record_file.put(record, durable=True)
        yield f"{run.record_file} was damaged"
    lines = _sound_lines(run)
    if lines is None:
        if copy is None:
            raise _lost(run, run.units_file)
        lines = copy[1]
        run.units_file.remove()
        run.units_file.put_lines(line.decode() for line in lines)
        yield f"{run.units_file} was damaged"
    values = unsealed(record)
    assert values is not None
    columns = Columns([step.name for step in RunRecord.from_values(values).steps])
    for line in lines:
        columns.line(VisitPlan.from_values(unsealed(line) or {}))
    if run.index_file.read() != columns.to_json():
        run.index_file.put(columns.to_json(), durable=True)
        yield f"{run.index_file} was damaged"
    if copy != (record, lines):
        made = PlanCopy(record)
        for _ in made.kept(line.decode() for line in lines):
            pass
        run.copy_file.put(made.data(), durable=True)
        yield f"{run.copy_file} was damaged"


def _lost(run: Run, place: StoragePath) -> DamagedError:
    return DamagedError(
        f"{place} and {run.copy_file.name} are both damaged or gone, so nobody can say what the run holds: "
        f"remove {run.folder}, and start the same command again"
    )


def _sound_lines(run: Run) -> list[bytes] | None:
    """Lines of ``units.jsonl``; None where one is damaged or missing."""
    try:
        lines = [line.rstrip(b"\n") for line in run.units_file.lines()]
    except FileNotFoundError:
        return None
    if any(unsealed(line) is None for line in lines):
        return None
    copy = PlanCopy.read(run.copy_file)
    return lines if copy is None or copy[1] == lines else None


def _mend_arrays(run: Run) -> Iterator[str]:
    """Make metadata and coordinates of arrays again, as the plan made them."""
    visits = [plan.visit for plan in run.plans() if plan.index >= 0]
    for step in run.record.steps if visits else ():
        outputs = {each.name: each for each in chain_of(run)[step.name].step.outputs}
        for name, room in step.rooms.items() if step.units else ():
            for place in outputs[name].create(
                run, room, storing_of(run), visits=visits, detectors=run.record.detectors
            ):
                yield f"{place} was damaged"
