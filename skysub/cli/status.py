"""``skysub status``: what is done, what failed and why, what is left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from skysub.campaign.submission import Submitted

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("output", metavar="OUT", help="folder of the campaign, or s3://BUCKET/PREFIX")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--metrics", action="store_true", help="in the text format of Prometheus")
    parser.epilog = "exit code: 0 when all is done, 1 when something failed, 2 while work is left"


def run(options: argparse.Namespace) -> int:
    """Print the status; 0: all done, 1: something failed, 2: work is left."""
    from skysub.campaign.metrics import status_exposition
    from skysub.campaign.status import lines, read_status
    from skysub.campaign.submission import read_submission, who_holds

    status = read_status(options.output)
    held_by, submitted = who_holds(options.output), read_submission(options.output)
    job = "" if submitted is None else _state(submitted)
    if options.json:
        now = {"held_by": held_by, "job": None if submitted is None else submitted.job, "job_state": job}
        print(json.dumps(status.as_json() | now, indent=1))
    elif options.metrics:
        print(status_exposition(str(options.output), status.counts, status.exit_code), end="")
    else:
        for line in lines(status):
            print(line)
        if submitted is not None and job:
            print(f"job {submitted.job} of {submitted.kind}, handed in {submitted.when}: {job}")
        if held_by:
            print(f"{held_by} works on it")
    return status.exit_code


def _state(submitted: Submitted) -> str:
    """Say what the cluster says of a job, or why it cannot be asked; empty where the job is over."""
    from skysub.errors import ClusterError, RecipeError

    try:
        return submitted.state()
    except (ClusterError, RecipeError) as error:
        return f"not known here ({error})"
