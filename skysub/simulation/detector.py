"""One detector of one visit, as it comes out of instrument signature removal, with its truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.amplifiers import Amplifier
from skysub.simulation import kernels
from skysub.simulation.observation import observe
from skysub.simulation.seeds import random_stream
from skysub.simulation.sky import FAINTEST_FLAT, amplifier_edges, light_kept, sky_planes
from skysub.simulation.sources import catalog, paint_aureoles, paint_sources
from skysub.simulation.truth import Truth
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.simulation.observation import Observation
    from skysub.simulation.scene import Scene

__all__ = ["simulate_detector"]

FULL_AREA = 4000 * 4072
POISSON_BELOW = 50.0
"""Below this many electrons noise is drawn from the Poisson distribution itself."""


def simulate_detector(
    scene: Scene,
    visit: int,
    detector: int,
    *,
    seed: int,
    shape: tuple[int, int] = (4000, 4072),
    band: str | None = None,
) -> tuple[VisitImage, Truth]:
    """Make one detector of one visit.

    Every component has a random stream of its own (`skysub.simulation.seeds`): what is on the sky
    stays there from visit to visit, airglow, moonlight and ghosts are drawn per visit over the whole
    focal plane and join at the edges of detectors, fringes and bad columns belong to the detector,
    noise and cosmic rays to both.

    Parameters
    ----------
    scene
        What to show; `named_scene` has some.
    visit, detector
        Numbers, 0 or more. Detectors lie in a spiral about the optical axis.
    seed
        Seed of everything; the same arguments give the same bits in any process.
    shape
        (ny, nx), pixel.
    band
        One of u, g, r, i, z, y; the scene's own by default.

    Returns
    -------
    visit_image
        Image and variance (of the noisy image, as instrument signature removal makes it) in electron,
        planes BAD, SAT and NO_DATA in the mask, WCS and calibration. Cosmic rays are in the pixels but
        not in the mask: nobody has looked for them yet.
    truth
        The same detector without noise, component by component.

    Raises
    ------
    ConfigError
        When a number is negative, the shape too small, or the band is not LSST's.
    """
    seen = observe(scene, visit, detector, seed=seed, shape=shape, band=band or scene.band)
    planes = sky_planes(scene, seen, seed=seed)
    kept = light_kept(scene, seen)
    sources = catalog(scene, seen, seed=seed)
    planes["sources"] = paint_sources(sources[sources["detected"]], seen, stars=scene.stars)
    planes["faint_sources"] = paint_sources(sources[~sources["detected"]], seen, stars=scene.stars)
    planes["aureoles"] = paint_aureoles(sources, seen, stars=scene.stars)
    planes["cosmic_rays"] = _cosmic_rays(scene, seen, seed)

    expected = np.zeros(seen.shape, np.float32)
    for name, plane in planes.items():
        if name != "cosmic_rays" and (any(plane.strides) or plane.flat[0] != 0):
            expected += plane
    image, variance = _expose(expected, seen, kept, seed)
    image += planes["cosmic_rays"]
    saturated = np.zeros(seen.shape, np.bool_)
    y_edges, _ = amplifier_edges(seen.shape)
    kernels.bleed(image, scene.electronics.saturation, int(y_edges[1]), saturated)
    bad = _spoil_columns(image, scene, seen, seed)
    # variance as made from pixels with their noise, not from the truth
    variance += np.maximum(image, 0)

    mask = np.zeros(seen.shape, np.int32)
    mask[bad] |= AFW_PLANES.bits("BAD")
    mask[saturated] |= AFW_PLANES.bits("SAT")
    unusable = bad | saturated
    if kept is not None:
        dark = kept < scene.vignetting.masked_below
        mask[dark] |= AFW_PLANES.bits("NO_DATA")
        mask[kept < 1] |= AFW_PLANES.bits("VIGNETTED")
        unusable |= dark
    truth = Truth(scene=scene, seed=seed, observation=seen, planes=planes, catalog=sources, unusable=unusable)
    return (
        VisitImage(
            image=image,
            mask=mask,
            planes=AFW_PLANES,
            variance=variance,
            unit="electron",
            wcs=seen.wcs(),
            photo_calib=10 ** (0.4 * (31.4 - seen.zero_point)),
            visit=visit,
            detector=detector,
            band=seen.band,
            exposure_time=seen.exposure_time,
            gain=1.0,
            read_noise=seen.read_noise,
            amplifiers=_amplifiers(seen.shape),
        ),
        truth,
    )


def _amplifiers(shape: tuple[int, int]) -> tuple[Amplifier, ...]:
    """The 2 x 8 amplifiers, by the names that LSST gives them."""
    y, x = amplifier_edges(shape)
    return tuple(
        Amplifier(f"C{1 - j}{i}", y=(int(y[j]), int(y[j + 1])), x=(int(x[i]), int(x[i + 1])))
        for j in range(2)
        for i in range(8)
    )


def _expose(
    expected: NDArray[np.float32], seen: Observation, kept: NDArray[np.float32] | None, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image with noise, and the variance that its own pixels do not tell.

    Above 50 electrons noise is a Cornish-Fisher expansion of the Poisson distribution about a normal
    (Abramowitz & Stegun 26.2.49): its mean is exact, its variance right to 1e-6, its skewness to 0.2 %.
    Without the skewness a clipped mean would look unbiased.
    """
    random = random_stream(seed, "noise", seen.visit, seen.detector)
    light = expected
    if kept is not None:
        share = np.maximum(kept, np.float32(FAINTEST_FLAT))
        light = expected * share
    z = random.standard_normal(seen.shape, dtype=np.float32)
    read = random.standard_normal(seen.shape, dtype=np.float32)
    read *= np.float32(seen.read_noise)
    image = np.empty(seen.shape, np.float32)
    kernels.add_noise(light, z, read, image)
    few = light < POISSON_BELOW
    if few.any():
        image[few] = random.poisson(np.maximum(light[few], 0)) + read[few]
    variance = np.full(seen.shape, seen.read_noise**2, np.float32)
    if kept is not None:
        image /= share
        variance /= share**2
        # a flat field raises the noise of the light it amplifies as well
        variance += np.maximum(image, 0) * (1 / share - 1)
    return image, variance


