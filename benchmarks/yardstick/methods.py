"""The methods that measure a case: skysub, and sep and photutils with the best settings of a grid."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import sep
from scipy.signal import fftconvolve

from skysub.measurement import MeasurementConfig, measure_sources
from skysub.measurement.config import APERTURES
from skysub.visit.planes import AFW_PLANES
from yardstick.score import found_of

if TYPE_CHECKING:
    from yardstick.cases import Case

__all__ = ["Answer", "best_photutils", "best_sep", "cut", "with_photutils", "with_sep", "with_skysub"]

_STAR_APERTURE = 4.5
"""Radius whose flux, over the PSF's share in it, is a star's flux by sep, pixel."""
_KRON_FACTORS = (2.5, 3.0, 3.5)
_THRESHOLDS = (3.5, 4.0, 4.5, 5.0, 5.5, 7.0)
_UNUSABLE = AFW_PLANES.bits("BAD", "NO_DATA", "CR")


@dataclass(frozen=True)
class Answer:
    """Sources (n,) as a method gives them; counts and pixels."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    """Of stars."""
    error: np.ndarray
    x_error: np.ndarray
    krons: tuple[np.ndarray, ...]
    """Kron fluxes by one or more factors; the score takes the least biased."""
    sky: float
    """Mean of the sky sources in units of their errors."""
    seconds: float
    settings: str = ""


def with_skysub(case: Case, config: MeasurementConfig) -> Answer:
    """`skysub.measurement.measure_sources`."""
    clock = time.process_time if config.threads == 1 else time.perf_counter
    start = clock()
    measured = measure_sources(case.image, case.variance, case.mask, AFW_PLANES, case.psf, config)
    seconds = clock() - start
    c = measured.columns
    p, empty = c["isPrimary"], c["sky_source"]
    pulls = c["ap09Flux"][empty] / c["ap09FluxErr"][empty]
    names = ("x", "y", "psfFlux", "psfFluxErr", "xErr")
    sky = float(np.nanmean(pulls)) if empty.any() else np.nan
    return Answer(*(c[n][p] for n in names), krons=(c["kronFlux"][p],), sky=sky, seconds=seconds)


@dataclass(frozen=True)
class SepSettings:
    """What a user of ``sep.extract`` can choose."""

    threshold: float = 5.0
    contrast: float = 1e-3
    levels: int = 64
    clean: bool = True
    photons: bool = True
    """Whether the light of sources counts as noise in the detection, or the sky alone."""

    def __str__(self) -> str:
        name = "variance" if self.photons else "sky noise"
        cleaned = "cleaned" if self.clean else "not cleaned"
        return f"{self.threshold:g} sigma of {name}, contrast {self.contrast:g}, {cleaned}"


def best_sep(case: Case, purest: float) -> SepSettings:
    """Of a grid of settings the most complete whose purity is at least ``purest``, or the purest."""
    tried = []
    for contrast, clean, photons in itertools.product((1e-2, 1e-3, 1e-5), (True, False), (True, False)):
        for threshold in _THRESHOLDS:
            settings = SepSettings(threshold, contrast, clean=clean, photons=photons)
            found = _extract(case, settings)
            tried.append((found_of(case, found["x"], found["y"]), settings))
    return _best(tried, purest)


def with_sep(case: Case, settings: SepSettings) -> Answer:
    """``sep``: the matched filter with the PSF, ten apertures, Kron fluxes."""
    start = time.process_time()
    found = _extract(case, settings)
    bad = (case.mask & _UNUSABLE) != 0
    error = np.sqrt(case.variance)
    for radius in APERTURES:
        flux, flux_error, _ = sep.sum_circle(case.image, found["x"], found["y"], radius, err=error, mask=bad)
        if radius == _STAR_APERTURE:
            share = _encircled(case, radius)
            stars = flux / share, flux_error / share
    good = (found["a"] > 0) & (found["b"] > 0) & (found["theta"] <= np.pi / 2)
    shape = (found["a"][good], found["b"][good], found["theta"][good])
    at = found["x"][good], found["y"][good]
    radius, _ = sep.kron_radius(case.image, *at, *shape, 6.0, mask=bad)
    radius = np.where(np.isfinite(radius), np.clip(radius, 1.0, 10.0), 1.0)
    seconds = time.process_time() - start
    krons = []
    for factor in _KRON_FACTORS:
        start = time.process_time()
        kron = np.full(len(found), np.nan)
        kron[good], _, _ = sep.sum_ellipse(case.image, *at, *shape, factor * radius, err=error, mask=bad)
        krons.append(kron)
        seconds += (time.process_time() - start) / len(_KRON_FACTORS)
    x_error = np.sqrt(found["errx2"])
    return Answer(found["x"], found["y"], *stars, x_error, tuple(krons), np.nan, seconds, str(settings))


@dataclass(frozen=True)
class PhotutilsSettings:
    """What a user of photutils' segmentation can choose."""

    threshold: float = 5.0
    contrast: float = 1e-3
    pixels: int = 5

    def __str__(self) -> str:
        return f"{self.threshold:g} sigma, contrast {self.contrast:g}, {self.pixels} pixels"


