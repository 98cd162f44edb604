"""The columns of ``source``: those of LSST's Data Preview 1, in its order, and ours behind them.

Names, types and units are those of the table Source in LSST's sdm_schemas (dp1.yaml); descriptions say what
is measured here. Data Preview 2 has the same ones without coord_ra and coord_dec.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["APERTURES", "COLUMNS", "DP1_COLUMNS", "OWN_COLUMNS", "Column", "column"]

APERTURES = (3, 6, 9, 12, 17, 25, 35, 50, 70)
"""Radii of the apertures whose fluxes are calibrated, pixel."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    dtype: str
    """"float64", "float32", "int64", "int32", "bool" or "str"."""
    unit: str
    """As astropy writes it; empty where there is none."""
    description: str


def _apertures() -> list[Column]:
    columns = []
    for radius in APERTURES:
        name, what = f"ap{radius:02d}Flux", f"within a circle of {radius} pixels"
        columns += [
            Column(name, "float64", "nJy", f"Flux {what}."),
            Column(f"{name}Err", "float64", "nJy", f"Standard deviation of the flux {what}."),
            Column(f"{name}_flag", "bool", "", f"The flux {what} is not complete or could not be measured."),
        ]
    return columns


def _counts(radius: int, *further: Column) -> list[Column]:
    name, what = f"apFlux_{radius}_0", f"within a circle of {radius} pixels"
    return [
        Column(f"{name}_flag", "bool", "", f"The flux {what} is not complete or could not be measured."),
        *further,
        Column(f"{name}_instFlux", "float64", "count", f"Flux {what}, not calibrated."),
        Column(f"{name}_instFluxErr", "float64", "count", f"Standard deviation of the flux {what}."),
    ]


def _flags(*names_and_words: str) -> list[Column]:
    pairs = zip(names_and_words[::2], names_and_words[1::2], strict=True)
    return [Column(name, "bool", "", words) for name, words in pairs]


def _moments(prefix: str, what: str) -> list[Column]:
    return [
        Column(f"i{axes}{prefix}", "float64", "pixel**2", f"Adaptive second moment in {axes} {what}.")
        for axes in ("xx", "yy", "xy")
    ]


_NO_PIXELS = "There are no pixels to measure the shape of"
_NOT_INSIDE = "The centre lies outside the pixels of the source; no shape of"
_PARENT = "The source is a blend, of which no shape is measured:"

