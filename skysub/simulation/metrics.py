"""The metrics one by one, as functions of d = model - true sky, (ny, nx) float64, electron per pixel."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.simulation.observation import GAP
from skysub.simulation.sky import amplifier_edges
from skysub.simulation.truth import SOURCE_PLANES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.simulation.observation import Observation
    from skysub.simulation.truth import Truth

__all__ = [
    "REFERENCE_TERMS",
    "GalaxyLosses",
    "amplifier_step",
    "aperture_noise",
    "cirrus_transfer",
    "detector_steps",
    "edge_deviation",
    "galaxy_losses",
    "good_pixels",
    "magnitude_shift",
    "mean_bias",
    "pulls",
    "relative_scatter",
    "star_rings",
]

REFERENCE_TERMS = 28
"""Coefficients of a polynomial of order 6."""
APERTURE = 9.0
"""Radius of the apertures of M8, pixel."""
LARGE = 21.0
"""Probe galaxies of a larger effective radius than this are large ones, pixel."""
DISK = 1.67835
"""Effective radius of an exponential disk over its scale."""
ARCMIN = 300.0
"""Pixel."""


def good_pixels(truth: Truth) -> NDArray[np.bool_]:
    """(ny, nx) bool: usable pixels with less than a tenth of sigma of light from detected sources."""
    light = truth.total("sources", "cosmic_rays")
    return ~truth.unusable & (light < 0.1 * truth.sigma)


def block_mean(
    values: NDArray[np.floating] | NDArray[np.bool_], y_edges: NDArray[np.int64], x_edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Means over the blocks between edges, (gy, gx) float64."""
    rows = np.add.reduceat(values, y_edges[:-1], axis=0, dtype=np.float64)
    sums = np.add.reduceat(rows, x_edges[:-1], axis=1)
    means: NDArray[np.float64] = sums / np.outer(np.diff(y_edges), np.diff(x_edges))
    return means


def relative_scatter(
    d: NDArray[np.float64], good: NDArray[np.bool_], sigma: float, *, terms: int = REFERENCE_TERMS
) -> float:
    """M1: rms over superpixels of (d - mean d) over sigma / sqrt(N_good) * sqrt(terms / n_superpixels).

    Superpixels of 128 pixels; N_good is the median number of good pixels per superpixel. In a field
    without good pixels (N_good below 1 % of a superpixel) that 1 % is taken.
    """
    grid = SuperpixelGrid.over((d.shape[0], d.shape[1]), BackgroundConfig())
    means = block_mean(d, grid.y_edges, grid.x_edges)
    area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    count = np.median(block_mean(good, grid.y_edges, grid.x_edges) * area)
    count = max(float(count), 0.01 * float(np.median(area)))
    floor = sigma / math.sqrt(count) * math.sqrt(min(terms / means.size, 1.0))
    return float(np.std(means)) / floor


def mean_bias(d: NDArray[np.float64], truth: Truth) -> tuple[float, float]:
    """M2: mean of d over all pixels, and the same less the mean light of sources below the limit."""
    bias = float(d.mean())
    return bias, bias - float(truth.planes["faint_sources"].mean(dtype=np.float64))


