"""One visit on its way through the steps: which units may be done, which wait, and for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.campaign.planned import closing_unit, work_unit
from skysub.campaign.records import who

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.campaign.chain import Chain, Link
    from skysub.campaign.records import VisitPlan, WorkUnit
    from skysub.campaign.store.runs import Run

__all__ = ["VisitFlow"]


class VisitFlow:
    """Units of one visit that are left, each given out once all that it needs is over.

    Parameters
    ----------
    run
        The run that does them.
    chain
        Its steps.
    plan
        What the run planned of the visit.
    left
        The same visit as the recipe means it: units to do are its own.
    """

    def __init__(self, run: Run, chain: Chain, plan: VisitPlan, left: VisitPlan) -> None:
        self._run = run
        self._chain = chain
        self._plan = plan
        self._held = {
            name: {each for each, by in step.holders.items() if by} for name, step in left.steps.items()
        }
        self._left: dict[str, set[int | None]] = {
            name: set(left.steps[name].own) if name in left.steps else set() for name in chain.names
        }
        self._mine = {name: set(units) for name, units in self._left.items()}
        """Units that are done on this way."""
        self._waiting = {name: set(units) for name, units in self._left.items()}
        """Units that are not given out yet."""
        self._failed: dict[str, dict[int | None, str]] = {name: {} for name in chain.names}
        """Units that failed, or wait for one that did, and why."""
        self._open = sum(len(units) for units in self._left.values())
        self._closed: set[str] = set()
        self._stale: set[str] = set()
        """Steps whose result of the visit is to be made anew, by another plan."""
        self.widened = False
        """Whether there are such."""
        self.waits = 0
        """Units that wait for a failure."""

    @property
    def visit(self) -> int:
        """The visit."""
        return self._plan.visit

    @property
    def is_over(self) -> bool:
        """Whether no unit is left, given out or not."""
        return not self._open

    def begin(self) -> Iterator[WorkUnit]:
        """Go through the units that may be done at once."""
        for name in self._chain.names:
            yield from self._ready(name, self._waiting[name])
            yield from self._closing(name)

    def over(self, step: str, detector: int | None, failure: str | None) -> Iterator[WorkUnit]:
        """Note that a unit is over; go through what may be done now. ``failure``: None where it was done."""
        self._left[step].discard(detector)
        self._open -= 1
        if failure is None:
            self._held.setdefault(step, set()).add(detector)
            self._miss(step, detector)
        else:
            self._failed[step][detector] = failure
        yield from self._closing(step)
        for name in self._chain.followers[step]:
            link = self._chain[name]
            if link.scope == "visit":
                yield from self._ready(name, [None])
            elif detector is None:
                yield from self._ready(name, self._waiting[name])
            else:
                yield from self._ready(name, [detector])

    def _miss(self, step: str, detector: int | None) -> None:
        """Hold back what rests on a unit of the visit that was done without a detector which is there now."""
        for name in self._chain.followers[step]:
            link = self._chain[name]
            held = None in self._held.get(name, ()) and None not in self._mine[name]
            if detector is not None and link.scope == "visit" and link.bears and held:
                self.widened = True
                self._stale.add(name)

    def _ready(self, name: str, units: set[int | None] | list[int | None]) -> Iterator[WorkUnit]:
        link = self._chain[name]
        for each in sorted(units, key=lambda number: -1 if number is None else number):
            if each not in self._waiting[name] or self._stale.intersection(self._chain.ancestors(name)):
                continue
            pending, missing = self._needs(link, each)
            if pending:
                continue
            self._waiting[name].discard(each)
            if len(missing) > (link.bears if each is None else 0):
                self.waits += 1
                yield from self.over(name, each, next(iter(missing.values())))
                continue
            yield work_unit(
                self._run,
                self._plan,
                name,
                each,
                missing={d: why for d, why in missing.items() if d is not None},
            )

    def _needs(self, link: Link, unit: int | None) -> tuple[bool, dict[int | None, str]]:
        """Whether a unit must wait, and else what it needs that failed, and why."""
        missing: dict[int | None, str] = {}
        for need in link.needs:
            over_visit = self._chain[need].scope == "visit"
            wanted = [None] if over_visit else ([unit] if unit is not None else list(self._plan.exposures))
            for each in wanted:
                if each in self._left[need]:
                    return True, {}
                if each not in self._held.get(need, ()):
                    why = self._failed[need].get(each, "is not done")
                    reason = (
                        why if why.startswith("waits for") else f"{need} of {who(self.visit, each)}: {why}"
                    )
                    missing.setdefault(each, reason)
        return False, missing

    def _closing(self, name: str) -> Iterator[WorkUnit]:
        """Put a step's results together once none is left, where this run made any of them."""
        named = self._plan.steps.get(name)
        if named is None or self._chain[name].scope != "detector" or name in self._closed or self._left[name]:
            return
        self._closed.add(name)
        own = set(named.own)
        if own and not own <= self._failed[name].keys():
            yield closing_unit(self._plan, name)
