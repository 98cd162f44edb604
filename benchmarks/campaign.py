"""What a campaign costs beyond its pixels: stages, codecs, Dask, memory, and a survey's size.

    python benchmarks/campaign.py [SECTION ...] [--data FOLDER]

Sections: codecs, stages, dask, overhead, memory, dp1, faults; all but the last two by default. Full-size
detectors are simulated into FOLDER, or used from there. Times are medians; ratios are measured side by side
in one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SHAPE = (4000, 4072)
BARE = ["steps.calibrate_image.cosmic_rays=null", "steps.calibrate_image.psf=null"]
CASES = {
    "background": ("background", []),
    "calibrate_image without cosmic rays and PSF": ("calibrate_image", BARE),
    "calibrate_image": ("calibrate_image", []),
}


# ---- a step of no work, for the cost of everything else


@functools.cache
def _some_layers():
    from skysub.background.estimate import fit_background
    from skysub.background.model import BackgroundList

    return BackgroundList(
        [fit_background(np.random.default_rng(0).normal(100, 5, (32, 32)).astype(np.float32))]
    )


def _nothing(given, config):
    from skysub.campaign.steps import StepResult

    del config
    visit_image = given.visit_image()
    clock = time.perf_counter()
    layers = _some_layers()
    # what the first unit of a worker compiles is its own work
    return StepResult(
        products={"preliminary_visit_image": visit_image, "preliminary_visit_image_background": layers},
        timings={"nothing": time.perf_counter() - clock},
    )


def _mean(given, config):
    from skysub.campaign.steps import StepResult

    del config
    clock = time.perf_counter()
    levels = [
        layers[-1].coefficients[0] for _, layers in given.products("preliminary_visit_image_background")
    ]
    made = {"sky": np.array([np.mean(levels)])}
    return StepResult(products=made, timings={"mean": time.perf_counter() - clock})


def _after(given, config):
    from skysub.campaign.steps import StepResult

    del config
    sky = given.product("sky")
    return StepResult(products={"after": sky + given.detector}, timings={"after": 0.0})


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No settings."""


def __getattr__(name):
    from skysub.campaign.products.small import Grid
    from skysub.campaign.shipped import STEPS
    from skysub.campaign.steps import Step

    if name == "nothing":
        return dataclasses.replace(STEPS["background"], name="campaign:nothing", work=_nothing, blocks=None)
    if name == "mean":
        return Step(
            name="campaign:mean",
            version=1,
            configuration=Nothing,
            work=_mean,
            scope="visit",
            inputs=("preliminary_visit_image_background",),
            outputs=(Grid(name="sky"),),
        )
    if name == "after":
        return Step(
            name="campaign:after",
            version=1,
            configuration=Nothing,
            work=_after,
            inputs=("sky",),
            outputs=(Grid(name="after"),),
        )
    raise AttributeError(name)


def trivial(number):
    return number


# ---- data


def full_size(folder: Path, compression: str = "none", detectors: int = 2) -> list[Path]:
    """Simulated post-ISR images of one visit."""
    place = folder / compression
    if not (place / "raw").is_dir():
        command = [sys.executable, "-c", "from skysub.cli import main; raise SystemExit(main())", "simulate"]
        subprocess.run(
            [*command, str(place), "--detectors", str(detectors), "--compression", compression], check=True
        )
    return sorted((place / "raw").glob("*.fits"))


def tiny(folder: Path) -> Path:
    from astropy.io import fits

    path = folder / "tiny.fits"
    hdu = fits.PrimaryHDU(np.random.default_rng(0).normal(100, 5, (32, 32)).astype(np.float32))
    hdu.header.update(VISIT=1, DETECTOR=0, FILTER="r")
    hdu.writeto(path, overwrite=True)
    return path


def table_of(folder: Path, paths: list[Path], units: int, detectors: int) -> Path:
    """A table that names the same few files as many detectors of many visits."""
    path = folder / f"units_{units}.csv"
    with path.open("w") as file:
        file.write("path,visit,detector\n")
        for i in range(units):
            file.write(f"{paths[i % len(paths)]},{i // detectors + 1},{i % detectors}\n")
    return path


def recipe_of(folder: Path, table: Path, step: str, *settings: str):
    from skysub.campaign.recipe import load_recipe

    path = folder / "bench.yaml"
    steps = ", ".join(f"'{name}': {{}}" for name in step.split(" > "))
    path.write_text(f"inputs: {{table: {table}}}\nsteps: {{{steps}}}\n")
    return load_recipe(str(path), settings=settings)


