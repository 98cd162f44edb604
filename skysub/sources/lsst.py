"""Detection by LSST's rules, for those who compare: one threshold, footprints kept by peak, one growth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads
from skysub.sources.detect import (
    FWHM_TO_SIGMA,
    connected_runs,
    grown,
    no_bits,
    smoothed,
    smoothing_kernel,
)
from skysub.sources.flags import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["detect_as_lsst"]

_GROWTH = 2.4
"""Footprints grow by this many standard deviations of the PSF."""
_STRIP = 128
"""Rows that are smoothed at a time."""


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
    from skysub.sources import run_kernels as kernels

    kernel = smoothing_kernel(fwhm, taps=None)
    edge = len(kernel) - 1
    unknown = _typical(variance)
    shape = (residual.shape[0], residual.shape[1])
    low, high, low_negative, high_negative = (no_bits(shape) for _ in range(4))

    def band(rows: range) -> None:
        # strip by strip, so that what is smoothed never takes a whole image
        for top in range(max(rows.start, edge), min(rows.stop, shape[0] - edge), _STRIP):
            cut = slice(top, min(top + _STRIP, rows.stop, shape[0] - edge))
            significance = _significance(residual, variance, flags, kernel, rows=cut, unknown=unknown)
            kernels.mark_above(significance, threshold, threshold * multiplier, low[cut], high[cut])
            np.negative(significance, out=significance)
            kernels.mark_above(
                significance, threshold, threshold * multiplier, low_negative[cut], high_negative[cut]
            )

    in_threads(band, shape[0], threads)
    growth = int(_GROWTH * fwhm * FWHM_TO_SIGMA + 0.5)
    positive, negative = (
        grown(runs, np.full(runs.footprints, float(growth)), shape)
        for runs in (connected_runs(low, high), connected_runs(low_negative, high_negative))
    )
    return positive, negative, edge


def _typical(variance: NDArray[np.float32]) -> np.float32:
    """Variance to take where it is not known: the median of what is; infinite where nothing is."""
    known = np.isfinite(variance)
    known &= variance > 0
    if known.all():
        return np.float32(np.inf)
    return np.float32(np.median(variance[known])) if known.any() else np.float32(np.inf)


def _significance(
    residual: NDArray[np.float32],
    variance: NDArray[np.float32],
    flags: NDArray[np.uint8],
    kernel: NDArray[np.float32],
    *,
    rows: slice,
    unknown: np.float32,
) -> NDArray[np.float32]:
    """Smoothed light of some rows over its noise, 0 in the columns that the smoothing could not reach."""
    edge = len(kernel) - 1
    around = slice(rows.start - edge, rows.stop + edge)
    inside = slice(edge, rows.stop - rows.start + edge)
    given, pixels = variance[around], residual[around]
    good = ((flags[around] & IGNORED) == 0) & np.isfinite(pixels)
    light = smoothed(np.where(good, pixels, np.float32(0)), kernel)[inside]
    known = np.isfinite(given) & (given > 0)
    # the kernel sums to 1 over both axes, and so its square gives the smoothed variance
    noise = np.sqrt(smoothed(np.where(known, given, unknown), kernel**2)[inside])
    with np.errstate(divide="ignore", invalid="ignore"):
        light /= noise
    significance: NDArray[np.float32] = np.nan_to_num(light, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    significance[:, :edge] = significance[:, -edge:] = 0
    return significance
