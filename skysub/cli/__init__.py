"""The command line: one module per verb, imported when that verb is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from skysub._version import __version__
from skysub.errors import OutputInUseError, SkysubError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IN_USE", "main", "options_of_verbs", "parsers_of_verbs"]

_VERBS: dict[str, str] = {
    "subtract": "Subtract the sky of images: no campaign, no recipe.",
    "restore": "Put the sky back into an image that it was subtracted from.",
    "simulate": "Make visits whose sky is known.",
    "score": "Score models of the sky against a simulation's truth.",
    "run": "Do a campaign, or what is left of it.",
    "retry": "Do again what failed, perhaps with more memory.",
    "submit": "Hand the coordinator of a campaign to a cluster, which keeps it running.",
    "cancel": "Ask whoever works on a campaign to stop.",
    "plan": "Show what run would do, and what it would cost.",
    "status": "Show what is done, what failed and why, and what is left.",
    "cluster": "Look whether the workers of a profile can do units.",
    "templates": "Learn from many visits what the camera adds to the sky.",
    "export": "Write products of a campaign as FITS, Parquet and JSON files.",
    "dashboard": "Show a campaign in the browser, also while it runs.",
    "report": "Write what a campaign made as one HTML file, to look at.",
    "completion": "Print a script that makes a shell complete verbs and options.",
}
"""Verb -> what it does, as ``skysub --help`` lists it. Module skysub.cli.VERB has add_arguments and run."""


IN_USE = 75
"""Exit code where another process works on the output."""

_ANY_ORDER = ("subtract", "restore")
"""Verbs of several files, which may stand before and after options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    Our own errors are one line on standard error, and code 1, or 75 where another process works on the
    output: a schedule need not take that for a failure (EX_TEMPFAIL of sysexits.h: try again later). As
    shells have it, 130 stands for Ctrl-C, and 141 for a reader of the output that left (``skysub plan ...
    | head``).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((each for each in given if each in _VERBS), "")
    try:
        code = _run(given)
        sys.stdout.flush()
    except SkysubError as error:
        print(f"skysub {verb}: {error}", file=sys.stderr)
        return IN_USE if isinstance(error, OutputInUseError) else 1
    except KeyboardInterrupt:
        print(f"\nskysub {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # what Python still has to say when it ends goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def parsers_of_verbs() -> dict[str, argparse.ArgumentParser]:
    """Return verbs, and what parses the arguments of each."""
    found = {}
    for verb, purpose in _VERBS.items():
        found[verb] = argparse.ArgumentParser(prog=f"skysub {verb}", description=purpose)
        importlib.import_module(f"skysub.cli.{verb}").add_arguments(found[verb])
    return found


def options_of_verbs() -> dict[str, list[str]]:
    """Return verbs and the options that each takes."""
    return {
        verb: sorted(each for each in parser._option_string_actions if each.startswith("--"))  # noqa: SLF001 (argparse has no other way to list them)
        for verb, parser in parsers_of_verbs().items()
    }


def _run(given: Sequence[str]) -> int:
    verb = given[0] if given else ""
    if verb in _ANY_ORDER:
        module = importlib.import_module(f"skysub.cli.{verb}")
        alone = argparse.ArgumentParser(prog=f"skysub {verb}", description=_VERBS[verb])
        module.add_arguments(alone)
        return int(module.run(alone.parse_intermixed_args(given[1:])))
    parser = argparse.ArgumentParser(prog="skysub", description="Sky background of survey visits.")
    parser.add_argument("--version", action="version", version=f"skysub {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, purpose in _VERBS.items():
        verb_parser = verbs.add_parser(verb, help=purpose, description=purpose)
        if verb in given:
            importlib.import_module(f"skysub.cli.{verb}").add_arguments(verb_parser)
    options = parser.parse_args(given)
    return int(importlib.import_module(f"skysub.cli.{options.verb}").run(options))
