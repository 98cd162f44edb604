"""Light that reaches far: one large galaxy, a cluster's envelope, a spiral, cirrus, aureoles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import galsim
import numpy as np
from numpy.polynomial import legendre
from scipy import signal

from foreign.skies import power_law_field
from foreign.sources import add_stamp, make_psf

if TYPE_CHECKING:
    from foreign.kinds import Kind

__all__ = ["Target", "cirrus", "make_target", "with_aureole"]


@dataclass(frozen=True, eq=False)
class Target:
    """One large object."""

    light: np.ndarray
    """(ny, nx) float32, electron."""
    x: float
    y: float
    radius: float
    """Half-light radius, pixel."""
    flux: float
    """Electrons in the frame."""


def make_target(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> Target:
    """The kind's large object: an exponential disc, with companions or with arms."""
    ny, nx = shape
    centre = rng.uniform(0.42, 0.58, 2)
    if kind.target == "spiral":
        # in one of the corners, the middle of the galaxy well inside
        corner = rng.integers(0, 2, 2)
        centre = np.where(corner == 1, 1 - rng.uniform(0.08, 0.16, 2), rng.uniform(0.08, 0.16, 2))
    y0, x0 = float(centre[0] * ny), float(centre[1] * nx)
    flux = 2 * math.pi * kind.target_radius**2 * kind.surface(kind.target_brightness)
    ratio, angle = float(rng.uniform(0.6, 0.95)), float(rng.uniform(0, 180))
    disc = galsim.Sersic(n=1, half_light_radius=kind.target_radius, flux=flux)
    disc = disc.shear(q=ratio, beta=angle * galsim.degrees)
    image = galsim.ImageF(nx, ny)
    place = galsim.PositionD(x0 + 1, y0 + 1)
    disc.drawImage(image, center=place, scale=1.0, method="no_pixel")
    light = image.array
    if kind.target == "envelope":
        light += _companions(kind, shape, (y0, x0), rng)
    elif kind.target == "spiral":
        light *= _arms(shape, (y0, x0), ratio, angle, rng, radius=kind.target_radius)
        light += _knots(kind, light, rng)
    flux_here = float(light.sum(dtype=np.float64))
    return Target(light=light, x=x0, y=y0, radius=kind.target_radius, flux=flux_here)


def cirrus(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cirrus of power k^-2.9 and mean 0, in two parts, each (ny, nx) float64, electron.

    Returns
    -------
    small
        What no polynomial of degree 6 follows: light that a background must leave.
    large
        The rest: nothing in one image tells it from the sky, and it counts as such.
    """
    field = kind.surface(kind.cirrus) * power_law_field(shape, -2.9, rng)
    y, x = (np.linspace(-1, 1, n) for n in shape)
    rows, columns = legendre.legvander(y, 6), legendre.legvander(x, 6)
    terms = [(q, p) for q in range(7) for p in range(7 - q)]
    # the image is much finer than the polynomial: every 16th row and column determine it
    matrix = np.stack([np.outer(rows[::16, q], columns[::16, p]).ravel() for q, p in terms], axis=1)
    solution = np.linalg.lstsq(matrix, field[::16, ::16].ravel(), rcond=None)[0]
    table = np.zeros((7, 7))
    for (q, p), value in zip(terms, solution, strict=True):
        table[q, p] = value
    large = rows @ table @ columns.T
    return field - large, large


def with_aureole(light: np.ndarray, share: float, fwhm: float) -> np.ndarray:
    """The light with a share of it spread as r^-2 between 2 FWHM and 600 pixels."""
    reach = 600
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    r = np.hypot(y, x)
    inner = 2 * fwhm
    kernel = np.where(r <= reach, 1 / np.maximum(r, inner) ** 2, 0)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    spread = signal.fftconvolve(light, kernel, mode="same")
    return ((1 - share) * light + share * np.maximum(spread, 0)).astype(np.float32)


def _companions(
    kind: Kind, shape: tuple[int, int], centre: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """The central galaxy of a cluster, and some tens of others about it."""
    light = np.zeros(shape, np.float32)
    psf = make_psf(kind)
    for k in range(31):
        far = 0.0 if k == 0 else 1.2 * kind.target_radius * math.sqrt(-2 * math.log(rng.uniform(0.05, 1)))
        angle = rng.uniform(0, 2 * math.pi)
        y, x = centre[0] + far * math.sin(angle), centre[1] + far * math.cos(angle)
        magnitude = 17.5 if k == 0 else rng.uniform(19.5, 23.5)
        radius = (2.5 if k == 0 else 0.6 * 10 ** (-0.08 * (magnitude - 21))) / kind.pixel
        sersic = galsim.Sersic(n=4.0 if k == 0 else 2.5, half_light_radius=radius, trunc=8 * radius)
        profile = galsim.Convolve(sersic.shear(q=0.75, beta=angle * galsim.radians), psf)
        size = 2 * math.ceil(8 * radius + 3 * kind.fwhm) + 1
        iy, ix = round(y), round(x)
        stamp = profile.drawImage(nx=size, ny=size, scale=1.0, offset=(x - ix, y - iy), method="no_pixel")
        add_stamp(light, 10 ** (0.4 * (kind.zero_point - magnitude)), np.maximum(stamp.array, 0), iy, ix)
    return light


def _arms(
    shape: tuple[int, int],
    centre: tuple[float, float],
    ratio: float,
    angle: float,
    rng: np.random.Generator,
    *,
    radius: float,
) -> np.ndarray:
    """(ny, nx) float32 factor about 1: two logarithmic arms that set in at a third of the radius."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    turn = math.radians(angle)
    along = (x - centre[1]) * math.cos(turn) + (y - centre[0]) * math.sin(turn)
    across = ((y - centre[0]) * math.cos(turn) - (x - centre[1]) * math.sin(turn)) / ratio
    r = np.hypot(along, across) + 1
    winding = rng.uniform(2.2, 3.5) * rng.choice([-1, 1])
    phase = 2 * np.arctan2(across, along) + winding * np.log(r) + rng.uniform(0, 6)
    onset = np.clip(r / (0.33 * radius) - 0.5, 0, 1)
    return (1 + 0.7 * onset * np.cos(phase)).astype(np.float32)


def _knots(kind: Kind, light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Star-forming regions where the arms are bright, 6 % of the light together."""
    weights = np.clip(light[::4, ::4].astype(np.float64), 0, None).ravel() ** 1.3
    chosen = rng.choice(len(weights), 400, p=weights / weights.sum())
    columns = light[::4, ::4].shape[1]
    psf = make_psf(kind)
    size = 2 * math.ceil(5 * kind.fwhm) + 1
    stamp = psf.drawImage(nx=size, ny=size, scale=1.0, method="no_pixel").array
    share = rng.pareto(1.5, 400) + 0.1
    share *= 0.06 * float(light.sum(dtype=np.float64)) / share.sum()
    knots = np.zeros(light.shape, np.float32)
    for k, flux in zip(chosen, share, strict=True):
        iy, ix = 4 * (int(k) // columns) + int(rng.integers(4)), 4 * (int(k) % columns) + int(rng.integers(4))
        add_stamp(knots, float(flux), stamp, iy, ix)
    return knots
