"""Telling somebody of failures, each of them once: by a command, or by a request to an address."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skysub.campaign.status import read_status
from skysub.campaign.store.address import place_at
from skysub.campaign.store.storage_path import read_json, writing
from skysub.errors import CampaignNotFoundError, OutputError, RecipeError
from skysub.text import without_password

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Alerts"]

_LOG = logging.getLogger("skysub.campaign")

_SECONDS = 30
"""Time that a command or an address has to take an alert."""

_MOST = 100
"""Failures that an alert names one by one."""


@dataclass(frozen=True)
class Alerts:
    """Who is told of failures.

    A failure is told once: again only when the unit was done meanwhile, or fails for another reason. What
    nobody took is told at the next start.
    """

    command: str = ""
    """A command with its arguments, no shell: it is given the alert as JSON at its input."""
    webhook: str = ""
    """An http or https address: the alert is posted there as JSON."""

    def __post_init__(self) -> None:
        """Refuse what cannot be told.

        Raises
        ------
        RecipeError
            When the address is none of http, or the command cannot be read.
        """
        if self.webhook and not self.webhook.startswith(("http://", "https://")):
            raise RecipeError(f"--webhook needs an address of http or https, not {self.webhook!r}")
        try:
            shlex.split(self.command)
        except ValueError as error:
            raise RecipeError(f"--on-failure {self.command!r}: {error}") from None

    def tell(self, output: str | os.PathLike[str], error: str = "") -> int:
        """Tell of the failures of a campaign that were not told before; how many these are.

        Parameters
        ----------
        output
            Folder or address of the campaign.
        error
            Why the run itself failed; empty where it went to its end.
        """
        if not (self.command or self.webhook):
            return 0
        place = place_at(output).absolute()
        failures = _failures(place, error)
        kept = place / "told.json"
        told = {json.dumps(each) for each in read_json(kept) or []}
        news = [each for each in failures if json.dumps(_key(each)) not in told]
        reached = not news or self._send(
            {
                "output": str(place),
                "error": error,
                "failed": len(failures),
                "new": len(news),
                "failures": news[:_MOST],
            }
        )
        if reached:
            try:
                with writing(place):
                    kept.put(json.dumps([_key(each) for each in failures]).encode())
            except OutputError as full:
                _LOG.warning("which failures were told is not kept: %s", full)
        return len(news)

    def _send(self, alert: dict[str, Any]) -> bool:
        data, reached = json.dumps(alert).encode(), True
        if self.command:
            environment = {**os.environ, "SKYSUB_OUTPUT": alert["output"], "SKYSUB_NEW": str(alert["new"])}
            try:
                subprocess.run(  # noqa: S603 - the user's own command
                    shlex.split(self.command), input=data, env=environment, timeout=_SECONDS, check=True
                )
            except (OSError, subprocess.SubprocessError) as error:
                _LOG.warning("--on-failure could not be told: %s", error)
                reached = False
        if self.webhook:
            request = urllib.request.Request(  # noqa: S310 - http or https, as was looked at
                self.webhook, data=data, headers={"Content-Type": "application/json"}, method="POST"
            )
            try:
                with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
                    pass
            except OSError as error:
                _LOG.warning("%s could not be told: %s", without_password(self.webhook), error)
                reached = False
        return reached


def _failures(place: StoragePath, error: str) -> list[dict[str, Any]]:
    """Failures as they are told, without their tracebacks; that of the run itself first."""
    found: Iterable[dict[str, Any]] = ()
    with suppress(CampaignNotFoundError):
        found = (asdict(each) for each in read_status(place).failures)
    rows = [{name: each[name] for name in ("step", "visit", "detector", "path", "message")} for each in found]
    whole = {"step": "", "visit": None, "detector": None, "path": "", "message": error}
    return [whole, *rows] if error else rows


def _key(failure: dict[str, Any]) -> list[Any]:
    return [failure[name] for name in ("step", "visit", "detector", "path", "message")]
