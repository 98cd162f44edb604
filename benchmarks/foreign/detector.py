"""What a detector makes of light: Poisson noise, read noise, saturation, defects, whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from foreign.skies import amplifier_boxes

if TYPE_CHECKING:
    from foreign.kinds import Kind

__all__ = ["PLANE_BITS", "lit_share", "noise_of", "observe"]

PLANE_BITS = {"BAD": 1, "SAT": 2, "CR": 8, "NO_DATA": 256, "VIGNETTED": 512}
"""Value of each mask plane that scenes have (LSST's own bits)."""


def noise_of(kind: Kind) -> float:
    """White noise per pixel of the sky before any resampling, electron."""
    return float(np.sqrt(kind.sky + kind.read_noise**2 + (kind.gain**2 / 12 if kind.whole else 0)))


def lit_share(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float32: share of the light that reaches a pixel, falling to 0 in a vignetted corner."""
    if not kind.vignetted:
        return np.ones(shape, np.float32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    corner_y, corner_x = (rng.integers(0, 2, 2) * np.array(shape)).tolist()
    radius = rng.uniform(0.28, 0.4) * min(shape)
    r = np.hypot(y - corner_y, x - corner_x)
    return np.clip((r - radius) / (0.02 * min(shape)), 0, 1).astype(np.float32)


def observe(
    light: np.ndarray, offsets: np.ndarray, lit: np.ndarray, kind: Kind, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and mask of an exposure.

    Parameters
    ----------
    light
        (ny, nx) expected electrons of sky and sources.
    offsets
        (ny, nx) electrons that the electronics add.
    lit
        (ny, nx) share of light that reaches each pixel; those below 0.98 are flagged.

    Returns
    -------
    image, mask
        (ny, nx) float32 in the kind's unit, and int32.
    """
    shape = light.shape
    mask = np.zeros(shape, np.int32)
    electrons = rng.poisson(np.maximum(light, 0)).astype(np.float32)
    noise = rng.normal(0, kind.read_noise, shape).astype(np.float32)
    if kind.correlation:
        scatter = electrons - light + noise
        smoothed = ndimage.gaussian_filter(scatter, kind.correlation, truncate=3)
        electrons, noise = (light + smoothed).astype(np.float32), np.float32(0)
    _bleed(electrons, kind.full_well)
    mask[electrons >= 0.98 * kind.full_well] |= PLANE_BITS["SAT"]
    electrons += noise
    electrons += offsets.astype(np.float32)
    _cosmic_rays(electrons, mask, kind, rng)
    _defects(electrons, mask, kind, rng)
    mask[lit < 0.98] |= PLANE_BITS["VIGNETTED"] | PLANE_BITS["NO_DATA"]
    image = electrons / np.float32(kind.gain)
    if kind.whole:
        image = np.rint(image)
    if kind.unit == "electron":
        image *= np.float32(kind.gain)
    return np.ascontiguousarray(image, np.float32), mask


def _bleed(electrons: np.ndarray, full_well: float) -> None:
    """Charge above the full well runs along its column, up and down alike, in place."""
    columns = np.nonzero((electrons > full_well).any(axis=0))[0]
    for x in columns:
        column = electrons[:, x]
        for direction in (1, -1):
            line = column[::direction]
            share = 0.5 if direction == 1 else 1.0
            carried = 0.0
            start = int(np.nonzero(line > full_well)[0][0]) if (line > full_well).any() else len(line)
            for y in range(start, len(line)):
                over = float(line[y]) - full_well
                if over > 0:
                    carried += share * over
                    line[y] -= share * over
                elif carried > 0:
                    # a pixel takes what room it has
                    taken = min(carried, -over)
                    line[y] += taken
                    carried -= taken
        np.minimum(column, full_well, out=column)


def _cosmic_rays(electrons: np.ndarray, mask: np.ndarray, kind: Kind, rng: np.random.Generator) -> None:
    """Straight tracks a pixel wide, flagged."""
    ny, nx = electrons.shape
    for _ in range(kind.cosmic_rays):
        y, x, angle = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(0, 2 * np.pi)
        steps = np.arange(rng.integers(2, 25))
        rows = np.rint(y + steps * np.sin(angle)).astype(int)
        columns = np.rint(x + steps * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
        electrons[rows[inside], columns[inside]] += rng.uniform(200, 4000)
        mask[rows[inside], columns[inside]] |= PLANE_BITS["CR"]


def _defects(electrons: np.ndarray, mask: np.ndarray, kind: Kind, rng: np.random.Generator) -> None:
    """Bad columns that read anything, and a dead amplifier that reads nothing but noise; all flagged."""
    ny, nx = electrons.shape
    for x in rng.integers(0, nx, kind.bad_columns):
        top = int(rng.integers(ny // 3, ny + 1))
        electrons[:top, x] = rng.uniform(0, 2) * electrons[:top, x] + rng.normal(0, 100)
        mask[:top, x] |= PLANE_BITS["BAD"]
    if kind.dead_amplifier:
        boxes = amplifier_boxes(kind, (ny, nx))
        rows, columns = boxes[int(rng.integers(len(boxes)))]
        electrons[rows, columns] = rng.normal(0, kind.read_noise, electrons[rows, columns].shape)
        mask[rows, columns] |= PLANE_BITS["BAD"]
