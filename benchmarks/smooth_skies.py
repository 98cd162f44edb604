"""Smooth skies without one source: is calibrate_image ever worse than a plain fit, and does it say so?

    python benchmarks/smooth_skies.py --draws 500
    python benchmarks/smooth_skies.py --only 17,203 --all           # some draws again, with a line for each

Each draw takes a family of skies, a shape, a level, an amplitude, a gain, a read noise and defects at random.
`default` is compared with `fit_background` without a mask (the same order and superpixels). Printed are the
draws that break a rule, and how many break each:

    rms     rms of model - sky about its mean <= 1.5 times that of the plain fit + 0.3 of a fit's noise
    level   mean of model - sky within 3 of its own standard deviations
    masked  less than 3 % of the pixels
    pull    rms of (model - sky) / uncertainty from 0.5 to 1.8; to 2.5 where a polynomial of that order cannot
            follow the sky: a fit without noise misses it by more than noise moves the plain fit
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import skysub
from skysub.background.chebyshev import degrees, design_matrix
from skysub.visit.planes import AFW_PLANES

FAMILIES = ("linear", "curved", "wave", "hill", "moon", "vignetting")
DEFECTS = ("none", "none", "nan rows", "nan patch", "bad columns", "dead amplifier", "corner")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is random about an image, but for its noise."""

    index: int
    family: str
    shape: tuple[int, int]
    level: float
    amplitude: float
    """Highest minus lowest sky over the level."""
    gain: float
    whole: bool
    """Pixels are whole numbers of adu."""
    read_noise: float
    defect: str


def draw(seed: int, index: int) -> Draw:
    rng = np.random.default_rng([seed, index])
    sides = np.exp(rng.uniform(np.log(256), np.log(2048), 2)).astype(int)
    shape = (int(sides[0]), int(sides[1])) if rng.random() < 0.4 else (int(sides[0]), int(sides[0]))
    if rng.random() < 0.25:
        shape = (2048, 2048)
    if rng.random() < 0.03:
        shape = (4000, 4000)
    return Draw(
        index=index,
        family=str(rng.choice(FAMILIES)),
        shape=shape,
        level=float(np.exp(rng.uniform(np.log(20), np.log(50_000)))),
        amplitude=float(rng.uniform(0, 0.3)) if rng.random() < 0.9 else 0.0,
        gain=float(np.exp(rng.uniform(np.log(0.5), np.log(5)))),
        whole=bool(rng.random() < 0.6),
        read_noise=float(rng.uniform(3, 15)),
        defect=str(rng.choice(DEFECTS)),
    )


