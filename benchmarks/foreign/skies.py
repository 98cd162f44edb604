"""True skies: what a perfect background would subtract, electron per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from foreign.kinds import Kind

__all__ = ["amplifier_boxes", "light_of_sky", "pedestals", "power_law_field"]


def light_of_sky(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float64 sky as light, before vignetting and without offsets of electronics."""
    relief = _RELIEFS[kind.shape](shape, rng)
    relief = (relief - relief.mean()) / np.ptp(relief)
    sky = kind.sky * (1 + kind.gradient * relief)
    if kind.fringes:
        sky += kind.sky * kind.fringes * _fringes(shape, rng)
    if kind.ghosts:
        sky += kind.sky * kind.ghosts * _rings(shape, rng)
    return sky


def pedestals(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float64 offsets of the electronics: steps between amplifiers, and bands of rows in each."""
    offsets = np.zeros(shape)
    boxes = amplifier_boxes(kind, shape)
    common = _bands(shape[0], rng)
    for k, (rows, columns) in enumerate(boxes):
        if kind.steps:
            # two amplifiers differ by the step itself, many by it on the average
            step = kind.steps * (k - 0.5) if len(boxes) == 2 else rng.normal(0, kind.steps / np.sqrt(2))
            offsets[rows, columns] += step
        if kind.rows:
            own = 0.75 * common + 0.66 * _bands(shape[0], rng)
            offsets[rows, columns] += kind.rows * own[rows, None]
    return offsets


def amplifier_boxes(kind: Kind, shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of each amplifier."""
    y_edges = np.linspace(0, shape[0], kind.amplifiers[0] + 1).astype(int)
    x_edges = np.linspace(0, shape[1], kind.amplifiers[1] + 1).astype(int)
    return [
        (slice(y_edges[j], y_edges[j + 1]), slice(x_edges[i], x_edges[i + 1]))
        for j in range(kind.amplifiers[0])
        for i in range(kind.amplifiers[1])
    ]


def power_law_field(shape: tuple[int, int], exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Normal field with a power spectrum k^exponent, cut from one twice as large; mean 0, rms 1."""
    ny, nx = (2 * n for n in shape)
    ky = np.fft.fftfreq(ny)[:, None]
    kx = np.fft.rfftfreq(nx)[None, :]
    k = np.hypot(ky, kx)
    k[0, 0] = np.inf
    amplitude = k ** (exponent / 2)
    white = np.fft.rfft2(rng.standard_normal((ny, nx), dtype=np.float32))
    field = np.fft.irfft2(white * amplitude, s=(ny, nx))[: shape[0], : shape[1]]
    field -= field.mean()
    return field / field.std()


def _axes(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """y and x from -1 to 1 over the longer axis."""
    half = max(shape) / 2
    y = (np.arange(shape[0]) + 0.5 - shape[0] / 2) / half
    x = (np.arange(shape[1]) + 0.5 - shape[1] / 2) / half
    return y[:, None], x[None, :]


def _linear(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = _axes(shape)
    angle = rng.uniform(0, 2 * np.pi)
    return y * np.sin(angle) + x * np.cos(angle)


def _mixed(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = _axes(shape)
    bend = rng.normal(0, 0.25, 3)
    wave = 0.12 * np.cos(rng.uniform(1.0, 2.2) * x + rng.uniform(1.0, 2.2) * y + rng.uniform(0, 6))
    return _linear(shape, rng) + bend[0] * x * x + bend[1] * x * y + bend[2] * y * y + wave


def _hill(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = _axes(shape)
    cy, cx = rng.uniform(-0.9, 0.9, 2)
    return np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / rng.uniform(0.8, 1.2) ** 2)


def _moon(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = _axes(shape)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.8, 2.6)
    return 1 / ((y - distance * np.sin(angle)) ** 2 + (x - distance * np.cos(angle)) ** 2)


def _two_moons(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Two lights of unlike brightness beyond two sides of the frame, as the Moon and a lit dome give."""
    return _moon(shape, rng) + rng.uniform(0.3, 0.8) * _moon(shape, rng)


def _twilight(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Falls exponentially across the frame, and bends."""
    y, x = _axes(shape)
    bend = rng.normal(0, 0.15)
    return np.exp(rng.uniform(0.6, 1.6) * _linear(shape, rng)) * (1 + bend * x * y)


def _dome(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Illumination that falls from a centre with the second and fourth power of the distance."""
    y, x = _axes(shape)
    cy, cx = rng.uniform(-0.5, 0.5, 2)
    r2 = (y - cy) ** 2 + (x - cx) ** 2
    return -r2 - rng.uniform(0.1, 0.5) * r2**2


def _airglow(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Waves of airglow: a normal field of k^-4 on a tilt, whose scales reach below those of the frame."""
    coarse = power_law_field((shape[0] // 8, shape[1] // 8), -4.0, rng)
    waves = ndimage.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=3)
    return waves + rng.uniform(0.5, 1.5) * _linear(shape, rng)


def _fringes(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Interference in a layer of slowly changing thickness, some 60 pixels apart, of amplitude 1."""
    coarse = power_law_field((shape[0] // 8, shape[1] // 8), -4.0, rng)
    thickness = ndimage.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=3)
    y, x = _axes(shape)
    tilt = rng.normal(0, 1.5, 2)
    phase = 2 * np.pi * max(shape) / 500 * (thickness + tilt[0] * y + tilt[1] * x)
    return (np.cos(phase) + 0.35 * np.cos(2.3 * phase + 1)) / 1.35


def _rings(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Annuli and a filled disc with sharp edges, the brightest of 1."""
    y, x = _axes(shape)
    total = np.zeros(shape)
    for brightness in (1.0, rng.uniform(0.3, 0.8), rng.uniform(0.15, 0.5)):
        cy, cx = rng.uniform(-0.8, 0.8, 2)
        outer = rng.uniform(0.3, 0.8)
        inner = outer * rng.choice([0.0, 0.35, 0.6])
        r = np.hypot(y - cy, x - cx)
        # edges of two pixels
        soft = 2 / max(shape)
        total += brightness * (np.clip((outer - r) / soft, 0, 1) - np.clip((inner - r) / soft, 0, 1))
    return total


def _bands(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Levels of about +-1 that hold for 25 to 100 rows each, with ramps of a few rows between them."""
    levels = np.empty(rows)
    start = 0
    while start < rows:
        length = int(rng.integers(25, 101))
        levels[start : start + length] = rng.uniform(-1.2, 1.2)
        start += length
    return ndimage.uniform_filter1d(levels, 9, mode="nearest")


_RELIEFS = {
    "linear": _linear,
    "mixed": _mixed,
    "hill": _hill,
    "moon": _moon,
    "two_moons": _two_moons,
    "twilight": _twilight,
    "dome": _dome,
    "airglow": _airglow,
}
"""Shapes of the sky by the names that kinds use; of any size, which light_of_sky scales."""
