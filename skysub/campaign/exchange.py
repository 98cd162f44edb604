"""Which background an image has lost, and the same image with another one subtracted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.campaign.context import chain_of
from skysub.campaign.products.background import Background
from skysub.campaign.products.image import Image
from skysub.errors import NotDoneError
from skysub.settings.lookup import closest
from skysub.visit.calibrated import exchange_background

if TYPE_CHECKING:
    from skysub.campaign.campaign import Campaign
    from skysub.campaign.store.runs import Run
    from skysub.visit.image import VisitImage

__all__ = ["applied_to", "set_of", "with_background"]


def set_of(campaign: Campaign, product: str, which: str) -> str:
    """Name of the product that is a set of coefficients of a background.

    Raises
    ------
    NotDoneError
        When the background has no such set.
    """
    declared = campaign.declared(product)
    sets = dict(declared.sets) if isinstance(declared, Background) else {}
    if which not in sets:
        raise NotDoneError(
            f"{product} has no set {which!r}{closest(which, list(sets))}; it has "
            f"{', '.join(sets) or 'one alone'}"
        )
    return sets[which]


def applied_to(run: Run, image: str) -> str:
    """Name of the background that a run's image has lost.

    Raises
    ------
    NotDoneError
        When its step does not say what it subtracts.
    """
    products = chain_of(run).products
    declared = products.get(image)
    if isinstance(declared, Image):
        for name in (declared.less, *declared.sky):
            if name in products:
                return name
    raise NotDoneError(f"the step that makes {image} does not say which background it subtracts")


def with_background(campaign: Campaign, image: VisitImage, product: str, background: str) -> VisitImage:
    """An image of a campaign with another background subtracted: a set of coefficients, or a product.

    Raises
    ------
    NotDoneError
        When there is no such background, or it is not done.
    CalibrationError
        When the image does not say how it was calibrated.
    """
    visit, detector = image.visit, image.detector
    applied = campaign.applied_background(visit, detector, product)
    other = _named(campaign, background)
    if other == applied:
        return image
    return exchange_background(
        image,
        campaign.background(applied, visit, detector),
        campaign.background(other, visit, detector),
    )


def _named(campaign: Campaign, background: str) -> str:
    """Name of a background's product, from itself or the word for a set."""
    made = [name for name in campaign.products if campaign.kind(name) == "background"]
    if background in made:
        return background
    words: dict[str, str] = {}
    for name in made:
        declared = campaign.declared(name)
        if isinstance(declared, Background):
            words |= {word: product for word, product in declared.sets if product in made}
    if background not in words:
        known = [*words, *made]
        raise NotDoneError(
            f"there is no background {background!r}{closest(background, known)}; there are "
            f"{', '.join(known) or 'none'}"
        )
    return words[background]
