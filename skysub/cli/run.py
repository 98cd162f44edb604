"""``skysub run``: do a campaign, or what is left of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "add_recipe_arguments", "add_selection_arguments", "run", "run_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_recipe_arguments(parser)
    add_selection_arguments(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare what is done with its checksums first; redo what differs",
    )


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare recipe, inputs and output, which other verbs take as well."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a recipe")
    parser.add_argument("--inputs", metavar="GLOB", nargs="+", default=[], help="in place of the recipe's")
    parser.add_argument(
        "--output", metavar="OUT", required=True, help="folder of the campaign, or s3://BUCKET/PREFIX"
    )
    parser.add_argument(
        "--cluster", metavar="PROFILE", help="where to run (default: as the recipe says, local)"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change the recipe, as in steps.background.fit.order=4 or cluster.workers=1; may be repeated",
    )


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which part of the recipe is meant, which ``plan`` and ``submit`` take as well."""
    parser.add_argument("--step", metavar="NAME", action="append", help="only this step; may be repeated")
    parser.add_argument("--visit", type=int, action="append", help="only this visit; may be repeated")


def run_arguments(options: argparse.Namespace) -> list[str]:
    """Return the arguments by which another process starts the same run."""
    from skysub.campaign.store.address import place_at

    recipe = Path(options.recipe)
    arguments = [str(recipe.absolute()) if recipe.suffix in {".yaml", ".yml"} else options.recipe]
    arguments += ["--output", str(place_at(options.output).absolute())]
    if options.inputs:
        arguments += ["--inputs", *options.inputs]
    if options.cluster:
        arguments += ["--cluster", options.cluster]
    for name, values in (("set", options.settings), ("step", options.step), ("visit", options.visit)):
        for value in values or ():
            arguments += [f"--{name}", str(value)]
    return arguments


def run(options: argparse.Namespace) -> int:
    """Run the campaign; 0: all done, 1: something failed, 2: interrupted with work left."""
    from skysub.campaign.progress import span
    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.run import run_campaign
    from skysub.campaign.status import others

    recipe = load_recipe(
        options.recipe, inputs=options.inputs, cluster=options.cluster, settings=options.settings
    )
    outcome = run_campaign(
        recipe,
        options.output,
        steps=options.step,
        visits=options.visit,
        verify=options.verify,
        stream=sys.stderr,
    )
    rest = others(
        {
            "failed": outcome.failed,
            "waiting": outcome.waiting,
            "left": outcome.left,
            "unreadable": outcome.unreadable,
        }
    )
    if not outcome.run:
        print(f"nothing to do: {outcome.earlier} units are done in {options.output}{rest}")
    else:
        before = f", {outcome.earlier} were done before" if outcome.earlier else ""
        print(f"{outcome.done} units done{rest} in {span(outcome.seconds)}{before}: {options.output}")
        if outcome.stages:
            print(f"time went into: {outcome.stages}")
    if outcome.failed or outcome.unreadable:
        print(f"`skysub status {options.output}` says why")
    if outcome.interrupted and outcome.left:
        print("interrupted: the same command continues")
        return 2
    return 1 if outcome.failed or outcome.unreadable else 0
