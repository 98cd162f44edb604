"""Summary statistics of a detector's image, by LSST's names and in its units.

Names, units and formulas follow ExposureSummaryStats of afw and computeExposureSummaryStats of pipe_tasks; a
statistic that nothing is known about is NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.rows import sampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.model import BackgroundList
    from skysub.pipeline.characterise import ApertureCorrection
    from skysub.pipeline.zero_points import ZeroPoints
    from skysub.psf.model import MoffatPsf
    from skysub.visit.image import VisitImage

__all__ = ["FIDUCIALS", "summarise"]

FIDUCIALS = {
    "u": (1.51, 1.72, 26.52),
    "g": (15.45, 1.63, 28.51),
    "r": (32.95, 1.56, 28.36),
    "i": (52.94, 1.51, 28.17),
    "z": (79.40, 1.47, 27.78),
    "y": (90.57, 1.44, 26.82),
}
"""LSST's fiducial sky (electron per second), psfSigma (pixel) and zero point (1 s) by band."""

_SIGNAL = 5.0
_EXPOSURE = 30.0
_READ_NOISE = 9.0
"""Electron, of the fiducial image."""
IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a normal distribution over its interquartile range."""
_SAMPLE = 1 << 18
"""Pixels from which skyNoise and meanVar are taken, at most."""


def summarise(
    visit_image: VisitImage,
    layers: BackgroundList,
    *,
    psf: MoffatPsf | None,
    aperture_correction: ApertureCorrection | None,
    zero_points: ZeroPoints | None,
) -> dict[str, float]:
    """Statistics of a background-subtracted image.

    Parameters
    ----------
    visit_image
        With its final mask.
    layers
        What was subtracted, counts.
    """
    stats: dict[str, float] = {"expTime": float(visit_image.exposure_time)}
    stats["skyBg"] = float(
        sum(np.nanmedian(layer.statistics.mean[np.isfinite(layer.statistics.mean)]) for layer in layers)
    )
    ignored = visit_image.bits("NO_DATA", "SUSPECT")
    step = max(1, math.isqrt(visit_image.image.size // _SAMPLE))
    planes = [visit_image.mask, visit_image.image, visit_image.variance]
    mask, image, *variance = sampled([plane for plane in planes if plane is not None], step)
    stats["skyNoise"] = _clipped(image, mask, ignored, passes=2)[1]
    stats["meanVar"] = _clipped(variance[0], mask, ignored, passes=3)[0] if variance else math.nan
    stats |= _places(visit_image)
    stats |= _psf_statistics(psf)
    stats["psfApCorrSigmaScaledDelta"] = math.nan
    if aperture_correction is not None:
        stats["psfApFluxDelta"] = _spread_over_detector(aperture_correction)
    stats["zeroPoint"] = stats["astromOffsetMean"] = stats["astromOffsetStd"] = math.nan
    if zero_points is not None:
        stats["zeroPoint"] = zero_points.photometric
        stats["astromOffsetMean"] = math.hypot(zero_points.dx, zero_points.dy) * stats["pixelScale"]
        stats["astromOffsetStd"] = zero_points.offset_scatter * stats["pixelScale"]
    stats |= _depth(visit_image, stats)
    return stats


def _clipped(
    image: NDArray[np.float32], mask: NDArray[np.signedinteger], bits: int, *, passes: int
) -> tuple[float, float]:
    """Mean and standard deviation, clipped at 3 sigma about the median first."""
    # in order, so that quartiles and clips are slices
    good = np.sort(image[((mask & bits) == 0) & np.isfinite(image)])
    if not good.size:
        return math.nan, math.nan
    low, middle, high = (_at_rank(good, q * (good.size - 1)) for q in (0.25, 0.5, 0.75))
    half = 3 * IQR_TO_SIGMA * (high - low)
    values = good.astype(np.float64)
    for _ in range(passes):
        kept = values[
            np.searchsorted(values, middle - half) : np.searchsorted(values, middle + half, side="right")
        ]
        if not kept.size:
            break
        middle, half = float(kept.mean()), 3 * float(kept.std())
    return middle, half / 3


def _at_rank(ordered: NDArray[np.float32], rank: float) -> float:
    """Value at a rank that may lie between two."""
    k = min(int(rank), ordered.size - 2) if ordered.size > 1 else 0
    low, high = float(ordered[k]), float(ordered[min(k + 1, ordered.size - 1)])
    return low + (rank - k) * (high - low)


def _places(visit_image: VisitImage) -> dict[str, float]:
    ny, nx = visit_image.shape
    stats = {"ra": math.nan, "dec": math.nan, "pixelScale": math.nan, "zenithDistance": math.nan}
    corners = [(0, 0), (nx - 1, 0), (nx - 1, ny - 1), (0, ny - 1)]
    stats |= {f"{axis}Corners{k}": math.nan for axis in ("ra", "dec") for k in range(4)}
    if visit_image.wcs is None:
        return stats
    from astropy.wcs.utils import proj_plane_pixel_scales

    points = np.array([((nx - 1) / 2, (ny - 1) / 2), *corners], np.float64)
    ra, dec = visit_image.wcs.all_pix2world(points[:, 0], points[:, 1], 0)
    stats |= {"ra": float(ra[0]), "dec": float(dec[0])}
    stats["pixelScale"] = float(3600 * np.sqrt(np.prod(proj_plane_pixel_scales(visit_image.wcs)[:2])))
    for k in range(4):
        stats[f"raCorners{k}"], stats[f"decCorners{k}"] = float(ra[k + 1]), float(dec[k + 1])
    return stats


def _psf_statistics(psf: MoffatPsf | None) -> dict[str, float]:
    names = (
        "psfSigma",
        "psfArea",
        "psfIxx",
        "psfIyy",
        "psfIxy",
        "psfStarDeltaE1Median",
        "psfStarDeltaE2Median",
        "psfStarDeltaE1Scatter",
        "psfStarDeltaE2Scatter",
        "psfStarDeltaSizeMedian",
        "psfStarDeltaSizeScatter",
        "psfStarScaledDeltaSizeScatter",
        "psfTraceRadiusDelta",
        "maxDistToNearestPsf",
        "starEMedian",
    )
    stats = dict.fromkeys(names, math.nan)
    stats["nPsfStar"] = 0.0
    if psf is None:
        return stats
    middle = psf.moments()
    stats |= {
        "psfSigma": psf.sigma,
        "psfArea": psf.area,
        "psfIxx": float(middle.xx[0]),
        "psfIyy": float(middle.yy[0]),
        "psfIxy": float(middle.xy[0]),
    }
    used = psf.stars.used
    stats["nPsfStar"] = float(used.sum())
    star, model = psf.stars.moments, psf.stars.model_moments
    (e1, e2), (m1, m2) = star.ellipticity, model.ellipticity
    for name, delta in (("E1", e1 - m1), ("E2", e2 - m2), ("Size", star.size - model.size)):
        middle_delta, scatter = _median_and_scatter(delta[used])
        stats[f"psfStarDelta{name}Median"], stats[f"psfStarDelta{name}Scatter"] = middle_delta, scatter
    stats["psfStarScaledDeltaSizeScatter"] = stats["psfStarDeltaSizeScatter"] / psf.sigma**2
    stats["starEMedian"] = _median_and_scatter(np.hypot(e1, e2)[used])[0]
    y, x = _lattice(psf.shape)
    nearest = np.hypot(x[:, None] - psf.stars.x[used], y[:, None] - psf.stars.y[used]).min(axis=1)
    stats["maxDistToNearestPsf"] = float(nearest.max())
    over = psf.moments(x=x, y=y)
    radii = np.sqrt((over.xx + over.yy) / 2)
    stats["psfTraceRadiusDelta"] = float(np.ptp(radii))
    return stats


def _median_and_scatter(values: NDArray[np.float64]) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def _spread_over_detector(correction: ApertureCorrection) -> float:
    y, x = _lattice(correction.shape)
    return float(np.ptp(correction.at(x, y)))


def _lattice(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of 9 x 9 points that span a detector, (81,) each, pixel."""
    y, x = np.meshgrid(*(np.linspace(0, n - 1, 9) for n in shape), indexing="ij")
    return y.ravel(), x.ravel()


