"""What a step is given: its inputs, each read when the step asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skysub.campaign.context import chain_of, files_of, path_of_table, table_of
from skysub.campaign.reading import Finished, read_and_checksum
from skysub.campaign.records import Exposure, who
from skysub.campaign.steps import RAW
from skysub.campaign.store.runs import Run
from skysub.errors import NotDoneError, RecipeError
from skysub.visit.image import VisitImage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from astropy.table import QTable

    from skysub.campaign.records import WorkUnit

__all__ = ["Given", "Opener"]

Opener = Callable[[Run, Exposure], tuple[VisitImage, str | None]]
"""From run and detector to its image, and the checksum of its file where that is known."""


class Given:
    """Inputs of one unit of work. Nothing that is read is kept: arrays are the step's own, to be used up."""

    def __init__(self, run: Run, unit: WorkUnit, opened: Opener = read_and_checksum) -> None:
        self._run = run
        self._unit = unit
        self._opened = opened
        self._depth = 0
        self.seconds = 0.0
        """Time spent on reading so far."""
        self.checksum: str | None = None
        """CRC-32C of the detector's own file, where it was read and its bytes told it."""

    @property
    def visit(self) -> int:
        """The visit."""
        return self._unit.visit

    @property
    def detector(self) -> int:
        """The detector; for a step over detectors.

        Raises
        ------
        RecipeError
            When the step goes over visits.
        """
        if self._unit.detector is None:
            raise RecipeError(f"{self._unit.step} goes over visits: see detectors")
        return self._unit.detector

    @property
    def detectors(self) -> tuple[int, ...]:
        """Detectors whose inputs are there: the unit's own, or those of the visit but for `missing`."""
        return tuple(
            each.detector for each in self._unit.exposures if each.detector not in self._unit.missing
        )

    @property
    def missing(self) -> Mapping[int, str]:
        """Detectors of the visit whose inputs failed, and why."""
        return dict(self._unit.missing)

    @property
    def exposures(self) -> Mapping[int, Exposure]:
        """What is known of each of `detectors` without its pixels: band, exposure time, shape, path."""
        return {
            each.detector: each for each in self._unit.exposures if each.detector not in self._unit.missing
        }

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the step's inputs, of alternatives the one that there is."""
        return chain_of(self._run)[self._unit.step].step.inputs

    def visit_image(self) -> VisitImage:
        """Read the detector's own file.

        Raises
        ------
        InputChangedError
            When the file is another one than planned.
        RecipeError
            When the step does not declare "raw" among its inputs.
        """
        self._check(RAW)
        with self._timed():
            visit_image, self.checksum = self._opened(self._run, self._unit.exposures[0])
            return visit_image

    def product(self, name: str, detector: int | None = None) -> Any:
        """Read a product of an earlier step: of this detector, or of this visit.

        Parameters
        ----------
        name
            As the step declares it among its inputs.
        detector
            For a step over visits: of which detector. Not for what belongs to the visit.

        Returns
        -------
        value
            What the earlier step made; None where the product is optional and was not made.

        Raises
        ------
        RecipeError
            When the step does not declare such an input.
        NotDoneError
            When the detector is missing.
        """
        with self._timed():
            of = self._unit.detector if detector is None else detector
            return self._finished(name, detector).product(name, of)

    def _finished(self, name: str, detector: int | None) -> Finished:
        """The unit that made an input."""
        self._check(name)
        chain = chain_of(self._run)
        maker = chain[chain.makers[name]]
        held = self._unit.held[maker.name]
        of = self._unit.detector if detector is None else detector
        by = None if maker.scope == "visit" else of
        if by not in held:
            raise NotDoneError(
                f"{who(self._unit.visit, by)} has no {name} here: {self._unit.missing.get(by or 0, '')}"
            )
        run = self._run.other(held[by].run)
        plan = run.plan_of(self._unit.visit)
        marker = run.markers(maker.name).of_unit(self._unit.visit, by, payload=True)
        if plan is None or marker is None:
            raise NotDoneError(f"{who(self._unit.visit, by)}: {name} is gone; start the same command again")
        return Finished(run, plan, maker.name, by, marker)

    def without_pixels(self, name: str) -> VisitImage:
        """Return an image of this detector without reading its pixels: mask, planes, wcs, psf, header.

        Its ``image`` is NaN all over and takes no memory; it has no variance.

        Raises
        ------
        RecipeError
            When the step does not declare such an input, or it is no image.
        NotDoneError
            When the detector is missing.
        """
        with self._timed():
            return self._finished(name, None).without_pixels(name, self._unit.detector)

    def table_path(self, name: str) -> Path:
        """Path of a table that the recipe names, for a step that reads it in its own way.

        Raises
        ------
        RecipeError
            When the step does not declare "table:NAME" among its inputs.
        InputChangedError
            When the file is another one than planned.
        """
        self._check(f"table:{name}")
        return path_of_table(self._run, name)

    def files(self) -> Mapping[str, bytes]:
        """Contents, by path, of the files that the step's settings name.

        Raises
        ------
        InputChangedError
            When one is another one than planned.
        """
        with self._timed():
            return files_of(self._run, self._unit.step)

    def products(self, name: str) -> Iterator[tuple[int, Any]]:
        """Go through detector and product of all detectors of the visit that are not missing, in order."""
        for detector in self.detectors:
            yield detector, self.product(name, detector)

    def table(self, name: str) -> QTable:
        """Read a table that the recipe names.

        Raises
        ------
        RecipeError
            When the step does not declare "table:NAME" among its inputs.
        """
        self._check(f"table:{name}")
        with self._timed():
            return table_of(self._run, name)

    def _check(self, name: str) -> None:
        inputs = self.inputs
        if name not in inputs:
            raise RecipeError(
                f"{self._unit.step} asks for {name!r}, which is not among its inputs: {', '.join(inputs)}"
            )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        # one that is read for another counts once
        self._depth += 1
        clock = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - clock