def edge_deviation(d: NDArray[np.float64]) -> float:
    """M3: the largest abs(d - mean d) among blocks of 16 x 16 pixels in the outer 64 pixels."""
    ny, nx = (n // 16 for n in d.shape)
    # blocks are counted from both ends, so that each edge has whole ones
    y_edges, x_edges = _blocks(d.shape[0]), _blocks(d.shape[1])
    means = block_mean(d, y_edges, x_edges)
    outer = np.ones(means.shape, np.bool_)
    if min(ny, nx) > 8:
        outer[4:-4, 4:-4] = False
    return float(np.max(np.abs(means - d.mean())[outer]))


def _blocks(length: int) -> NDArray[np.int64]:
    half = length // 2 // 16 * 16
    low = np.arange(0, half + 1, 16)
    high = length - low[::-1]
    edges: NDArray[np.int64] = np.unique(np.concatenate([low, high]))
    return edges


@dataclass(frozen=True, slots=True)
class GalaxyLosses:
    """M4 and M5 of one detector; NaN where there is no such galaxy."""

    small: float = math.nan
    large: float = math.nan
    radius: float = math.nan
    ring: float = math.nan


def galaxy_losses(d: NDArray[np.float64], truth: Truth) -> GalaxyLosses:
    """M4 and M5, of the probe galaxies whose centres lie on the detector.

    M4: the sum of (d - far d) within 4 effective radii (elliptical, as far as the detector goes) over
    the galaxy's light there, per cent; median over galaxies of 5 to 20 pixels, and the large one. Far d
    is the mean beyond 8 effective radii of the large one, or of the detector where that leaves less
    than 1 % of it: what the model gets wrong everywhere is M2's.
    M5: mean d between 1.5 and 3 effective radii of the large one, minus far d; NaN where that 1 % is not
    there.
    """
    rows = truth.catalog[truth.catalog["type"] == "probe_galaxy"]
    ny, nx = d.shape
    rows = rows[(rows["x"] > 0) & (rows["x"] < nx) & (rows["y"] > 0) & (rows["y"] < ny)]
    if not len(rows):
        return GalaxyLosses()
    big = rows[rows["radius"] > LARGE]
    beyond = np.ones(d.shape, np.bool_)
    for row in big:
        y, x, r = _elliptical_radius(row, d.shape)
        beyond[y, x] &= r > 8
    isolated = np.count_nonzero(beyond) >= 0.01 * d.size
    far = float(d[beyond].mean()) if isolated else float(d.mean())
    lost = []
    ring = math.nan
    for row in rows:
        y, x, r = _elliptical_radius(row, d.shape)
        near = d[y, x] - far
        inside = r < 4
        # an exponential disk of scale h = r_e / 1.678, without the PSF: at 4 r_e they do not differ
        area = 2 * math.pi * (row["radius"] / DISK) ** 2
        light = row["flux"] / area * np.exp(-DISK * r[inside])
        lost.append(100 * float(near[inside].sum() / light.sum()))
        if row["radius"] > LARGE and isolated:
            ring = float(near[(r > 1.5) & (r < 3)].mean())
    small = [value for value, row in zip(lost, rows, strict=True) if row["radius"] <= LARGE]
    large = [value for value, row in zip(lost, rows, strict=True) if row["radius"] > LARGE]
    return GalaxyLosses(
        small=float(np.median(small)) if small else math.nan,
        large=large[0] if large else math.nan,
        radius=float(big["radius"][0]) if large else math.nan,
        ring=ring,
    )


def _elliptical_radius(row: np.void, shape: tuple[int, ...]) -> tuple[slice, slice, NDArray[np.float64]]:
    """Cut-out that holds 8 effective radii, and the radius there in units of the effective one."""
    q = float(row["axis_ratio"])
    reach = int(8 * row["radius"] / math.sqrt(q)) + 2
    y, x = (
        slice(max(0, int(row[k]) - reach), min(n, int(row[k]) + reach))
        for k, n in zip("yx", shape, strict=True)
    )
    yy, xx = np.ogrid[y, x]
    dx, dy = xx - row["x"], yy - row["y"]
    c, s = math.cos(row["angle"]), math.sin(row["angle"])
    # the effective radius is along the geometric mean of the axes
    radius = np.sqrt(q * (dx * c + dy * s) ** 2 + (dy * c - dx * s) ** 2 / q) / row["radius"]
    return y, x, radius


def star_rings(d: NDArray[np.float64], truth: Truth) -> float:
    """M6: the worst of mean d in rings about stars of magnitude 8 to 14, minus that beyond 180 arcsec.

    The rings are 30 to 60, 60 to 120 and 120 to 180 arcsec wide, about each star whose centre lies on
    the detector; a ring counts where at least a quarter of it does. "Beyond" is measured from all such
    stars; where that leaves less than 2 % of the detector, the mean of the detector is taken.
    """
    rows = truth.catalog[(truth.catalog["radius"] == 0) & (truth.catalog["magnitude"] <= 14)]
    ny, nx = d.shape
    rows = rows[
        (rows["magnitude"] >= 7.99) & (rows["x"] > 0) & (rows["x"] < nx) & (rows["y"] > 0) & (rows["y"] < ny)
    ]
    if not len(rows):
        return math.nan
    yy, xx = np.ogrid[:ny, :nx]
    beyond = np.ones(d.shape, np.bool_)
    distances = []
    for row in rows:
        r2 = (xx - row["x"]) ** 2 + (yy - row["y"]) ** 2
        beyond &= r2 > 900**2
        distances.append(r2)
    far = float(d[beyond].mean()) if np.count_nonzero(beyond) >= 0.02 * d.size else float(d.mean())
    worst = math.nan
    for r2 in distances:
        for inner, outer in ((150, 300), (300, 600), (600, 900)):
            ring = (r2 > inner**2) & (r2 < outer**2)
            if np.count_nonzero(ring) < 0.25 * math.pi * (outer**2 - inner**2):
                continue
            value = float(d[ring].mean()) - far
            if not abs(value) <= abs(worst):
                worst = value
    return worst


def amplifier_step(d: NDArray[np.float64], *, width: int = 64) -> float:
    """M7 within a detector: rms over the boundaries between amplifiers of the step of mean d across them.

    Each of the 14 vertical and 8 horizontal boundaries is compared over strips of ``width`` pixels
    (half an amplifier at most) along its length.
    """
    y_edges, x_edges = amplifier_edges((d.shape[0], d.shape[1]))
    width = max(1, min(width, int(np.diff(x_edges).min()) // 2, int(y_edges[1]) // 2))
    steps = []
    for low, high in itertools.pairwise(y_edges):
        rows = d[low:high]
        steps += [rows[:, x : x + width].mean() - rows[:, x - width : x].mean() for x in x_edges[1:-1]]
    y = y_edges[1]
    for low, high in itertools.pairwise(x_edges):
        steps.append(d[y : y + width, low:high].mean() - d[y - width : y, low:high].mean())
    return float(np.sqrt(np.mean(np.square(steps))))


def detector_steps(
    strips: Mapping[tuple[int, int], Mapping[str, float]],
    observations: Mapping[tuple[int, int], Observation],
) -> list[float]:
    """M7 between detectors: the step of mean d between the 64-pixel strips on both sides of each gap.

    Parameters
    ----------
    strips
        Mean d along the edges "left", "right", "bottom" and "top" by (visit, detector).
    observations
        Where those detectors lie on the focal plane.
    """
    steps = []
    for key, seen in observations.items():
        for other, neighbour in observations.items():
            if other[0] != key[0]:
                continue
            across, up = neighbour.x0 - seen.x0, neighbour.y0 - seen.y0
            if abs(across - seen.shape[1] - GAP) < 1 and abs(up) < 1:
                steps.append(strips[other]["left"] - strips[key]["right"])
            if abs(up - seen.shape[0] - GAP) < 1 and abs(across) < 1:
                steps.append(strips[other]["bottom"] - strips[key]["top"])
    return steps


def aperture_noise(
    residual: NDArray[np.floating], truth: Truth, good: NDArray[np.bool_]
) -> tuple[float, float]:
    """M8: apertures of radius 9 pixels without detected sources, on a grid of 20 pixels.

    ``residual`` is image - model. What light undetected sources, aureoles and faint wings have in the
    apertures is taken out by the truth, so that nothing but noise and the model is left.

    Returns
    -------
    mean
        Of their fluxes, each over its expected standard deviation.
    scatter
        Standard deviation of the same; NaN below 30 apertures, as the mean.
    """
    half = int(APERTURE)
    offset_y, offset_x = np.mgrid[-half : half + 1, -half : half + 1]
    inside = offset_y**2 + offset_x**2 <= APERTURE**2
    residual = residual - truth.total(*SOURCE_PLANES)
    variance = truth.variance

    def windows(plane: NDArray[Any], y: int) -> NDArray[Any]:
        rows = plane[y - half : y + half + 1]
        return np.lib.stride_tricks.sliding_window_view(rows, 2 * half + 1, axis=1)[:, ::20]

    pulls = []
    for y in range(half, len(residual) - half, 20):
        empty = np.all(windows(good, y) | ~inside[:, None, :], axis=(0, 2))
        flux, expected = (
            np.einsum("ynx,yx->n", windows(plane, y)[:, empty], inside, dtype=np.float64)
            for plane in (residual, variance)
        )
        pulls.append(flux / np.sqrt(expected))
    values = np.concatenate(pulls)
    if len(values) < 30:
        return math.nan, math.nan
    return float(values.mean()), float(values.std())


def magnitude_shift(bias: float, truth: Truth) -> float:
    """M9: 1.086 abs(mean d) n_eff / F of a point source of magnitude 24, mmag."""
    seen = truth.observation
    flux = float(seen.flux(np.array(24.0)))
    return 1085.7 * abs(bias) * seen.psf_area / flux


def cirrus_transfer(d: NDArray[np.float64], truth: Truth) -> float:
    """M11: share of the cirrus that survives subtraction at 2 arcmin and less; NaN without cirrus.

    With r = true sky - model and c the cirrus, both averaged over 16 x 16 pixels and under a Hann
    window, the sum of Re(R* C) over the sum of |C|^2 of their Fourier modes of wavelengths up to
    2 arcmin. The true sky contains the cirrus, so a model that follows none of it scores 1.
    """
    cirrus = truth.planes["cirrus"]
    if not any(cirrus.strides):
        return math.nan
    ny, nx = (n // 16 * 16 for n in d.shape)
    y_edges, x_edges = np.arange(0, ny + 1, 16), np.arange(0, nx + 1, 16)
    window = np.outer(np.hanning(len(y_edges) - 1), np.hanning(len(x_edges) - 1))
    modes = []
    for plane in (-d[:ny, :nx], cirrus[:ny, :nx]):
        coarse = block_mean(plane, y_edges, x_edges)
        modes.append(np.fft.fft2((coarse - coarse.mean()) * window))
    k = np.hypot(np.fft.fftfreq(ny // 16, 16)[:, None], np.fft.fftfreq(nx // 16, 16)[None, :])
    small = k >= 1 / (2 * ARCMIN)
    power = float(np.sum(np.abs(modes[1][small]) ** 2))
    if power == 0:
        return math.nan
    return float(np.sum((modes[0][small].conj() * modes[1][small]).real)) / power


def pulls(d: NDArray[np.float64], uncertainty: NDArray[np.floating]) -> tuple[float, float]:
    """M12: rms of d over the uncertainty, and the share of abs(d) below 1.96 of it, every 16th pixel."""
    near, error = d[8::16, 8::16], np.asarray(uncertainty[8::16, 8::16], np.float64)
    known = np.isfinite(error) & (error > 0)
    if not known.any():
        return math.nan, math.nan
    pull = near[known] / error[known]
    return float(np.sqrt(np.mean(pull**2))), float(np.mean(np.abs(pull) < 1.96))
