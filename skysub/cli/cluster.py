"""``skysub cluster``: look whether the workers of a profile can do units."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from skysub.campaign.store.address import place_at
from skysub.campaign.store.reach import reachable
from skysub.cluster import Demand, connected, load_profile
from skysub.cluster.dask_settings import worker_environment
from skysub.cluster.limits import parsed_bytes
from skysub.cluster.workers import GatedWorkers
from skysub.errors import RecipeError, SkysubError
from skysub.settings.lookup import set_value

if TYPE_CHECKING:
    import argparse

    from skysub.cluster import Workers

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")
    check = acts.add_parser("check", help="start or find workers, and look at each")
    check.add_argument("profile", metavar="PROFILE", help="a YAML file, or the name of a profile")
    check.add_argument(
        "--output", metavar="OUT", help="see that workers can read and write this store as well"
    )
    check.add_argument("--memory", metavar="SIZE", default="1 GiB", help="what a unit needs (default: 1 GiB)")
    check.add_argument("--seconds", type=float, default=20.0, help="how long to look (default: 20)")
    check.add_argument(
        "--workers", type=int, default=1, help="look no longer once so many passed (default: 1)"
    )
    check.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings")
    check.epilog = "exit code: 0 when workers passed and none was left out, else 1"
    acts.add_parser("environment", help="print what to set before workers are started by hand")


def run(options: argparse.Namespace) -> int:
    """Check, or print the environment."""
    if options.act == "environment":
        for name, value in worker_environment().items():
            print(f"export {name}={shlex.quote(value)}")
        return 0
    tree: dict[str, object] = {"cluster": {"profile": options.profile}}
    for assignment in options.settings:
        key = assignment.partition("=")[0]
        if not key.startswith("cluster."):
            raise RecipeError(f"--set {assignment}: only cluster.KEY=VALUE can be set here")
        tree = set_value(tree, assignment)
    cluster = tree["cluster"]
    assert isinstance(cluster, dict)
    profile = load_profile(cluster)
    memory = parsed_bytes(options.memory)
    began = time.monotonic()
    with ExitStack() as stack:
        store_check = None
        if options.output:
            store_check = stack.enter_context(reachable(place_at(options.output).absolute()))
        demand = Demand(
            memory, options.workers, name=f"skysub-check-{time.time_ns() % 10**8}", store_check=store_check
        )
        workers = stack.enter_context(connected(profile, demand))
        print(f"scheduler  {workers.client.scheduler_info(n_workers=0)['address']}: {workers.described}")
        sound = _look(workers, options.workers, began + options.seconds)
        units = "unit" if workers.slots == 1 else "units"
        print(f"{workers.slots} {units} of {options.memory} at once, after {time.monotonic() - began:.0f} s")
    return 0 if sound else 1


def _look(workers: Workers, wanted: int, until: float) -> bool:
    """Print what is found of each worker; whether some passed, and none was left out."""
    if not isinstance(workers, GatedWorkers):
        print("workers    they are processes or threads of this installation, which is sound")
        return True
    gate, trouble = workers.gate, ""
    while time.monotonic() < until and not (len(gate.passed) >= wanted and not gate.asked):
        try:
            workers.look()
        except SkysubError as error:
            trouble = str(error)
            break
        time.sleep(0.1)
    for passed in gate.passed.values():
        answer, versions = passed.answer, passed.answer["versions"]
        has = (
            f"{answer['threads']} threads, {answer['memory'] / 2**30:.1f} GiB"
            if answer["memory"]
            else "no limit"
        )
        print(f"passed     {answer['name']} on {answer['host']}: {has}, {passed.slots} units at once")
        print(f"           {', '.join(f'{name} {version}' for name, version in versions.items())}")
        for note in passed.notes:
            print(f"           it {note}")
    for bad in gate.refused.values():
        print(
            f"left out   {bad.answer.get('name', bad.address)} on {bad.answer.get('host', '?')}: it "
            f"{bad.problem}"
        )
    if gate.asked:
        print(f"silent     {gate.asked} workers do not answer: are their threads busy with other work?")
    if trouble and not gate.refused:
        print(f"failed     {trouble}")
    if not gate.passed and not gate.refused and not trouble:
        message = workers.waiting_for()
        print(f"no worker  came so far{f': {message}' if message else ''}")
    return bool(gate.passed) and not gate.refused