DP1_COLUMNS: tuple[Column, ...] = (
    Column("coord_ra", "float64", "deg", "Right ascension (ICRS) of the centroid; the same as ra."),
    Column("coord_dec", "float64", "deg", "Declination (ICRS) of the centroid; the same as dec."),
    Column(
        "parentSourceId", "int64", "", "sourceId of the blend that the source was taken from; 0 for none."
    ),
    Column("x", "float64", "pixel", "Centroid along rows; the centre of the first pixel is 0."),
    Column("y", "float64", "pixel", "Centroid along columns; the centre of the first pixel is 0."),
    Column("xErr", "float32", "pixel", "Standard deviation of x."),
    Column("yErr", "float32", "pixel", "Standard deviation of y."),
    Column("ra", "float64", "deg", "Right ascension (ICRS) of the centroid."),
    Column("dec", "float64", "deg", "Declination (ICRS) of the centroid."),
    Column("raErr", "float32", "deg", "Standard deviation of ra times cos(dec), from that of x and y."),
    Column("decErr", "float32", "deg", "Standard deviation of dec, from that of x and y."),
    Column("ra_dec_Cov", "float32", "deg**2", "Covariance of ra times cos(dec) with dec."),
    Column(
        "calibFlux", "float64", "nJy", "Flux that the photometric calibration refers to: within 12 pixels."
    ),
    Column("calibFluxErr", "float64", "nJy", "Standard deviation of calibFlux."),
    *_apertures(),
    Column("sky", "float64", "nJy", "Background left around the source, per pixel, from a ring about it."),
    Column("skyErr", "float64", "nJy", "Standard deviation of sky."),
    Column("psfFlux", "float64", "nJy", "Flux of the PSF fit to the source together with its neighbours."),
    Column("psfFluxErr", "float64", "nJy", "Standard deviation of psfFlux, neighbours' covariance included."),
    *_moments("", "of the source"),
    *_moments("PSF", "of the PSF at the source"),
    *_moments("DebiasedPSF", "of the PSF at the source, of the model without noise"),
    Column("gaussianFlux", "float64", "nJy", "Flux by a Gaussian weight of the source's own moments."),
    Column("gaussianFluxErr", "float64", "nJy", "Standard deviation of gaussianFlux."),
    Column("extendedness", "float64", "", "0 for a point, 1 for an extended source, by ratios of fluxes."),
    Column("sizeExtendedness", "float64", "", "From 0 for a point to 1 for an extended source, by moments."),
    Column(
        "blendedness_abs",
        "float64",
        "",
        "Share of the light under the source's own weight that neighbours have: 1 - own / all.",
    ),
    *_flags(
        "blendedness_flag",
        "The blendedness could not be measured.",
        "blendedness_flag_noCentroid",
        "There is no centroid to measure the blendedness at.",
        "blendedness_flag_noShape",
        "There is no shape to measure the blendedness with.",
    ),
    *_counts(
        12,
        *_flags(
            "apFlux_12_0_flag_apertureTruncated",
            "The circle of 12 pixels reaches beyond the image.",
            "apFlux_12_0_flag_sincCoeffsTruncated",
            "The weights of the circle of 12 pixels reach beyond the image.",
        ),
    ),
    *_counts(17),
    *_counts(35),
    *_counts(50),
    *_flags("normCompTophatFlux_flag", "The calibration flux could not be measured."),
    Column(
        "normCompTophatFlux_instFlux", "float64", "count", "Flux that calibrations refer to, not calibrated."
    ),
    Column(
        "normCompTophatFlux_instFluxErr",
        "float64",
        "count",
        "Standard deviation of that flux, not calibrated.",
    ),
    *_flags(
        "extendedness_flag",
        "The extendedness could not be told.",
        "sizeExtendedness_flag",
        "The extendedness by moments could not be told.",
    ),
    Column("footprintArea_value", "int32", "pixel", "Pixels of the region in which the source was detected."),
    *_flags(
        "invalidPsfFlag",
        "There is no usable PSF at the source.",
        "jacobian_flag",
        "The area of the pixel at the source could not be told.",
    ),
    Column("jacobian_value", "float64", "", "Area of the pixel at the source over that of 0.2 x 0.2 arcsec."),
    Column(
        "localBackground_instFlux",
        "float64",
        "count",
        "Background left around the source, per pixel, not calibrated.",
    ),
    Column(
        "localBackground_instFluxErr", "float64", "count", "Standard deviation of localBackground_instFlux."
    ),
    *_flags(
        "localBackground_flag",
        "The background around the source could not be measured.",
        "localBackground_flag_noGoodPixels",
        "There is no good pixel in the ring around the source.",
        "localBackground_flag_noPsf",
        "There is no PSF to size the ring around the source by.",
        "pixelFlags_bad",
        "A pixel of the source is BAD.",
        "pixelFlags_cr",
        "A pixel of the source was hit by a cosmic ray.",
        "pixelFlags_crCenter",
        "A pixel at the centre of the source was hit by a cosmic ray.",
        "pixelFlags_edge",
        "The source lies at the edge of the usable pixels (EDGE), or its centre outside the image.",
        "pixelFlags_interpolated",
        "A pixel of the source was interpolated.",
        "pixelFlags_interpolatedCenter",
        "A pixel at the centre of the source was interpolated.",
        "pixelFlags_nodata",
        "Nothing is known of a pixel of the source (NO_DATA).",
        "pixelFlags_offimage",
        "The centre of the source lies outside the image.",
        "pixelFlags_saturated",
        "A pixel of the source is saturated.",
        "pixelFlags_saturatedCenter",
        "A pixel at the centre of the source is saturated.",
        "pixelFlags_suspect",
        "A pixel of the source is SUSPECT.",
        "pixelFlags_suspectCenter",
        "A pixel at the centre of the source is SUSPECT.",
    ),
    Column("psfFlux_apCorr", "float64", "", "Aperture correction that psfFlux was multiplied by."),
    Column("psfFlux_apCorrErr", "float64", "", "Standard deviation of psfFlux_apCorr; not in psfFluxErr."),
    Column(
        "psfFlux_area", "float32", "pixel", "Effective area of the PSF: (sum of it)^2 / sum of its squares."
    ),
    *_flags(
        "psfFlux_flag",
        "The flux of the PSF could not be fit.",
        "psfFlux_flag_apCorr",
        "There is no aperture correction for psfFlux.",
        "psfFlux_flag_edge",
        "Part of the PSF lies outside the image.",
        "psfFlux_flag_noGoodPixels",
        "There are no good pixels to fit the PSF to.",
        "gaussianFlux_flag",
        "The Gaussian flux could not be measured.",
        "centroid_flag",
        "The centroid could not be measured.",
        "centroid_flag_almostNoSecondDerivative",
        "The source is nearly flat at its centroid.",
        "centroid_flag_badError",
        "The standard deviation of the centroid is not known.",
        "centroid_flag_edge",
        "The source lies too near to the edge for a centroid.",
        "centroid_flag_noSecondDerivative",
        "The source is flat at its centroid.",
        "centroid_flag_notAtMaximum",
        "The source has no maximum at its centroid.",
        "centroid_flag_resetToPeak",
        "The centroid moved too far, and the brightest pixel stands for it.",
        "variance_flag",
        "The variance at the source is not known.",
        "variance_flag_emptyFootprint",
        "No usable pixel of the source tells the variance.",
    ),
    Column("variance_value", "float64", "", "Median variance of the pixels of the source, count**2."),
    *_flags(
        "calib_astrometry_used",
        "The source served the astrometric calibration.",
        "calib_photometry_reserved",
        "The source was kept out of the photometric calibration to judge it by.",
        "calib_photometry_used",
        "The source served the photometric calibration.",
        "calib_psf_candidate",
        "The source was a candidate for the PSF.",
        "calib_psf_reserved",
        "The source was kept out of the PSF to judge it by.",
        "calib_psf_used",
        "The source served the PSF.",
        "deblend_deblendedAsPsf",
        "The source was taken from its blend as a point.",
        "deblend_hasStrayFlux",
        "Light of the blend that no source claims was given to the source.",
        "deblend_masked",
        "Most pixels of the blend are masked.",
    ),
    Column("deblend_nChild", "int32", "", "Number of sources that the blend was taken apart into."),
    *_flags(
        "deblend_parentTooBig",
        "The blend has too many pixels to be taken apart.",
        "deblend_patchedTemplate",
        "The source is cut by the edge of the image, and the lost part was mirrored.",
        "deblend_rampedTemplate",
        "The source is cut by the edge of the image, and what is left was faded out.",
        "deblend_skipped",
        "The blend was not taken apart.",
        "deblend_tooManyPeaks",
        "The blend has too many peaks; only the brightest were taken apart.",
    ),
    *_flags(
        "hsmPsfMoments_flag",
        "The shape of the PSF could not be measured.",
        "hsmPsfMoments_flag_no_pixels",
        f"{_NO_PIXELS} the PSF.",
        "hsmPsfMoments_flag_not_contained",
        f"{_NOT_INSIDE} the PSF was measured.",
        "hsmPsfMoments_flag_parent_source",
        f"{_PARENT} the PSF.",
        "iDebiasedPSF_flag",
        "The shape of the PSF with noise could not be measured.",
        "iDebiasedPSF_flag_no_pixels",
        f"{_NO_PIXELS} the PSF with noise.",
        "iDebiasedPSF_flag_not_contained",
        f"{_NOT_INSIDE} the PSF with noise was measured.",
        "iDebiasedPSF_flag_parent_source",
        f"{_PARENT} the PSF with noise.",
        "iDebiasedPSF_flag_galsim",
        "The moments of the PSF with noise did not converge.",
        "iDebiasedPSF_flag_edge",
        "The noise of the PSF's pixels is not known beyond the edge.",
        "hsmShapeRegauss_flag",
        "The shape of the source could not be measured.",
        "hsmShapeRegauss_flag_galsim",
        "The moments of the source did not converge.",
        "hsmShapeRegauss_flag_no_pixels",
        f"{_NO_PIXELS} the source.",
        "hsmShapeRegauss_flag_not_contained",
        f"{_NOT_INSIDE} the source was measured.",
        "hsmShapeRegauss_flag_parent_source",
        f"{_PARENT} the source.",
        "sky_source",
        "A place without light, measured as sources are to judge the background.",
    ),
    Column("visit", "int64", "", "Number of the visit."),
    Column("detector", "int64", "", "Number of the detector."),
    Column("band", "str", "", "Band of the filter."),
    Column("physical_filter", "str", "", "The filter itself, as the exposure's header has it."),
    Column("sourceId", "int64", "", "Number of the source: unique over all visits of a release."),
)
"""The 156 columns of Data Preview 1, in its order."""

