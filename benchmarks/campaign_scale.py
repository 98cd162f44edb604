"""A finished campaign of a million units: what it costs to open, look at, plan again and report.

    python benchmarks/campaign_scale.py [--units 1000000] [--detectors 189] [--folder FOLDER]

Three steps (detectors, visits, detectors) are run on a few small simulated detectors; their plans and markers
are then written again under as many visits as wanted, so that records are real and no pixel is. Each act is a
process of its own: seconds, and the largest memory that it took.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Nothing:
    """No settings."""


def _sky(given, config):
    from skysub.campaign.steps import StepResult

    del config
    means = [layers[-1].coefficients[0] for _, layers in given.products("preliminary_visit_image_background")]
    return StepResult(products={"sky": np.array(means)}, figures={"mean": float(np.mean(means))})


def _final(given, config):
    from skysub.campaign.steps import StepResult

    del config
    image = given.product("preliminary_visit_image")
    table = {"flux": image.image[:3, :3].ravel().astype(np.float64)}
    return StepResult(products={"source": table}, figures={"flux": float(image.image[0, 0])})


def __getattr__(name):
    from skysub.campaign.products.small import Grid
    from skysub.campaign.products.table import Table
    from skysub.campaign.steps import Step

    if name == "sky":
        return Step(
            name="campaign_scale:sky",
            version=1,
            scope="visit",
            inputs=("preliminary_visit_image_background",),
            configuration=Nothing,
            work=_sky,
            outputs=(Grid(name="sky"),),
        )
    if name == "final":
        return Step(
            name="campaign_scale:final",
            version=1,
            inputs=("preliminary_visit_image", "sky"),
            configuration=Nothing,
            work=_final,
            outputs=(Table(name="source"),),
        )
    raise AttributeError(name)


RECIPE = """
inputs: {{table: {table}}}
steps:
  calibrate_image: {{}}
  'campaign_scale:sky': {{}}
  'campaign_scale:final': {{}}
