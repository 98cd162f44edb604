"""How close one sky per visit comes to true skies that other code than skysub's made.

    python benchmarks/foreign_visits.py --kinds moon_near,cirrus --seeds 1,2 --cache /tmp/foreign-visits

A visit is one sky of a kind of `foreign.kinds` over the whole focal plane, cut into detectors with gaps; each
has sources, noise and defects of its own, and an offset (2 e- among detectors with --offsets 2). Each
detector alone is judged beside the joint fit. e- per pixel:

    rms     of model - truth about its mean over each detector, over all
    level   mean of model - truth over all, less the mean light of undetected sources
    step    median and largest jump of model - truth between 64-pixel strips of neighbours
    pull    rms of (model - truth - undetected light) over the uncertainty
"""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from foreign import detector, skies, sources
from foreign.kinds import KINDS, kind_of, stream

import skysub
from skysub.background.amplifiers import Amplifier
from skysub.visit.planes import AFW_PLANES

GAP, STRIP = 40, 64


def made(
    name: str, seed: int, options: argparse.Namespace
) -> list[tuple[skysub.DetectorRecord, np.ndarray, float]]:
    """Record, true sky (float32) and mean undetected light of each detector of a visit."""
    kind = kind_of(name, "A", seed)
    ny, nx = (int(n) for n in options.shape.split("x"))
    side = options.side
    whole = (side * (ny + GAP), side * (nx + GAP))
    sky = skies.light_of_sky(kind, whole, stream(name, "visit", seed, "sky"))
    offsets = options.offsets * stream(name, "visit", seed, "offsets").standard_normal(side * side)
    found = []
    for n in range(side * side):
        path = options.cache / f"{name}-{seed}-{options.shape}-{side}-{options.offsets:g}-{n}.pickle"
        if not path.exists():
            y0, x0 = (n // side) * (ny + GAP), (n % side) * (nx + GAP)
            own = sky[y0 : y0 + ny, x0 : x0 + nx]

            def rng(part: str, n: int = n) -> np.random.Generator:
                return stream(name, f"visit {n}", seed, part)

            planes = sources.render(
                sources.draw_catalogue(kind, (ny, nx), rng("catalogue")),
                kind,
                (ny, nx),
                detector.noise_of(kind),
            )
            light = planes.detected + planes.undetected
            added = skies.pedestals(kind, (ny, nx), rng("electronics")) + offsets[n]
            lit = np.ones((ny, nx), np.float32)
            image, mask = detector.observe(own + light, added, lit, kind, rng("detector"))
            gain = 1.0 if kind.unit == "electron" else kind.gain
            boxes = skies.amplifier_boxes(kind, (ny, nx))
            visit_image = skysub.VisitImage(
                image=image * np.float32(gain),
                mask=mask,
                planes=AFW_PLANES,
                variance=(own + light + kind.read_noise**2).astype(np.float32),
                visit=seed,
                detector=n,
                band="r",
                exposure_time=30.0,
                gain=1.0,
                read_noise=kind.read_noise,
                amplifiers=tuple(
                    Amplifier(f"{k:02d}", y=(int(y.start), int(y.stop)), x=(int(x.start), int(x.stop)))
                    for k, (y, x) in enumerate(boxes)
                ),
            )
            result = skysub.calibrate_image(
                visit_image, skysub.CalibrateImageConfig(cosmic_rays=None, psf=None)
            )
            place = np.array([[x0, 1.0, 0.0], [y0, 0.0, 1.0]])
            record = skysub.record_of(result, place=place)
            true = (own + added).astype(np.float32)
            options.cache.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps((record, true, float(planes.undetected.mean()))))
        found.append(pickle.loads(path.read_bytes()))
    return found


def line(visit: list, backgrounds: dict[int, skysub.Background], side: int) -> str:
    squares, pulls, levels, edges = [], [], [], {}
    for record, true, faint in visit:
        layer = backgrounds[record.detector]
        off = layer.evaluate() - true
        squares.append(float(np.var(off, dtype=np.float64)))
        levels.append(float(off.mean(dtype=np.float64)) - faint)
        pulls.append(float(np.mean(((off - faint) / layer.uncertainty()) ** 2, dtype=np.float64)))
        strips = off[:, :STRIP], off[:, -STRIP:], off[:STRIP], off[-STRIP:]
        edges[record.detector] = [float(strip.mean(dtype=np.float64)) for strip in strips]
    steps = []
    for n, own in edges.items():
        if (n + 1) % side and n + 1 in edges:
            steps.append(abs(edges[n + 1][0] - own[1]))
        if n + side in edges:
            steps.append(abs(edges[n + side][2] - own[3]))
    return (
        f"rms {np.sqrt(np.mean(squares)):.3f}  "
        f"level {np.mean(levels):+.3f} ({min(levels):+.2f} {max(levels):+.2f})  "
        f"step {np.median(steps):.3f} {max(steps):.3f}  pull {np.sqrt(np.mean(pulls)):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default="r30s_slope031_27,gradient20_fwhm7,moon_near,amplifier_steps")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--shape", default="1024x1024")
    parser.add_argument("--side", type=int, default=3, help="detectors along an edge of the focal plane")
    parser.add_argument("--offsets", type=float, default=0.0, help="e- among detectors")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps calibrated statistics")
    options = parser.parse_args()
    for name in options.kinds.split(","):
        if name not in KINDS:
            parser.error(f"unknown kind {name}; known: {', '.join(KINDS)}")
        for seed in map(int, options.seeds.split(",")):
            visit = made(name, seed, options)
            sky = skysub.visit_background([record for record, _, _ in visit])
            own = {record.detector: record.background for record, _, _ in visit}
            terms = "-" if sky.choice is None else "+".join(sky.choice.terms) or "smooth"
            print(f"{name:14s} {seed} own    {line(visit, own, options.side)}", flush=True)
            print(
                f"{name:14s} {seed} joint  {line(visit, dict(sky.backgrounds), options.side)}  {terms}",
                flush=True,
            )


if __name__ == "__main__":
    main()
