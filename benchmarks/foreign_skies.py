"""How close skysub, sep and photutils come to true skies that other code than skysub's made.

    python benchmarks/foreign_skies.py --cache /tmp/foreign
    python benchmarks/foreign_skies.py --kinds galaxy150,cirrus --methods default,oracle --seeds 1 --variant B
    python benchmarks/foreign_skies.py --methods all --output docs/foreign_skies.md

One line per scene and method: e- per pixel unless said otherwise. Scenes are kept in the folder --cache, so
that a second run only scores. Variant B draws the amounts of each kind anew for every seed: what is good on A
by fitting to it is found out there. --output writes a table of medians over the seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from foreign.methods import METHODS
from foreign.report import write_report
from foreign.scenes import KINDS, make_scene
from foreign.score import Score, score, unfollowed

HEAD = (
    f"{'scene':26s} {'method':12s} {'sigma':>6s} {'rms':>7s} {'max':>7s} {'T1':>8s} {'T2':>8s} {'T2/sig':>7s}"
    f" {'pull':>6s} {'lvpull':>6s} {'masked':>6s} {'lost%':>6s} {'cirrus':>6s} {'cpu s':>6s} flags"
)


def line(scene: str, method: str, got: Score, seconds: float) -> str:
    """One line of figures."""
    return (
        f"{scene:26s} {method:12s} {got.sigma:6.1f} {got.rms:7.3f} {got.largest:7.2f} {got.level_t1:+8.3f} "
        f"{got.level_t2:+8.3f} {got.by_noise('level_t2'):+7.4f} {got.pull:6.2f} {got.level_pull:+6.2f} "
        f"{got.masked:6.3f} {got.lost:6.1f} {got.cirrus:6.3f} {seconds:6.2f} {' '.join(got.flags)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--methods", default="default,lsst,plain,oracle,sep,sep256", help="or all")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--variant", default="A", choices=["A", "B"])
    parser.add_argument("--shape", default="2048x2048")
    parser.add_argument("--cache", type=Path, help="folder that keeps scenes")
    parser.add_argument("--output", type=Path, help="a page of Markdown to write")
    arguments = parser.parse_args()
    ny, nx = (int(n) for n in arguments.shape.split("x"))
    kinds, methods = arguments.kinds.split(","), arguments.methods.split(",")
    methods = list(METHODS) if methods == ["all"] else methods
    seeds = [int(s) for s in arguments.seeds.split(",")]
    unknown = [n for n in kinds if n not in KINDS] + [n for n in methods if n not in METHODS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; kinds: {', '.join(KINDS)}; methods: {', '.join(METHODS)}")
    print(HEAD)
    results: dict[str, dict[str, list[Score]]] = {}
    floors: dict[str, list[float]] = {}
    for kind in kinds:
        for seed in seeds:
            scene = make_scene(kind, seed, (ny, nx), variant=arguments.variant, cache=arguments.cache)
            name = f"{kind}:{arguments.variant}{seed}"
            floors.setdefault(kind, []).append(unfollowed(scene))
            print(f"{name:26s} {'(order 6)':12s} {scene.sigma:6.1f} {floors[kind][-1]:7.3f}", flush=True)
            for method in methods:
                started = time.process_time()
                answer = METHODS[method](scene)
                seconds = time.process_time() - started
                got = score(scene, answer)
                results.setdefault(kind, {}).setdefault(method, []).append(got)
                print(line(name, method, got, seconds), flush=True)
    if arguments.output:
        page = write_report(
            results,
            {kind: float(np.median(found)) for kind, found in floors.items()},
            shape=(ny, nx),
            variant=arguments.variant,
            seeds=seeds,
        )
        arguments.output.write_text(page)


if __name__ == "__main__":
    main()
