"""Figures of detectors and visits: the name of each, what people call it, its unit, and what it is.

Steps write figures into their markers (`Campaign.figures`). Those by LSST's names are LSST's: see
ExposureSummaryStats of afw and the tables VisitDetector of its data releases. Other names are skysub's own.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COUNT_UNIT", "FIGURES", "PIXEL_UNIT", "Figure", "figure_named"]

PIXEL_UNIT = "{unit}"
"""Stands for the unit of the pixels that the step made."""
COUNT_UNIT = "{counts}"
"""Stands for the unit of the input's pixels, in which LSST's statistics of a calibrated image stay."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Parameters
    ----------
    name
        Its name in markers and tables.
    label
        Its heading for people; empty for one that is shown by its name.
    unit
        Its unit; "{unit}" stands for that of the pixels, "{counts}" for that of the input's pixels.
    meaning
        What it is, in a phrase.
    """

    name: str
    label: str
    unit: str
    meaning: str


_ALL = (
    Figure("sky", "Sky level", PIXEL_UNIT, "level of the background: its constant coefficient"),
    Figure("noise", "Noise of a pixel", PIXEL_UNIT, "median over superpixels of the noise per pixel"),
    Figure(
        "residual",
        "Residual, rms of cells",
        PIXEL_UNIT,
        "rms over cells of the mean of what is left in pixels without sources",
    ),
    Figure(
        "chi2_per_freedom",
        "χ² per degree of freedom",
        "",
        "mean square of the superpixels' residuals over their errors",
    ),
    Figure("seeing", "Seeing, FWHM", "arcsec", "full width at half maximum of a Gaussian of the PSF's size"),
    Figure(
        "skyBrightness",
        "Sky brightness",
        "mag/arcsec²",
        "sky level on the sky, by zero point and pixel scale",
    ),
    Figure(
        "psfSigma",
        "PSF \N{GREEK SMALL LETTER SIGMA}",
        "pixel",
        "size of the PSF at the centre: the determinant radius of its moments",
    ),
    Figure("zeroPoint", "Zero point", "mag", "magnitude of one unit of the input's pixels"),
    Figure("magLim", "Limiting magnitude", "mag", "magnitude of a point source at 5 sigma"),
    Figure("skyBg", "Sky background", COUNT_UNIT, "sum over layers of the median of their superpixels"),
    Figure("skyNoise", "Sky noise", COUNT_UNIT, "clipped standard deviation of the pixels, sources included"),
    Figure(
        "faint_light",
        "Light of undetected sources",
        PIXEL_UNIT,
        "estimate of the light of sources too faint to be masked",
    ),
    Figure("faint_light_error", "Its uncertainty", PIXEL_UNIT, "standard deviation of that estimate"),
    Figure(
        "amplifier_steps",
        "Largest step between amplifiers",
        PIXEL_UNIT,
        "largest difference of the amplifiers' levels in the background",
    ),
    Figure(
        "amplifier_drift",
        "Drift of amplifiers' rows, rms",
        PIXEL_UNIT,
        "rms of the drift along rows in the background",
    ),
    Figure("covered_by_sources", "Covered by sources", "%", "share of the pixels that sources cover"),
    Figure("covered_by_defects", "Covered by defects", "%", "share of the pixels that defects cover"),
    Figure("sources", "Sources", "", "primary sources in the table `source`"),
    Figure("over_subtracted", "Over-subtracted", "", "sources whose light the background may have taken"),
    Figure("superpixels_used", "Superpixels used", "", "superpixels that the fit believed"),
    Figure("order", "Order", "", "highest degree of the polynomial"),
    Figure("passes", "Passes", "", "turns of mask and background"),
    Figure("seconds", "Time", "s", "time that the unit took on its worker"),
    Figure("expTime", "", "s", "exposure time"),
    Figure("meanVar", "", "{counts}²", "clipped mean of the variance plane"),
    Figure("ra", "", "degree", "right ascension of the detector's centre"),
    Figure("dec", "", "degree", "declination of the detector's centre"),
    *(Figure(f"raCorners{k}", "", "degree", f"right ascension of corner {k}") for k in range(4)),
    *(Figure(f"decCorners{k}", "", "degree", f"declination of corner {k}") for k in range(4)),
    Figure("pixelScale", "", "arcsec/pixel", "edge of a pixel on the sky"),
    Figure("zenithDistance", "", "degree", "zenith distance; NaN, as no observatory's place is known"),
    Figure("psfArea", "", "pixel²", "effective area of the PSF: 1 over the sum of its squares"),
    Figure("psfIxx", "", "pixel²", "second moment of the PSF along x"),
    Figure("psfIyy", "", "pixel²", "second moment of the PSF along y"),
    Figure("psfIxy", "", "pixel²", "mixed second moment of the PSF"),
    Figure("psfStarDeltaE1Median", "", "", "median over PSF stars of star less model, ellipticity E1"),
    Figure("psfStarDeltaE2Median", "", "", "median over PSF stars of star less model, ellipticity E2"),
    Figure("psfStarDeltaE1Scatter", "", "", "scatter (MAD) of the same, E1"),
    Figure("psfStarDeltaE2Scatter", "", "", "scatter (MAD) of the same, E2"),
    Figure("psfStarDeltaSizeMedian", "", "pixel", "median over PSF stars of star less model, size"),
    Figure("psfStarDeltaSizeScatter", "", "pixel", "scatter (MAD) of the same"),
    Figure("psfStarScaledDeltaSizeScatter", "", "1/pixel", "that scatter over the square of psfSigma"),
    Figure("psfTraceRadiusDelta", "", "pixel", "largest less smallest size of the PSF over the detector"),
    Figure("psfApFluxDelta", "", "", "largest less smallest aperture correction over the detector"),
    Figure("psfApCorrSigmaScaledDelta", "", "", "NaN: LSST's aperture correction of the model is not made"),
    Figure("maxDistToNearestPsf", "", "pixel", "largest distance of a place on the detector from a PSF star"),
    Figure("starEMedian", "", "", "median ellipticity of PSF stars"),
    Figure("nPsfStar", "", "", "PSF stars used"),
    Figure("astromOffsetMean", "", "arcsec", "offset of stars from the reference catalogue"),
    Figure("astromOffsetStd", "", "arcsec", "scatter of stars about that"),
    Figure("effTime", "", "s", "exposure that would reach magLim under LSST's fiducial sky"),
    Figure("effTimePsfSigmaScale", "", "", "factor in effTime by the PSF"),
    Figure("effTimeSkyBgScale", "", "", "factor in effTime by the sky"),
    Figure("effTimeZeroPointScale", "", "", "factor in effTime by the zero point"),
    Figure("zeroPointErr", "", "mag", "standard deviation of zeroPoint"),
    Figure("zero_point_photometric", "", "mag", "zero point that `calibrate_image` found"),
    Figure("zero_point_photometric_error", "", "mag", "its standard deviation"),
    Figure("zero_point_dx", "", "pixel", "offset of stars from the reference catalogue along x"),
    Figure("zero_point_dy", "", "pixel", "offset of stars from the reference catalogue along y"),
    Figure("zero_point_offset_scatter", "", "pixel", "scatter of stars about that, per axis"),
    Figure("zero_point_matches", "", "", "stars matched with the reference catalogue"),
    Figure("xSize", "", "pixel", "columns of the detector"),
    Figure("ySize", "", "pixel", "rows of the detector"),
    Figure(
        "bg_subtracted_skyPixel_instFlux_median",
        "",
        COUNT_UNIT,
        "median of the subtracted pixels that show sky",
    ),
    Figure("bg_subtracted_skyPixel_instFlux_stdev", "", COUNT_UNIT, "standard deviation of the same"),
    Figure("bg_subtracted_skySource_flux_median", "", "nJy", "median flux in apertures on empty sky"),
    Figure("bg_subtracted_skySource_flux_stdev", "", "nJy", "standard deviation of the same"),
    Figure("blends", "", "", "blends that were taken apart"),
    Figure("sky_sources", "", "", "apertures on empty sky"),
    Figure("detectors", "", "", "detectors of the visit"),
    Figure("detectors_joint", "", "", "detectors that took part in the joint fit"),
    Figure("votes_lost", "", "", "detectors without a vote on their own level"),
    Figure("offsets_rms", "", PIXEL_UNIT, "scatter of the detectors' offsets"),
    Figure("mode", "", "", "whether detectors were fit jointly, or each by itself"),
    Figure("terms", "", "", "terms of the joint fit that were chosen"),
    Figure("templates", "", "", "templates that the joint fit used"),
    Figure("structure", "", PIXEL_UNIT, "rms of structure of the sky that the background does not follow"),
)

FIGURES = {figure.name: figure for figure in _ALL}
"""Figures that skysub's own steps and reports make, by name."""


def figure_named(name: str) -> Figure:
    """Return what is known of a figure; one that skysub does not know has its own name as its label.

    Shares of mask planes (``..._mask_fraction``) have a meaning as well.
    """
    figure = FIGURES.get(name)
    if figure is not None:
        return figure
    if name.endswith("_mask_fraction"):
        plane = name.removesuffix("_mask_fraction").upper()
        return Figure(name, "", "", f"share of the pixels with the mask plane {plane}")
    return Figure(name, "", "", "")
