"""Units of work, made of what a run plans of a visit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.campaign.context import chain_of
from skysub.campaign.records import Place3, WorkUnit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skysub.campaign.records import VisitPlan
    from skysub.campaign.store.runs import Run

__all__ = ["closing_unit", "work_unit"]


def work_unit(
    run: Run,
    plan: VisitPlan,
    step: str,
    detector: int | None,
    *,
    missing: Mapping[int, str] | None = None,
) -> WorkUnit:
    """Return a unit of a step; ``missing``: detectors of the visit that it must do without, and why."""
    chain = chain_of(run)
    link = chain[step]
    without = dict(missing or {})
    held: dict[str, dict[int | None, Place3]] = {}
    for need in link.needs:
        named = plan.steps[need].holders
        over_visit = chain[need].scope == "visit"
        wanted = [None] if over_visit else ([detector] if detector is not None else list(named))
        held[need] = {
            each: _place(run, plan, named[each], each)
            for each in wanted
            if each not in without and each in named
        }
    exposures = plan.exposures if detector is None else {detector: plan.exposures[detector]}
    return WorkUnit(
        step=step,
        visit=plan.visit,
        detector=detector,
        key=plan.steps[step].keys[detector],
        visit_index=plan.index,
        places={each: plan.places[each] for each in exposures},
        exposures=tuple(exposures.values()),
        held=held,
        missing=without,
    )


def closing_unit(plan: VisitPlan, step: str) -> WorkUnit:
    """Return the unit that puts a step's results of a visit's detectors together."""
    own = [each for each in plan.steps[step].own if each is not None]
    return WorkUnit(
        step=step,
        visit=plan.visit,
        detector=None,
        key="",
        visit_index=plan.index,
        places={each: plan.places[each] for each in own},
        exposures=tuple(plan.exposures[each] for each in own),
        closing=True,
    )


def _place(run: Run, plan: VisitPlan, holder: str, detector: int | None) -> Place3:
    where = plan
    if holder:
        found = run.other(holder).plan_of(plan.visit)
        assert found is not None
        where = found
    return Place3(holder or run.name, where.index, -1 if detector is None else where.places[detector])
