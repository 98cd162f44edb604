"""The read side of a campaign: what was made, by visit and detector; no cluster needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.contents import Contents
from skysub.campaign.current import Current, chain_names
from skysub.campaign.figures import figures_of, markers_of, step_of
from skysub.campaign.status import status_of, visit_status_of
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import existing_runs

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator

    from astropy.table import QTable

    from skysub.campaign.records import Exposure
    from skysub.campaign.status import Status, VisitStatus
    from skysub.report.dashboard.server import Dashboard
    from skysub.report.notebook import Shown

__all__ = ["Campaign", "open_campaign"]


def open_campaign(path: str | os.PathLike[str]) -> Campaign:
    """Open the output of ``skysub run`` for reading; it may still be growing.

    Parameters
    ----------
    path
        Folder or address that was given as ``--output``.

    Raises
    ------
    CampaignNotFoundError
        When there is no campaign.
    StoreVersionError
        When it was written by another version of skysub, whose layout is not known.
    """
    return Campaign(place_at(path))


class Campaign(Contents):
    """Products of a campaign. A unit counts as done when its marker is there; nothing else is read.

    Where runs differ in settings or inputs, the newest run that plans a unit is its current run.
    What visits there are is looked up when the campaign is opened, what is planned of one and what is done,
    at each call; so a campaign of a million units is opened as fast as one of ten.
    """

    def __repr__(self) -> str:
        steps = " > ".join(chain_names(self._current.runs[-1]))
        return f"<Campaign {self.path}: {steps}, {len(self._current.visits)} visits, {len(self.runs)} runs>"

    def _repr_html_(self) -> str:
        return str(_shown_by("notebook").campaign_html(self))

    def show(self, visit: int) -> Shown:
        """Show the focal plane of a visit in a notebook: image, sky model, residual, mask and maps.

        Raises
        ------
        NotDoneError
            When there is no such visit.
        """
        shown: Shown = _shown_by("notebook").show_visit(self, visit)
        return shown

    def dashboard(self, *, port: int = 0) -> Dashboard:
        """Serve the pages of this campaign on this machine, until ``close`` of what is returned.

        In a notebook it is shown as a link. `skysub.start_dashboard` has more to choose from.
        """
        started: Dashboard = _shown_by("dashboard.server").start_dashboard(str(self.path), port=port)
        return started

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the newest run's steps, in order."""
        return tuple(chain_names(self._current.runs[-1]))

    def run_record(self, run: str | None = None) -> dict[str, Any]:
        """Content of ``run.json`` of a run, the newest by default: steps, settings, products, versions.

        Raises
        ------
        NotDoneError
            When there is no such run.
        """
        return self._run(run).record.as_json()

    @property
    def visits(self) -> QTable:
        """One row per visit: visit, band, exposure_time (s; NaN where unknown), detectors (a count).

        Of a visit whose detectors have several bands, all stand there with commas between.
        """
        from astropy.table import QTable
        from astropy.units import second

        bands, times, counts = [], [], []
        for visit in self._current.visits:
            naming = self._current.naming(int(visit))
            run, row = naming[-1]
            times.append(run.index.exposure_time[row])
            if len(naming) == 1:
                bands.append(run.index.band[row])
                counts.append(run.index.detectors[row])
                continue
            view = self._view(int(visit))
            bands.append(",".join(dict.fromkeys(each.band for each in view.exposures.values())))
            counts.append(len(view.exposures))
        return QTable(
            {
                "visit": self._current.visits.copy(),
                "band": bands,
                "exposure_time": np.array(times, np.float64) * second,
                "detectors": np.array(counts, np.int64),
            }
        )

    @property
    def units(self) -> list[tuple[int, int]]:
        """All planned (visit, detector), in order."""
        return [(view.visit, detector) for view in self._current.views() for detector in view.exposures]

    def detectors(self, visit: int) -> list[int]:
        """Detectors of a visit, in order.

        Raises
        ------
        NotDoneError
            When there is no such visit.
        """
        return list(self._view(visit).exposures)

    def exposure(self, visit: int, detector: int) -> Exposure:
        """What is known of a detector of a visit without its pixels: band, exposure time, shape, path, unit.

        Raises
        ------
        NotDoneError
            When there is no such visit or detector.
        """
        self._check(visit, detector)
        return self._view(visit).exposures[detector]

    def status(self) -> Status:
        """Read what is done, failed (with reasons), waiting for what failed, and left."""
        return status_of(self.path, Current(existing_runs(self.path)))

    def visit_status(self, visit: int) -> VisitStatus:
        """Read what is done, failed (with reasons), waiting for what failed, and left of one visit.

        Raises
        ------
        NotDoneError
            When there is no such visit.
        """
        return visit_status_of(self._view(visit))

    def marker(self, visit: int, detector: int | None, step: str | None = None) -> dict[str, Any]:
        """Return the marker of a finished unit; docs/campaign.md lists its keys.

        Parameters
        ----------
        detector
            None for a step over visits.
        step
            By default the last one over detectors.

        Raises
        ------
        NotDoneError
            When the unit is not planned, not done yet, or failed; the message says which.
        """
        found = self._finished(visit, detector, step)
        return found.run.markers(found.step).with_payload(found.marker).as_json()

    def markers(
        self, step: str | None = None, visits: Collection[int] | None = None
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Go through (visit, detector, marker) of all finished units of a step, visit by visit.

        By default of the last step over detectors, and of all visits; the detector is None for a step over
        visits.
        """
        for visit, detector, _, marker in markers_of(self._current, step, visits=visits, payload=True):
            yield visit, detector, marker.as_json()  # type: ignore[misc]

    def figures(
        self,
        step: str | None = None,
        only: Collection[str] | None = None,
        visits: Collection[int] | None = None,
    ) -> QTable:
        """One row per finished unit: visit, detector, band, run, seconds, flags, and the step's figures.

        Parameters
        ----------
        step
            By default the last one over detectors of the newest run.
        only
            Figures that are wanted, which is faster where there are many units; all by default.
        visits
            Visits that are wanted; all by default.

        Returns
        -------
        figures
            A figure that a unit does not have is NaN (numbers) or an empty word; ``flags`` are names with
            commas between; ``seconds`` is the unit's time on its worker.
        """
        from astropy.table import QTable

        return QTable(figures_of(self._current, step or step_of(self._current), only, visits))


def _shown_by(module: str) -> Any:
    # what shows campaigns stands above them, and is imported only when a person wants to look
    return importlib.import_module(f"skysub.report.{module}")
