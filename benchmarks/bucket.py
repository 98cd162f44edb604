"""What a campaign in a bucket costs next to one in a folder, and how many requests it makes.

    python benchmarks/bucket.py [--data FOLDER] [--rounds N]

The server is moto, in a process of its own on this machine: its share of the time is shown by what the same
bytes take to be put and fetched alone. Full-size detectors are simulated into FOLDER, or used from there. A
unit is done in a folder and in the bucket in turns; times are medians.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve() -> subprocess.Popen:
    """A server that speaks S3, and the environment that leads to it."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    patience = time.monotonic() + 30
    while time.monotonic() < patience:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return server
    raise SystemExit("the server does not start")


class Requests:
    """Counts what the client of this process asks."""

    def __init__(self) -> None:
        from skysub.campaign.store.s3_client import client

        self.made: Counter[str] = Counter()
        client().meta.events.register("before-send.s3", self._count)

    def _count(self, request, **_) -> None:
        self.made[request.method] += 1

    def __str__(self) -> str:
        return f"{self.made.total()} ({', '.join(f'{n} {m}' for m, n in sorted(self.made.items()))})"


def planned(recipe, output):
    from skysub.campaign.plan import make_plan

    run = make_plan(recipe, output).freeze()
    return run, list(run.units())


def median_ms(seconds) -> str:
    return f"{1e3 * statistics.median(seconds):7.0f}"


def full_size_units(data: Path, scratch: Path, rounds: int) -> None:
    sys.path.insert(0, str(HERE))
    from campaign import full_size

    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.store.address import place_at
    from skysub.campaign.unit import process_units

    inputs = [str(path) for path in full_size(data)[:1]]
    recipe = load_recipe("background", inputs=inputs)
    requests = Requests()
    runs = {}
    for name, output in (("folder", scratch / "out"), ("bucket", "s3://night/out")):
        requests.made.clear()
        runs[name] = planned(recipe, output)
    print(f"planning makes {requests} requests")
    whole, writing, cpu = ({"folder": [], "bucket": []} for _ in range(3))
    for number in range(rounds + 1):
        for name, (run, units) in runs.items():
            (run.folder / "units").remove_tree()
            requests.made.clear()
            began, began_cpu = time.perf_counter(), time.process_time()
            (receipt,) = process_units(str(run.folder), [units[0].to_json()])
            if number:
                cpu[name].append(time.process_time() - began_cpu)
                whole[name].append(time.perf_counter() - began)
                writing[name].append(dict(receipt.timings)["write"])
            assert receipt.state == "done", receipt.message
    print(f"a unit makes {requests} requests")
    print("one full-size detector, background, all products, ms: all of it, its CPU here, writing alone")
    for name in runs:
        print(f"  {name:<8}{median_ms(whole[name])}{median_ms(cpu[name])}{median_ms(writing[name])}")
    ratios = [there / here for there, here in zip(whole["bucket"], whole["folder"], strict=True)]
    print(f"  ratio of neighbours: {statistics.median(ratios):.2f}")
    run, units = runs["bucket"]
    marker = run.markers.of_detector(units[0].visit, units[0].detector)
    sizes = [shard["bytes"] for shard in marker["shards"].values()]
    blobs = [np.random.default_rng(0).bytes(size) for size in sizes]
    there = place_at("s3://night/alone")
    put, fetched = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        for number, blob in enumerate(blobs):
            (there / str(number)).put(blob)
        put.append(time.perf_counter() - began)
        began = time.perf_counter()
        for number in range(len(blobs)):
            (there / str(number)).read()
        fetched.append(time.perf_counter() - began)
    print(f"  the same {sum(sizes) / 1e6:.0f} MB alone: put {median_ms(put)}, fetched {median_ms(fetched)}")
    import skysub

    for name in runs:
        campaign = skysub.open_campaign(scratch / "out" if name == "folder" else "s3://night/out")
        took = []
        for _ in range(rounds):
            requests.made.clear()
            began = time.perf_counter()
            campaign.visit_image(*campaign.units[0])
            took.append(time.perf_counter() - began)
        print(f"  visit_image from the {name:<8}{median_ms(took)}, {requests} requests")


def tiny_units(scratch: Path, rounds: int) -> None:
    from campaign import recipe_of, table_of, tiny

    from skysub.campaign.status import read_status
    from skysub.campaign.unit import process_units

    table = table_of(scratch, [tiny(scratch)], 20 * rounds, 20)
    recipe = recipe_of(scratch, table, "campaign:nothing")
    took = {"folder": [], "bucket": []}
    runs = {
        "folder": planned(recipe, scratch / "tiny"),
        "bucket": planned(recipe, "s3://night/tiny"),
    }
    for position in range(10 * rounds):
        for name, (run, units) in runs.items():
            began = time.perf_counter()
            (receipt,) = process_units(str(run.folder), [units[position].to_json()])
            took[name].append(time.perf_counter() - began)
            assert receipt.state == "done", receipt.message
    print("a tiny unit without work, ms:")
    for name, seconds in took.items():
        print(f"  {name:<8}{1e3 * statistics.median(seconds):7.1f}")
    for name, output in (("folder", scratch / "tiny"), ("bucket", "s3://night/tiny")):
        began = time.perf_counter()
        counts = read_status(output).counts
        seconds = time.perf_counter() - began
        print(
            f"  status of {counts['done'] + counts['left']} units of {rounds} visits, {name}: {seconds:.2f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder for simulated detectors, kept")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    server = serve()
    try:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            from skysub.campaign.store.s3_client import client

            client().create_bucket(Bucket="night")
            full_size_units(options.data or scratch, scratch, options.rounds)
            tiny_units(scratch, options.rounds)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