def best_photutils(case: Case, purest: float) -> PhotutilsSettings:
    """As `best_sep`, of a smaller grid."""
    tried = []
    for threshold, contrast, pixels in itertools.product((4.0, 4.5, 5.0), (1e-2, 1e-3), (1, 5)):
        settings = PhotutilsSettings(threshold, contrast, pixels)
        found = _segments(case, settings)
        tried.append((found_of(case, found.x_centroid, found.y_centroid), settings))
    return _best(tried, purest)


def with_photutils(case: Case, settings: PhotutilsSettings) -> Answer:
    """``photutils``: segments of the matched filter's signal over noise, deblended, and Kron fluxes."""
    from photutils.aperture import CircularAperture, aperture_photometry

    start = time.process_time()
    found = _segments(case, settings)
    x, y = found.x_centroid, found.y_centroid
    error = np.sqrt(case.variance)
    bad = (case.mask & _UNUSABLE) != 0
    places = np.nan_to_num(np.column_stack([x, y]), nan=-100.0)
    discs = [CircularAperture(places, r) for r in APERTURES]
    sums = aperture_photometry(case.image, discs, error=error, mask=bad)
    k = APERTURES.index(_STAR_APERTURE)
    share = _encircled(case, _STAR_APERTURE)
    flux = np.asarray(sums[f"aperture_sum_{k}"]) / share
    flux_error = np.asarray(sums[f"aperture_sum_err_{k}"]) / share
    kron = np.asarray(found.kron_flux)
    seconds = time.process_time() - start
    nothing = np.full(len(x), np.nan)
    return Answer(x, y, flux, flux_error, nothing, (kron,), np.nan, seconds, str(settings))


def _best(tried: list, purest: float) -> object:
    pure = [(found, settings) for found, settings in tried if found.purity >= purest]
    if pure:
        return max(pure, key=lambda pair: pair[0].completeness)[1]
    return max(tried, key=lambda pair: pair[0].purity)[1]


def _extract(case: Case, settings: SepSettings) -> np.ndarray:
    sep.set_extract_pixstack(10**7)
    sep.set_sub_object_limit(10**5)
    bad = (case.mask & _UNUSABLE) != 0
    error = np.sqrt(case.variance)
    if not settings.photons:
        error = np.full_like(error, np.sqrt(np.percentile(case.variance, 25)))
    return sep.extract(
        case.image,
        settings.threshold,
        err=error,
        mask=bad,
        minarea=1,
        filter_kernel=_kernel(case),
        deblend_nthresh=settings.levels,
        deblend_cont=settings.contrast,
        clean=settings.clean,
    )


def _segments(case: Case, settings: PhotutilsSettings) -> object:
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

    kernel = _kernel(case)
    bad = (case.mask & _UNUSABLE) != 0
    image = np.where(bad, 0, case.image)
    smooth = fftconvolve(image, kernel[::-1, ::-1], mode="same")
    noise = np.sqrt(np.percentile(case.variance, 25) * np.sum(kernel**2))
    signal = smooth / noise
    segments = detect_sources(signal, settings.threshold, n_pixels=settings.pixels, mask=bad)
    segments = deblend_sources(
        signal,
        segments,
        n_pixels=settings.pixels,
        n_levels=32,
        contrast=settings.contrast,
        progress_bar=False,
    )
    return SourceCatalog(
        case.image,
        segments,
        convolved_data=smooth,
        error=np.sqrt(case.variance),
        mask=bad,
        progress_bar=False,
    )


def _kernel(case: Case) -> np.ndarray:
    middle = (np.array([float(n // 4 * 2)]) for n in case.image.shape)
    y, x = middle
    stamp = case.psf.stamps(x=x, y=y)[0]
    half = len(stamp) // 2
    return np.ascontiguousarray(stamp[half - 6 : half + 7, half - 6 : half + 7])


def _encircled(case: Case, radius: float) -> float:
    """Share of the PSF's stamp within a radius."""
    y, x = (np.array([float(n // 4 * 2)]) for n in case.image.shape)
    stamp = np.ascontiguousarray(case.psf.stamps(x=x, y=y)[0], np.float64)
    middle = np.array([len(stamp) // 2 + 0.0])
    return float(sep.sum_circle(stamp, middle, middle, radius)[0][0])


def cut(case: Case, size: int) -> Case:
    """The first pixels of a case, for methods that are slow."""
    window = np.s_[:size, :size]
    near = (case.x < size + 20) & (case.y < size + 20)
    return replace(
        case,
        image=np.ascontiguousarray(case.image[window]),
        variance=np.ascontiguousarray(case.variance[window]),
        mask=np.ascontiguousarray(case.mask[window]),
        **{n: getattr(case, n)[near] for n in ("x", "y", "flux", "is_star", "signal")},
    )
