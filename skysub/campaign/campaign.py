"""The read side of a campaign: what was made, by visit and detector; no cluster needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.context import configured_step
from skysub.campaign.gather import stored_background
from skysub.campaign.lookup import closest
from skysub.campaign.status import current_units, read_status
from skysub.campaign.steps import is_loaded, product_names
from skysub.campaign.store.address import place_at
from skysub.campaign.store.arrays import read_plane
from skysub.campaign.store.backgrounds import unpacked
from skysub.campaign.store.objects import object_of
from skysub.campaign.store.records import pixels_checksum, visit_image_fields
from skysub.campaign.store.runs import existing_runs
from skysub.campaign.unit import read_input
from skysub.errors import NotDoneError
from skysub.visit.image import VisitImage

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import xarray
    from astropy.table import QTable

    from skysub.background.model import BackgroundList
    from skysub.campaign.status import Status
    from skysub.campaign.store.place import Place
    from skysub.campaign.store.runs import Run, Unit

__all__ = ["Campaign", "open_campaign"]

_FOUND = ("psf", "aperture_correction")
"""Objects that the steps of skysub find."""


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
        When it was written by a newer skysub.
    """
    return Campaign(place_at(path))


class Campaign:
    """Products of a campaign. A unit counts as done when its marker is there; nothing else is read.

    Where runs differ in settings or inputs, the newest run that plans a detector of a visit speaks for it.
    What is planned is looked up when the campaign is opened; what is done, at each call.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self._runs = existing_runs(path)
        self._current = dict(sorted(current_units(self._runs).items()))

    def __repr__(self) -> str:
        visits = len({visit for visit, _ in self._current})
        return f"<Campaign {self.path}: {visits} visits, {len(self._current)} units, {len(self._runs)} runs>"

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, oldest first."""
        return tuple(run.name for run in self._runs)

    def run_record(self, run: str | None = None) -> dict[str, Any]:
        """Content of ``run.json`` of a run, the newest by default: step, settings, products, versions.

        Raises
        ------
        NotDoneError
            When there is no such run.
        """
        return self._run(run).record

    @property
    def products(self) -> tuple[str, str]:
        """Names of the pixels and of the background that the newest run makes."""
        return product_names(self._runs[-1].record)

    @property
    def visits(self) -> QTable:
        """One row per visit: visit, band, exposure_time (s; NaN where unknown), detectors (a count)."""
        from astropy.table import QTable
        from astropy.units import second

        rows: dict[int, list[Unit]] = {}
        for (visit, _), (unit, _) in self._current.items():
            rows.setdefault(visit, []).append(unit)
        times = [units[0].exposure_time for units in rows.values()]
        return QTable(
            {
                "visit": np.array(list(rows), np.int64),
                "band": [units[0].band for units in rows.values()],
                "exposure_time": np.array([np.nan if t is None else t for t in times], np.float64) * second,
                "detectors": np.array([len(units) for units in rows.values()], np.int64),
            }
        )

    @property
    def units(self) -> list[tuple[int, int]]:
        """All planned (visit, detector), in order."""
        return list(self._current)

    def status(self) -> Status:
        """Read what is done, failed (with reasons) and left."""
        return read_status(self.path)

    def marker(self, visit: int, detector: int) -> dict[str, Any]:
        """Return the marker of a finished unit; docs/campaign.md lists its keys.

        Raises
        ------
        NotDoneError
            When the unit is not planned, not done yet, or failed; the message says which.
        """
        unit, run = self._unit(visit, detector)
        record = run.markers.of_detector(visit, detector)
        if record is None:
            raise NotDoneError(self._why_not(unit, run))
        return record

    def markers(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Go through (visit, detector, marker) of all finished units, visit by visit."""
        last, records = ("", -1), {}
        for (visit, detector), (_, run) in self._current.items():
            if (run.name, visit) != last:
                last, records = (run.name, visit), run.markers.of_visit(visit)
            if detector in records:
                yield visit, detector, records[detector]

    def figures(self) -> QTable:
        """One row per finished unit: visit, detector, band, run, seconds, flags, and the step's figures.

        A figure that a unit does not have is NaN (numbers) or an empty word; ``flags`` are names with
        commas between; ``seconds`` is the unit's time on its worker.
        """
        from astropy.table import QTable

        rows = []
        for visit, detector, record in self.markers():
            unit, run = self._current[visit, detector]
            head = {"visit": visit, "detector": detector, "band": unit.band, "run": run.name}
            head["seconds"] = sum(record["timings"].values())
            head["flags"] = ",".join(record["flags"])
            rows.append({**head, **record["figures"]})
        names = list(dict.fromkeys(name for row in rows for name in row))
        return QTable({name: _column([row.get(name) for row in rows]) for name in names})

    def visit_image(self, visit: int, detector: int) -> VisitImage:
        """Return the pixels that a unit made, with mask, variance and what is known about them.

        Where the recipe says ``pixels: on_demand``, image and variance are made from the input again,
        with the same bits as those that would have been stored.

        Raises
        ------
        NotDoneError
            When the unit is not done.
        InputChangedError
            When pixels are made on demand, and the input is gone or another one.
        """
        unit, run = self._unit(visit, detector)
        record = self.marker(visit, detector)
        product, _ = product_names(run.record)
        index = (unit.visit_index, unit.detector_index)
        has_variance = record["image"]["has_variance"]
        if run.record["products"]["pixels"] == "stored":
            image = read_plane(run.images, product, "image", index, unit.shape)
            variance = (
                read_plane(run.images, product, "variance", index, unit.shape) if has_variance else None
            )
        else:
            image, variance = self._made_again(run, unit, record)
        return VisitImage(
            image=image,
            mask=read_plane(run.images, product, "mask", index, unit.shape),
            variance=variance,
            visit=visit,
            detector=detector,
            path=unit.path,
            psf=object_of(record["objects"].get("psf")),
            **visit_image_fields(record["image"]),
        )

    def mask(self, visit: int, detector: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the mask (ny, nx) int32 alone; the marker's ``image.planes`` names its bits.

        Raises
        ------
        NotDoneError
            When the unit is not done.
        """
        unit, run = self._unit(visit, detector)
        self.marker(visit, detector)
        index = (unit.visit_index, unit.detector_index)
        return read_plane(run.images, product_names(run.record)[0], "mask", index, unit.shape)

    def background(self, product: str, visit: int, detector: int) -> BackgroundList:
        """Return the layers of background that were subtracted from a detector.

        Parameters
        ----------
        product
            Name of the background, such as ``"preliminary_visit_image_background"``.

        Raises
        ------
        NotDoneError
            When the campaign does not make such a product, or the unit is not done.
        """
        unit, run = self._unit(visit, detector)
        _, made = product_names(run.record)
        if product != made:
            raise NotDoneError(f"run {run.name} makes no {product!r}; its background is {made!r}")
        return stored_background(run, self.marker(visit, detector), (unit.visit_index, unit.detector_index))

    def map(self, name: str, visit: int, detector: int) -> np.ndarray[Any, Any]:
        """Return a small array over a detector that its step made, such as "noise" (gy, gx).

        Raises
        ------
        NotDoneError
            When the unit is not done, or its step makes no such map; the message lists those it makes.
        """
        maps = self.marker(visit, detector)["maps"]
        if name not in maps:
            raise NotDoneError(
                f"visit {visit} detector {detector} has no map {name!r}; it has: {', '.join(maps) or 'none'}"
            )
        return unpacked(maps[name])

    def found(self, name: str, visit: int, detector: int) -> Any:
        """Return an object that a step found: "psf" or "aperture_correction"; None where it found none.

        Raises
        ------
        NotDoneError
            When the unit is not done, or no step finds objects of that name; the message lists the names.
        """
        objects = self.marker(visit, detector)["objects"]
        known = sorted({*objects, *_FOUND})
        if name not in known:
            raise NotDoneError(f"no step finds {name!r}{closest(name, known)}; known: {', '.join(known)}")
        return object_of(objects.get(name))

    def open_dataset(self, product: str, run: str | None = None) -> xarray.Dataset:
        """Open the Zarr arrays of a product with xarray, lazily: dimensions, units and coordinates by name.

        Parameters
        ----------
        product
            "preliminary_visit_image": image, mask, variance (visit, detector, y, x); or
            "preliminary_visit_image_background": mean, error, count, usable (visit, detector, layer, gy,
            gx), coefficients and covariance. `products` names both.
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
            When the run makes no such product.
        """
        from skysub.campaign.dataset import open_current, open_dataset

        return open_current(self._current, product) if run is None else open_dataset(self._run(run), product)

    def _run(self, name: str | None) -> Run:
        for run in reversed(self._runs):
            if name in {None, run.name}:
                return run
        raise NotDoneError(f"there is no run {name!r}; the runs are {', '.join(self.runs)}")

    def _unit(self, visit: int, detector: int) -> tuple[Unit, Run]:
        for name, number in (("visit", visit), ("detector", detector)):
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
                raise NotDoneError(f"{name} must be a whole number, as in units, not {number!r}")
        found = self._current.get((visit, detector))
        if found is None:
            detectors = [each for number, each in self._current if number == visit]
            have = f"its detectors are {_listed(detectors)}" if detectors else "there is no such visit"
            raise NotDoneError(f"visit {visit} detector {detector} is not part of {self.path}: {have}")
        return found

    def _why_not(self, unit: Unit, run: Run) -> str:
        who = f"visit {unit.visit} detector {unit.detector}"
        failed = run.markers.failures(unit.visit).get(unit.detector)
        if failed is not None:
            return f"{who} failed: {unit.path}: {unit.reason(failed['message'])}"
        return f"{who} is not done yet: `skysub run` continues"

    def _made_again(self, run: Run, unit: Unit, record: dict[str, Any]) -> tuple[Any, Any]:
        """Image and variance of a unit, from its input."""
        visit_image = read_input(run, unit)
        image = visit_image.image
        for layer in stored_background(run, record, (unit.visit_index, unit.detector_index)):
            image = layer.subtract_from(image)
        if pixels_checksum(image) == record["pixels_crc32c"]:
            return image, visit_image.variance
        # the step did more to the pixels than subtract
        if not is_loaded(run.record["step"]):
            raise NotDoneError(
                f"the pixels of visit {unit.visit} detector {unit.detector} are made by the step "
                f"{run.record['step']!r}, which a store alone cannot make skysub import: import its module "
                "first, if you trust it"
            )
        step, config = configured_step(run)
        made = step.work(visit_image, config).visit_image
        if pixels_checksum(made.image) != record["pixels_crc32c"]:
            who = f"visit {unit.visit} detector {unit.detector}"
            raise NotDoneError(
                f"the pixels of {who} cannot be made again bit for bit: "
                f"skysub {record['versions']['skysub']} made them; run the campaign again with this version"
            )
        return made.image, made.variance


def _column(values: list[Any]) -> Any:
    if all(isinstance(value, str) or value is None for value in values) and any(values):
        return [value or "" for value in values]
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    if all(isinstance(value, (int, float)) or value is None for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return ["" if value is None else str(value) for value in values]


def _listed(numbers: list[int], most: int = 12) -> str:
    text = ", ".join(str(number) for number in numbers[:most])
    return text if len(numbers) <= most else f"{text}, ... ({len(numbers)} in all)"
