"""``skysub plan``: what ``run`` would do, and what it would cost; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.campaign.plan import make_plan
from skysub.campaign.progress import span
from skysub.campaign.recipe import load_recipe
from skysub.cli.run import add_recipe_arguments
from skysub.cluster import expected_slots, load_profile

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_recipe_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the plan."""
    recipe = load_recipe(
        options.recipe, inputs=options.inputs, cluster=options.cluster, settings=options.settings
    )
    profile = load_profile(recipe.cluster)
    plan = make_plan(recipe, options.output)
    shapes = plan.shapes
    bands = [band or "unknown" for band in plan.bands]
    print(f"step       {recipe.step} (settings {plan.record['settings_hash']})")
    count = plan.left + plan.done
    print(f"inputs     {count} detectors of {plan.visits} visits, bands {', '.join(bands) or 'none'}")
    print(
        f"shapes     {', '.join(f'{ny} x {nx}' for ny, nx in shapes[:4])}{' ...' if len(shapes) > 4 else ''}"
    )
    print(f"run        {plan.run.name}, {'continued' if plan.resumes else 'new'}, in {options.output}")
    print(f"to do      {plan.left} units; {plan.done} are done already")
    if plan.changed:
        print(f"           {len(plan.changed)} of them again because their input changed")
    if plan.outdated:
        print(f"           {plan.outdated} of them again because settings changed")
    slots = expected_slots(profile, need=plan.memory, units=plan.left)
    print(f"storage    {plan.storage / 1e9:.2f} GB to be written")
    print(f"memory     {plan.memory / 2**30:.2f} GiB for the largest unit")
    where = f"{profile.kind}, {slots} at once" if slots else f"{profile.kind}, {profile.address}"
    print(f"time       {span(plan.core_seconds / max(1, slots))} expected on {where}")
    for each in plan.unreadable:
        print(f"cannot be read, left out: {each.path}: {each.reason}")
    return 1 if plan.unreadable else 0
