"""Speed and memory of calibrate_image, in copies of the image: each stage, and the source mask by itself.

    python benchmarks/calibrate.py                       # one thread, 4000 x 4072
    python benchmarks/calibrate.py --scene crowded:30 --runs 9 --characterise

A copy is one np.copyto of the float32 image into allocated memory, timed before each run, so that both see
the same machine. With one thread it is processor time that is counted, so that work of others disturbs less.
Memory is the peak of the process above what it held before, in float32 images.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import TYPE_CHECKING

import numpy as np
import psutil

import skysub
from skysub.background.chebyshev import monomial_coefficients
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene
from skysub.sources.flags import working_flags
from skysub.sources.mask import mask_sources

if TYPE_CHECKING:
    from collections.abc import Callable


def copies(work: Callable[[], object], image: np.ndarray, runs: int, *, threads: int) -> tuple[float, float]:
    """Median seconds of ``work``, and median of its ratio to a copy timed just before."""
    clock = time.process_time if threads == 1 else time.perf_counter
    out = np.empty_like(image)
    work()
    seconds, ratios = [], []
    for _ in range(runs):
        began = clock()
        np.copyto(out, image)
        copied = clock()
        work()
        done = clock()
        seconds.append(done - copied)
        ratios.append((done - copied) / (copied - began))
    return float(np.median(seconds)), float(np.median(ratios))


def peak_memory(work: Callable[[], object]) -> float:
    """Peak resident bytes while ``work`` runs, above what was held before."""
    process = psutil.Process()
    before = process.memory_info().rss
    peak, running = [before], True

    def watch() -> None:
        while running:
            peak.append(process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        running = False
        watcher.join()
    return max(peak) - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", default="quiet")
    parser.add_argument("--shape", default="4000x4072")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--characterise", action="store_true", help="with cosmic rays and PSF as well")
    parser.add_argument("--output", type=Path, help="append the table to a Markdown file")
    options = parser.parse_args()
    rows, columns = (int(n) for n in options.shape.split("x"))
    visit_image, _ = simulate_detector(
        named_scene(options.scene), 1, 0, seed=options.seed, shape=(rows, columns)
    )
    image = visit_image.image
    lines = [f"{options.scene}, {options.shape}, {options.threads} thread(s), {options.runs} runs", ""]
    lines += ["| what | ms | copies | peak, float32 images |", "| --- | --- | --- | --- |"]

    bare = dataclasses.replace(skysub.CalibrateImageConfig(), cosmic_rays=None, psf=None)
    found = skysub.calibrate_image(visit_image, bare)
    assert found.sky is not None
    background = found.sky.fit.background
    flags = working_flags(visit_image.mask, ignored=1, saturated=2)
    power = monomial_coefficients(background.coefficients, background.order)

    def mask_once() -> object:
        return mask_sources(
            image,
            flags,
            power,
            found.sky.noise,
            background.grid,
            config=bare.sky.mask,
            fwhm=bare.fwhm,
            threads=options.threads,
        )

    def line(name: str, work: Callable[[], object]) -> None:
        seconds, ratio = copies(work, image, options.runs, threads=options.threads)
        memory = peak_memory(work) / image.nbytes
        lines.append(f"| {name} | {1e3 * seconds:.0f} | {ratio:.1f} | {memory:.1f} |")
        print(lines[-1], flush=True)

    line("source mask, one pass", mask_once)
    named = {"default": bare}
    if options.characterise:
        named["default with PSF"] = dataclasses.replace(bare, psf=skysub.CalibrateImageConfig().psf)
        named["default with PSF and cosmic rays"] = skysub.CalibrateImageConfig()
    named["lsst"] = dataclasses.replace(skysub.CalibrateImageConfig.named("lsst"), cosmic_rays=None, psf=None)
    for name, config in named.items():
        line(
            f"calibrate_image, {name}",
            lambda config=config: skysub.calibrate_image(visit_image, config, threads=options.threads),
        )
    found = skysub.calibrate_image(
        visit_image, skysub.CalibrateImageConfig() if options.characterise else bare
    )
    total = sum(found.timings.values())
    lines += [
        "",
        f"Shares of {found.passes} passes: "
        + ", ".join(f"{stage} {100 * seconds / total:.0f} %" for stage, seconds in found.timings.items()),
        "",
    ]
    print("\n".join(lines))
    if options.output:
        with options.output.open("a") as file:
            file.write("\n".join(lines))


if __name__ == "__main__":
    main()
