"""``skysub report``: what a campaign made, as one HTML file."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING

from skysub.cli.before import add_against

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("campaign", metavar="OUT", help="folder of the campaign, or s3://BUCKET/PREFIX")
    parser.add_argument("--output", metavar="FILE", help="a local file; default: report.html in OUT, or here")
    parser.add_argument(
        "--visit",
        type=int,
        action="append",
        help="only this visit, may be repeated; of a large campaign: make its page",
    )
    add_against(parser)
    parser.add_argument("--open", action="store_true", help="show it in the browser")


def run(options: argparse.Namespace) -> int:
    """Write the report, and say where it is."""
    from skysub.cli.progress import Progress
    from skysub.report.write import write_report

    path = write_report(
        options.campaign,
        options.output,
        visits=options.visit,
        progress=Progress("looking at detectors"),
        against=options.against,
    )
    print(path)
    if options.open:
        webbrowser.open(path.resolve().as_uri())
    return 0
