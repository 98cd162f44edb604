"""``skysub status``: what is done, what failed and why, what is left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("output", metavar="OUT", help="folder of the campaign, or s3://BUCKET/PREFIX")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.epilog = "exit code: 0 when all is done, 1 when something failed, 2 while work is left"


def run(options: argparse.Namespace) -> int:
    """Print the status; 0: all done, 1: something failed, 2: work is left."""
    from skysub.campaign.status import lines, read_status

    status = read_status(options.output)
    if options.json:
        print(json.dumps(status.as_json(), indent=1))
    else:
        for line in lines(status):
            print(line)
    return status.exit_code