products: {{pixels: on_demand}}
cluster: threads
"""


def small_campaign(folder: Path) -> Path:
    """Two detectors of a visit through the three steps."""
    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.run import run_campaign
    from skysub.cli import main

    main(["simulate", str(folder / "data"), "--detectors", "2", "--shape", "400x400"])
    paths = sorted((folder / "data/raw").glob("*.fits"))
    table = folder / "small.csv"
    table.write_text("path,visit,detector\n" + "".join(f"{path},1,{i}\n" for i, path in enumerate(paths)))
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.format(table=table))
    outcome = run_campaign(load_recipe(str(recipe)), folder / "small")
    assert outcome.done == 5, outcome
    return folder / "small"


def synthesise(folder: Path, units: int, detectors: int, *, with_payload: int | None = None) -> Path:
    """Write a finished campaign of about ``units`` units; returns its recipe.

    ``with_payload``: how many visits, the latest, have small arrays and pictures in their markers; None: all.
    """
    from skysub.campaign.campaign import open_campaign
    from skysub.campaign.input_index import InputIndex
    from skysub.campaign.inputs import ingest_maps
    from skysub.campaign.recipe import load_recipe, short_hash
    from skysub.campaign.records import StepPlan, VisitPlan
    from skysub.campaign.store.address import place_at
    from skysub.campaign.store.runs import Run, freeze, open_runs

    (small,) = open_runs(place_at(small_campaign(folder)))
    (plan,) = small.plans()
    visits = range(1, 1 + -(-units // (2 * detectors + 1)))
    out = folder / "out"
    run = Run(place_at(out) / "runs/0001")
    table = folder / "all.csv"
    recipe = folder / "all.yaml"
    recipe.write_text(RECIPE.format(table=table))
    loaded = load_recipe(str(recipe))
    mapping = short_hash(ingest_maps(loaded.inputs)[0])
    out.mkdir()
    index = InputIndex(out / "inputs.sqlite", keep=True)
    originals = list(plan.exposures.values())
    keys = {name: dict(step.keys) for name, step in plan.steps.items()}

    def exposures(visit):
        made = {}
        for detector in range(detectors):
            known = {"visit": visit, "detector": detector}
            made[detector] = dataclasses.replace(originals[detector % 2], **known, known=tuple(known.items()))
        return made

    def plans():
        with table.open("w") as file:
            file.write("path,visit,detector\n")
            for number, visit in enumerate(visits):
                along = exposures(visit)
                for detector, exposure in along.items():
                    known = {"visit": visit, "detector": detector}
                    file.write(f"{exposure.path},{visit},{detector}\n")
                    stamp = (exposure.size, exposure.mtime_ns)
                    index.add(exposure.path, f"{mapping} {known}", stamp, [exposure])
                steps = {}
                for name, step in plan.steps.items():
                    names = [None] if None in step.keys else list(along)
                    steps[name] = StepPlan(
                        {each: keys[name].get(each, keys[name].get(0)) for each in names},
                        dict.fromkeys(names, ""),
                    )
                yield VisitPlan(visit, along, steps, number, dict(zip(along, along, strict=True)))

    # keys of a visit rest on the number of its detectors: those that a plan will look for
    keys |= _keys_of(loaded, exposures(1))
    record = dataclasses.replace(small.record, visits=len(visits), detectors=tuple(range(detectors)))
    freeze(run, record, plans())
    index.close()
    if with_payload:
        _write_backgrounds(open_campaign(folder / "small"), run, len(visits), detectors, last=with_payload)
    for name, step in plan.steps.items():
        markers = small.markers(name).of_visit(1, payload=True)
        rng = np.random.default_rng(1)
        for visit in visits:
            if None in step.keys:
                made = [_renamed(markers[None], visit, None, keys[name][None], rng)]
            else:
                made = [
                    _renamed(markers[i % 2], visit, i, keys[name].get(i, keys[name].get(0)), rng)
                    for i in range(detectors)
                ]
            if with_payload is not None and visit <= len(visits) - with_payload:
                made = [dataclasses.replace(marker, payload={}) for marker in made]
            run.markers(name).finish_visit(visit, made)
    return recipe


def _write_backgrounds(small, run, visits, detectors, *, last):
    """Write the backgrounds of the latest visits, which pages of visits show."""
    from skysub.campaign.store.arrays import create_backgrounds, write_background_rows
    from skysub.campaign.store.backgrounds import as_arrays

    name = "preliminary_visit_image_background"
    layers = [list(small.background(name, 1, detector)) for detector in (0, 1)]
    arrays = [[as_arrays(layer) for layer in each] for each in layers]
    create_backgrounds(
        run.backgrounds,
        name,
        visits=range(1, 1 + visits),
        detectors=range(detectors),
        layers=len(layers[0]),
        grid=layers[0][0].grid.shape,
        terms=len(layers[0][0].coefficients),
        unit="electron",
    )
    scratch = run.folder / "scratch"
    for number in range(visits - last, visits):
        rows = {detector: arrays[detector % 2] for detector in range(detectors)}
        write_background_rows(run.backgrounds, name, number, rows, durable=False, scratch=scratch)


def _keys_of(recipe, exposures):
    """Keys that a plan gives the units of a visit."""
    from skysub.campaign.chain import chained
    from skysub.campaign.compare import Comparison
    from skysub.campaign.history import History
    from skysub.campaign.inputs import ingest_maps
    from skysub.campaign.products.base import Storing
    from skysub.campaign.recipe import as_json

    chain = chained(recipe.steps, {})
    storing = Storing(**recipe.products.model_dump())
    compared = Comparison(
        chain,
        History([], chain, storing, verify=False),
        [as_json(each) for each in ingest_maps(recipe.inputs)],
        set(chain.names),
    )
    compared.look_at(1, exposures)
    (plan,) = compared.rows
    return {name: dict(step.keys) for name, step in plan.steps.items()}


def _renamed(marker, visit, detector, key, rng):
    figures = {
        name: value * (1 + 1e-3 * rng.normal()) if isinstance(value, float) else value
        for name, value in marker.figures.items()
    }
    return dataclasses.replace(marker, visit=visit, detector=detector, key=key, figures=figures)


# ---- acts, each in a process of its own


def act(name: str, folder: Path) -> None:
    import skysub

    out = folder / "out"
    clock, before = time.perf_counter(), time.process_time()
    if name == "status":
        from skysub.cli import main

        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["status", str(out)]) == 0
    elif name == "open":
        print(f"  {skysub.open_campaign(out)!r}")
    elif name == "visits":
        print(f"  {len(skysub.open_campaign(out).visits)} visits")
    elif name == "figures":
        table = skysub.open_campaign(out).figures("calibrate_image", only=["sky"])
        print(f"  {len(table)} rows, {table.colnames}")
    elif name == "all figures":
        table = skysub.open_campaign(out).figures("calibrate_image")
        print(f"  {len(table)} rows, {len(table.colnames)} columns")
    elif name == "marker":
        campaign = skysub.open_campaign(out)
        campaign.marker(int(campaign.visits["visit"][-1]), 0)
    elif name == "plan":
        from skysub.campaign.plan import make_plan
        from skysub.campaign.recipe import load_recipe

        plan = make_plan(load_recipe(str(folder / "all.yaml")), out)
        print(f"  {plan.left} left, {plan.done} done")
        assert plan.left == 0
    elif name == "report":
        from skysub.report.write import write_report

        # no pages: there are no arrays to make pictures of
        path = write_report(out, visits=[])
        print(f"  {path.stat().st_size / 1e6:.2f} MB")
    seconds, working = time.perf_counter() - clock, time.process_time() - before
    # not getrusage, whose maximum begins with that of the parent
    (line,) = [
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")
    ]
    peak = int(line.split()[1]) / 1024
    found = {"act": name, "seconds": round(seconds, 2), "CPU": round(working, 2), "MiB": round(peak)}
    print(json.dumps(found))


ACTS = ("open", "status", "visits", "figures", "all figures", "marker", "plan", "report")


def measured(folder: Path, acts) -> list[dict]:
    found = []
    for name in acts:
        program = (
            f"import sys; sys.path.insert(0, {str(HERE)!r}); "
            "import campaign_scale; from pathlib import Path; "
            f"campaign_scale.act({name!r}, Path({str(folder)!r}))"
        )
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, env=environment, stdout=subprocess.PIPE, text=True
        )
        *said, last = done.stdout.splitlines()
        found.append(json.loads(last))
        print(f"{name}: {found[-1]['seconds']} s ({found[-1]['CPU']} of CPU), {found[-1]['MiB']} MiB at most")
        print("\n".join(said), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("acts", nargs="*", metavar="ACT", help=", ".join(ACTS))
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--detectors", type=int, default=189)
    parser.add_argument("--folder", type=Path, help="keep the campaign there, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "all.yaml").exists():
            folder.mkdir(parents=True, exist_ok=True)
            clock = time.perf_counter()
            synthesise(folder, options.units, options.detectors)
            print(f"made in {time.perf_counter() - clock:.0f} s")
        measured(folder, options.acts or ACTS)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = str(HERE)
    import campaign_scale

    campaign_scale.main()
