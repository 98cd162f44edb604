"""How completely, purely and rightly sources are measured, beside sep: one table of scenes with known truth.

    python benchmarks/source_measurement.py                                     # full size, three seeds
    python benchmarks/source_measurement.py --shape 2000x2000 --seeds 1,2 --skies true
    python benchmarks/source_measurement.py --foreign lumpy,plain --shape 1500x1500

A source is matched to the nearest one within 2.5 pixels, bright ones first. Completeness is by flux over the
limit, five times the noise under the source's own light; purity counts any true source above one such noise.
The true sky holds the mean light of sources below the limit, which photometry wants taken off. With ``own``
the sky and the PSF are those of `skysub.calibrate_image`.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sep
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

import skysub
from skysub.measurement import MeasurementConfig, measure_sources
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene
from skysub.visit.planes import AFW_PLANES

NEAR, EDGE = 2.5, 20
STAR_BINS = ((1, 1.4), (1.4, 2.5), (2.5, 5), (5, 20), (20, 1000))
GALAXY_BINS = ((3, 6), (6, 20), (20, 100))
APERTURE = 9.0


class MoffatBeta3:
    """The simulator's own PSF, of sum 1 over its stamp."""

    def __init__(self, scale: float, size: int = 41) -> None:
        self.scale, self.size = scale, size

    def stamps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        i = np.arange(self.size) - self.size // 2
        dy, dx = (i[None, :] - (v - np.round(v))[:, None] for v in (y, x))
        p = (1 + (dy[:, :, None] ** 2 + dx[:, None, :] ** 2) / self.scale**2) ** -3
        return p / p.sum((1, 2), keepdims=True)

    @property
    def share(self) -> float:
        """Part of a star's light that the stamp holds."""
        i = np.arange(self.size) - self.size // 2
        p = (1 + (i[:, None] ** 2 + i**2) / self.scale**2) ** -3
        return float(p.sum() * 2 / (np.pi * self.scale**2))


@dataclass(frozen=True)
class Case:
    name: str
    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    psf: object
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    is_star: np.ndarray
    signal: np.ndarray
    """Flux over the noise under the source's own light."""
    share: float
    """Part of a star's light that the PSF's stamp holds; NaN where it is not known."""


@dataclass(frozen=True)
class Answer:
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    x_error: np.ndarray
    kron: np.ndarray
    sky: float
    """Mean of the sky sources in units of their errors."""
    seconds: float


def own_scene(name: str, seed: int, shape: tuple[int, int], sky: str) -> Case:
    scene = named_scene(name)
    visit_image, truth = simulate_detector(scene, 1, 1, seed=seed, shape=shape)
    planes = {k: np.asarray(v, np.float32) for k, v in truth.planes.items()}
    mask = visit_image.mask.copy()
    mask[planes["cosmic_rays"] > 0] |= AFW_PLANES.bits("CR")
    seen, catalog = truth.observation, truth.catalog
    psf: object = MoffatBeta3(seen.psf_scale)
    share = MoffatBeta3(seen.psf_scale).share * (1 - scene.stars.aureole)
    if sky == "true":
        left_out = {"sources", "faint_sources", "cosmic_rays"}
        image = visit_image.image - sum(v for k, v in planes.items() if k not in left_out)
        image -= gaussian_filter(planes["faint_sources"], 64)
    else:
        result = skysub.calibrate_image(visit_image)
        image, psf, share = result.preliminary_visit_image.image, result.psf, float("nan")
    area = seen.psf_area + 4 * np.pi * catalog["radius"] ** 2
    return Case(
        name=f"{name} seed {seed} {sky}",
        image=np.ascontiguousarray(image, np.float32),
        variance=visit_image.variance,
        mask=mask,
        psf=psf,
        x=catalog["x"],
        y=catalog["y"],
        flux=catalog["flux"],
        is_star=catalog["radius"] == 0,
        signal=catalog["flux"] / np.sqrt(area * seen.pixel_variance),
        share=share,
    )


