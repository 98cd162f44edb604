"""Where the units of a campaign are held: the runs, and which of them is the current run of a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.campaign.context import chain_of
from skysub.campaign.current import Current
from skysub.campaign.figures import step_of
from skysub.campaign.reading import Finished
from skysub.campaign.records import who
from skysub.campaign.status import Looked, states_of
from skysub.campaign.store.runs import existing_runs
from skysub.errors import NotDoneError
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from skysub.campaign.current import VisitView
    from skysub.campaign.products.base import Product
    from skysub.campaign.steps import Step
    from skysub.campaign.store.runs import Run
    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Lookup"]


class Lookup:
    """Runs of a campaign, what their steps make, and who holds a unit."""

    def __init__(self, path: StoragePath) -> None:
        self.path = path
        self._current = Current(existing_runs(path))

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, oldest first."""
        return tuple(run.name for run in self._current.runs)

    @property
    def products(self) -> tuple[str, ...]:
        """Names of all products that the newest run makes, step by step."""
        return tuple(chain_of(self._current.runs[-1]).products)

    def kind(self, product: str) -> str:
        """Kind of a product: "image", "background", "grid", "object" or "table".

        Raises
        ------
        NotDoneError
            When no run makes such a product.
        """
        return self.declared(product).kind

    def belongs_to(self, product: str) -> str:
        """What one value of a product is of: "detector" or "visit".

        Raises
        ------
        NotDoneError
            When no run makes such a product.
        """
        step, declared = self._declared(product)
        return step.of(declared)

    def maker(self, product: str) -> str:
        """Name of the step that makes a product.

        Raises
        ------
        NotDoneError
            When no run makes such a product.
        """
        return self._declared(product)[0].name

    def declared(self, product: str) -> Product:
        """A product as its step declares it.

        Raises
        ------
        NotDoneError
            When no run makes such a product.
        """
        return self._declared(product)[1]

    def _run(self, name: str | None) -> Run:
        for run in reversed(self._current.runs):
            if name in {None, run.name}:
                return run
        raise NotDoneError(f"there is no run {name!r}; the runs are {', '.join(self.runs)}")

    def _declared(self, name: str) -> tuple[Step, Product]:
        """The newest step that makes a product, and the product."""
        known: dict[str, None] = {}
        for run in reversed(self._current.runs):
            chain = chain_of(run)
            if name in chain.makers:
                return chain[chain.makers[name]].step, chain.products[name]
            known |= dict.fromkeys(chain.products)
        last = self._current.runs[-1].name
        raise NotDoneError(
            f"run {last} makes no {name!r}{closest(name, list(known))}; its products are {', '.join(known)}"
        )

    def _check(self, visit: int, detector: int | None) -> None:
        for name, number in (("visit", visit), ("detector", detector)):
            if number is None and name == "detector":
                continue
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
                raise NotDoneError(f"{name} must be a whole number, as in units, not {number!r}")
        view = self._current.view(int(visit))
        if view is None or (detector is not None and detector not in view.exposures):
            have = f"its detectors are {_listed(list(view.exposures))}" if view else "there is no such visit"
            raise NotDoneError(f"{who(visit, detector)} is not part of {self.path}: {have}")

    def _view(self, visit: int) -> VisitView:
        self._check(visit, None)
        view = self._current.view(int(visit))
        assert view is not None
        return view

    def _finished(self, visit: int, detector: int | None, step: str | None) -> Finished:
        """A unit that is done.

        Raises
        ------
        NotDoneError
            When it is not; the message says why.
        """
        self._check(visit, detector)
        view = self._view(visit)
        name = step
        if name is None:
            run = self._current.runs[-1] if detector is None else view.newest[int(detector)]
            name = step_of(self._current, run)
        speaker = view.units.get(name, {}).get(detector)
        if speaker is None:
            known = ", ".join(view.units)
            raise NotDoneError(
                f"{who(visit, detector)} has nothing planned of {name}; planned are steps {known}"
            )
        marker = speaker.run.markers(name).of_unit(int(visit), detector)
        if marker is None:
            raise NotDoneError(self._why_not(view, name, detector))
        return Finished(speaker.run, speaker.plan, name, detector, marker)

    def _why_not(self, view: VisitView, step: str, detector: int | None) -> str:
        states, failures = states_of(view, Looked())
        state = states[step][detector]
        of = f"{who(view.visit, detector)}{f', {step},' if len(view.units) > 1 else ''}"
        if state == "failed":
            failure = next(each for each in failures if (each.step, each.detector) == (step, detector))
            return f"{of} failed: {failure.path + ': ' if failure.path else ''}{failure.message}"
        if state.startswith("waiting"):
            return f"{of} is {state}"
        return f"{of} is not done yet: `skysub run` continues"


def _listed(numbers: list[int], most: int = 12) -> str:
    text = ", ".join(str(number) for number in numbers[:most])
    return text if len(numbers) <= most else f"{text}, ... ({len(numbers)} in all)"