def _cosmic_rays(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    out = np.zeros(seen.shape, np.float32)
    random = random_stream(seed, "cosmic_rays", seen.visit, seen.detector)
    ny, nx = seen.shape
    mean = scene.defects.cosmic_rays * ny * nx / FULL_AREA * seen.exposure_time / 30
    for _ in range(random.poisson(mean)):
        angle = random.uniform(0, 2 * np.pi)
        # a steep tail of grazing tracks; 80 electrons per micron of silicon, 10 micron to a pixel
        length = min(random.pareto(1.0) * 4, 400.0)
        charge = 80 * np.hypot(100.0, 10 * length) * random.lognormal(0, 0.3)
        y, x = random.random(2) * (ny, nx)
        kernels.add_track(x, y, np.cos(angle), np.sin(angle), length, charge, out)
    kernels.rounded(out)
    return out


def _spoil_columns(
    image: NDArray[np.float32], scene: Scene, seen: Observation, seed: int
) -> NDArray[np.bool_]:
    """Bad columns run from somewhere to the end of their half; half of them are dead, half are hot."""
    bad = np.zeros(seen.shape, np.bool_)
    random = random_stream(seed, "bad_columns", seen.detector)
    ny, nx = seen.shape
    for _ in range(round(scene.defects.bad_columns * ny * nx / FULL_AREA + random.random() / 2)):
        x, width = int(random.integers(nx)), int(random.integers(1, 4))
        start = int(random.integers(ny // 2))
        rows = slice(start, ny // 2) if random.random() < 0.5 else slice(ny // 2, ny - start)
        factor, extra = (0.05, 0.0) if random.random() < 0.5 else (1.0, 3000.0)
        image[rows, x : x + width] *= np.float32(factor)
        image[rows, x : x + width] += np.float32(extra)
        bad[rows, x : x + width] = True
    return bad
