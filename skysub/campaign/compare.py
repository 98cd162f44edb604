"""What a recipe means of each visit, against what earlier runs have of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from skysub.campaign.recipe import short_hash
from skysub.campaign.records import StepPlan, VisitPlan
from skysub.campaign.sorting import Spool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skysub.campaign.chain import Chain, Link
    from skysub.campaign.history import History
    from skysub.campaign.records import Exposure

__all__ = ["Comparison"]


class Comparison:
    """Counts of units by step, and visit by visit what is to be done.

    Parameters
    ----------
    ingests
        Mapping of each source, which is part of the keys of what reads its files.
    selected
        Steps that are to be done.
    """

    def __init__(self, chain: Chain, history: History, ingests: Sequence[Any], selected: set[str]) -> None:
        self._chain = chain
        self._history = history
        self._ingests = [short_hash(ingest) for ingest in ingests]
        self._selected = selected
        self._bases = {link.name: link.key() for link in chain}
        self._keys: dict[tuple[str, ...], str] = {}
        self.rows = Spool()
        """Visits of which a new run has something to do or to say."""
        self.resumes = True
        """Whether all that is to do stands in the last run's plan."""
        self.left: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in chain.names}
        """Units to do, by step and shape; of visits, their largest detector's."""
        self.shapes: dict[str, set[tuple[int, int]]] = {name: set() for name in chain.names}
        """Shapes of all detectors of units to do."""
        self.units: dict[str, set[str]] = {name: set() for name in chain.names}
        """Units of their pixels."""
        self.done: Counter[str] = Counter()
        self.blocked: Counter[str] = Counter()
        self.outdated = 0
        self.changed: list[Exposure] = []
        self.closings: list[tuple[str, int, str]] = []

    def look_at(self, visit: int, exposures: Mapping[int, Exposure]) -> None:
        """Compare one visit; visits are to come in rising order."""
        self._history.turn_to(visit, exposures)
        keys: dict[str, dict[int | None, str]] = {}
        chosen: dict[str, dict[int | None, str]] = {}
        to_do: dict[str, set[int | None]] = {}
        told = True
        changed: set[int] = set()
        for link in self._chain:
            name = link.name
            along: list[int | None] = [None] if link.scope == "visit" else list(exposures)
            keys[name] = {each: self._key(link, each, exposures, keys) for each in along}
            chosen[name], to_do[name] = {}, set()
            for each in along:
                key = keys[name][each]
                holder, newest, why = self._history.holder(link, each, key, chosen)
                chosen[name][each] = holder
                if holder:
                    self.done[name] += 1
                    # a newer run has redone it otherwise: the new run must say that the older result counts
                    told = told and newest
                    continue
                if name not in self._selected or not self._possible(link, each, exposures, chosen, to_do):
                    self.blocked[name] += name in self._selected
                    continue
                to_do[name].add(each)
                # what is done is never replaced: with other detectors it is another run's
                again = why != "detectors" and self._history.planned_last(link, each, key, chosen)
                self.resumes = self.resumes and again
                self.outdated += why in {"settings", "detectors"}
                if why == "input" and each is not None:
                    changed.add(each)
            self._count(link, to_do[name], exposures)
        self.changed += [exposures[each] for each in sorted(changed)]
        if not told:
            self.resumes = False
        if not told or any(to_do.values()):
            self.rows.add(_visit_plan(visit, exposures, keys, chosen, to_do).to_json())
        if not any(to_do.values()):
            self.closings += [(run, visit, step) for run, step in self._history.unfinished()]

    def _key(
        self,
        link: Link,
        detector: int | None,
        exposures: Mapping[int, Exposure],
        keys: Mapping[str, Mapping[int | None, str]],
    ) -> str:
        parts = [self._bases[link.name]]
        if link.reads_file and detector is not None:
            parts.append(self._ingests[exposures[detector].source])
        for need in link.needs:
            if detector is not None or None in keys[need]:
                parts.append(keys[need][None if None in keys[need] else detector])
            else:
                parts += [f"{each} {key}" for each, key in keys[need].items()]
        place = tuple(parts)
        if place not in self._keys:
            if len(self._keys) > 10_000:
                self._keys.clear()
            self._keys[place] = short_hash(place)
        return self._keys[place]

    def _possible(
        self,
        link: Link,
        detector: int | None,
        exposures: Mapping[int, Exposure],
        chosen: Mapping[str, Mapping[int | None, str]],
        to_do: Mapping[str, set[int | None]],
    ) -> bool:
        """Whether all that a unit needs is done or will be, but for failed detectors that it bears."""
        absent: set[int] = set()
        for need in link.needs:
            over_visit = self._chain[need].scope == "visit"
            wanted: list[int | None] = (
                [None] if over_visit else ([detector] if detector is not None else list(exposures))
            )
            for each in wanted:
                if chosen[need].get(each) or each in to_do[need]:
                    continue
                if each is None or detector is not None or not self._history.failed(need, each):
                    return False
                absent.add(each)
        return len(absent) <= link.bears

    def _count(self, link: Link, to_do: set[int | None], exposures: Mapping[int, Exposure]) -> None:
        for each in to_do:
            along = exposures.values() if each is None else [exposures[each]]
            shapes = [exposure.shape for exposure in along]
            self.left[link.name][max(shapes, key=lambda shape: shape[0] * shape[1])] += 1
            self.shapes[link.name].update(shapes)
            self.units[link.name].update(exposure.unit for exposure in along)


def _visit_plan(
    visit: int,
    exposures: Mapping[int, Exposure],
    keys: Mapping[str, Mapping[int | None, str]],
    chosen: Mapping[str, Mapping[int | None, str]],
    to_do: Mapping[str, set[int | None]],
) -> VisitPlan:
    steps = {}
    for name, holders in chosen.items():
        named = {each: holder for each, holder in holders.items() if holder or each in to_do[name]}
        if named:
            steps[name] = StepPlan({each: keys[name][each] for each in named}, named)
    return VisitPlan(visit=visit, exposures=dict(exposures), steps=steps)