def foreign_scene(name: str, seed: int, shape: tuple[int, int]) -> Case:
    from foreign import detector, scenes, sources
    from foreign.kinds import stream

    scene = scenes.make_scene(name, seed, shape)
    kind = scene.kind
    catalog = sources.draw_catalogue(kind, shape, stream(name, "A", seed, "catalogue"))
    result = skysub.calibrate_image(scene.visit_image)
    sigma = kind.fwhm / 2.355
    area = 4 * np.pi * (1.15 * sigma) ** 2 + 4 * np.pi * catalog.radius**2
    return Case(
        name=f"{name} (foreign) seed {seed}",
        image=result.preliminary_visit_image.image,
        variance=scene.visit_image.variance,
        mask=result.preliminary_visit_image.mask,
        psf=result.psf,
        x=catalog.x,
        y=catalog.y,
        flux=catalog.flux / scene.electrons,
        is_star=catalog.radius == 0,
        signal=catalog.flux / (detector.noise_of(kind) * np.sqrt(area)),
        share=float("nan"),
    )


def with_skysub(case: Case, threads: int) -> Answer:
    config = MeasurementConfig(threads=threads)
    start = time.process_time() if threads == 1 else time.perf_counter()
    measured = measure_sources(case.image, case.variance, case.mask, AFW_PLANES, case.psf, config)
    seconds = (time.process_time() if threads == 1 else time.perf_counter()) - start
    c = measured.columns
    p, empty = c["isPrimary"], c["sky_source"]
    pulls = c["ap09Flux"][empty] / c["ap09FluxErr"][empty]
    names = ("x", "y", "psfFlux", "psfFluxErr", "xErr", "kronFlux")
    return Answer(*(c[n][p] for n in names), float(np.nanmean(pulls)) if empty.any() else np.nan, seconds)