def true_sky(drawn: Draw, rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float64 of the drawn level and amplitude."""
    ny, nx = drawn.shape
    y = np.linspace(-1, 1, ny)[:, None]
    x = np.linspace(-1, 1, nx)[None, :]
    turn = rng.uniform(0, 2 * np.pi)
    tilt = np.sin(turn) * y + np.cos(turn) * x
    if drawn.family == "linear":
        relief = tilt
    elif drawn.family == "curved":
        a, b, c = rng.uniform(-0.4, 0.4, 3)
        relief = tilt + a * x * x + b * x * y + c * y * y
    elif drawn.family == "wave":
        waves = np.cos(rng.uniform(0.8, 2.5) * x + rng.uniform(0, 6)) * np.cos(rng.uniform(0.8, 2.5) * y)
        relief = tilt + rng.uniform(-0.3, 0.3) * x * y + rng.uniform(0.1, 0.5) * waves
    elif drawn.family == "hill":
        cy, cx = rng.uniform(-1.1, 1.1, 2)
        wide = rng.uniform(0.7, 1.2)
        relief = np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / wide**2)
    elif drawn.family == "moon":
        far = rng.uniform(1.6, 4.0)
        relief = 1 / ((y - far * np.sin(turn)) ** 2 + (x - far * np.cos(turn)) ** 2)
    else:
        # brighter or fainter away from a centre on the frame or off it
        cy, cx = rng.uniform(-2, 2, 2)
        relief = rng.choice([-1.0, 1.0]) * ((y - cy) ** 2 + (x - cx) ** 2)
        relief = relief + 0.1 * rng.choice([0.0, 1.0]) * tilt
    relief = relief / np.ptp(relief)
    return drawn.level * (1 + drawn.amplitude * (relief - relief.mean()))


def with_defects(image: np.ndarray, drawn: Draw, rng: np.random.Generator) -> np.ndarray:
    """Spoil some pixels in place; their mask, (ny, nx) int32, has no bit where NaN alone tells."""
    ny, nx = image.shape
    mask = np.zeros(image.shape, np.int32)
    if drawn.defect == "nan rows":
        start = int(rng.integers(ny))
        image[start : start + int(rng.integers(1, max(2, ny // 10)))] = np.nan
    elif drawn.defect == "nan patch":
        y, x = int(rng.integers(ny // 2)), int(rng.integers(nx // 2))
        image[y : y + ny // 4, x : x + nx // 4] = np.nan
    elif drawn.defect == "bad columns":
        columns = rng.integers(0, nx, 5)
        image[:, columns] *= rng.uniform(0, 3, 5).astype(np.float32)
        mask[:, columns] |= AFW_PLANES.bits("BAD")
    elif drawn.defect == "dead amplifier":
        half, eighth = int(rng.integers(2)) * (ny // 2), int(rng.integers(8)) * (nx // 8)
        part = (slice(half, half + ny // 2), slice(eighth, eighth + nx // 8))
        image[part] = 0
        mask[part] |= AFW_PLANES.bits("BAD")
    elif drawn.defect == "corner":
        y, x = np.ogrid[:ny, :nx]
        dark = np.hypot(y / ny, x / nx) < rng.uniform(0.2, 0.45)
        image[dark] *= 0.3
        mask[dark] |= AFW_PLANES.bits("VIGNETTED")
    return mask


@dataclass(frozen=True, kw_only=True)
class Result:
    drawn: Draw
    rms: float
    plain_rms: float
    fit_noise: float
    """What noise alone moves a fit by, rms."""
    unfollowed: float
    """Rms by which a fit without noise misses the sky."""
    mean: float
    mean_error: float
    masked: float
    pull: float
    flags: tuple[str, ...]
    seconds: float

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the rules that this draw breaks."""
        most = 2.5 if self.unfollowed > self.fit_noise else 1.8
        rules = {
            "rms": self.rms <= 1.5 * self.plain_rms + 0.3 * self.fit_noise,
            "level": abs(self.mean) <= 3 * self.mean_error,
            "masked": self.masked < 0.03,
            "pull_low": self.pull >= 0.5,
            "pull_high": self.pull <= most,
        }
        return tuple(name for name, holds in rules.items() if not holds)

    def __str__(self) -> str:
        d = self.drawn
        what = f"{d.index:4d} {d.family:10s} {d.shape[0]:4d}x{d.shape[1]:<4d} {d.level:7.0f}"
        what += f" {d.amplitude:5.3f} g{d.gain:<4.2f}{'w' if d.whole else ' '} {d.defect:14s}"
        what += f" rms {self.rms:8.3f} plain {self.plain_rms:7.3f} order {self.unfollowed:7.3f}"
        what += f" mean {self.mean:+8.3f} +- {self.mean_error:6.3f} masked {self.masked:5.3f}"
        return f"{what} pull {self.pull:5.2f} {','.join(self.broken)} [{' '.join(self.flags)}]"


def measure(seed: int, index: int) -> Result:
    drawn = draw(seed, index)
    rng = np.random.default_rng([seed, index, 1])
    sky = true_sky(drawn, rng)
    electrons = rng.poisson(sky) + rng.normal(0, drawn.read_noise, drawn.shape)
    adu = electrons / drawn.gain
    image = np.ascontiguousarray(np.rint(adu) if drawn.whole else adu, np.float32)
    mask = with_defects(image, drawn, rng)
    visit_image = skysub.VisitImage(
        image=image,
        mask=mask,
        planes=AFW_PLANES,
        variance=((sky + drawn.read_noise**2) / drawn.gain**2).astype(np.float32),
        unit="adu",
        visit=1,
        detector=1,
        band="r",
        gain=drawn.gain,
        read_noise=drawn.read_noise,
    )
    config = dataclasses.replace(skysub.CalibrateImageConfig.named("default"), cosmic_rays=None, psf=None)
    started = time.process_time()
    found = skysub.calibrate_image(visit_image, config)
    seconds = time.process_time() - started
    layer = found.preliminary_visit_image_background[-1]
    good = (mask == 0) & np.isfinite(image)
    same = config.sky.for_shape(drawn.shape).background
    plain = skysub.fit_background(image, mask != 0, same)
    truth = (sky / drawn.gain).astype(np.float32)
    exact = skysub.fit_background(truth, None, dataclasses.replace(same, weighting=False))
    error = (found.preliminary_visit_image_background.evaluate() - truth)[good] * drawn.gain
    deviation = found.preliminary_visit_image_background.uncertainty()[good] * drawn.gain
    noise = float(np.sqrt(drawn.level + drawn.read_noise**2))
    result = found.preliminary_visit_image
    return Result(
        drawn=drawn,
        rms=float(error.std(dtype=np.float64)),
        plain_rms=float((plain.evaluate() - truth)[good].std(dtype=np.float64)) * drawn.gain,
        fit_noise=noise * float(np.sqrt(len(degrees(same.order)) / good.sum())),
        unfollowed=float((exact.evaluate() - truth)[good].std(dtype=np.float64)) * drawn.gain,
        mean=float(error.mean(dtype=np.float64)),
        mean_error=drawn.gain * mean_error(layer, good),
        masked=float(((result.mask & result.planes.bits("DETECTED")) != 0)[good].mean()),
        pull=float(np.sqrt(np.mean((error.astype(np.float64) / deviation) ** 2))),
        flags=tuple(found.flags),
        seconds=seconds,
    )


def mean_error(layer: skysub.Background, good: np.ndarray) -> float:
    """Standard deviation of the model's mean over the good pixels, by the model's own covariance."""
    ny, nx = good.shape
    y, x = np.nonzero(good[4::8, 4::8])
    terms = design_matrix(8.0 * x + 4, 8.0 * y + 4, shape=(ny, nx), order=layer.order).mean(axis=0)
    return float(np.sqrt(np.einsum("i,ij,j->", terms, layer.covariance, terms)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="indices of draws, separated by commas")
    parser.add_argument("--all", action="store_true", help="a line for draws that break no rule as well")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    indices = [int(i) for i in arguments.only.split(",")] if arguments.only else range(arguments.draws)
    broken, families, seconds, pulls = Counter(), Counter(), 0.0, []
    with ProcessPoolExecutor(arguments.processes) as pool:
        for result in pool.map(measure, [arguments.seed] * len(indices), indices):
            broken.update(result.broken)
            families.update([result.drawn.family] if result.broken else [])
            seconds += result.seconds
            pulls.append(result.pull)
            if result.broken or arguments.all:
                print(result, flush=True)
    print(f"{families.total()} of {len(indices)} draws break a rule: {dict(broken)}")
    print(f"by family: {dict(families)}")
    print(f"pull: median {np.median(pulls):.2f}, 5 to 95 % {np.percentile(pulls, [5, 95]).round(2).tolist()}")
    print(f"calibrate_image took {seconds / len(indices):.2f} s of processor per draw")


if __name__ == "__main__":
    main()
