"""Find footprints: smoothed light above the noise, connected, kept by its peak."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.compiled import for_kernels
from skysub.background.rows import over_rows, rows_between
from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.superpixels import SuperpixelGrid

__all__ = [
    "FWHM_TO_SIGMA",
    "Footprints",
    "Runs",
    "connected_runs",
    "find_footprints",
    "grown",
    "measured_fwhm",
    "no_bits",
    "runs_above",
    "smoothed",
    "smoothed_noise",
    "smoothing_kernel",
]

FWHM_TO_SIGMA = 1 / 2.354820045030949
_TAPS = 6
_STAR_PEAK, _STAR_ROUND, _SHARPEST = 25.0, 0.3, 1.2
"""Peak in units of the noise, elongation of moments at most, and width in pixels at least, of a star."""
_STARS, _FEWEST_STARS = 0.25, 12
"""Quantile of the widths that is a star's, and how many sources it takes to tell."""
_WINGS = 1.1
"""How much wider flux over peak makes a Moffat or Kolmogorov profile than a Gaussian."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of pixels of footprints, by row, then column; each (r,) int32."""

    y: NDArray[np.int32]
    start: NDArray[np.int32]
    stop: NDArray[np.int32]
    """Row, first column and one past the last."""
    label: NDArray[np.int32]
    """Which footprint a run belongs to, numbered by their first pixels."""
    footprints: int
    """How many there are."""

    def within(self, first: int, last: int) -> Runs:
        """Runs of the rows from ``first`` to ``last`` - 1, labels as they are."""
        a, b = np.searchsorted(self.y, (first, last)).tolist()
        cut = slice(a, b)
        return Runs(self.y[cut], self.start[cut], self.stop[cut], self.label[cut], self.footprints)

    def of(self, chosen: NDArray[np.bool_]) -> Runs:
        """Runs of the chosen footprints, (footprints,) bool, numbered anew."""
        kept = chosen[self.label]
        number = np.cumsum(chosen, dtype=np.int32) - np.int32(1)
        return Runs(
            y=self.y[kept],
            start=self.start[kept],
            stop=self.stop[kept],
            label=number[self.label[kept]],
            footprints=int(chosen.sum()),
        )


@dataclass(frozen=True, eq=False)
class Footprints:
    """Connected light above a threshold: its runs of pixels, and sums over each footprint.

    Arrays are (n,) float64.
    """

    runs: Runs
    area: NDArray[np.float64]
    """Pixels."""
    flux: NDArray[np.float64]
    """Sum of image - background, unit of the image."""
    peak: NDArray[np.float64]
    """Brightest pixel of image - background, unit of the image; 0 where no pixel is good."""
    saturated: NDArray[np.float64]
    """Saturated pixels."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """Centre of the footprint's pixels, pixel."""
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: NDArray[np.float64]
    """Second moments of the footprint's pixels about the centre, pixel squared."""
    core_x: NDArray[np.float64]
    core_y: NDArray[np.float64]
    core_width: NDArray[np.float64]
    """Middle and length of its longest run, pixel: across a saturated star's core, not along its bleed."""

    def __len__(self) -> int:
        return len(self.area)

    def of(self, chosen: NDArray[np.bool_]) -> Footprints:
        """The chosen footprints, (n,) bool, in their order."""
        sums = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "runs"}
        return Footprints(runs=self.runs.of(chosen), **sums)

    @property
    def radius(self) -> NDArray[np.float64]:
        """Radius of the circle with the footprint's area, pixel."""
        return np.sqrt(self.area / np.pi)


