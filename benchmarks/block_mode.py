"""calibrate_image of detectors in blocks: time and memory of workers, beside detector mode.

    python benchmarks/block_mode.py FILE.fits [--units 6] [--cases detector:1,block:1,block:2] [--memory 2GiB]
    python benchmarks/block_mode.py --mosaic 20000 --cases block:2 --memory 1GiB --units 1

A campaign over copies of one file (by a table that numbers them as visits) is run on worker processes of this
machine. Of each case: median seconds of a unit once kernels are loaded, and the largest resident memory of a
worker. ``--mosaic`` makes a file of that many pixels squared, without mask and variance, and removes it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

PROGRAM = """
import sys
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
import skysub
if __name__ == "__main__":
    recipe, out, *settings = sys.argv[1:]
    outcome = run_campaign(load_recipe(recipe, settings=settings), out)
    for failure in skysub.open_campaign(out).status().failures:
        print("FAILED", failure.message, failure.traceback)
    for _, _, marker in skysub.open_campaign(out).markers():
        print("SECONDS", sum(marker["timings"].values()), marker["timings"])
"""

RECIPE = """
inputs: {{table: {table}{ingest}}}
steps: {{calibrate_image: {{}}}}
products: {{compression: {compression}, pixels: {pixels}}}
cluster: {{profile: local, workers: {workers}, memory: {memory}}}
mode: {mode}
"""


def make_mosaic(path: Path, size: int) -> None:
    """Write a sky with stars, block of rows by block of rows."""
    header = [
        f"SIMPLE  = {'T':>20}", f"BITPIX  = {-32:>20}", f"NAXIS   = {2:>20}", f"NAXIS1  = {size:>20}",
        f"NAXIS2  = {size:>20}", f"BUNIT   = {'adu':20}".replace("adu ", "'adu'", 1), f"VISIT   = {1:>20}",
        f"DETECTOR= {0:>20}", "END",
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    x = np.linspace(-1, 1, size, dtype=np.float32)
    dy, dx = np.mgrid[-12:13, -12:13]
    profile = np.exp(-(dx**2 + dy**2) / (2 * 1.8**2)).astype(np.float32)
    with path.open("wb") as file:
        file.write("".join(card.ljust(80) for card in header).ljust(2880).encode())
        for top in range(0, size, 500):
            rows = min(500, size - top)
            y = (2 * (top + np.arange(rows, dtype=np.float32)) / size - 1)[:, None]
            block = 900 + 8 * x + 5 * y - 3 * x * y + rng.normal(0, 30, (rows, size)).astype(np.float32)
            for _ in range(rows * size // 15000):
                j, i = int(rng.integers(0, rows - 25)), int(rng.integers(0, size - 25))
                block[j : j + 25, i : i + 25] += np.float32(10 ** rng.uniform(1.5, 4)) * profile
            file.write(block.astype(">f4").tobytes())
        file.write(b"\0" * (-file.tell() % 2880))


def watched(process: subprocess.Popen) -> dict[int, int]:
    """Largest resident bytes of each worker of a campaign until it ends."""
    peaks: dict[int, int] = {}

    def look() -> None:
        top = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                for child in top.children(recursive=True):
                    if any("spawn_main" in word for word in child.cmdline()):
                        peaks[child.pid] = max(peaks.get(child.pid, 0), child.memory_info().rss)
            except psutil.Error:
                pass
            time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    process.wait()
    thread.join()
    return peaks


def measured(folder: Path, table: Path, case: str, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a unit, and MiB of the largest worker."""
    mode, workers = case.split(":")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(
            table=table,
            ingest=options.ingest,
            compression=options.compression,
            pixels=options.pixels,
            workers=workers,
            memory=options.memory,
            mode=mode,
        )
    )
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-c", PROGRAM, str(recipe), f"{out}/out"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        peaks: dict[int, int] = {}
        thread = threading.Thread(target=lambda: peaks.update(watched(process)))
        thread.start()
        said = process.stdout.read()
        thread.join()
    lines = [line for line in said.splitlines() if line.startswith("SECONDS")]
    seconds = [float(line.split()[1]) for line in lines]
    if not lines:
        raise SystemExit(said)
    print(lines[-1], flush=True)
    # the first units of a worker load kernels
    return statistics.median(seconds[2:] or seconds), max(peaks.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--mosaic", type=int, metavar="N")
    parser.add_argument("--units", type=int, default=6)
    parser.add_argument("--cases", default="detector:1,block:1,block:2")
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--compression", default="lz4")
    parser.add_argument("--pixels", default="stored")
    options = parser.parse_args()
    options.ingest = ""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = options.file
        if options.mosaic:
            path = folder / "mosaic.fits"
            make_mosaic(path, options.mosaic)
        table = folder / "table.csv"
        rows = "".join(f"{path.resolve()},{i},0\n" for i in range(1, options.units + 1))
        table.write_text(f"path,visit,detector\n{rows}")
        for case in options.cases.split(","):
            clock = time.perf_counter()
            seconds, memory = measured(folder, table, case, options)
            print(f"{case}: {seconds:.2f} s a unit, {memory:.0f} MiB; {time.perf_counter() - clock:.0f} s")


if __name__ == "__main__":
    main()
