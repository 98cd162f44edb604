"""Detection by LSST's rules, for those who compare: one threshold, footprints kept by peak, one growth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.sources.detect import FWHM_TO_SIGMA, filled_runs, smoothed, smoothing_kernel
from skysub.sources.flags import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["detect_as_lsst"]

_GROWTH = 2.4
"""Footprints grow by this many standard deviations of the PSF."""


def detect_as_lsst(
    residual: NDArray[np.float32],
    variance: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    threshold: float,
    multiplier: float,
    fwhm: float,
    threads: int = 1,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Pixels of sources, and of holes as deep, as SourceDetectionTask of meas_algorithms finds them.

    Parameters
    ----------
    residual
        (ny, nx) float32, background subtracted.
    variance
        (ny, nx) float32, unit squared. Its smoothed root is the noise.
    flags
        (ny, nx) uint8; ignored pixels and NaN count as empty sky.
    threshold, multiplier
        In units of the smoothed noise a footprint ends at ``threshold``, and is kept if its peak reaches
        ``threshold * multiplier``.
    fwhm
        Of the PSF, pixel.

    Returns
    -------
    detected, detected_negative
        (ny, nx) bool, grown.
    edge
        Width of the border that the smoothing could not reach, pixel.
    """
    kernel = smoothing_kernel(fwhm, taps=None)
    good = ((flags & IGNORED) == 0) & np.isfinite(residual)
    light = smoothed(np.where(good, residual, np.float32(0)), kernel, threads=threads)
    known = np.isfinite(variance) & (variance > 0)
    typical = np.float32(np.median(variance[known])) if known.any() else np.float32(np.inf)
    # the kernel sums to 1 over both axes, and so its square gives the smoothed variance
    noise = np.sqrt(smoothed(np.where(known, variance, typical), kernel**2, threads=threads))
    edge = len(kernel) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        significance: NDArray[np.float32] = np.nan_to_num(light / noise, nan=0.0, posinf=0.0, neginf=0.0)
    significance[:edge] = significance[-edge:] = 0
    significance[:, :edge] = significance[:, -edge:] = 0
    growth = int(_GROWTH * fwhm * FWHM_TO_SIGMA + 0.5)
    high = threshold * multiplier
    positive = _footprints(significance, threshold, high, growth)
    return positive, _footprints(-significance, threshold, high, growth), edge


def _footprints(significance: NDArray[np.float32], low: float, high: float, growth: int) -> NDArray[np.bool_]:
    from skysub.sources import kernels

    def fill(*arrays: Any) -> int:
        count: int = kernels.find_runs(significance, low, high, *arrays)
        return count

    run_y, run_a, run_b, light = filled_runs(fill, significance.size // 64)
    labels, n = kernels.label_runs(run_y, run_a, run_b)
    kept = np.zeros(n, bool)
    kernels.mark_kept(light[:, 3], labels, kept)
    plane = np.zeros(significance.shape, np.uint8)
    kernels.paint_runs(run_y, run_a, run_b, labels, np.where(kept, float(growth), -1.0), 1, plane)
    return plane.view(bool)