def smoothing_kernel(fwhm: float, *, taps: int | None = _TAPS) -> NDArray[np.float32]:
    """One axis of a separable Gaussian: centre and one side, (taps + 1,) float32, of sum 1 with both sides.

    Parameters
    ----------
    fwhm
        Full width at half maximum of the PSF, pixel.
    taps
        Half-width in pixels; None for LSST's rule, a full width of (int(7 sigma + 0.5) // 2) 2 + 1.
    """
    sigma = max(fwhm, 0.5) * FWHM_TO_SIGMA
    if taps is None:
        taps = max(1, int(7 * sigma + 0.5) // 2)
    side = np.exp(-0.5 * (np.arange(taps + 1) / sigma) ** 2)
    kernel: NDArray[np.float32] = (side / (side[0] + 2 * side[1:].sum())).astype(np.float32)
    return kernel


def smoothed_noise(kernel: NDArray[np.float32]) -> float:
    """Standard deviation of white noise of 1 after smoothing with the kernel along both axes."""
    one_side = kernel.astype(np.float64) ** 2
    return float(one_side[0] + 2 * one_side[1:].sum())


def smoothed(
    image: NDArray[np.float32], kernel: NDArray[np.float32], *, threads: int = 1
) -> NDArray[np.float32]:
    """Image (ny, nx) convolved with the kernel along both axes, zero outside; its pixels must be finite."""
    from skysub.sources import block_kernels as kernels

    out = np.empty_like(image)
    in_threads(
        lambda rows: kernels.convolve(image, kernel, rows.start, rows.stop, out[rows.start : rows.stop]),
        image.shape[0],
        threads,
    )
    return out


def find_footprints(
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    monomials: NDArray[np.float64],
    noise: NDArray[np.float64],
    grid: SuperpixelGrid,
    *,
    kernel: NDArray[np.float32],
    peak_threshold: float,
    edge_threshold: float,
    threads: int = 1,
) -> Footprints:
    """Footprints of an image whose background is not yet subtracted.

    Parameters
    ----------
    image, flags
        (ny, nx) float32 with its sky, and its flags; ignored pixels and NaN count as empty sky.
    monomials
        Monomial coefficients of the background (`skysub.background.chebyshev.monomial_coefficients`).
    noise
        (gy, gx) standard deviation of the *smoothed* image in each superpixel; NaN: nothing is found.
    kernel
        From `smoothing_kernel`.
    peak_threshold, edge_threshold
        In units of the smoothed noise: a footprint ends at the one, and is kept if a pixel reaches
        the other.

    Returns
    -------
    footprints
        Those that are kept, in the order of their first pixel.
    """
    from skysub.sources import run_kernels

    with np.errstate(divide="ignore", invalid="ignore"):
        per_noise = np.nan_to_num(1 / noise, nan=0.0, posinf=0.0).astype(np.float32)
    found = over_rows(
        _significant,
        (image, flags),
        spans=rows_between(grid.y_edges, margin=len(kernel) - 1),
        threads=threads,
        monomials=monomials,
        kernel=kernel,
        per_noise=per_noise,
        grid=grid,
        thresholds=(edge_threshold, peak_threshold),
    )
    *places, kept, flux, peak, saturated = (np.concatenate(each) for each in zip(*found, strict=True))
    y, start_x, stop_x = places
    label = np.empty(len(y), np.int32)
    number = run_kernels.label_runs(y, start_x, stop_x, kept, label)
    chosen = label >= 0
    runs = Runs(y[chosen], start_x[chosen], stop_x[chosen], label[chosen], number)
    light = (flux[chosen], peak[chosen], saturated[chosen])
    table = np.empty((runs.footprints, 9))
    start = np.empty((runs.footprints, 2), np.int32)
    longest = np.empty(runs.footprints, np.int64)
    run_kernels.measure_footprints(runs.y, runs.start, runs.stop, runs.label, *light, table, start, longest)
    area, flux, peak, saturated = table[:, :4].T
    mx, my, mxx, mxy, myy = (table[:, 4:] / area[:, None]).T
    return Footprints(
        runs=runs,
        area=area,
        flux=flux,
        peak=peak,
        saturated=saturated,
        x=start[:, 0] + mx,
        y=start[:, 1] + my,
        # a pixel is a square: 1 / 12 is its own second moment
        xx=mxx - mx**2 + 1 / 12,
        xy=mxy - mx * my,
        yy=myy - my**2 + 1 / 12,
        core_x=(runs.start[longest] + runs.stop[longest] - 1) / 2,
        core_y=runs.y[longest].astype(np.float64),
        core_width=(runs.stop[longest] - runs.start[longest]).astype(np.float64),
    )


def no_bits(shape: tuple[int, int]) -> NDArray[np.uint64]:
    """Plane of bits for an image of ``shape``, none set: (ny, words), in whole strips of the detection."""
    from skysub.sources.detection_kernels import STRIP

    return np.zeros((shape[0], -(-shape[1] // STRIP) * STRIP // 64), np.uint64)


def connected_runs(low: NDArray[np.uint64], high: NDArray[np.uint64]) -> Runs:
    """Runs of set bits of a plane, connected also by corners, where a bit of ``high`` is among them."""
    return _connected(*_listed_runs(low, high))


def _significant(
    units: range,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    monomials: NDArray[np.float64],
    kernel: NDArray[np.float32],
    per_noise: NDArray[np.float32],
    grid: SuperpixelGrid,
    thresholds: tuple[float, float],
    threads: int,
) -> tuple[NDArray[Any], ...]:
    """Runs of significant pixels in some rows of superpixels, and what `measure_runs` finds of them.

    They are row, first column, one past the last, and whether a pixel reaches the higher threshold. Those are
    left out that touch none which does, in these rows or perhaps in the next.
    """
    from skysub.sources import detection_kernels
    from skysub.sources import run_kernels as kernels

    image = for_kernels(image)
    own = range(int(grid.y_edges[units.start]), int(grid.y_edges[units.stop]))
    low, high = no_bits(grid.image_shape), no_bits(grid.image_shape)

    def band(rows: range) -> None:
        detection_kernels.mark_significant(
            image,
            flags,
            monomials,
            kernel,
            per_noise,
            grid.y_edges,
            grid.x_edges,
            *thresholds,
            rows.start,
            rows.stop,
            low.view(np.uint8),
            high.view(np.uint8),
        )

    in_threads(band, own, threads)
    cut = slice(own.start, own.stop)
    y, start, stop, kept = _listed_runs(low[cut], high[cut])
    # what may go on in the next block cannot be judged here
    open_ended = (y == 0) & (own.start > 0)
    open_ended |= (y == len(own) - 1) & (own.stop < grid.image_shape[0])
    label = np.empty(len(y), np.int32)
    kernels.label_runs(y, start, stop, kept | open_ended, label)
    chosen = label >= 0
    y, start, stop, kept = y[chosen] + np.int32(own.start), start[chosen], stop[chosen], kept[chosen]
    flux, peak = np.empty(len(y), np.float32), np.empty(len(y), np.float32)
    saturated = np.empty(len(y), np.int32)
    kernels.measure_runs(image, flags, monomials, y, start, stop, flux, peak, saturated)
    return y, start, stop, kept, flux, peak, saturated


def _listed_runs(
    low: NDArray[np.uint64], high: NDArray[np.uint64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    """Runs of set bits: row, first column, one past the last, and whether a bit of ``high`` is among them."""
    from skysub.sources import run_kernels as kernels

    n = kernels.count_runs(low)
    y, start, stop = (np.empty(n, np.int32) for _ in range(3))
    kernels.list_runs(low, y, start, stop)
    kept = np.empty(n, np.bool_)
    kernels.any_bits(high, y, start, stop, kept)
    return y, start, stop, kept


def _connected(
    y: NDArray[np.int32], start: NDArray[np.int32], stop: NDArray[np.int32], kept: NDArray[np.bool_]
) -> Runs:
    """Runs that touch, labelled, where one of them is ``kept``."""
    from skysub.sources import run_kernels as kernels

    label = np.empty(len(y), np.int32)
    footprints = kernels.label_runs(y, start, stop, kept, label)
    chosen = slice(kernels.keep_runs(label, y, start, stop))
    # copies, so that the many runs of noise are let go
    y, start, stop, label = (a[chosen].copy() for a in (y, start, stop, label))
    return Runs(y=y, start=start, stop=stop, label=label, footprints=footprints)


def measured_fwhm(footprints: Footprints, noise: float) -> float:
    """Full width at half maximum of compact sources, pixel; NaN where there are too few to tell.

    A Gaussian's flux over its peak is 1.133 times the square of its width. Among bright round sources the
    narrow ones are stars.
    """
    apart = np.hypot((footprints.xx - footprints.yy) / 2, footprints.xy)
    chosen = (footprints.peak > _STAR_PEAK * noise) & (footprints.saturated == 0)
    chosen &= apart < _STAR_ROUND * (footprints.xx + footprints.yy) / 2
    if not chosen.any():
        return math.nan
    width = np.sqrt(footprints.flux[chosen] / footprints.peak[chosen] / 1.133) / _WINGS
    width = width[width > _SHARPEST]
    return float(np.quantile(width, _STARS)) if width.size >= _FEWEST_STARS else math.nan


def runs_above(values: NDArray[np.floating], low: float, high: float) -> Runs:
    """Connected runs of values, (ny, nx), of at least ``low``, where one of ``high`` is among them."""
    from skysub.sources import run_kernels as kernels

    low_bits, high_bits = no_bits(values.shape), no_bits(values.shape)
    kernels.mark_above(values.astype(np.float32, copy=False), low, high, low_bits, high_bits)
    return connected_runs(low_bits, high_bits)


def grown(runs: Runs, radius: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Plane (ny, nx) of the pixels within ``radius``, (footprints,) pixel, of each run."""
    from skysub.sources import paint_kernels as kernels

    bits = no_bits(shape)
    kernels.paint_runs(runs.y, runs.start, runs.stop, runs.label, radius, shape[1], bits)
    plane = np.zeros(shape, np.uint8)
    kernels.flag_painted(bits.view(np.uint8), 0, 1, plane)
    return plane.view(np.bool_)