OWN_COLUMNS: tuple[Column, ...] = (
    Column("detect_isPrimary", "bool", "", "Not a blend that was taken apart, and no sky source."),
    Column("kronFlux", "float64", "nJy", "Flux within an ellipse of Kron's radius."),
    Column("kronFluxErr", "float64", "nJy", "Standard deviation of kronFlux."),
    Column("kronFlux_flag", "bool", "", "The Kron flux could not be measured."),
    Column("kronRadius", "float64", "pixel", "Kron radius: first moment of the light's radius."),
    Column(
        "deblend_chi2", "float64", "", "Mean square of what the model leaves of the source over its noise."
    ),
    Column(
        "overSubtraction_flag", "bool", "", "The background has probably taken light of the source with it."
    ),
    Column(
        "overSubtraction_loss",
        "float64",
        "",
        "Share of the source's light that the background's fit is predicted to have taken with it.",
    ),
    Column(
        "overSubtraction_lossErr",
        "float64",
        "",
        "Standard deviation of the share that the background's own uncertainty adds or takes.",
    ),
    Column("localPhotoCalib", "float64", "nJy", "Flux of one count at the source."),
    Column("localPhotoCalibErr", "float64", "nJy", "Standard deviation of localPhotoCalib."),
    Column("localWcs_CDMatrix_1_1", "float64", "deg", "Change of ra times cos(dec) for a pixel in x."),
    Column("localWcs_CDMatrix_1_2", "float64", "deg", "Change of ra times cos(dec) for a pixel in y."),
    Column("localWcs_CDMatrix_2_1", "float64", "deg", "Change of dec for a pixel in x."),
    Column("localWcs_CDMatrix_2_2", "float64", "deg", "Change of dec for a pixel in y."),
)
"""What Data Preview 1 does not have."""

COLUMNS: tuple[Column, ...] = (*DP1_COLUMNS, *OWN_COLUMNS)
"""All columns of ``source``, in order."""

_BY_NAME = {known.name: known for known in COLUMNS}


def column(name: str) -> Column:
    """The column of a name; KeyError where ``source`` has none of it."""
    return _BY_NAME[name]
