"""The planes that make up the true sky, electron per pixel."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from skysub.simulation import kernels
from skysub.simulation.observation import FIELD_RADIUS
from skysub.simulation.scene import BANDS, PIXEL_SCALE
from skysub.simulation.seeds import random_stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.simulation.observation import Observation
    from skysub.simulation.scene import Cirrus, Scene

__all__ = ["FAINTEST_FLAT", "SKY_PLANES", "amplifier_edges", "light_kept", "sky_planes"]

SKY_PLANES = (
    "airglow",
    "moonlight",
    "scattered",
    "fringes",
    "vignetting",
    "cirrus",
    "amplifiers",
    "detector_offset",
)
"""The components of the sky, in the order in which they add up."""

FAINTEST_FLAT = 0.05
"""A flat field never divides by less than this."""
CELL = 4200
"""Edge of the cells of the focal plane that hold ghosts, pixel."""
CIRRUS_CELLS = 2048
CIRRUS_CELL = 32
"""The field of cirrus: cells along an edge, and their size in pixels; it repeats after 3.6 degrees."""


def sky_planes(scene: Scene, seen: Observation, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Every component of the sky over one detector.

    Returns
    -------
    planes
        (ny, nx) float32 each, electron per pixel, multiples of 1/1024; keys are `SKY_PLANES`. A
        component that is the same everywhere is a read-only view of one number.
    """
    kept = light_kept(scene, seen)
    makers = {
        "airglow": _airglow,
        "moonlight": _moonlight,
        "scattered": _scattered,
        "fringes": _fringes,
        "cirrus": _cirrus,
        "amplifiers": _amplifiers,
    }
    planes = {name: make(scene, seen, seed) for name, make in makers.items()}
    planes["vignetting"] = _constant(0.0, seen.shape)
    if kept is not None:
        planes["vignetting"] = ((kept - 1) * np.float32(scene.vignetting.flat_error * seen.sky_level)).astype(
            np.float32
        )
        kernels.rounded(planes["vignetting"])
    random = random_stream(seed, "detector_offset", seen.visit, seen.detector)
    offset = scene.electronics.detector_offset * random.standard_normal()
    planes["detector_offset"] = _constant(offset, seen.shape)
    return {name: planes[name] for name in SKY_PLANES}


def light_kept(scene: Scene, seen: Observation) -> NDArray[np.float32] | None:
    """Light that vignetting leaves, (ny, nx) float32 from 0 to 1; None where nothing is lost."""
    if scene.vignetting.depth == 0:
        return None
    kept = np.empty(seen.shape, np.float32)
    start = scene.vignetting.start * 3600 / PIXEL_SCALE
    kernels.transmission(seen.x0, seen.y0, start, FIELD_RADIUS, scene.vignetting.depth, kept)
    return kept


