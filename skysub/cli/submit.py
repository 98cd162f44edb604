"""``skysub submit``: hand the coordinator of a campaign to the site, which keeps it running."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skysub.campaign.recipe import load_recipe
from skysub.campaign.submission import submit_campaign
from skysub.cli.run import add_recipe_arguments, add_selection_arguments, run_arguments

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_recipe_arguments(parser)
    add_selection_arguments(parser)
    parser.add_argument("--logs", metavar="FOLDER", type=Path, help="for what the coordinator prints")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the job's script or manifest, and hand nothing in"
    )
    parser.epilog = "`skysub status OUT` and `skysub cancel OUT` follow from anywhere that sees the output"


def run(options: argparse.Namespace) -> int:
    """Hand it in; 0: done, 75: it is there already."""
    recipe = load_recipe(
        options.recipe, inputs=options.inputs, cluster=options.cluster, settings=options.settings
    )
    submitted = submit_campaign(
        recipe.cluster,
        options.output,
        [sys.executable, "-m", "skysub", "run", *run_arguments(options)],
        logs=options.logs,
        dry_run=options.dry_run,
    )
    print(submitted.script if options.dry_run else submitted.job)
    if not options.dry_run:
        print(f"`skysub status {options.output}` follows it, `skysub cancel` ends it", file=sys.stderr)
    return 0
