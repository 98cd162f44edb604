"""How close one sky per visit comes to the truth, beside each detector alone; and what templates add.

    python benchmarks/visit_background.py --cache /tmp/visits --shape 2000x2036 --scenes quiet,offsets
    python benchmarks/visit_background.py --cache /tmp/visits --shape 4000x4072 --seeds 1,2,3
    python benchmarks/visit_background.py --cache /tmp/visits --templates 10 --scenes fringes --seeds 1,2
    python benchmarks/visit_background.py --cache /tmp/visits --templates 10 --made-of fixed \\
        --scenes one_fixed:600
    python benchmarks/visit_background.py --large 189

Of each detector statistics, cells and what scores need of the truth are kept in the folder --cache: trying
again only fits. M1, T2, M7 and steps of amplifiers are as docs/metrics.md has them. Besides the scenes of
skysub.simulation there are those of `visit_cache.scene_of`. With --templates N, visits 1 to N of the scene
--made-of (by default the one that is judged) make the templates, and two later visits are judged.
--large N fits N detectors of 1,024 superpixels of a smooth sky with offsets, and says what that costs.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import resource
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import itertools
from typing import TYPE_CHECKING

import numpy as np
from visit_cache import VERSION, Calibrated, visit_of

import skysub
from skysub.background.model import fit_statistics
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.simulation.metrics import block_mean, detector_steps, good_pixels
from skysub.simulation.sky import amplifier_edges

if TYPE_CHECKING:
    from skysub.simulation.truth import Truth

SCENES = "quiet,offsets,amplifiers"
HEAD = (
    "scene seed visit method | M1, of the worst detector | T2, least, most | M7 median, max | amplifiers | "
    "error of detector 0, its deviation | terms, votes lost, flags, cpu s"
)
WIDTH = 64
"""Of strips along edges, pixel."""


def functionals(model: np.ndarray) -> dict[str, np.ndarray]:
    """What the metrics look at: means of superpixels, of strips along the edges, and jumps at amplifiers."""
    grid = SuperpixelGrid.over(model.shape, skysub.BackgroundConfig())
    y_edges, x_edges = amplifier_edges(model.shape)
    width = max(1, min(WIDTH, int(np.diff(x_edges).min()) // 2))

    def mean(part: np.ndarray) -> float:
        return float(part.mean(dtype=np.float64))

    jumps = []
    for low, high in itertools.pairwise(y_edges):
        rows = model[low:high]
        jumps += [mean(rows[:, x : x + width]) - mean(rows[:, x - width : x]) for x in x_edges[1:-1]]
    y = y_edges[1]
    for low, high in itertools.pairwise(x_edges):
        jumps.append(mean(model[y : y + width, low:high]) - mean(model[y - width : y, low:high]))
    edges = [model[:, :WIDTH], model[:, -WIDTH:], model[:WIDTH], model[-WIDTH:]]
    return {
        "superpixels": block_mean(model, grid.y_edges, grid.x_edges),
        "edges": np.array([mean(edge) for edge in edges]),
        "jumps": np.array(jumps),
        "mean": np.array(mean(model)),
    }


def truth_of(truth: Truth, path: Path) -> dict[str, np.ndarray]:
    """The same of the true sky, with the unit of M1 and the mean undetected light; kept in a file."""
    if not path.exists():
        found = functionals(truth.sky)
        grid = SuperpixelGrid.over(truth.shape, skysub.BackgroundConfig())
        area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
        count = float(np.median(block_mean(good_pixels(truth), grid.y_edges, grid.x_edges) * area))
        count = max(count, 0.01 * float(np.median(area)))
        share = min(28 / found["superpixels"].size, 1)
        found["unit"] = np.array(truth.sigma / math.sqrt(count) * math.sqrt(share))
        found["faint"] = np.array(float(truth.planes["faint_sources"].mean(dtype=np.float64)))
        path.write_bytes(pickle.dumps(found))
    return pickle.loads(path.read_bytes())


class Visit:
    """One visit and what is true of it."""

    def __init__(self, name: str, seed: int, visit: int, options: argparse.Namespace) -> None:
        ny, nx = (int(n) for n in options.shape.split("x"))
        self.name = f"{name} {seed} {visit}"
        self.data: dict[int, Calibrated] = visit_of(
            name, seed, visit, options.detectors, shape=(ny, nx), cache=options.cache
        )
        folder = options.cache / f"{name.replace(':', '_')}-{ny}x{nx}-{seed}-v{VERSION}"
        self.truth = {n: truth_of(one.truth, folder / f"{visit}-{n}.truth") for n, one in self.data.items()}

    @property
    def records(self) -> list[skysub.DetectorRecord]:
        return [one.record for one in self.data.values()]

    @property
    def for_templates(self) -> skysub.TemplateVisit:
        return skysub.TemplateVisit(self.records, {n: one.cells for n, one in self.data.items()})

    def line(self, method: str, backgrounds: dict[int, skysub.Background], rest: str = "") -> str:
        m1, t2, jumps, strips, places = [], [], [], {}, {}
        for n, one in self.data.items():
            found, true = functionals(backgrounds[n].evaluate()), self.truth[n]
            m1.append(float(np.std(found["superpixels"] - true["superpixels"]) / true["unit"]))
            t2.append(float(found["mean"] - true["mean"] - true["faint"]))
            jumps.append(found["jumps"] - true["jumps"])
            off = found["edges"] - true["edges"]
            strips[1, n] = dict(zip(("left", "right", "bottom", "top"), off.tolist(), strict=True))
            places[1, n] = one.truth.observation
        steps = np.abs(detector_steps(strips, places)) if len(places) > 1 else np.zeros(1)
        first = float(np.median(backgrounds[0].uncertainty(y=slice(0, None), x=slice(0, 64))))
        return (
            f"{self.name:24s} {method:10s} | {math.sqrt(np.mean(np.square(m1))):5.2f} {max(m1):5.2f} | "
            f"{np.mean(t2):+.3f} {min(t2):+.2f} {max(t2):+.2f} | {np.median(steps):.3f} {steps.max():.3f} | "
            f"{math.sqrt(np.mean(np.square(jumps))):.3f} | {t2[0]:+.3f} {first:.2f} | {rest}"
        )

    def fitted(self, method: str, templates: skysub.VisitTemplates | None = None) -> None:
        started = time.process_time()
        sky = skysub.visit_background(self.records, templates=templates)
        seconds = time.process_time() - started
        terms = "-" if sky.choice is None else "+".join(sky.choice.terms) or "smooth"
        lost = () if sky.votes is None else sky.votes.lost
        rest = f"{terms}, {lost or 'none'}, {' '.join(sky.flags) or 'none'}, {seconds:.2f}"
        print(self.line(method, dict(sky.backgrounds), rest), flush=True)
        if templates is None and any(sky.detection[n] is not sky.backgrounds[n] for n in sky.detection):
            print(self.line("detection", dict(sky.detection)), flush=True)


def large_visit(count: int) -> list[skysub.DetectorRecord]:
    """Records of a round camera: 32 x 32 superpixels each, a slow wave, offsets of 2 e-, errors of 0.3 e-."""
    side = math.ceil(math.sqrt(count))
    config = skysub.BackgroundConfig()
    grid = SuperpixelGrid.of_counts((4000, 4072), gy=32, gx=32)
    y, x = np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij")
    records = []
    for n in range(count):
        rng = np.random.default_rng([7, n])
        x0, y0 = (n % side) * 4122.0, (n // side) * 4050.0
        wave = 4 * np.sin(2 * np.pi * (0.6 * (x + x0) + 0.8 * (y + y0)) / 30_000)
        mean = 880 + wave + 2 * rng.standard_normal() + 0.3 * rng.standard_normal(grid.shape)
        statistics = SuperpixelStatistics(
            mean.astype(np.float32), np.full(grid.shape, 0.3, np.float32), np.full(grid.shape, 9000, np.int32)
        )
        records.append(
            skysub.DetectorRecord(
                visit=1,
                detector=n,
                background=fit_statistics(grid, statistics, config),
                good=np.full(grid.shape, 9000),
                place=np.array([[x0, 1.0, 0.0], [y0, 0.0, 1.0]]),
            )
        )
    return records


def cost(count: int) -> None:
    """Processor time of the second of two fits, and the memory that fitting added."""
    records = large_visit(count)
    skysub.visit_background(records[:9])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    sky = skysub.visit_background(records, skysub.VisitBackgroundConfig(detection=False))
    seconds = time.process_time() - started
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert sky.choice is not None
    print(
        f"{count} detectors x 1024 superpixels: {seconds:.2f} s of processor, {added:.2f} GiB more, {sky!r}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", default=SCENES)
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--detectors", type=int, default=9)
    parser.add_argument("--shape", default="2000x2036")
    parser.add_argument("--cache", type=Path, help="folder that keeps calibrated statistics")
    parser.add_argument("--templates", type=int, default=0, metavar="N", help="visits to make templates of")
    parser.add_argument("--made-of", default="", help="scene of those visits")
    parser.add_argument("--large", type=int, default=0, metavar="N", help="detectors of a large camera")
    options = parser.parse_args()
    if options.large:
        cost(options.large)
        return
    if options.cache is None:
        parser.error("--cache says where calibrated statistics are kept")
    print(HEAD)
    for name in options.scenes.split(","):
        for seed in map(int, options.seeds.split(",")):
            templates = None
            if options.templates:
                visits = [
                    Visit(options.made_of or name, seed, v, options).for_templates
                    for v in range(1, options.templates + 1)
                ]
                started = time.process_time()
                templates = skysub.make_templates(visits)
                print(f"{name} {seed}: {templates!r}, cpu {time.process_time() - started:.1f} s")
            after = options.templates + 1
            for visit in range(after, after + (2 if options.templates else 1)):
                judged = Visit(name, seed, visit, options)
                print(judged.line("own", {r.detector: r.background for r in judged.records}), flush=True)
                judged.fitted("joint")
                if templates is not None:
                    judged.fitted("templates", templates)


if __name__ == "__main__":
    main()
