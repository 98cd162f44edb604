"""How close sep, photutils and skysub come to a true sky: every scene, every method, one table.

    python benchmarks/quality.py                                       # full size, writes docs/quality.md
    python benchmarks/quality.py --shape 1000x1024 --seeds 1 --scenes quiet,ghosts --output /tmp/quality.md
    python benchmarks/quality.py --corrections --seeds 1,2,3               # what each correction does to M2

A method is a function of a `VisitImage` that returns a model and its uncertainty (or None), electron per
pixel; add one to METHODS.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

import skysub
from skysub.simulation.detector import simulate_detector
from skysub.simulation.pictures import draw_scene
from skysub.simulation.report import COLUMNS, score_cells
from skysub.simulation.scene import named_scene
from skysub.simulation.score import Scores, combine_scores, score_visits

if TYPE_CHECKING:
    from collections.abc import Callable

    from skysub.visit.image import VisitImage

SCENES = (
    "quiet",
    "moonlit",
    "ghosts",
    "cirrus",
    "galaxy:50",
    "galaxy:100",
    "galaxy:200",
    "crowded:1",
    "crowded:30",
    "crowded:150",
    "bright_star",
    "fringes",
    "amplifiers",
    "vignetted",
)

Answer = tuple[np.ndarray, np.ndarray | None]


@functools.lru_cache(maxsize=4)
def source_mask(visit_image: VisitImage) -> np.ndarray:
    """Pixels to leave out: defects, and sources of 5 sigma after smoothing by the PSF, grown by 4 pixels."""
    defects = (visit_image.mask & visit_image.bits("BAD", "SAT", "NO_DATA")) != 0
    residual = visit_image.image - skysub.fit_background(visit_image.image, defects).evaluate()
    sigma = np.sqrt(np.median(visit_image.variance[::7, ::7]))
    width = 1.7
    smoothed = ndimage.gaussian_filter(np.where(defects, 0, residual), width)
    detected = smoothed > 5 * sigma / (2 * np.sqrt(np.pi) * width)
    return defects | ndimage.binary_dilation(detected, iterations=4)


def plain(visit_image: VisitImage) -> Answer:
    background = skysub.fit_background(visit_image.image, source_mask(visit_image))
    return background.evaluate(), background.uncertainty()


def with_sep(visit_image: VisitImage) -> Answer:
    import sep

    # the settings that its manual starts from
    background = sep.Background(visit_image.image, mask=source_mask(visit_image), bw=64, bh=64, fw=3, fh=3)
    return background.back(), None


def with_photutils(visit_image: VisitImage) -> Answer:
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, SExtractorBackground

    background = Background2D(
        visit_image.image,
        (64, 64),
        mask=source_mask(visit_image),
        filter_size=(3, 3),
        sigma_clip=SigmaClip(sigma=3.0),
        bkg_estimator=SExtractorBackground(),
        exclude_percentile=90,
    )
    return background.background, None


def calibrated(
    visit_image: VisitImage, *, name: str, faint_light: bool = True, **corrections: bool
) -> Answer:
    """`skysub.calibrate_image`, which finds its own source mask; neither cosmic rays nor PSF are needed."""
    config = skysub.CalibrateImageConfig.named(name)
    if corrections:
        sky = dataclasses.replace(
            config.sky, corrections=dataclasses.replace(config.sky.corrections, **corrections)
        )
        config = dataclasses.replace(config, sky=sky)
    config = dataclasses.replace(config, cosmic_rays=None, psf=None)
    layers = skysub.calibrate_image(visit_image, config).preliminary_visit_image_background
    return layers.evaluate(faint_light=faint_light), layers.uncertainty(faint_light=faint_light)


METHODS: dict[str, Callable[[VisitImage], Answer]] = {
    "default": functools.partial(calibrated, name="default"),
    "sky alone": functools.partial(calibrated, name="default", faint_light=False),
    "default uncorrected": functools.partial(
        calibrated, name="default", clip_skew=False, noise_peaks=False, masked_faint=False
    ),
    "only clip_skew": functools.partial(calibrated, name="default", noise_peaks=False, masked_faint=False),
    "only noise_peaks": functools.partial(calibrated, name="default", clip_skew=False, masked_faint=False),
    "only masked_faint": functools.partial(calibrated, name="default", clip_skew=False, noise_peaks=False),
    "lsst": functools.partial(calibrated, name="lsst"),
    "skysub plain fit": plain,
    "sep": with_sep,
    "photutils": with_photutils,
}
"""Name in the table -> method; those that switch on one correction only when they are asked for.