# ---- sections


def codecs(data: Path, scratch: Path) -> None:
    """Write and read one detector's planes as a campaign does, by codec and chunk; cases take turns."""
    import zarr
    from zarr.codecs import BloscCodec

    from skysub.campaign.store.address import place_at
    from skysub.campaign.store.arrays import create_images, read_plane, write_plane
    from skysub.visit.fits.read import read_visit_image

    visit_image = read_visit_image(full_size(data)[0])
    ny, nx = visit_image.shape
    store = place_at(scratch / "codecs.zarr")
    one = {"visits": [1], "detectors": [0], "shape": (ny, nx), "compression": "lz4", "unit": "electron"}
    create_images(store, "own", planes=["image"], **one)
    root = zarr.open_group(scratch / "codecs.zarr")
    own = root["own/image"].chunks[2:]
    kinds = {
        "none": None,
        "lz4 shuffle": BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
        "lz4 bitshuffle": BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
        "zstd bitshuffle": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    }
    cases = [("image", kind, own) for kind in kinds]
    cases += [("image", "lz4 bitshuffle", (edge, edge)) for edge in (256, 512, 1024, 2048)]
    cases += [("image", "lz4 bitshuffle", (own[0], nx))]
    cases += [(plane, kind, own) for plane in ("mask", "variance") for kind in kinds]
    for number, (plane, kind, chunk) in enumerate(cases):
        root.create_array(
            f"case{number}/{plane}",
            shape=(1, 1, ny, nx),
            dtype=getattr(visit_image, plane).dtype,
            chunks=(1, 1, *chunk),
            shards=(1, 1, *(-(-n // edge) * edge for n, edge in zip((ny, nx), chunk, strict=True))),
            compressors=kinds[kind],
            fill_value=0 if plane == "mask" else float("nan"),
        )
    taken, sizes = [[] for _ in cases], {}
    for _ in range(7):
        for number, (plane, _, _) in enumerate(cases):
            pixels = getattr(visit_image, plane)
            clocks = [(time.perf_counter(), time.process_time())]
            sizes[number] = write_plane(store, f"case{number}", plane, (0, 0), pixels)["bytes"]
            clocks.append((time.perf_counter(), time.process_time()))
            read_plane(store, f"case{number}", plane, (0, 0), (ny, nx))
            clocks.append((time.perf_counter(), time.process_time()))
            taken[number].append(np.diff(clocks, axis=0).ravel())
    heads = ("plane", "codec", "chunk", "write ms", "its CPU", "read ms", "its CPU", "MiB")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for number, (plane, kind, (cy, cx)) in enumerate(cases):
        times = " | ".join(f"{1e3 * seconds:.0f}" for seconds in np.median(taken[number][1:], axis=0))
        print(f"| {plane} | {kind} | {cy} x {cx} | {times} | {sizes[number] / 2**20:.1f} |")


def stages(data: Path, scratch: Path) -> None:
    """One full-size detector, all products out, warm: time per stage, against reading and writing alone."""
    from skysub.campaign.context import run_at
    from skysub.campaign.plan import make_plan
    from skysub.campaign.planned import work_unit
    from skysub.campaign.reading import read_file
    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.store.arrays import write_plane
    from skysub.campaign.unit import process_units

    for compression, kind in (("none", "uncompressed"), ("lossy16", "RICE"), ("lossless", "GZIP_2")):
        paths = full_size(data, compression)
        for label, (name, settings) in CASES.items():
            out = scratch / f"{name}-{compression}"
            shutil.rmtree(out, ignore_errors=True)
            run = make_plan(load_recipe(name, inputs=[str(paths[0])], settings=settings), out).freeze()
            (plan,) = run.plans()
            ((detector, exposure),) = plan.exposures.items()
            line = work_unit(run, plan, name, detector).to_json()
            units, alone, bare = [], [], []
            for turn in range(8):
                (receipt,) = process_units(str(run.folder), [line])
                assert receipt.state == "done", receipt.message
                shutil.rmtree(run.folder / "units")
                clock = time.perf_counter()
                visit_image = read_file(run_at(str(run.folder)), exposure)
                for plane in ("image", "mask", "variance"):
                    write_plane(
                        run.images, "preliminary_visit_image", plane, (0, 0), getattr(visit_image, plane)
                    )
                seconds = time.perf_counter() - clock
                clock = time.perf_counter()
                raw = np.fromfile(paths[0], np.uint8)
                raw.tofile(scratch / "raw")
                plain = time.perf_counter() - clock
                if turn:
                    units.append(dict(receipt.timings))
                    alone.append(seconds)
                    bare.append(plain)
            totals = [sum(timings.values()) for timings in units]
            ratio = _median([total / seconds for total, seconds in zip(totals, alone, strict=True)])
            to_bare = _median([total / seconds for total, seconds in zip(totals, bare, strict=True)])
            print(f"\n{label}, {kind} FITS in: {1e3 * _median(totals):.0f} ms")
            print(f"  reading and writing alone {1e3 * _median(alone):.0f} ms: ratio {ratio:.2f}")
            print(f"  plain copy of the input's bytes {1e3 * _median(bare):.0f} ms: ratio {to_bare:.1f}")
            for stage in units[0]:
                print(f"  {stage:<14}{1e3 * _median([timings[stage] for timings in units]):7.0f} ms")


def dask_cost(data: Path, scratch: Path) -> None:
    """Units per second through one scheduler, cost per unit, two workers against one."""
    from skysub.campaign.run import run_campaign
    from skysub.campaign.window import Window
    from skysub.cluster import Demand, connected, load_profile

    for count in (2000, 5000):
        with connected(load_profile({"profile": "local", "workers": 2}), Demand(2**28, 10)) as workers:
            numbers = iter(range(count))
            window = Window(workers, size=lambda slots: 4 * slots + 4)
            list(window.run(_jobs(iter(range(50))), stopping=lambda: False))
            clock = time.perf_counter()
            list(window.run(_jobs(numbers), stopping=lambda: False))
            seconds = time.perf_counter() - clock
        print(
            f"{count} trivial units, 2 workers: {count / seconds:.0f}/s, {1e3 * seconds / count:.2f} ms each"
        )
    paths = full_size(data)
    walls = {}
    for turn in range(2):
        for workers in (1, 2):
            out = scratch / f"scaling-{workers}-{turn}"
            table = table_of(scratch, paths, 12, 2)
            recipe = recipe_of(scratch, table, "calibrate_image", f"cluster.workers={workers}")
            # the first units of a worker compile and warm up: time goes from marker to marker
            run_campaign(recipe, out)
            begun = sorted(marker_times(out))
            walls.setdefault(workers, []).append((begun[-1] - begun[1]) / (len(begun) - 2))
            own = unit_seconds(out)
            print(
                f"{workers} workers: {walls[workers][-1]:.3f} s per detector; own work {_median(own):.3f} s"
            )
            shutil.rmtree(out)
    print(f"two workers against one: {_median(walls[1]) / _median(walls[2]):.2f} times")


def overhead(scratch: Path) -> None:
    """Cost of a unit beyond its own work in a whole campaign, and memory of the coordinator by its length."""
    for steps in ("campaign:nothing", "campaign:nothing > campaign:mean > campaign:after"):
        print(f"\n{steps}")
        _overhead_of(scratch, steps)


def _overhead_of(scratch: Path, steps: str) -> None:
    seconds = {}
    for units in (1000, 20000):
        out = scratch / f"flat-{units}"
        program = (
            f"import sys; sys.path.insert(0, {str(HERE)!r}); import campaign; "
            f"campaign.measure_flatness({str(scratch)!r}, {units}, {steps!r})"
        )
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
        seconds[units] = json.loads((scratch / "beyond.json").read_text())
        shutil.rmtree(out, ignore_errors=True)
    (few, begun), (many, ended) = seconds.items()
    per_unit = len(steps.split(" > ")) - (1 if "mean" in steps else 0) + (0.01 if "mean" in steps else 0)
    few, many = few * per_unit, many * per_unit
    # what workers do once, as they start, falls out
    print(f"each further unit: {1e3 * (ended - begun) / (many - few):.2f} ms of a worker beyond its own work")


def measure_flatness(scratch: str, units: int, steps: str) -> None:
    """In a process of its own: run a campaign of many trivial units and report this process' memory."""
    import threading

    import psutil

    from skysub.campaign.run import run_campaign

    folder = Path(scratch)
    out = folder / f"flat-{units}"
    table = table_of(folder, [tiny(folder)], units, 100)
    recipe = recipe_of(folder, table, steps, "products.pixels=on_demand", "cluster.workers=2")
    memory: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        this = psutil.Process()
        while not over.wait(0.5):
            memory.append((time.monotonic(), this.memory_info().rss / 2**20))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    clock = time.perf_counter()
    outcome = run_campaign(recipe, out)
    seconds = time.perf_counter() - clock
    over.set()
    assert outcome.done >= units, outcome
    units = outcome.done
    beyond = 2 * outcome.seconds - sum(unit_seconds(out))
    (folder / "beyond.json").write_text(json.dumps(beyond))
    late = [rss for when, rss in memory if when > memory[0][0] + 0.9 * (memory[-1][0] - memory[0][0])]
    print(
        f"{units} units: {seconds:.1f} s with plan and start, {units / outcome.seconds:.0f}/s; "
        f"beyond own work {1e3 * beyond / units:.2f} ms of a worker per unit, its start included; "
        f"coordinator and scheduler {_median(late):.1f} MiB near the end, "
        f"{max(rss for _, rss in memory):.1f} at most",
        flush=True,
    )


def memory(data: Path, scratch: Path) -> None:
    """Peak memory of a worker on full-size detectors."""
    import skysub
    from skysub.campaign.run import run_campaign

    image = 4 * SHAPE[0] * SHAPE[1] / 2**20
    for compression in ("none", "lossless"):
        for step in ("background", "calibrate_image"):
            out = scratch / "peak"
            shutil.rmtree(out, ignore_errors=True)
            table = table_of(scratch, full_size(data, compression), 6, 2)
            run_campaign(recipe_of(scratch, table, step, "cluster.workers=1"), out)
            markers = skysub.open_campaign(out).markers()
            peak = max(marker["peak_memory"] for _, _, marker in markers) / 2**20
            limit = 6 * image + 250
            print(f"{step}, {compression}: worker's peak {peak:.0f} MiB of {limit:.0f} (6 images + 250)")


def dp1(data: Path, scratch: Path) -> None:
    """Forty full-size detectors on this machine's cores, and what 15,972 would take."""
    from skysub.campaign.run import run_campaign

    out = scratch / "dp1"
    table = table_of(scratch, full_size(data, detectors=4), 40, 4)
    clock = time.perf_counter()
    outcome = run_campaign(recipe_of(scratch, table, "calibrate_image"), out, stream=sys.stderr)
    seconds = time.perf_counter() - clock
    assert outcome.done == 40
    begun = sorted(marker_times(out))
    steady = (begun[-1] - begun[4]) / (len(begun) - 5)
    print(f"40 detectors: {seconds:.1f} s in all, {steady:.3f} s each once warm; {outcome.stages}")
    print(f"15,972 detectors on these cores: {15972 * steady / 3600:.1f} h")


def faults(scratch: Path) -> None:
    """The test of twenty kills, over and over with other seeds: tests/campaign/test_faults.py."""
    del scratch
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long", "tests/campaign/test_faults.py"]
    subprocess.run(command, check=True, cwd=HERE.parent)


# ---- helpers


def marker_times(out: Path) -> list[float]:
    """When each unit was over."""
    import skysub

    campaign = skysub.open_campaign(out)
    run = out / "runs" / campaign.runs[-1]
    # shards keep their time when markers of detectors have been gathered
    return [path.stat().st_mtime for path in run.glob("images.zarr/*/image/c.*")]


def unit_seconds(out: Path) -> list[float]:
    """Own time of each unit of all steps."""
    import skysub

    campaign = skysub.open_campaign(out)
    return [float(each) for step in campaign.steps for each in campaign.figures(step, only=())["seconds"]]


def _jobs(numbers):
    def next_job():
        from skysub.campaign.window import Job

        number = next(numbers, None)
        return None if number is None else Job((number,), trivial, (number,))

    return next_job


def _median(values) -> float:
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ("codecs", "stages", "dask", "overhead", "memory", "dp1", "faults")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(known))
    parser.add_argument("--data", type=Path, help="folder for simulated detectors, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        data = options.data or scratch / "data"
        does = {
            "codecs": lambda: codecs(data, scratch),
            "stages": lambda: stages(data, scratch),
            "dask": lambda: dask_cost(data, scratch),
            "overhead": lambda: overhead(scratch),
            "memory": lambda: memory(data, scratch),
            "dp1": lambda: dp1(data, scratch),
            "faults": lambda: faults(scratch),
        }
        for section in options.sections or known[:5]:
            print(f"\n## {section}", flush=True)
            does[section]()


if __name__ == "__main__":
    # workers import this file under its own name, not as the main program
    sys.path.insert(0, str(HERE))
    import campaign

    campaign.main()
