"""``skysub dashboard``: the pages of a campaign, live, in a browser."""

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
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; by default this machine alone can reach it",
    )
    parser.add_argument("--port", type=int, default=8788, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--token", help="word that opens the pages; by default one is made up. '' asks for none"
    )
    add_against(parser)
    parser.add_argument("--open", action="store_true", help="show it in the browser")


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, and say where."""
    from skysub.report.dashboard.server import start_dashboard

    with start_dashboard(
        options.campaign,
        host=options.host,
        port=options.port,
        token=options.token,
        against=options.against,
    ) as dashboard:
        print(f"{dashboard.url}\nCtrl-C ends it; the campaign goes on.", flush=True)
        if options.open:
            webbrowser.open(dashboard.url)
        dashboard.wait()
    return 0