def _depth(visit_image: VisitImage, stats: dict[str, float]) -> dict[str, float]:
    """Limiting magnitude and effective time."""
    gain = 1.0 if visit_image.unit == "electron" else (visit_image.gain or math.nan)
    read_noise = visit_image.read_noise or 0.0
    out = {
        "magLim": _limit(stats["zeroPoint"], stats["skyBg"], gain, read_noise, stats["psfArea"]),
        "effTime": math.nan,
        "effTimePsfSigmaScale": math.nan,
        "effTimeSkyBgScale": math.nan,
        "effTimeZeroPointScale": math.nan,
    }
    if visit_image.band not in FIDUCIALS:
        return out
    sky, sigma, zero_point = FIDUCIALS[visit_image.band]
    # the fiducial PSF is a Gaussian of that sigma
    fiducial = _limit(
        zero_point + 2.5 * math.log10(_EXPOSURE),
        sky * _EXPOSURE,
        1.0,
        _READ_NOISE,
        4 * math.pi * sigma**2,
    )
    out["effTime"] = 10 ** (0.8 * (out["magLim"] - fiducial)) * _EXPOSURE
    exposure = stats["expTime"]
    with np.errstate(all="ignore"):
        out["effTimePsfSigmaScale"] = (sigma / stats["psfSigma"]) ** 2
        out["effTimeSkyBgScale"] = (
            sky * exposure / (stats["skyBg"] * gain) if stats["skyBg"] > 0 else math.nan
        )
        at_one_second = stats["zeroPoint"] - 2.5 * math.log10(exposure) if exposure > 0 else math.nan
        out["effTimeZeroPointScale"] = 10 ** (0.8 * (at_one_second - zero_point))
    return out


def _limit(zero_point: float, sky: float, gain: float, read_noise: float, area: float) -> float:
    """Magnitude of a point source at 5 sigma: B = (sky / g + ron^2) area, C^2 = snr^2 (C / g + B)."""
    background = (max(sky, 0.0) / gain + read_noise**2) * area
    half = _SIGNAL**2 / (2 * gain)
    counts = half + math.sqrt(half**2 + _SIGNAL**2 * background) if math.isfinite(background) else math.nan
    return zero_point - 2.5 * math.log10(counts) if counts > 0 else math.nan
