"""Profiles by name or path: which class a YAML file of ``cluster/`` is, and what is wrong with it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from skysub.errors import RecipeError
from skysub.settings.explain import explained
from skysub.settings.lookup import closest, find_yaml, merged, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skysub.cluster.base import Profile

__all__ = ["KINDS", "load_profile"]

KINDS = {
    "local": "skysub.cluster.local:LocalProfile",
    "threads": "skysub.cluster.threads:ThreadsProfile",
    "address": "skysub.cluster.address:AddressProfile",
    "slurm": "skysub.cluster.slurm:SlurmProfile",
    "pbs": "skysub.cluster.job_queues:PBSProfile",
    "htcondor": "skysub.cluster.job_queues:HTCondorProfile",
    "kubernetes": "skysub.cluster.kubernetes:KubernetesProfile",
    "gateway": "skysub.cluster.gateway:GatewayProfile",
    "factory": "skysub.cluster.factory:FactoryProfile",
}
"""Kind of place -> module and class of its profiles; a new kind is a module, and a line here."""


def load_profile(cluster: Mapping[str, Any]) -> Profile:
    """Read the profile that a recipe's ``cluster`` names, with the recipe's changes.

    Raises
    ------
    RecipeError
        When there is no such profile, or a key or value of it is no good.
    """
    changes = dict(cluster)
    path = find_yaml(str(changes.pop("profile", "local")), "cluster")
    tree = read_yaml(path, "cluster")
    # a file that a site made for dask-labextension
    if isinstance(tree.get("labextension"), dict):
        tree = tree["labextension"]
    if isinstance(tree.get("factory"), dict):
        tree = {"kind": "factory", **tree}
    kind = str(changes.get("kind", tree.get("kind", "")))
    if kind not in KINDS:
        known = ", ".join(KINDS)
        where = "cluster.kind" if "kind" in changes else f"{path}: kind"
        raise RecipeError(f"{where} must be one of {known}, not {kind!r}{closest(kind, list(KINDS))}")
    module, _, name = KINDS[kind].partition(":")
    profile: type[Profile] = getattr(importlib.import_module(module), name)
    try:
        profile.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explained(error, profile)}") from None
    try:
        made = profile.model_validate(merged(tree, changes))
    except ValidationError as error:
        raise RecipeError(explained(error, profile, "cluster")) from None
    made.check()
    return made