The background of record holds the light of undetected sources: M2 against T2, and M12, M8 and M9 with it, are
judged against that; those of the sky alone against T1.
"""


def score_scene(
    name: str,
    methods: list[str],
    *,
    seeds: list[int],
    detectors: int,
    shape: tuple[int, int],
    pictures: Path | None,
) -> dict[str, Scores]:
    """Scores of each method over all seeds and detectors of one scene."""
    scene = named_scene(name)
    parts: dict[str, list[Scores]] = {method: [] for method in methods}
    steps: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for seed in seeds:
        simulated = {
            (1, detector): simulate_detector(scene, 1, detector, seed=seed, shape=shape)
            for detector in range(detectors)
        }
        truths = {key: truth for key, (_, truth) in simulated.items()}
        images = {key: visit_image.image for key, (visit_image, _) in simulated.items()}
        for method in methods:
            models, uncertainties = {}, {}
            for key, (visit_image, _) in simulated.items():
                try:
                    models[key], uncertainties[key] = METHODS[method](visit_image)
                except (ValueError, RuntimeError) as error:
                    print(f"  {method}: detector {key[1]} of seed {seed}: {error}")
            if not models:
                continue
            scores, total = score_visits(models, truths, uncertainties=uncertainties, images=images)
            parts[method] += scores
            steps[method].append((total.detector_step_median, total.detector_step_max))
            if pictures is not None and seed == seeds[0] and method == methods[0]:
                last = max(models)
                path = pictures / f"{name.replace(':', '_')}.jpg"
                draw_scene(images[last], truths[last], models[last], path, title=f"{name}, {method}")
    return {
        method: dataclasses.replace(
            combine_scores(parts[method]),
            detector_step_median=float(np.median([step[0] for step in steps[method]])),
            detector_step_max=float(np.max([step[1] for step in steps[method]])),
        )
        for method in methods
        if parts[method]
    }


def markdown(results: dict[str, dict[str, Scores]], setting: str, pictures: str | None) -> str:
    lines = [
        "# Quality",
        "",
        (
            "Written by `benchmarks/quality.py`. "
            "d is model - true sky, electron per pixel; the metrics are defined in [metrics.md](metrics.md), "
            "the scenes in [scenes.md](scenes.md)."
        ),
        "",
        setting,
        "",
    ]
    for scene, scores in results.items():
        rows = {method: score_cells(score) for method, score in scores.items()}
        shown = [k for k in range(len(COLUMNS)) if any(row[k] != "-" for row in rows.values())]
        heads = [" ".join(part for part in list(COLUMNS.values())[k][:2] if part) for k in shown]
        lines += [
            f"## {scene}",
            "",
            "| method | " + " | ".join(heads) + " |",
            "|" + " --- |" * (len(shown) + 1),
        ]
        lines += [f"| {method} | " + " | ".join(row[k] for k in shown) + " |" for method, row in rows.items()]
        lines.append("")
        if pictures is not None:
            lines += [f"![{scene}]({pictures}/{scene.replace(':', '_')}.jpg)", ""]
    return "\n".join(lines)


def print_corrections(seeds: list[int], shape: tuple[int, int]) -> None:
    """M2 against the sky alone, with each correction of the level alone."""
    methods = [
        "default uncorrected",
        "only clip_skew",
        "only noise_peaks",
        "only masked_faint",
        "default",
        "sky alone",
    ]
    print("| scene | " + " | ".join(methods) + " |\n|" + " --- |" * (len(methods) + 1))
    for name in ("quiet", "moonlit", "crowded:30"):
        scores = score_scene(name, methods, seeds=seeds, detectors=1, shape=shape, pictures=None)
        print(f"| {name} | " + " | ".join(f"{scores[m].bias_sky:+.3f}" for m in methods) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--methods", default=",".join(m for m in METHODS if not m.startswith("only ")))
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--detectors", type=int, default=2, help="neighbours, for M7")
    parser.add_argument("--shape", default="4000x4072")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "quality.md")
    parser.add_argument(
        "--corrections",
        action="store_true",
        help="print M2 with each correction alone, and stop",
    )
    parser.add_argument("--pictures", type=Path, help="folder for a picture per scene")
    options = parser.parse_args()
    rows, columns = options.shape.split("x")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    methods = options.methods.split(",")
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    if options.corrections:
        print_corrections(seeds, (int(rows), int(columns)))
        return
    results = {}
    for name in options.scenes.split(","):
        began = time.perf_counter()
        results[name] = score_scene(
            name,
            methods,
            seeds=seeds,
            detectors=options.detectors,
            shape=(int(rows), int(columns)),
            pictures=options.pictures,
        )
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    setting = (
        f"Detectors of {options.shape} pixels, {options.detectors} per visit, "
        f"{len(seeds)} visit{'s' if len(seeds) > 1 else ''} (seed {options.seeds}); all methods "
        "leave out the same sources: those of 5 sigma after smoothing by the PSF, grown by 4 pixels, and "
        "BAD, SAT, NO_DATA."
    )
    pictures = options.pictures and os.path.relpath(options.pictures, options.output.parent)
    options.output.write_text(markdown(results, setting, pictures))
    print(options.output)


if __name__ == "__main__":
    main()