def amplifier_edges(shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges in y and x of the 2 x 8 amplifiers of a detector."""
    ny, nx = shape
    return np.array([0, ny // 2, ny]), np.arange(9) * nx // 8


def _constant(value: float, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.broadcast_to(np.float32(np.rint(value * 1024) / 1024), shape)


def _airglow(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    glow, level = scene.airglow, seen.sky_level
    random = random_stream(seed, "airglow", seen.visit)
    level *= 1 + 0.05 * random.standard_normal()
    angle, wave_angle, phase = random.uniform(0, 2 * math.pi, 3)
    half = 0.5 * glow.gradient * level
    terms = np.array([level, half * math.cos(angle), half * math.sin(angle), 0.0, 0.0, 0.0])
    k = 2 * math.pi / (glow.wave_length * 3600 / PIXEL_SCALE)
    out = np.empty(seen.shape, np.float32)
    kernels.polynomial_and_wave(
        seen.x0,
        seen.y0,
        FIELD_RADIUS,
        terms,
        k * math.cos(wave_angle),
        k * math.sin(wave_angle),
        phase,
        glow.wave * level,
        out,
    )
    return out


def _moonlight(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    moon, level = scene.moonlight, seen.sky_level
    if moon.level == 0 and moon.gradient == 0:
        return _constant(0.0, seen.shape)
    angle = random_stream(seed, "moonlight", seen.visit).uniform(0, 2 * math.pi)
    c, s = math.cos(angle), math.sin(angle)
    half, curvature = 0.5 * moon.gradient * level, moon.curvature * level
    terms = np.array([
        moon.level * level,
        half * c,
        half * s,
        curvature * c * c,
        2 * curvature * c * s,
        curvature * s * s,
    ])  # fmt: skip
    out = np.empty(seen.shape, np.float32)
    kernels.polynomial_and_wave(seen.x0, seen.y0, FIELD_RADIUS, terms, 0.0, 0.0, 0.0, 0.0, out)
    return out


def _scattered(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    light = scene.scattered
    if light.ghosts == 0 and light.wedges == 0:
        return _constant(0.0, seen.shape)
    out = np.zeros(seen.shape, np.float32)
    ny, nx = seen.shape
    reach = light.radius[1] + light.edge
    cells_x = range(math.floor((seen.x0 - reach) / CELL), math.floor((seen.x0 + nx + reach) / CELL) + 1)
    cells_y = range(math.floor((seen.y0 - reach) / CELL), math.floor((seen.y0 + ny + reach) / CELL) + 1)
    for cell_y in cells_y:
        for cell_x in cells_x:
            random = random_stream(seed, "scattered", seen.visit, cell_y, cell_x)
            for kind, count in (
                ("ghost", random.poisson(light.ghosts)),
                ("wedge", random.poisson(light.wedges)),
            ):
                for _ in range(count):
                    x = (cell_x + random.random()) * CELL - seen.x0
                    y = (cell_y + random.random()) * CELL - seen.y0
                    radius = random.uniform(*light.radius)
                    level = seen.sky_level * light.faintest
                    level *= (light.brightest / light.faintest) ** random.random()
                    angle, shape = random.uniform(0, 2 * math.pi), random.random()
                    if kind == "ghost":
                        # the shadow of LSST's secondary leaves a hole of some 0.6 of the pupil
                        inner = radius * (0.5 + 0.2 * shape)
                        kernels.add_ghost(x, y, radius, inner, level, light.edge, out)
                    else:
                        opening = math.radians(3 + 17 * shape)
                        kernels.add_wedge(x, y, radius, angle, opening, level, light.edge, out)
    kernels.rounded(out)
    return out


def _fringes(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    if scene.fringes.amplitude == 0 or not BANDS[seen.band].fringing:
        return _constant(0.0, seen.shape)
    pattern = random_stream(seed, "fringes", seen.detector)
    strength = 1 + 0.2 * random_stream(seed, "fringe strength", seen.visit).standard_normal()
    turns = 2 * math.pi * 4000 / scene.fringes.period
    angle = pattern.uniform(0, 2 * math.pi)
    terms = np.array([
        turns * math.cos(angle),
        turns * math.sin(angle),
        *(turns * pattern.uniform(-0.5, 0.5, 3)),
        *(turns * pattern.uniform(-0.3, 0.3, 2)),
    ])  # fmt: skip
    out = np.empty(seen.shape, np.float32)
    kernels.fringe_pattern(terms, scene.fringes.amplitude * seen.sky_level * max(strength, 0.2), out)
    return out


def _cirrus(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    brightness = scene.cirrus.surface_brightness
    if brightness is None:
        return _constant(0.0, seen.shape)
    field = _cirrus_field(scene.cirrus, seed)
    u0, v0 = seen.sky_of_pixel(0.0, 0.0)
    c, s = math.cos(seen.rotation) / CIRRUS_CELL, math.sin(seen.rotation) / CIRRUS_CELL
    out = np.empty(seen.shape, np.float32)
    level = seen.surface_brightness(brightness)
    kernels.spline_surface(field, u0 / CIRRUS_CELL, v0 / CIRRUS_CELL, c, -s, s, c, level, out)
    return out


@functools.lru_cache(maxsize=1)
def _cirrus_field(cirrus: Cirrus, seed: int) -> NDArray[np.float32]:
    """Periodic field of mean 1, a cell of `CIRRUS_CELL` pixels per element; never negative."""
    n = CIRRUS_CELLS
    white = random_stream(seed, "cirrus").standard_normal((n, n), dtype=np.float32)
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    outer = CIRRUS_CELL * PIXEL_SCALE / 3600 / cirrus.outer_scale
    modes = np.fft.rfft2(white) * (k**2 + outer**2) ** (cirrus.index / 4)
    modes[0, 0] = 0
    field = np.fft.irfft2(modes, s=(n, n))
    field *= cirrus.contrast / np.std(field)
    return np.maximum(1 + field, 0).astype(np.float32)


def _amplifiers(scene: Scene, seen: Observation, seed: int) -> NDArray[np.float32]:
    electronics = scene.electronics
    if electronics.amplifier_pedestal == 0 and electronics.amplifier_gain == 0:
        return _constant(0.0, seen.shape)
    # gains stay with the detector, pedestals drift from visit to visit
    gain = random_stream(seed, "amplifier_gain", seen.detector).standard_normal((2, 8))
    pedestal = random_stream(seed, "amplifier_pedestal", seen.visit, seen.detector).standard_normal((2, 8))
    level = (1 + scene.moonlight.level) * seen.sky_level
    steps = electronics.amplifier_pedestal * pedestal + electronics.amplifier_gain * level * gain
    y_edges, x_edges = amplifier_edges(seen.shape)
    steps = np.rint(steps * 1024) / 1024
    rows = np.repeat(steps.astype(np.float32), np.diff(x_edges), axis=1)
    return np.repeat(rows, np.diff(y_edges), axis=0)
