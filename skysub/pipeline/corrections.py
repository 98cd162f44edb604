"""Small biases of the sky level that are known without the truth, and how well they are known."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.faint_light import FaintLight
from skysub.sources.detect import FWHM_TO_SIGMA, smoothed_noise, smoothing_kernel

if TYPE_CHECKING:
    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.pipeline.config import CorrectionsConfig
    from skysub.sources.mask import SourceMask, SourceMaskConfig

__all__ = [
    "Corrections",
    "clip_skew",
    "corrected",
    "faint_counts",
    "find_corrections",
    "find_faint_light",
    "noise_peaks",
]

_BRIGHTER = (14.0, 28.0)
"""Fluxes of the sources whose light is extrapolated, in those of a point source of 1 sigma."""
_LIMIT = 5.0
"""Matched-filter signal, in units of its noise, from which catalogues hold a source; the background holds
fainter ones."""
_FEWEST = 20
"""Sources in that range that make an extrapolation worth while."""
_CLEAR = 0.6
"""Share of the pixels that a mask leaves in a field without crowding."""
_CROWDED = 0.9
"""Share masked beyond which what is left is not known to be sky,"""
_BLENDED = 0.5
"""and share that footprints cover before they grow."""
_SKEW_KNOWN, _PEAKS_KNOWN, _FAINT_KNOWN = 0.15, 0.25, 0.25
"""Relative uncertainties of the corrections: of their formulas' approximations, of the gain, and of
the light of faint sources in open fields."""
_STARLIGHT = 0.2
"""Light left in the darkest pixels of a crowded field, in units of the noise per pixel: not known better."""
_BLENDS = 0.05
"""The same between sources that blend, from deep scenes whose truth is known: 0.03 rms, 0.06 at most."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """What was added to the sky's level, unit of the image; 0 where a correction was not made."""

    clip_skew: float = 0.0
    noise_peaks: float = 0.0
    masked_faint: float = 0.0
    uncertainty: float = 0.0
    """Standard deviation of their sum, and of what starlight a crowded field leaves in its darkest pixels."""

    @property
    def total(self) -> float:
        """Sum of all corrections, unit of the image."""
        return self.clip_skew + self.noise_peaks + self.masked_faint


def find_corrections(
    mask: SourceMask,
    background: BackgroundConfig,
    *,
    config: CorrectionsConfig,
    sources: SourceMaskConfig,
    level: float,
    noise: float,
    gain: float | None,
    fwhm: float,
    crowded: bool,
) -> Corrections:
    """Corrections of one image's sky level.

    Parameters
    ----------
    level
        Of the sky, unit of the image.
    noise
        Per pixel, unit of the image.
    gain
        Electrons per unit of the image; None where unknown: clip_skew is 0 then.
    fwhm
        Of the PSF, pixel.
    crowded
        The source mask's budget gave footprints up, so that their peaks say nothing.
    """
    if not (math.isfinite(noise) and noise > 0):
        return Corrections()
    skew = peaks = faint = 0.0
    if config.clip_skew and gain and background.statistic == "meanclip":
        # noise that is not that of counts, read noise for instance, is not skewed
        counts = min(1.0, max(0.0, level / (gain * noise**2)))
        skew = counts * clip_skew(gain, background.clip_sigma)
    if config.noise_peaks and not crowded:
        peaks = noise_peaks(noise, sources.peak_threshold, fwhm=fwhm)
    blended = mask.masked > _CROWDED or float(np.sum(mask.footprints.area)) > _BLENDED * mask.area
    if config.masked_faint and not (crowded or blended) and sources.peak_threshold < _LIMIT:
        magnitudes = 2.5 * math.log10(_LIMIT / sources.peak_threshold)
        faint = magnitudes * faint_counts(mask, noise, fwhm=fwhm)[0]
    faint_error = min(_FAINT_KNOWN * faint * _trust(mask), _BLENDS * noise)
    uncertainty = math.hypot(_SKEW_KNOWN * skew, _PEAKS_KNOWN * peaks, faint_error)
    if crowded:
        uncertainty = _STARLIGHT * noise
    elif blended:
        uncertainty = math.hypot(uncertainty, _BLENDS * noise)
    return Corrections(clip_skew=skew, noise_peaks=peaks, masked_faint=faint, uncertainty=uncertainty)


def _trust(mask: SourceMask) -> float:
    """Factor by which counts are known worse: the more is masked the more sources are blends."""
    return max(1.0, _CLEAR / max(1e-3, 1 - mask.masked))


