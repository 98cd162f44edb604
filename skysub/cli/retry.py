"""``skysub retry``: do again what failed, perhaps with more memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.campaign.status import read_status
from skysub.cli.run import add_alert_arguments, add_recipe_arguments, run_recipe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from skysub.campaign.records import Failure

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--failed", action="store_true", help="only visits with a failure, and no new ones (the default)"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="memory of a worker, as 8GiB: for units that had too little"
    )
    add_alert_arguments(parser)
    parser.set_defaults(verify=False, step=None, visit=None, select="", since="")
    parser.epilog = "`skysub run` tries what failed again as well, and does what is new"


def run(options: argparse.Namespace) -> int:
    """Do it again; exit codes are those of ``run``."""
    status = read_status(options.output)
    visits = failed_visits(status.failures)
    if not visits:
        unreadable = status.counts["unreadable"]
        more = (
            f"; {unreadable} inputs could not be read, which `skysub run` looks at again"
            if unreadable
            else ""
        )
        print(f"nothing failed in {options.output}{more}")
        return 0
    if options.memory:
        options.settings = [*options.settings, f"cluster.memory={options.memory}"]
    options.visit = visits
    return run_recipe(options)


def failed_visits(failures: Sequence[Failure]) -> list[int]:
    """Visits with a failure; inputs that cannot be read belong to none."""
    return sorted({each.visit for each in failures if each.visit is not None})
