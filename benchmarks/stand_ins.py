"""The stand-ins for photutils' Background2D and sep's Background beside the originals, on one image.

    python benchmarks/stand_ins.py [--shape 4000x4072] [--box 64] [--rounds 3]

Prints the best time of each, in seconds of the clock and of processors, and how far the results are apart, in
units of the noise per pixel. Needs the extra `bench`. Times are for statistics and background at each pixel.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from skysub.compat.photutils import Background2D
from skysub.compat.sep import Background


def scene(shape, seed):
    rng = np.random.default_rng(seed)
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx].astype(np.float32)
    image = 1000 + 30 * np.sin(x / 700) * np.cos(y / 900) + rng.normal(0, 20, shape).astype(np.float32)
    for _ in range(ny * nx // 2500):
        a, b = rng.integers(3, ny - 4), rng.integers(3, nx - 4)
        image[a - 3 : a + 4, b - 3 : b + 4] += np.float32(rng.pareto(1.2) * 30)
    return image.astype(np.float32)


def best(call, rounds):
    results = []
    for _ in range(rounds):
        clock, processor = time.perf_counter(), time.process_time()
        made = call()
        results.append((time.perf_counter() - clock, time.process_time() - processor))
    return *min(results), made


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="4000x4072")
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows, columns = (int(word) for word in options.shape.split("x"))
    image, box = scene((rows, columns), 1), options.box

    import sep
    from photutils.background import Background2D as PhotutilsBackground2D

    warnings.simplefilter("ignore")
    pairs = {
        "sep": (
            lambda: sep.Background(image, bw=box, bh=box).back(np.float32),
            lambda **more: Background(image, bw=box, bh=box, **more).back(np.float32),
        ),
        "photutils": (
            lambda: PhotutilsBackground2D(image, box).background,
            lambda **more: Background2D(image, box, **more).background,
        ),
    }
    print(
        f"{'':10}{'original':>22}{'stand-in, 1 thread':>22}{'all threads':>22}   largest and rms difference"
    )
    for name, (theirs, ours) in pairs.items():
        small = image[: 4 * box, : 4 * box]
        Background(small, bw=box, bh=box).back(np.float32)
        Background2D(small, box).background  # noqa: B018 (compiles)
        a, b, c = (
            best(theirs, options.rounds),
            best(lambda o=ours: o(threads=1), options.rounds),
            best(ours, options.rounds),
        )
        apart = (a[2] - c[2])[box:-box, box:-box] / 20
        times = "".join(f"{clock:12.2f} ({processor:.2f})" for clock, processor, _ in (a, b, c))
        print(f"{name:10}{times}   {np.abs(apart).max():.4f} {np.sqrt(np.mean(apart**2)):.5f}")


if __name__ == "__main__":
    main()
