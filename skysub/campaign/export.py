"""Products of a campaign as files that other tools open: each kind of product has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skysub.campaign.campaign import open_campaign
from skysub.campaign.records import who
from skysub.campaign.store.address import place_at
from skysub.campaign.store.storage_path import writing
from skysub.errors import InputChangedError, InvalidImageError, LayoutError, NotDoneError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator

    from skysub.campaign.campaign import Campaign

__all__ = ["Exported", "export_products"]


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    written: int
    """Files."""
    missing: tuple[str, ...]
    """Why units are left out."""


def export_products(
    output: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    products: Collection[str] | None = None,
    visits: Collection[int] | None = None,
    detectors: Collection[int] | None = None,
    compression: Literal["none", "lossless", "lossy16"] = "lossless",
    layout: Literal["fits", "lsst-images"] = "fits",
) -> Exported:
    """Write products as ``FOLDER/PRODUCT/VISIT/PRODUCT_VISIT_DETECTOR.fits``; files there are replaced.

    Images, backgrounds and small arrays become FITS, tables Parquet, objects JSON; what belongs to whole
    visits has no detector in its name.

    Parameters
    ----------
    folder
        A local one, or an ``s3://`` address.
    products
        Names, as `Campaign.products` has them; all by default.
    visits, detectors
        Which ones; all by default. Products of whole visits are exported whichever detectors are chosen.
    layout
        Of images: ``"fits"`` as `skysub.write_visit_image` writes them, ``"lsst-images"`` as
        `skysub.write_lsst_images` does.

    Raises
    ------
    NotDoneError
        When the campaign makes no product of a name, or no unit is chosen.
    OutputError
        When the folder cannot be written.
    MissingPackageError
        When ``layout`` needs the extra ``lsst``.
    """
    campaign, target = open_campaign(output), place_at(folder)
    chosen = list(campaign.products if products is None else products)
    for product in chosen:
        if product not in campaign.products:
            raise NotDoneError(
                f"{output} has no product {product!r}; it has {' and '.join(campaign.products)}"
            )
    options = {"compression": compression, "layout": layout}
    written, missing = 0, []
    some = False
    for number in campaign.visits["visit"]:
        visit = int(number)
        if visits is not None and visit not in visits:
            continue
        along = [each for each in campaign.detectors(visit) if detectors is None or each in detectors]
        some = some or bool(along)
        for product, detector in _slots(campaign, chosen, along):
            try:
                value = (
                    campaign.visit_image(visit, detector, product)
                    if detector is not None and campaign.kind(product) == "image"
                    else campaign.product(product, visit, detector)
                )
                if value is None:
                    continue
                declared = campaign.declared(product)
                words = [product, str(visit), *([] if detector is None else [str(detector)])]
                place = target / product / str(visit) / f"{'_'.join(words)}.{declared.suffix}"
                with writing(target):
                    place.put_by(declared.exporter(value, options))
                written += 1
            # one that cannot be written for what it holds leaves the others
            except NotDoneError as error:
                if str(error) not in missing:
                    missing.append(str(error))
            except (InvalidImageError, LayoutError, InputChangedError) as error:
                missing.append(f"{who(visit, detector)}, {product}: {error}")
    if not some:
        raise NotDoneError(f"{output} has no such visit or detector; `skysub status {output}` lists them")
    return Exported(written, tuple(missing))


def _slots(
    campaign: Campaign, products: Collection[str], detectors: list[int]
) -> Iterator[tuple[str, int | None]]:
    """Products and detectors of one visit, those of a detector together."""
    for detector in detectors:
        for product in products:
            if campaign.belongs_to(product) == "detector":
                yield product, detector
    for product in products:
        if detectors and campaign.belongs_to(product) != "detector":
            yield product, None
