"""``skysub cancel``: ask whoever works on a campaign to stop; what is done stays done."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from skysub.campaign.submission import cancel_campaign, who_holds

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("output", metavar="OUT", help="folder of the campaign, or s3://BUCKET/PREFIX")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="wait until the output is free, at most so long",
    )
    parser.epilog = (
        "exit code: 0 when nothing works on it any more or it was asked to stop, 1 when that failed"
    )


def run(options: argparse.Namespace) -> int:
    """Cancel; 0: asked, or nothing to do; 1: a job could not be removed, or it goes on."""
    holder, trouble = cancel_campaign(options.output)
    if trouble:
        print(f"what waits in a queue could not be removed from here: {trouble}", file=sys.stderr)
    if not holder:
        print(f"nobody works on {options.output}")
        return int(bool(trouble))
    print(f"{holder} finishes the units in flight, and stops")
    until = time.monotonic() + options.wait
    while options.wait and who_holds(options.output):
        if time.monotonic() > until:
            print(f"it works still, after {options.wait:g} s", file=sys.stderr)
            return 1
        time.sleep(0.5)
    return int(bool(trouble))
