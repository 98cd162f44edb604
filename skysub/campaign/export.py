"""Products of a campaign as FITS files that other tools open."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skysub.campaign.campaign import open_campaign
from skysub.campaign.store.address import place_at
from skysub.campaign.store.place import writing
from skysub.errors import InputChangedError, InvalidImageError, LayoutError, NotDoneError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection
    from pathlib import Path

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
) -> Exported:
    """Write products as ``FOLDER/PRODUCT/VISIT/PRODUCT_VISIT_DETECTOR.fits``; files there are replaced.

    Parameters
    ----------
    folder
        A local one, or an ``s3://`` address.
    products
        Names, as `Campaign.products` has them; all by default.
    visits, detectors
        Which ones; all by default.

    Raises
    ------
    NotDoneError
        When the campaign makes no product of a name, or no unit is chosen.
    OutputError
        When the folder cannot be written.
    """
    import skysub

    campaign, target = open_campaign(output), place_at(folder)
    pixels, background = campaign.products
    chosen = list(campaign.products if products is None else products)
    for product in chosen:
        if product not in campaign.products:
            raise NotDoneError(f"{output} has no product {product!r}; it has {pixels} and {background}")
    units = [
        (visit, detector)
        for visit, detector in campaign.units
        if (visits is None or visit in visits) and (detectors is None or detector in detectors)
    ]
    if not units:
        raise NotDoneError(f"{output} has no such visit or detector; `skysub status {output}` lists them")
    written, missing = 0, []
    for visit, detector in units:
        try:
            campaign.marker(visit, detector)
            for product in chosen:
                write: Callable[[Path], object]
                if product == pixels:
                    write = functools.partial(
                        skysub.write_visit_image,
                        campaign.visit_image(visit, detector),
                        compression=compression,
                    )
                else:
                    write = functools.partial(
                        skysub.write_background, campaign.background(product, visit, detector)
                    )
                with writing(target):
                    (target / product / str(visit) / f"{product}_{visit}_{detector}.fits").put_by(write)
                written += 1
        # one that cannot be written for what it holds leaves the others
        except (NotDoneError, InvalidImageError, LayoutError, InputChangedError) as error:
            missing.append(str(error))
    return Exported(written, tuple(missing))
