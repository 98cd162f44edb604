"""Handing a campaign's coordinator to a site, and what the store keeps of that."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skysub.campaign.run import job_name
from skysub.campaign.store.address import place_at
from skysub.campaign.store.stop import StopRequest
from skysub.campaign.store.storage_path import read_json, writing
from skysub.cluster import load_profile
from skysub.cluster.base import Submission
from skysub.errors import ClusterError, RecipeError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["Submitted", "cancel_campaign", "read_submission", "submit_campaign", "who_holds"]


@dataclass(frozen=True)
class Submitted:
    """What the store keeps of a coordinator that was handed in."""

    kind: str
    """Kind of the cluster."""
    job: str
    """Identifier that it gave."""
    name: str
    """Name of the campaign there."""
    host: str
    """Machine from which it was handed in."""
    when: str
    cluster: dict[str, Any]
    """The profile by name or path, and changes of it."""
    script: str
    """What was handed in."""

    def state(self) -> str:
        """What the cluster says of it now; empty where it is over.

        Raises
        ------
        ClusterError, RecipeError
            When the cluster cannot be asked from here.
        """
        return load_profile(self.cluster).state_of(self._submission())

    def withdraw(self) -> None:
        """Remove it from the cluster, if it waits there.

        Raises
        ------
        ClusterError, RecipeError
            When the cluster cannot be asked from here.
        """
        load_profile(self.cluster).withdraw(self._submission())

    def _submission(self) -> Submission:
        return Submission(self.job, self.name, self.script)


def submit_campaign(
    cluster: Mapping[str, Any],
    output: str | os.PathLike[str],
    command: Sequence[str],
    *,
    logs: Path | None = None,
    dry_run: bool = False,
) -> Submitted:
    """Hand a coordinator to the cluster of a profile.

    Parameters
    ----------
    cluster
        The profile by name or path, and changes of it, as a recipe has them.
    output
        Folder of the campaign, or ``s3://BUCKET/PREFIX``.
    command
        What starts the coordinator there.
    logs
        Folder for what it prints; by default ``jobs`` in the output, or in the current folder for a bucket.
    dry_run
        Hand nothing in, and keep nothing.

    Raises
    ------
    ClusterError
        When the cluster takes no coordinator, or refuses this one: with its own message.
    OutputInUseError
        When one is there already.
    """
    place = place_at(output).absolute()
    profile = load_profile(cluster)
    folder = (
        logs
        or (place.local_directory() / "jobs" if "://" not in str(place) else Path("skysub-jobs")).absolute()
    )
    made = profile.submit(command, job_name(place), folder, dry_run=dry_run)
    submitted = Submitted(
        kind=profile.kind,
        job=made.job,
        name=made.name,
        host=socket.gethostname(),
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cluster=dict(cluster),
        script=made.script,
    )
    if not dry_run:
        with writing(place):
            _file(place).put(json.dumps(vars(submitted), indent=1).encode())
    return submitted


def read_submission(output: str | os.PathLike[str] | StoragePath) -> Submitted | None:
    """What was handed in for an output last; None where nothing was."""
    place = place_at(output).absolute()
    kept = read_json(_file(place))
    # a store from elsewhere must not choose which jobs are asked for, or removed
    return None if kept is None else Submitted(**{**kept, "name": job_name(place)})


def who_holds(output: str | os.PathLike[str] | StoragePath) -> str:
    """Who works on an output now, as far as its lock says so; empty where nobody does."""
    content = read_json(place_at(output).absolute() / "lock")
    return str(content.get("holder", "")) if isinstance(content, dict) else ""


def cancel_campaign(output: str | os.PathLike[str]) -> tuple[str, str]:
    """Ask whoever works on an output to finish the units in flight, and remove what waits in a queue.

    Returns
    -------
    holder, trouble
        Who was asked, empty where nobody works on it; and why a job that waits could not be removed from
        here.
    """
    place = place_at(output).absolute()
    submitted, trouble = read_submission(place), ""
    if submitted is not None:
        try:
            submitted.withdraw()
        except (ClusterError, RecipeError) as error:
            trouble = str(error)
    holder = who_holds(place)
    if holder:
        StopRequest(place).make()
    return holder, trouble


def _file(place: StoragePath) -> StoragePath:
    return place / "submitted.json"
