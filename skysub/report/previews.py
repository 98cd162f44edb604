"""A visit as its workers' previews show it, without reading pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.report.panels import common_scales, visit_cards
from skysub.report.rows import rows_of_visit
from skysub.report.views import preview_views

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skysub.campaign.campaign import Campaign
    from skysub.campaign.status import Failure
    from skysub.report.panels import VisitCard
    from skysub.report.rows import Row

__all__ = ["previewed"]


def previewed(
    campaign: Campaign, visit: int, failures: Sequence[Failure]
) -> tuple[list[Row], VisitCard | None]:
    """Return the finished detectors of a visit, and its card; None where nothing is done yet."""
    products = campaign.visit_products(visit)
    markers = dict(products.markers())
    rows = list(rows_of_visit(campaign, visit, markers))
    views = list(preview_views(campaign, products, markers))
    return rows, next(visit_cards(rows, views, failures, common_scales(views)), None)
