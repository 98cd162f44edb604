"""The background of one detector against a copy of the image, sep and photutils, in one run.

    python benchmarks/background.py [--shape 4000x4072] [--rounds 9] [--json FILE]

Times are medians over rounds; in each round every method runs three times, so that a drift of the
machine meets all alike. The unit of the ratios is one np.copyto of the image into memory that is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import skysub
from skysub.background.clipping import superpixel_statistics
from skysub.background.model import fit_statistics
from skysub.background.pixels import checked_ignored
from skysub.background.superpixels import SuperpixelGrid

IGNORED = 0b101110001
DETECTED = 1 << 5


def detector(shape, seed=31):
    """A sky with a gradient, stars of which most are masked, bad columns, cosmic rays and NaN."""
    random = np.random.default_rng(seed)
    ny, nx = shape
    y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)
    image = (800 + 60 * x - 35 * y + 20 * x * y - 25 * y**2 + 28 * random.standard_normal(shape)).astype(
        np.float32
    )
    mask = np.zeros(shape, np.int32)
    for _ in range(4000 * ny * nx // 16_000_000):
        cy, cx, width = random.integers(20, ny - 20), random.integers(20, nx - 20), random.uniform(1.8, 3.0)
        yy, xx = np.mgrid[-18:19, -18:19]
        star = (
            10 ** random.uniform(2.5, 5.5)
            / (2 * np.pi * width**2)
            * np.exp(-(yy**2 + xx**2) / (2 * width**2))
        )
        cut = (slice(cy - 18, cy + 19), slice(cx - 18, cx + 19))
        image[cut] += star.astype(np.float32)
        if random.random() < 0.7:
            mask[cut][star > 10] |= DETECTED
    mask[:, random.integers(0, nx, 8)] |= 1
    image.ravel()[random.integers(0, image.size, 300)] = np.nan
    image[ny // 2 : ny // 2 + 300, nx // 3 : nx // 3 + 40] = np.nan
    return image, mask


def methods(image, mask):
    """Name -> what is timed, in the order of the table."""
    ignored = (mask, IGNORED)
    config = skysub.BackgroundConfig()
    grid = SuperpixelGrid.over(image.shape, config)
    planes, bits = checked_ignored(ignored, image.shape)
    out, own = np.zeros_like(image), image.copy()
    background = skysub.fit_background(image, ignored, config)
    table = {
        "copy": lambda: np.copyto(out, image),
        "image - scalar, new array": lambda: image - np.float32(3),
        "skysub, 1 thread": lambda: skysub.subtract_background(image, ignored, config),
        "skysub, 2 threads": lambda: skysub.subtract_background(image, ignored, config, threads=2),
        "skysub, 1 thread, in place": lambda: skysub.subtract_background(own, ignored, config, out=own),
        "skysub, 2 threads, in place": lambda: skysub.subtract_background(
            own, ignored, config, threads=2, out=own
        ),
        "  statistics": lambda: superpixel_statistics(image, planes, bits, grid, config),
        "  fit": lambda: fit_statistics(grid, background.statistics, config),
        "  evaluate and subtract": lambda: background.subtract_from(image),
    }
    bad = (mask & IGNORED != 0) | ~np.isfinite(image)
    try:
        import sep
    except ImportError:
        pass
    else:
        filled = np.where(bad, np.float32(0), image)

        def with_sep():
            return filled - sep.Background(filled, mask=bad, bw=128, bh=128).back()

        table["sep, its bad-pixel map left out"] = with_sep
    try:
        from astropy.stats import SigmaClip
        from photutils.background import Background2D, MeanBackground
    except ImportError:
        pass
    else:

        def with_photutils():
            found = Background2D(
                image, 128, mask=bad, sigma_clip=SigmaClip(3.0, maxiters=3), bkg_estimator=MeanBackground()
            )
            return image - found.background

        table["photutils"] = with_photutils
    return table


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="4000x4072", help="ny x nx")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shape = tuple(int(n) for n in options.shape.split("x"))
    table = methods(*detector(shape))
    times = {name: [] for name in table}
    for turn in range(options.rounds + 1):
        for name, work in table.items():
            if name == "photutils" and turn > 3:
                continue
            # three at a time: what the method before has left in caches and free memory is not its doing
            for _ in range(1 if name == "photutils" else 3):
                start = time.perf_counter()
                result = work()
                elapsed = time.perf_counter() - start
                del result
                if turn:
                    times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    unit = medians["copy"]
    print(f"image {shape[0]} x {shape[1]} float32, int32 mask; median of {options.rounds}")
    print(f"{'':34}{'ms':>9}{'least ms':>10}{'x copy':>8}")
    for name, median in medians.items():
        print(f"{name:34}{1e3 * median:9.2f}{1e3 * min(times[name]):10.2f}{median / unit:8.2f}")
    ours = medians["skysub, 1 thread"]
    for name in ("sep, its bad-pixel map left out", "photutils"):
        if name in medians:
            print(f"skysub is {medians[name] / ours:.1f} times as fast as {name.split(',')[0]}")
    print(f"two threads are {ours / medians['skysub, 2 threads']:.2f} times as fast as one")
    if options.json:
        options.json.write_text(json.dumps({"medians_s": medians, "times_s": times}, indent=1))


if __name__ == "__main__":
    main()
