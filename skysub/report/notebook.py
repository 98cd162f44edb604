"""Campaigns and visits as notebooks show them."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skysub.report.previews import previewed
from skysub.report.templating import environment, template_text
from skysub.report.verdict import verdict_of

if TYPE_CHECKING:
    from skysub.campaign.campaign import Campaign

__all__ = ["Shown", "campaign_html", "show_visit"]


@dataclass(frozen=True)
class Shown:
    """A page in a cell of a notebook; elsewhere its ``html`` can be written to a file."""

    words: str
    """What it shows, in one line."""
    html: str
    """A whole page, which needs nothing else."""
    height: int = 640
    """Of its frame, CSS pixels."""

    def __repr__(self) -> str:
        return f"<{self.words}>"

    def _repr_html_(self) -> str:
        # a frame of its own: styles of the page and of the notebook stay apart
        return (
            f'<iframe title="{html.escape(self.words)}" sandbox srcdoc="{html.escape(self.html)}" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show_visit(campaign: Campaign, visit: int) -> Shown:
    """Show the focal plane of a visit: image, sky model, residual, mask and maps, from previews.

    Raises
    ------
    NotDoneError
        When there is no such visit.
    """
    state = campaign.visit_status(visit)
    _, card = previewed(campaign, visit, state.failures)
    words = ", ".join(f"{count} {name}" for name, count in state.counts.items() if count)
    page = (
        environment()
        .get_template("notebook_visit.html")
        .render(
            visit=visit,
            words=words,
            card=card,
            failures=[{"message": each.message, "detector": each.detector} for each in state.failures],
            style=template_text("report.css"),
        )
    )
    return Shown(f"visit {visit} of {campaign.path}: {words}", page)


def campaign_html(campaign: Campaign) -> str:
    """Counts of each step and a verdict, as a small table."""
    status = campaign.status()
    return (
        environment()
        .get_template("notebook_campaign.html")
        .render(
            output=status.output,
            steps=status.by_step,
            verdict=verdict_of(status, ()),
            visits=len(status.by_visit),
        )
    )