def find_faint_light(
    mask: SourceMask, *, config: CorrectionsConfig, noise: float, fwhm: float, crowded: bool
) -> FaintLight | None:
    """Light of sources too faint to be masked; None where the image does not tell.

    It is that per magnitude of the sources just bright enough, times a number of magnitudes that no single
    image knows: it depends on the slope and the end of the counts.

    Parameters
    ----------
    noise
        Per pixel, unit of the image.
    fwhm
        Of the PSF, pixel.
    crowded
        The source mask's budget gave footprints up, so that their counts say nothing.
    """
    if not config.faint_light or crowded or not (math.isfinite(noise) and noise > 0):
        return None
    light, error = faint_counts(mask, noise, fwhm=fwhm)
    if light == 0:
        return None
    trust = _trust(mask)
    return FaintLight(
        value=config.faint_magnitudes * light,
        uncertainty=config.faint_magnitudes * math.hypot(error, config.faint_uncertainty * light * trust),
        provenance=(
            f"{config.faint_magnitudes:g} magnitudes' worth of the light per magnitude of sources at "
            f"{_BRIGHTER[0]:g} to {_BRIGHTER[1]:g} times a point source of one sigma"
        ),
    )


def corrected(background: Background, corrections: Corrections, *, structure: float = 0.0) -> Background:
    """Return the background with its level and the level's variance changed.

    Parameters
    ----------
    structure
        Rms of structure of the sky that the polynomial does not follow, unit of the image: the model is
        uncertain by that everywhere.
    """
    coefficients = background.coefficients.copy()
    covariance = background.covariance.copy()
    coefficients[0] += corrections.total
    covariance[0, 0] += corrections.uncertainty**2 + structure**2
    return dataclasses.replace(background, coefficients=coefficients, covariance=covariance)


def clip_skew(gain: float, clip_sigma: float) -> float:
    """Level that a clip of ``clip_sigma`` takes from Poisson noise, unit of the image.

    The third cumulant of counts over a gain g is variance / g, so the skewness is 1 / (g sigma). To first
    order (Gram-Charlier) a clip at +-k sigma moves the mean by -k^3 phi(k) / 3 P of it times sigma, with
    phi the normal density and P its integral within k; centring the clip on its own mean divides by
    1 - 2 k phi(k) / P. The noise itself cancels.
    """
    k = clip_sigma
    density = math.exp(-0.5 * k * k) / math.sqrt(2 * math.pi)
    inside = math.erf(k / math.sqrt(2))
    moved = k**3 * density / (3 * inside)
    return moved / max(0.1, 1 - 2 * k * density / inside) / gain


def noise_peaks(noise: float, threshold: float, *, fwhm: float) -> float:
    """Level that masking peaks of mere noise takes from the sky, unit of the image.

    Maxima above nu of a normal field smoothed by a Gaussian of sigma s have a density of
    nu exp(-nu^2 / 2) / ((2 pi)^1.5 2 s^2) (Bond & Efstathiou 1987, MNRAS 226, 655, high peaks); each stands
    for (nu + 1 / nu) times the flux of a point source of 1 sigma.
    """
    sigma = fwhm * FWHM_TO_SIGMA
    density = threshold * math.exp(-0.5 * threshold**2) / ((2 * math.pi) ** 1.5 * 2 * sigma**2)
    flux = (threshold + 1 / threshold) * _unit_flux(noise, fwhm)
    return float(density * flux)


def faint_counts(mask: SourceMask, noise: float, *, fwhm: float) -> tuple[float, float]:
    """Light of detected sources just above the limit, per pixel and magnitude, and its error.

    Parameters
    ----------
    mask
        Its footprints hold the fluxes; those of 14 to 28 times a point source of 1 sigma are summed.

    Returns
    -------
    light, error
        Unit of the image per pixel and magnitude; (0, 0) where there are fewer than 20 such sources.
    """
    faint, bright = (limit * _unit_flux(noise, fwhm) for limit in _BRIGHTER)
    flux = mask.footprints.flux
    chosen = flux[(flux >= faint) & (flux < bright)]
    if len(chosen) < _FEWEST or mask.area <= 0:
        return 0.0, 0.0
    light = float(np.sum(chosen)) / mask.area / (2.5 * math.log10(bright / faint))
    return light, light / math.sqrt(len(chosen))


def _unit_flux(noise: float, fwhm: float) -> float:
    """Flux of a point source whose smoothed peak is 1 sigma of the smoothed noise."""
    return float(noise / smoothed_noise(smoothing_kernel(fwhm)))
