"""The read side of a campaign: what was made, by visit and detector; no cluster needed."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.chosen import Chosen
from skysub.campaign.context import chain_of
from skysub.campaign.current import Current, chain_names
from skysub.campaign.exchange import applied_to, set_of, with_background
from skysub.campaign.figures import figures_of, markers_of, step_of
from skysub.campaign.products.image import Image
from skysub.campaign.products.table import Table, as_qtable
from skysub.campaign.reading import Finished, entry_of
from skysub.campaign.records import who
from skysub.campaign.status import Looked, states_of, status_of, visit_status_of
from skysub.campaign.steps import shipped_steps
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import existing_runs
from skysub.campaign.visit_products import VisitProducts
from skysub.errors import NotDoneError
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator

    import xarray
    from astropy.table import QTable
    from astropy.wcs import WCS

    from skysub.background.model import BackgroundList
    from skysub.campaign.chosen import Where
    from skysub.campaign.current import VisitView
    from skysub.campaign.products.base import Entry, Product
    from skysub.campaign.records import Exposure, Marker
    from skysub.campaign.status import Status, VisitStatus
    from skysub.campaign.steps import Step
    from skysub.campaign.store.place import Place
    from skysub.campaign.store.runs import Run
    from skysub.report.dashboard.server import Dashboard
    from skysub.report.notebook import Shown
    from skysub.visit.image import VisitImage

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


class Campaign:
    """Products of a campaign. A unit counts as done when its marker is there; nothing else is read.

    Where runs differ in settings or inputs, the newest run that plans a unit speaks for it.
    What visits there are is looked up when the campaign is opened, what is planned of one and what is done,
    at each call; so a campaign of a million units is opened as fast as one of ten.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self._current = Current(existing_runs(path))

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
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, oldest first."""
        return tuple(run.name for run in self._current.runs)

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

    def product(self, name: str, visit: int, detector: int | None = None) -> Any:
        """Return any product of any step: a `skysub.VisitImage`, a background, an array, an object, a table.

        Parameters
        ----------
        name
            One of `products`.
        detector
            None for a product of a whole visit.

        Returns
        -------
        value
            None where the product is optional and was not made.

        Raises
        ------
        NotDoneError
            When no step makes such a product, or its unit is not done; the message says why.
        InputChangedError
            When pixels are made on demand, and the input is gone or another one.
        """
        step, product = self._declared(name)
        of = step.of(product)
        if (of == "visit") != (detector is None):
            what = f"belongs to whole visits: give no detector, not {detector!r}"
            raise NotDoneError(f"{name} {what if of == 'visit' else 'belongs to detectors: say of which'}")
        if detector is not None:
            self._check(visit, detector)
        return self._finished(visit, None if step.scope == "visit" else detector, step.name).product(
            name, detector
        )

    def table(
        self,
        name: str,
        visit: int | None = None,
        detector: int | None = None,
        *,
        columns: Collection[str] | None = None,
        where: Where = None,
    ) -> QTable:
        """Return the rows of a table of all finished units, or of one visit or detector.

        Detectors are read one after the other, and what is not wanted of one is let go before the next.

        Parameters
        ----------
        columns
            Those that are wanted; all by default.
        where
            Rows that are wanted: ``[("psfFlux", ">", 1000.0), ("extendedness", "==", 1)]`` holds where all of
            its conditions do, a list of such lists where one of them does. Comparisons are ``==``, ``!=``,
            ``<``, ``<=``, ``>``, ``>=``, ``in`` and ``not in``; numbers are in the columns' units. Or an
            expression of pyarrow.compute.

        Returns
        -------
        table
            With the columns visit and detector in front; empty where nothing is done.

        Raises
        ------
        NotDoneError
            When no step makes such a table, or what is asked for is not done.
        ConfigError
            When there is no column of a name, or ``where`` is no condition.
        """
        step, product = self._declared(name)
        if not isinstance(product, Table):
            raise NotDoneError(f"{name} is no table, but {product.kind}: `product` returns it")
        chosen = Chosen.of(columns, where)
        whole = step.of(product) == "visit"
        if visit is not None and (detector is not None or whole):
            found = [self._finished(visit, None if step.scope == "visit" else detector, step.name)]
        else:
            views = self._current.views() if visit is None else iter([self._view(visit)])
            found = [each for view in views for each in self._all_finished(view, step.name)]
        parts = []
        for each in found:
            along: list[int | None] = [detector]
            record = each.marker.products.get(name)
            if isinstance(record, dict) and "each" in record and detector is None:
                along = [int(number) for number in record["each"]]
            for number in along:
                marker = each.run.markers(each.step).with_payload(each.marker)
                entry = entry_of(each.run, each.plan, marker, name, number)
                if entry is not None:
                    parts.append(chosen.rows(functools.partial(product.arrow, entry), f"{name}: "))
        if not parts:
            from astropy.table import QTable

            return QTable()
        import pyarrow as pa

        return as_qtable(pa.concat_tables(parts, promote_options="default"))

    def sources(
        self,
        visit: int | None = None,
        detector: int | None = None,
        *,
        columns: Collection[str] | None = None,
        where: Where = None,
    ) -> QTable:
        """Return rows of ``source``: as `table` of that name, which says what ``columns`` and ``where`` are.

        Raises
        ------
        NotDoneError
            When the campaign makes no table of sources, or what is asked for is not done.
        ConfigError
            When there is no column of a name, or ``where`` is no condition.
        """
        return self.table("source", visit, detector, columns=columns, where=where)

    def visit_image(
        self, visit: int, detector: int, product: str | None = None, *, background: str | None = None
    ) -> VisitImage:
        """Return the pixels that a unit made, with mask, variance and what is known about them.

        Where the recipe says ``pixels: on_demand``, image and variance are made from the input again,
        with the same bits as those that would have been stored.

        Parameters
        ----------
        product
            Which image; by default that of the last step that makes one.
        background
            The background that is to be subtracted, in place of the one that was: a set of coefficients
            ("detection" or "faint_light"), or a product by its name. `skysub.exchange_background` says how
            exact that is.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step makes images or such a background.
        InputChangedError
            When pixels are made on demand, and the input is gone or another one.
        """
        name = product or self._image(visit, detector)
        image: VisitImage = self.product(name, visit, detector)
        if background is not None:
            image = with_background(self, image, name, background)
        path = self._view(visit).exposures[detector].path
        return image.replace(path=path)

    def visit_products(self, visit: int) -> VisitProducts:
        """Return what the detectors of a visit made, for who looks at all of them: markers are read once.

        Raises
        ------
        NotDoneError
            When there is no such visit.
        """
        return VisitProducts(self._current, self._view(visit))

    def mask(
        self, visit: int, detector: int, product: str | None = None
    ) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the mask (ny, nx) int32 of an image alone; its record in the marker names its bits.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step makes images.
        """
        image, entry = self._image_entry(visit, detector, product)
        return image.plane(entry, "mask")

    def preview(
        self, visit: int, detector: int, product: str | None = None
    ) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """Return small pictures of an image, which its worker made, without reading any of its pixels.

        Returns
        -------
        preview
            Arrays (gy, gx) float32 by name, 56 cells along the longer side at most: "image" and "residual"
            in the image's unit, "sources" and "defects" as shares of masked pixels.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step makes images.
        """
        image, entry = self._image_entry(visit, detector, product)
        return image.preview(entry)

    def image_record(self, visit: int, detector: int, product: str | None = None) -> dict[str, Any]:
        """What the marker says of an image: unit, planes and their bits, has_variance, band, notes and so on.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step makes images.
        """
        return dict(self._image_entry(visit, detector, product)[1].record)

    def wcs(self, visit: int, detector: int, product: str | None = None) -> WCS | None:
        """Return the world coordinates of an image without reading its pixels; None where it has none.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step makes images.
        """
        image, entry = self._image_entry(visit, detector, product)
        return image.wcs(entry)

    def background(self, product: str, visit: int, detector: int, which: str | None = None) -> BackgroundList:
        """Return the layers of background that were subtracted from a detector.

        Parameters
        ----------
        product
            Name of the background, such as ``"preliminary_visit_image_background"``.
        which
            A set of coefficients that stands in for it, "detection" or "faint_light" of
            ``visit_image_background``; by default the product's own.

        Raises
        ------
        NotDoneError
            When the campaign does not make such a product, or the unit is not done.
        """
        name = product if which is None else set_of(self, product, which)
        return self._of_kind("background", name, visit, detector)  # type: ignore[no-any-return]

    def applied_background(self, visit: int, detector: int, product: str | None = None) -> str:
        """Name of the background that was subtracted from an image, the last one by default.

        Raises
        ------
        NotDoneError
            When the image's step does not say what it subtracts.
        """
        name = product or self._image(visit, detector)
        return applied_to(self._view(visit).newest[detector], name)

    def map(self, name: str, visit: int, detector: int) -> np.ndarray[Any, Any]:
        """Return a small array over a detector that its step made, such as "noise" (gy, gx).

        Raises
        ------
        NotDoneError
            When the unit is not done, or its step made no such map; the message lists those it makes.
        """
        value = self._of_kind("grid", name, visit, detector)
        if value is None:
            raise NotDoneError(f"{who(visit, detector)} has no map {name!r}")
        return value  # type: ignore[no-any-return]

    def found(self, name: str, visit: int, detector: int) -> Any:
        """Return an object that a step found: "psf" or "aperture_correction"; None where it found none.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step finds objects of that name; the message lists the names.
        """
        made = {
            each: product.kind
            for run in self._current.runs
            for each, product in chain_of(run).products.items()
        }
        shipped = {each.name: each.kind for step in shipped_steps().values() for each in step.outputs}
        known = sorted(each for each, kind in {**shipped, **made}.items() if kind == "object")
        if name not in known:
            raise NotDoneError(f"no step finds {name!r}{closest(name, known)}; known: {', '.join(known)}")
        if name not in made:
            self._finished(visit, detector, None)
            return None
        return self.product(name, visit, detector)

    def open_dataset(self, product: str, run: str | None = None) -> xarray.Dataset:
        """Open the Zarr arrays of a product with xarray, lazily: dimensions, units and coordinates by name.

        Parameters
        ----------
        product
            An image: image, mask, variance (visit, detector, y, x); or a background: mean, error, count,
            usable (visit, detector, layer, gy, gx), coefficients and covariance. `products` names them.
        run
            Name of one run whose arrays are opened; by default each detector comes from the run that speaks
            for it. Where those are several, the arrays are Dask's, one chunk per detector.

        Returns
        -------
        dataset
            NaN (mask and count: 0) where nothing was written, as beyond a detector that is smaller than
            others; ``done`` (visit, detector) says where something was, and ``band`` (visit) in which band.
            ``units`` are attributes where all pixels have the same; the mask has ``flag_masks`` and
            ``flag_meanings``, those of the detector that ``flags_of`` names. Where the recipe says
            ``pixels: on_demand`` there is the mask alone: `visit_image` makes the pixels.

        Raises
        ------
        NotDoneError
            When the run makes no such product, or one that has no arrays.
        """
        from skysub.campaign.dataset import open_current, open_dataset

        return open_current(self._current, product) if run is None else open_dataset(self._run(run), product)

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

    def _of_kind(self, kind: str, name: str, visit: int, detector: int) -> Any:
        made = chain_of(self._current.runs[-1]).products
        if name not in made or made[name].kind != kind:
            known = [each for each, product in made.items() if product.kind == kind]
            raise NotDoneError(
                f"run {self._current.runs[-1].name} makes no {name!r}{closest(name, known)}; "
                f"of kind {kind} it makes: {', '.join(known) or 'none'}"
            )
        return self.product(name, visit, detector)

    def _image(self, visit: int, detector: int) -> str:
        """Name of the last image that is made of a detector."""
        self._check(visit, detector)
        chain = chain_of(self._view(visit).newest[detector])
        images = [name for name, product in chain.products.items() if isinstance(product, Image)]
        if not images:
            raise NotDoneError(
                f"no step of {', '.join(chain.names)} makes images; `product` returns what they make"
            )
        return images[-1]

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

    def _image_entry(self, visit: int, detector: int, product: str | None) -> tuple[Image, Entry]:
        name = product or self._image(visit, detector)
        step, image = self._declared(name)
        if not isinstance(image, Image):
            raise NotDoneError(f"{name} is no image, but {image.kind}")
        found = self._finished(visit, None if step.scope == "visit" else detector, step.name)
        marker = found.run.markers(found.step).with_payload(found.marker)
        entry = entry_of(found.run, found.plan, marker, name, detector)
        if entry is None:
            raise NotDoneError(f"{who(visit, detector)} has no {name}: its step left it out")
        return image, entry

    def _all_finished(self, view: VisitView, step: str) -> Iterator[Finished]:
        read: dict[str, dict[int | None, Marker]] = {}
        for detector, speaker in view.units.get(step, {}).items():
            run = speaker.run
            if run.name not in read:
                read[run.name] = run.markers(step).of_visit(view.visit)
            marker = read[run.name].get(detector)
            if marker is not None:
                yield Finished(run, speaker.plan, step, detector, marker)

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


def _shown_by(module: str) -> Any:
    # what shows campaigns stands above them, and is imported only when a person wants to look
    return importlib.import_module(f"skysub.report.{module}")


def _listed(numbers: list[int], most: int = 12) -> str:
    text = ", ".join(str(number) for number in numbers[:most])
    return text if len(numbers) <= most else f"{text}, ... ({len(numbers)} in all)"