def with_sep(case: Case) -> Answer:
    middle = np.array([case.image.shape[1] // 2 + 0.0]), np.array([case.image.shape[0] // 2 + 0.0])
    kernel = case.psf.stamps(x=middle[0], y=middle[1])[0]
    half = len(kernel) // 2
    kernel = kernel[half - 6 : half + 7, half - 6 : half + 7]
    start = time.process_time()
    sep.set_extract_pixstack(10**7)
    sep.set_sub_object_limit(10**5)
    bad = (case.mask & AFW_PLANES.bits("BAD", "NO_DATA", "CR")) != 0
    error = np.sqrt(case.variance)
    found = sep.extract(
        case.image, 5.0, err=error, mask=bad, minarea=1, filter_kernel=kernel, deblend_cont=1e-3
    )
    for radius in (3, 4.5, 6, 9, 12, 17, 25, 35, 50, 70):
        flux, flux_error, _ = sep.sum_circle(case.image, found["x"], found["y"], radius, err=error, mask=bad)
        if radius == APERTURE:
            kept = flux, flux_error
    good = (found["a"] > 0) & (found["b"] > 0) & (found["theta"] <= np.pi / 2)
    kron = np.full(len(found), np.nan)
    shape = (found["a"][good], found["b"][good], found["theta"][good])
    at = found["x"][good], found["y"][good]
    radius, _ = sep.kron_radius(case.image, *at, *shape, 6.0, mask=bad)
    radius = np.where(np.isfinite(radius), np.clip(radius, 1.0, 10.0), 1.0)
    kron[good], _, _ = sep.sum_ellipse(case.image, *at, *shape, 2.5 * radius, err=error, mask=bad)
    seconds = time.process_time() - start
    return Answer(found["x"], found["y"], *kept, np.sqrt(found["errx2"]), kron, np.nan, seconds)


def score(case: Case, answer: Answer) -> list[str]:
    ny, nx = case.image.shape
    column, row = (np.clip(np.rint(v), 0, n - 1).astype(int) for v, n in ((case.x, nx), (case.y, ny)))
    seen = (case.x > EDGE) & (case.x < nx - EDGE) & (case.y > EDGE) & (case.y < ny - EDGE)
    seen &= case.mask[row, column] == 0
    places = np.column_stack([answer.x, answer.y])
    inside = ((places > EDGE) & (places < (nx - EDGE, ny - EDGE))).all(axis=1)
    any_true = cKDTree(np.column_stack([case.x, case.y])[case.signal > 1])
    pure = any_true.query(places[inside])[0] < NEAR
    match = matched(case, places)
    cells = [f"{pure.mean():.3f}"]
    limits = case.signal / 5
    for chosen, bins in ((case.is_star, STAR_BINS[:3]), (~case.is_star, GALAXY_BINS)):
        for low, high in bins:
            these = chosen & seen & (limits >= low) & (limits < high)
            cells.append(f"{(match[these] >= 0).mean():.3f}" if these.any() else "-")
    stars = case.is_star & seen & (limits >= 3) & (limits < 200) & (match >= 0)
    found = match[stars]
    true = case.flux[stars] * (1 if np.isnan(case.share) else case.share)
    ratio = answer.flux[found] / true
    if np.isnan(case.share):
        # the PSF of an image is of sum 1 over its stamp: bright stars tell which part of all light that is
        bright = limits[stars] > 20
        scale = np.median(ratio[bright]) if bright.sum() > 5 else np.median(ratio)
        true, ratio = true * scale, ratio / scale
    pull = (answer.flux[found] - true) / answer.error[found]
    moved = (answer.x[found] - case.x[stars]) / answer.x_error[found]
    cells += [f"{100 * (np.median(ratio) - 1):+.2f}", f"{spread(pull):.2f}", f"{spread(moved):.2f}"]
    for low, high in GALAXY_BINS:
        these = ~case.is_star & seen & (limits >= low) & (limits < high) & (match >= 0)
        kron = answer.kron[match[these]] / case.flux[these]
        kron = kron[np.isfinite(kron)]
        cells.append(f"{np.median(kron):.3f} / {np.std(np.clip(kron, 0, 2)):.2f}" if len(kron) else "-")
    cells += [f"{answer.sky:+.3f}", f"{answer.seconds / case.image.size * 1.6e7:.1f}"]
    return cells


def matched(case: Case, places: np.ndarray) -> np.ndarray:
    """Index of the source that each true one is matched to, or -1."""
    tree, taken = cKDTree(places), np.zeros(len(places), bool)
    match = np.full(len(case.x), -1)
    for i in np.argsort(-case.flux):
        if case.signal[i] < 2.5:
            continue
        here = np.array([case.x[i], case.y[i]])
        near = [j for j in tree.query_ball_point(here, NEAR) if not taken[j]]
        if near:
            match[i] = min(near, key=lambda j: float(np.hypot(*(places[j] - here))))
            taken[match[i]] = True
    return match


def spread(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.diff(np.percentile(values, [15.87, 84.13]))[0] / 2) if len(values) else float("nan")


HEAD = (
    "scene",
    "method",
    "pure",
    *(f"stars {a}-{b}" for a, b in STAR_BINS[:3]),
    *(f"galaxies {a}-{b}" for a, b in GALAXY_BINS),
    "bias %",
    "flux pull",
    "x pull",
    *(f"Kron {a}-{b}" for a, b in GALAXY_BINS),
    "sky / sigma",
    "s",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", default="4000x4072")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--scenes", default="quiet,crowded:29")
    parser.add_argument("--foreign", default="")
    parser.add_argument("--skies", default="true,own")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    ny, nx = (int(n) for n in options.shape.split("x"))
    seeds = [int(s) for s in options.seeds.split(",")]
    small = simulate_detector(named_scene("quiet"), 1, 1, seed=1, shape=(300, 300))[0]
    measure_sources(small.image - 877, small.variance, small.mask, AFW_PLANES, MoffatBeta3(3.9))
    print("| " + " | ".join(HEAD) + " |")
    print("| " + " | ".join("---" for _ in HEAD) + " |", flush=True)
    makers = [
        lambda seed, name=name, sky=sky: own_scene(name, seed, (ny, nx), sky)
        for name in options.scenes.split(",")
        for sky in options.skies.split(",")
        if name
    ]
    makers += [
        lambda seed, name=name: foreign_scene(name, seed, (ny, nx))
        for name in options.foreign.split(",")
        if name
    ]
    for make in makers:
        for seed in seeds:
            case = make(seed)
            for method, answer in (("skysub", with_skysub(case, options.threads)), ("sep", with_sep(case))):
                print("| " + " | ".join([case.name, method, *score(case, answer)]) + " |", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
