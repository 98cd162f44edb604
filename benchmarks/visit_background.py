"""How close one sky per visit comes to the truth, beside each detector alone.

    python benchmarks/visit_background.py --cache /tmp/visits --shape 2000x2036 --scenes quiet,offsets
    python benchmarks/visit_background.py --cache /tmp/visits --shape 4000x4072 --seeds 1,2,3

Calibrated statistics and true skies are kept in the folder --cache: trying again only fits and scores.
Besides the scenes of skysub.simulation there are ``offsets`` (2 e- between detectors of a quiet sky), and
``one:600`` and ``one_offsets:600``: a galaxy of that effective radius on the first detector alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pickle
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import skysub
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import Electronics, Scene, named_scene
from skysub.simulation.score import Scores, score_visits
from skysub.simulation.sky import amplifier_edges
from skysub.simulation.truth import Truth, read_truth, write_truth

SCENES = (
    "quiet,offsets,moonlit,amplifiers,galaxy:100,galaxy:200,one:600,one_offsets:600,bright_star,cirrus,ghosts"
)
HEAD = "scene seed method | M1 T2 M3 M7 median max amplifiers M4 pull (sky alone) | terms, flags, cpu s"


def scene_of(name: str, detector: int) -> Scene:
    kind, _, number = name.partition(":")
    if kind in {"one", "one_offsets"}:
        scene = named_scene(f"galaxy:{number}") if detector == 0 else named_scene("quiet")
    else:
        scene = named_scene("quiet" if kind == "offsets" else name)
    if kind in {"offsets", "one_offsets"}:
        scene = dataclasses.replace(scene, electronics=Electronics(detector_offset=2.0))
    return scene


def boxes_of(shape: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    y, x = (edges.tolist() for edges in amplifier_edges(shape))
    return tuple((y[j], y[j + 1], x[i], x[i + 1]) for j in range(len(y) - 1) for i in range(len(x) - 1))


def calibrated(
    name: str, seed: int, detector: int, shape: tuple[int, int], cache: Path
) -> tuple[skysub.DetectorRecord, Truth]:
    """Record and truth of a detector, from the cache where it has them."""
    folder = cache / f"{name.replace(':', '_')}-{shape[0]}x{shape[1]}-{seed}"
    record, truth = folder / f"{detector}.pickle", folder / f"{detector}.zarr"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        image, true = simulate_detector(scene_of(name, detector), 1, detector, seed=seed, shape=shape)
        config = dataclasses.replace(skysub.CalibrateImageConfig(), cosmic_rays=None, psf=None)
        found = skysub.record_of(skysub.calibrate_image(image, config), amplifiers=boxes_of(shape))
        write_truth(true, truth)
        record.write_bytes(pickle.dumps(found))
    return pickle.loads(record.read_bytes()), read_truth(truth)


def scored(backgrounds: dict[int, skysub.Background], truths: dict[int, Truth]) -> tuple[Scores, float]:
    """Scores of the background of record, and the pull of the sky alone."""
    by_key = {(1, n): truth for n, truth in truths.items()}
    totals = []
    for faint_light in (True, False):
        models = {(1, n): b.evaluate(faint_light=faint_light) for n, b in backgrounds.items()}
        errors = {(1, n): b.uncertainty(faint_light=faint_light) for n, b in backgrounds.items()}
        totals.append(score_visits(models, by_key, uncertainties=errors)[1])
    return totals[0], totals[1].pull


def line(name: str, method: str, got: Scores, alone: float, rest: str) -> str:
    values = (
        f"{got.rho:6.2f} {got.bias_faint:+7.3f} {got.edge:+6.2f} {got.detector_step_median:6.3f} "
        f"{got.detector_step_max:6.3f} {got.amplifier_step:6.3f} {got.lost_large:+6.2f} {alone:5.2f}"
    )
    return f"{name:18s} {method:9s} | {values} | {rest}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", default=SCENES)
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--detectors", type=int, default=9)
    parser.add_argument("--shape", default="2000x2036")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps calibrated statistics")
    options = parser.parse_args()
    ny, nx = (int(n) for n in options.shape.split("x"))
    print(HEAD)
    for name in options.scenes.split(","):
        for seed in map(int, options.seeds.split(",")):
            found = {n: calibrated(name, seed, n, (ny, nx), options.cache) for n in range(options.detectors)}
            records = [record for record, _ in found.values()]
            truths = {n: truth for n, (_, truth) in found.items()}
            started = time.process_time()
            sky = skysub.visit_background(records)
            seconds = time.process_time() - started
            own = {record.detector: record.background for record in records}
            terms = "+".join(sky.choice.terms) if sky.choice is not None else "-"
            said = f"{terms or 'smooth'}, {' '.join(sky.flags) or 'none'}, {seconds:.2f}"
            for method, backgrounds in (
                ("own", own),
                ("joint", dict(sky.backgrounds)),
                ("detection", dict(sky.detection)),
            ):
                got, alone = scored(backgrounds, truths)
                rest = "" if method == "own" else said
                print(line(f"{name} {seed}", method, got, alone, rest), flush=True)


if __name__ == "__main__":
    main()
