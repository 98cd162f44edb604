"""A large image in Zarr, subtracted block by block by workers of little memory.

Prints wall time of `skysub.subtract_background` from Zarr to Zarr, the peak memory of the workers, and the
ratio to reading and writing the same Zarr alone, through the same workers.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import zarr
from distributed import Client, LocalCluster

import skysub

MIB = 2**20

# what does not fit is an error rather than a slow run: nothing is spilled to disk
STRICT = {f"distributed.worker.memory.{state}": False for state in ("target", "spill", "pause")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=20_000, help="pixels along an edge")
    parser.add_argument("--chunk", type=int, default=2_000, help="pixels along an edge of a chunk")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", type=int, default=1024, help="limit of each worker, MiB")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where the arrays are written; a temporary one by default"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source, target = Path(folder) / "image.zarr", Path(folder) / "subtracted.zarr"
        write_image(source, args.size, args.chunk)
        with (
            dask.config.set(STRICT),
            LocalCluster(
                n_workers=args.workers,
                threads_per_worker=1,
                memory_limit=args.memory * MIB,
                dashboard_address=":0",
            ) as cluster,
            Client(cluster) as client,
        ):
            pids = list(client.run(os.getpid).values())
            run(source, target, pids, subtracted)  # workers load kernels, the machine finds its memory
            runs = []
            for _ in range(args.repeat):
                alone, _ = run(source, target, pids, copied)
                ours, peak = run(source, target, pids, subtracted)
                runs.append((alone, ours, peak))
            if list(client.run(os.getpid).values()) != pids:
                raise SystemExit("a worker was lost to its memory limit")
        check(source, target)
    image = args.size**2 * 4 / MIB
    print(f"image {args.size} x {args.size} float32, {image:.0f} MiB, chunks of {args.chunk}")
    print(f"{args.workers} workers of 1 thread limited to {args.memory} MiB; medians of {args.repeat} runs")
    print(f"read and write alone     {statistics.median(r[0] for r in runs):8.2f} s")
    print(f"subtract_background      {statistics.median(r[1] for r in runs):8.2f} s")
    ratios = sorted(r[1] / r[0] for r in runs)
    print(
        f"ratio                    {statistics.median(ratios):8.2f}   ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    print(f"peak memory of a worker  {max(r[2] for r in runs) / MIB:8.0f} MiB")


def write_image(path: Path, size: int, chunk: int) -> None:
    """Sky with a gradient and noise in all bits, so that source and result compress alike."""
    array = zarr.create_array(path, shape=(size, size), chunks=(chunk, chunk), dtype="float32")
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 20, (chunk, 2 * chunk)).astype(np.float32)
    for y in range(0, size, chunk):
        for x in range(0, size, chunk):
            shift = rng.integers(0, chunk)
            block = noise[:, shift : shift + chunk] + np.float32(1000 + (x + y) // 500)
            array[y : y + chunk, x : x + chunk] = block[: size - y, : size - x]


def copied(image: da.Array) -> da.Array:
    # the identity on each block: what is read is written by the same kind of task
    return image.map_blocks(np.positive, meta=np.empty((0, 0), np.float32))


def subtracted(image: da.Array) -> da.Array:
    return skysub.subtract_background(image)[0]


def run(source: Path, target: Path, pids: list[int], work) -> tuple[float, float]:
    """Wall time in seconds and peak memory in bytes of a run."""
    shutil.rmtree(target, ignore_errors=True)
    with peak_memory(pids) as peak:
        start = time.perf_counter()
        da.to_zarr(work(da.from_zarr(source)), target)
        wall = time.perf_counter() - start
    return wall, max(peak)


@contextmanager
def peak_memory(pids: list[int]):
    """Highest resident memory of any of some processes, sampled every 10 ms."""
    processes, peak, done = [psutil.Process(pid) for pid in pids], [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak.append(max(peak.pop(), *(process.memory_info().rss for process in processes)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def check(source: Path, target: Path) -> None:
    """One strip of the result against the model from the whole: the sky must be gone."""
    strip = zarr.open_array(target, mode="r")[:512]
    if not abs(np.median(strip)) < 1:
        raise SystemExit(f"the sky was not subtracted: median {np.median(strip)}")
    if zarr.open_array(source, mode="r").shape != zarr.open_array(target, mode="r").shape:
        raise SystemExit("the result has another shape")


if __name__ == "__main__":
    main()
