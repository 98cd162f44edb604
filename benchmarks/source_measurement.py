"""How completely, purely and rightly sources are measured, beside sep and photutils, where truth is known.

    python benchmarks/source_measurement.py                                     # full size, three seeds
    python benchmarks/source_measurement.py --shape 2000x2000 --seeds 1,2 --skies true
    python benchmarks/source_measurement.py --scenes '' --foreign r30s_slope031_27,crowded15 --shape 1500x1500

A source is matched to the nearest one within 2.5 pixels, bright ones first. Completeness is by flux over the
limit, five times the noise under the source's own light; purity counts any true source above one such noise.
The true sky holds the mean light of sources below the limit, which photometry wants taken off. With ``own``
the sky and the PSF are those of `skysub.calibrate_image`.

sep and photutils get the true or the same PSF as the kernel of a matched filter, and for each scene, on its
first seed, the settings of a grid (threshold, contrast of the deblending, cleaning, whose noise) that find
most while they are as pure as skysub less 2 %; where none is, the purest. Their stars' fluxes are those in
4.5 pixels over the PSF's share there; of three Kron factors the least biased one is taken. photutils is slow:
it sees a corner of the image.
"""

from __future__ import annotations

import argparse
import os
import resource

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from yardstick.cases import MoffatBeta3, foreign_case, kept, own_case
from yardstick.methods import best_photutils, best_sep, cut, with_photutils, with_sep, with_skysub
from yardstick.score import HEAD, cells_of, found_of

from skysub.measurement import MeasurementConfig, measure_sources
from skysub.visit.planes import AFW_PLANES

CORNER, PART = 1000, 2000
"""Edges of the corner that photutils sees, and of the one that sep's settings are chosen on, pixel."""
LESS_PURE = 0.02
"""By how much less pure than skysub another method may be."""
METHODS = {"sep": (best_sep, with_sep), "photutils": (best_photutils, with_photutils)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", default="4000x4072")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--scenes", default="quiet,crowded:29")
    parser.add_argument("--foreign", default="")
    parser.add_argument("--skies", default="true,own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", default="skysub,sep")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="of skysub")
    parser.add_argument("--cache", default="", help="folder that keeps the scenes")
    options = parser.parse_args()
    shape = tuple(int(n) for n in options.shape.split("x"))
    given = dict(pair.split("=") for pair in options.set)
    whole = ("passes", "fit_steps")
    changed = {k: int(v) if k in whole else float(v) for k, v in given.items()}
    config = MeasurementConfig(threads=options.threads, **changed)
    # kernels are compiled, or read from the disk, before anything is timed
    ones = np.ones((300, 300), np.float32)
    noise = np.random.default_rng(1).normal(0, 1, ones.shape).astype(np.float32)
    measure_sources(noise, ones, None, AFW_PLANES, MoffatBeta3(3.9))
    print("| " + " | ".join(HEAD) + " |")
    print("| " + " | ".join("---" for _ in HEAD) + " |", flush=True)
    kinds = [(own_case, name) for name in options.scenes.split(",") if name]
    kinds += [(foreign_case, name) for name in options.foreign.split(",") if name]
    for maker, name in kinds:
        for sky in options.skies.split(","):
            settings: dict[str, object] = {}
            for seed in (int(s) for s in options.seeds.split(",")):
                key = f"{maker.__name__} {name} {seed} {shape[0]}x{shape[1]} {sky}".replace(":", "")
                case = kept(options.cache, key, lambda m=maker, n=name, s=seed, k=sky: m(n, s, shape, k))
                ours = answer = with_skysub(case, config)
                for method in options.methods.split(","):
                    seen = cut(case, CORNER) if method == "photutils" else case
                    if method != "skysub":
                        best, measure = METHODS[method]
                        if method not in settings:
                            part = cut(seen, PART)
                            purest = found_of(part, ours.x, ours.y).purity - LESS_PURE
                            settings[method] = best(part, purest)
                        answer = measure(seen, settings[method])
                    print("| " + " | ".join([case.name, method, *cells_of(seen, answer)]) + " |", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
