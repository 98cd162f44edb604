"""``skysub run``: do a campaign, or what is left of it."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from skysub.campaign.metrics import Snapshot
    from skysub.campaign.run import Outcome

__all__ = [
    "add_alert_arguments",
    "add_arguments",
    "add_recipe_arguments",
    "add_selection_arguments",
    "run",
    "run_arguments",
    "run_recipe",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_recipe_arguments(parser)
    add_selection_arguments(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare what is done with its checksums first; redo what differs",
    )
    add_alert_arguments(parser)


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
    parser.add_argument(
        "--select", metavar="CONDITION", default="", help="only visits as \"band = 'r' and visit > 1000\""
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        default="",
        help="only visits with files that changed since 2026-11-28, or 36h",
    )


def add_alert_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare who is told what, which ``retry`` takes as well."""
    parser.add_argument(
        "--on-failure", metavar="COMMAND", default="", help="is given new failures as JSON at its input"
    )
    parser.add_argument("--webhook", metavar="URL", default="", help="new failures are posted there as JSON")
    parser.add_argument(
        "--metrics", metavar="FILE", type=Path, help="keep this file, in Prometheus' text format, up to date"
    )
    parser.add_argument(
        "--metrics-port", metavar="PORT", type=int, help="answer at http://127.0.0.1:PORT/metrics meanwhile"
    )


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
    for name, text in (("select", options.select), ("since", options.since)):
        arguments += [f"--{name}", text] if text else []
    for name, values in (("set", options.settings), ("step", options.step), ("visit", options.visit)):
        for value in values or ():
            arguments += [f"--{name}", str(value)]
    return arguments


def run(options: argparse.Namespace) -> int:
    """Run the campaign; 0: all done, 1: something failed, 2: interrupted with work left."""
    return run_recipe(options)


def run_recipe(options: argparse.Namespace) -> int:
    """Run the campaign that the options mean, tell who wants to know, and return the exit code."""
    from skysub.campaign.alerts import Alerts
    from skysub.campaign.metrics import Snapshot, published
    from skysub.errors import OutputInUseError, SkysubError

    alerts = Alerts(options.on_failure, options.webhook)
    try:
        with published(options.metrics, options.metrics_port) as publish:
            latest = Snapshot(str(options.output))

            def watch(snapshot: Snapshot) -> None:
                nonlocal latest
                latest = snapshot
                publish(snapshot)

            outcome = _outcome(options, watch)
            code = _said(outcome, options.output)
            publish(dataclasses.replace(latest, ended=time.time(), exit_code=code, left=outcome.left))
    except OutputInUseError:
        raise
    except SkysubError as error:
        alerts.tell(options.output, str(error))
        raise
    alerts.tell(options.output)
    return code


def _outcome(options: argparse.Namespace, watch: Callable[[Snapshot], None]) -> Outcome:
    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.run import run_campaign
    from skysub.campaign.selection import Selection

    recipe = load_recipe(
        options.recipe, inputs=options.inputs, cluster=options.cluster, settings=options.settings
    )
    visits = None if options.visit is None else frozenset(options.visit)
    return run_campaign(
        recipe,
        options.output,
        steps=options.step,
        visits=Selection(visits, options.select, options.since),
        verify=options.verify,
        stream=sys.stderr,
        watch=watch,
    )


def _said(outcome: Outcome, output: str) -> int:
    """Print what a run came to; return its exit code."""
    from skysub.campaign.progress import span
    from skysub.campaign.status import others

    rest = others(
        {
            "failed": outcome.failed,
            "waiting": outcome.waiting,
            "left": outcome.left,
            "unreadable": outcome.unreadable,
        }
    )
    if not outcome.run:
        print(f"nothing to do: {outcome.earlier} units are done in {output}{rest}")
    else:
        before = f", {outcome.earlier} were done before" if outcome.earlier else ""
        print(f"{outcome.done} units done{rest} in {span(outcome.seconds)}{before}: {output}")
        if outcome.stages:
            print(f"time went into: {outcome.stages}")
    if outcome.failed or outcome.unreadable:
        print(f"`skysub status {output}` says why")
    if outcome.interrupted and outcome.left:
        print("interrupted: the same command continues")
        return 2
    return 1 if outcome.failed or outcome.unreadable else 0
