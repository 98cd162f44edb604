"""What finished units of a campaign hold: images, backgrounds, tables and whatever else steps make."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from skysub.campaign.chosen import Chosen
from skysub.campaign.context import chain_of
from skysub.campaign.exchange import applied_to, set_of, with_background
from skysub.campaign.grid_dataset import grid_dataset
from skysub.campaign.lookup import Lookup
from skysub.campaign.products.image import Image
from skysub.campaign.products.small import Grid
from skysub.campaign.products.table import Table, as_qtable
from skysub.campaign.reading import entry_of, finished_of
from skysub.campaign.records import who
from skysub.campaign.visit_products import VisitProducts
from skysub.errors import NotDoneError
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    import xarray
    from astropy.table import QTable
    from astropy.wcs import WCS

    from skysub.background.model import BackgroundList
    from skysub.campaign.chosen import Where
    from skysub.campaign.products.base import Entry
    from skysub.visit.image import VisitImage

__all__ = ["Contents"]


class Contents(Lookup):
    """Products of a campaign's finished units."""

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
            found = [each for view in views for each in finished_of(view, step.name)]
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

    def visit_products(self, visit: int) -> VisitProducts:
        """Return what the detectors of a visit made, for who looks at all of them: markers are read once.

        Raises
        ------
        NotDoneError
            When there is no such visit.
        """
        return VisitProducts(self._current, self._view(visit))

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

    def psf(self, visit: int, detector: int) -> Any:
        """Return the PSF that `calibrate_image` found for a detector; None where it found none.

        Raises
        ------
        NotDoneError
            When the unit is not done.
        """
        return self._characterised("psf", visit, detector)

    def aperture_correction(self, visit: int, detector: int) -> Any:
        """Return the aperture correction that `calibrate_image` found; None where it found none.

        Raises
        ------
        NotDoneError
            When the unit is not done.
        """
        return self._characterised("aperture_correction", visit, detector)

    def _characterised(self, name: str, visit: int, detector: int) -> Any:
        if any(name in chain_of(run).products for run in self._current.runs):
            return self.product(name, visit, detector)
        self._finished(visit, detector, None)
        return None

    def open_dataset(self, product: str, run: str | None = None) -> xarray.Dataset:
        """Open the Zarr arrays of a product with xarray, lazily: dimensions, units and coordinates by name.

        Parameters
        ----------
        product
            An image: image, mask, variance (visit, detector, y, x); or a background: mean, error, count,
            usable (visit, detector, layer, gy, gx), coefficients and covariance; or a grid, whose values are
            read at once: (visit, detector, NAME_0, NAME_1, ...), without detector where it is of visits.
            `products` names them.
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

        if run is not None:
            self._run(run)
        step, declared = self._declared(product)
        if isinstance(declared, Grid):
            views = self._current.views()
            found = (each for view in views for each in finished_of(view, step.name))
            chosen = (each for each in found if run in {None, each.run.name})
            return grid_dataset(declared, chosen, of_visits=step.of(declared) == "visit")
        return open_current(self._current, product) if run is None else open_dataset(self._run(run), product)

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
