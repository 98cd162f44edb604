"""Failures as pages show them: those of one reason together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skysub.campaign.records import who

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skysub.campaign.status import Failure

__all__ = ["FailureGroup", "failure_groups"]

_NAMED, _PATHS = 200, 8
"""Units and paths of one reason that are named."""


@dataclass(frozen=True)
class FailureGroup:
    """Units, or inputs, that failed for one reason."""

    message: str
    units: tuple[tuple[str, str], ...]
    """What failed, in words, and the page of the dashboard that shows it (empty where there is none)."""
    more: int
    """How many others failed alike."""
    path: str
    """Their input files, or some of them."""
    when: str
    """When the first of them failed."""
    traceback: str
    """Of the first of them."""


def failure_groups(failures: Iterable[Failure], *, one_step: bool) -> list[FailureGroup]:
    """Group failures by their messages, in the order in which these are met.

    Parameters
    ----------
    one_step
        The campaign has no other step, so that its name need not be said.
    """
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(failure.message, []).append(failure)
    return [
        FailureGroup(
            message=message,
            units=tuple((_words(each, one_step=one_step), _page(each)) for each in group[:_NAMED]),
            more=max(0, len(group) - _NAMED),
            path=_paths(group),
            when=group[0].when,
            traceback=group[0].traceback,
        )
        for message, group in groups.items()
    ]


def _words(failure: Failure, *, one_step: bool) -> str:
    if failure.visit is None:
        return "input unreadable"
    name = who(failure.visit, failure.detector)
    # what a whole visit failed in is not told by a single step's name
    return name if one_step and failure.detector is not None else f"{name}, {failure.step}"


def _page(failure: Failure) -> str:
    if failure.visit is None:
        return ""
    if failure.detector is None:
        return f"visit-{failure.visit}"
    return f"detector-{failure.visit}-{failure.detector}"


def _paths(group: list[Failure]) -> str:
    more = f", and {len(group) - _PATHS:,} more" if len(group) > _PATHS else ""
    return ", ".join(each.path for each in group[:_PATHS] if each.path) + more
