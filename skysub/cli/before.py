"""The argument that names campaigns before the one that is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_against"]


def add_against(parser: argparse.ArgumentParser) -> None:
    """Declare ``--against``."""
    parser.add_argument(
        "--against",
        metavar="BEFORE",
        action="append",
        default=[],
        help="a campaign before this one, whose figures say what is usual; may be repeated",
    )
