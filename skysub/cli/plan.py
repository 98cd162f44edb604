"""``skysub plan``: what ``run`` would do, and what it would cost; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skysub.cli.run import add_recipe_arguments, add_selection_arguments
from skysub.text import printable

if TYPE_CHECKING:
    import argparse

    from skysub.campaign.plan import Plan
    from skysub.cluster import Profile

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_recipe_arguments(parser)
    add_selection_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the plan."""
    from skysub.campaign.plan import make_plan
    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.selection import Selection
    from skysub.cluster import expected_slots, load_profile

    recipe = load_recipe(
        options.recipe, inputs=options.inputs, cluster=options.cluster, settings=options.settings
    )
    profile = load_profile(recipe.cluster)
    visits = None if options.visit is None else frozenset(options.visit)
    chosen = Selection(visits, options.select, options.since)
    plan = make_plan(recipe, options.output, steps=options.step, visits=chosen)
    shapes = plan.shapes
    bands = [printable(band) or "unknown" for band in plan.bands]
    # what cannot be had is refused before anything is said
    slots = expected_slots(profile, need=plan.memory, units=plan.left)
    for step in plan.record.steps:
        print(f"step       {step.name} (settings {step.settings_hash})")
    print(
        f"inputs     {plan.detectors} detectors of {plan.visits} visits, bands {', '.join(bands) or 'none'}"
    )
    print(
        f"shapes     {', '.join(f'{ny} x {nx}' for ny, nx in shapes[:4])}{' ...' if len(shapes) > 4 else ''}"
    )
    if plan.left:
        _say_work(plan, profile, slots, options.output)
    elif plan.closings:
        print(f"to do      nothing but to put the results of {len(plan.closings)} visits together")
    else:
        print(f"to do      nothing: {plan.done} units are done in {options.output}")
    for each in plan.unreadable:
        print(printable(f"input unreadable, left out: {each.path}: {each.reason}"))
    return 1 if plan.unreadable else 0


def _say_work(plan: Plan, profile: Profile, slots: int, output: str) -> None:
    from skysub.campaign.progress import span

    print(f"run        {plan.run.name}, {'continued' if plan.resumes else 'new'}, in {output}")
    print(f"to do      {plan.left} units; {plan.done} are done already")
    if plan.changed:
        print(f"           {len(plan.changed)} of them again because their input changed")
    if plan.outdated:
        print(f"           {plan.outdated} of them again because settings changed")
    for step in plan.steps if len(plan.steps) > 1 else ():
        time = span(step.core_seconds / max(1, slots))
        cost = (
            f"{step.storage / 1e9:.2f} GB, {step.memory / 2**30:.2f} GiB, {time}" if step.left else "nothing"
        )
        print(f"           {step.name}: {step.left} {step.scope}s, {step.done} are done: {cost}")
    for step in plan.steps:
        if step.blocked:
            print(f"left out   {step.blocked} of {step.name}: what they need is neither done nor chosen")
    print(f"storage    {plan.storage / 1e9:.2f} GB to be written")
    print(f"memory     {plan.memory / 2**30:.2f} GiB for the largest unit")
    where = f"{profile.where}, {slots} at once" if slots else profile.where
    time = span(plan.core_seconds / max(1, slots))
    print(f"time       {time} expected on {where}, without the start of workers and first compilation")
