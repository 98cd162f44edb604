"""Summary statistics against numbers worked out by hand, on images that are alike in no two directions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS

import skysub
from skysub.background.model import BackgroundList
from skysub.pipeline.characterise import ApertureCorrection
from skysub.pipeline.summary import FIDUCIALS, summarise
from skysub.pipeline.zero_points import ZeroPoints
from skysub.psf.model import MoffatPsf, PsfStars
from skysub.psf.stars import Moments
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

SHAPE = (60, 90)
SKY = 400.0
ZERO_POINT = 31.0


def layer(level, *, hole=False, shape=SHAPE):
    image = np.random.default_rng(1).normal(level, 1, shape).astype(np.float32)
    if hole:
        image[:30, :30] = np.nan
    config = skysub.BackgroundConfig(superpixel=30, order=0)
    return skysub.fit_background(image, None, config)


def wcs():
    made = WCS(naxis=2)
    made.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    made.wcs.crpix = [11.0, 21.0]
    made.wcs.crval = [150.0, -30.0]
    made.wcs.cdelt = [-0.2 / 3600, 0.45 / 3600]
    return made


def array(*values):
    return np.array(values, np.float64)


@pytest.fixture
def psf():
    """Three stars of which two are used."""
    star = Moments(array(0, 0, 0), array(0, 0, 0), array(4, 9, 5), array(1, 0, 0), array(2, 4, 5))
    model = Moments(array(0, 0, 0), array(0, 0, 0), array(3, 5, 9), array(0, 2, 0), array(3, 5, 1))
    return MoffatPsf(
        shape=SHAPE,
        order=1,
        coefficients=np.array([[2.0, 0.15, -0.1], [0.1, 0, 0], [0.05, 0, 0]]),
        beta=3.0,
        residual=np.zeros((25, 25)),
        stars=PsfStars(
            x=array(10, 80, 45),
            y=array(50, 5, 30),
            flux=array(1, 1, 1),
            used=np.array([True, True, False]),
            chi2=array(1, 1, 1),
            moments=star,
            model_moments=model,
        ),
    )


def made(**changes):
    image = np.empty(SHAPE, np.float32)
    image[:, 0::2], image[:, 1::2] = -2, 2
    variance = np.where(np.arange(SHAPE[1]) % 2, 5, 3).astype(np.float32) * np.ones((SHAPE[0], 1), np.float32)
    fields = {
        "image": image,
        "mask": np.zeros(SHAPE, np.int32),
        "planes": AFW_PLANES,
        "variance": variance,
        "unit": "adu",
        "wcs": wcs(),
        "visit": 1,
        "detector": 2,
        "band": "r",
        "exposure_time": 20.0,
        "gain": 2.5,
        "read_noise": 6.0,
    }
    return VisitImage(**(fields | changes))


def summary(visit_image=None, psf=None, **changes):
    points = ZeroPoints(
        photometric=ZERO_POINT, photometric_error=0.01, dx=3.0, dy=-4.0, offset_scatter=0.5, matches=9
    )
    more = {"aperture_correction": None, "zero_points": points} | changes
    layers = BackgroundList([layer(SKY - 30), layer(30.0, hole=True)])
    return summarise(visit_image or made(), layers, psf=psf, **more)


def test_the_sky_is_the_sum_of_the_layers_medians():
    assert summary()["skyBg"] == pytest.approx(SKY, abs=0.1)


@pytest.mark.parametrize("plane", ["SUSPECT", "NO_DATA"])
def test_noise_and_variance_are_those_of_pixels_that_are_known(plane):
    visit_image = made()
    mask = visit_image.mask.copy()
    # what is left out would change both, by values that no clip removes
    mask[:40] |= AFW_PLANES.bits(plane)
    visit_image.image[:40], visit_image.variance[:40] = 0, 4.75
    # other planes are not left out
    mask[40:] |= AFW_PLANES.bits("SAT", "DETECTED")
    found = summary(visit_image.replace(mask=mask))
    assert found["skyNoise"] == pytest.approx(2)
    assert found["meanVar"] == pytest.approx(4)


def test_noise_is_clipped():
    visit_image = made()
    visit_image.image[7, 8], visit_image.variance[7, 9] = 1e4, 1e6
    found = summary(visit_image)
    assert found["skyNoise"] == pytest.approx(2)
    assert found["meanVar"] == pytest.approx(4, abs=1e-3)


def test_an_image_without_variance_has_no_mean_of_it():
    assert math.isnan(summary(made(variance=None))["meanVar"])


def test_places_on_the_sky():
    found = summary()
    # pixel (10, 20) is the reference; the middle is (44.5, 29.5), the corners are the corner pixels' centres
    for name, x, y in (
        ("{}", 44.5, 29.5),
        ("{}Corners0", 0, 0),
        ("{}Corners1", 89, 0),
        ("{}Corners2", 89, 59),
        ("{}Corners3", 0, 59),
    ):
        dec = -30 + (y - 20) * 0.45 / 3600
        assert found[name.format("dec")] == pytest.approx(dec, abs=1e-6)
        ra = 150 - (x - 10) * 0.2 / 3600 / math.cos(math.radians(dec))
        assert found[name.format("ra")] == pytest.approx(ra, abs=1e-6)
    # the geometric mean of 0.2 and 0.45 arcsec
    assert found["pixelScale"] == pytest.approx(0.3, rel=1e-6)
    # 3 and 4 pixels are 5
    assert found["astromOffsetMean"] == pytest.approx(5 * 0.3, rel=1e-6)
    assert found["astromOffsetStd"] == pytest.approx(0.5 * 0.3, rel=1e-6)


def test_stars_and_their_model(psf):
    found = summary(psf=psf)
    middle = psf.moments(x=44.5, y=29.5)
    for name, value in (("Ixx", middle.xx), ("Ixy", middle.xy), ("Iyy", middle.yy)):
        assert found[f"psf{name}"] == pytest.approx(value[0])
    assert found["psfSigma"] == pytest.approx((middle.xx * middle.yy - middle.xy**2)[0] ** 0.25)
    assert found["nPsfStar"] == 2
    # e1: 2/6 - 0 and 5/13 - 0; e2: 2/6 - 0 and 0 - 4/10
    assert found["psfStarDeltaE1Median"] == pytest.approx((1 / 3 + 5 / 13) / 2)
    assert found["psfStarDeltaE1Scatter"] == pytest.approx(1.4826 * (5 / 13 - 1 / 3) / 2)
    assert found["psfStarDeltaE2Median"] == pytest.approx((1 / 3 - 0.4) / 2)
    assert found["psfStarDeltaE2Scatter"] == pytest.approx(1.4826 * (1 / 3 + 0.4) / 2)
    # sizes: (8 - 1)^(1/4) and 6^(1/2) of the stars; 3^(1/2) and (25 - 4)^(1/4) of the models
    first, second = 7**0.25 - 3**0.5, 6**0.5 - 21**0.25
    assert found["psfStarDeltaSizeMedian"] == pytest.approx((first + second) / 2)
    scatter = 1.4826 * abs(first - second) / 2
    assert found["psfStarDeltaSizeScatter"] == pytest.approx(scatter)
    assert found["psfStarScaledDeltaSizeScatter"] == pytest.approx(scatter / found["psfSigma"] ** 2)
    assert found["starEMedian"] == pytest.approx((math.hypot(1 / 3, 1 / 3) + 5 / 13) / 2)
    # of 9 x 9 points over the detector the one farthest from (10, 50) and (80, 5) is (6/8 of 89, 59)
    assert found["maxDistToNearestPsf"] == pytest.approx(math.hypot(80 - 66.75, 54))
    # log a^2 rises along x and falls along y, so the extremes are in opposite corners
    corners = [psf.moments(x=x, y=y) for x, y in ((89, 0), (0, 59))]
    radii = [math.sqrt((m.xx[0] + m.yy[0]) / 2) for m in corners]
    assert found["psfTraceRadiusDelta"] == pytest.approx(radii[0] - radii[1])
    assert found["psfTraceRadiusDelta"] > 0.1


def test_the_spread_of_the_aperture_correction():
    correction = ApertureCorrection(
        shape=SHAPE, order=1, coefficients=array(1.1, 0.02, -0.03), radius=9.0, scatter=0.01, stars=20
    )
    # Chebyshev terms run from -1 to 1 over a detector, up to half a pixel
    expected = 2 * (0.02 * (89 / 90) + 0.03 * (59 / 60))
    assert summary(aperture_correction=correction)["psfApFluxDelta"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("unit", "gain"), [("adu", 2.5), ("electron", 1.0)])
def test_a_source_at_the_limiting_magnitude_has_a_signal_of_five_times_its_noise(psf, unit, gain):
    found = summary(made(unit=unit), psf)
    counts = 10 ** (0.4 * (ZERO_POINT - found["magLim"]))
    noise2 = counts / gain + (found["skyBg"] / gain + 6.0**2) * found["psfArea"]
    assert counts / math.sqrt(noise2) == pytest.approx(5)
    assert found["psfArea"] == pytest.approx(psf.area)


def test_effective_time(psf):
    found = summary(psf=psf)
    sky, sigma, zero_point = FIDUCIALS["r"]
    assert (sky, sigma, zero_point) == (32.95, 1.56, 28.36)
    # the image by which LSST measures: 30 s, 9 electrons of read noise, a Gaussian PSF
    area = 4 * math.pi * 1.56**2
    noise2 = (32.95 * 30 + 9.0**2) * area
    counts = 12.5 + math.sqrt(12.5**2 + 25 * noise2)
    limit = 28.36 + 2.5 * math.log10(30) - 2.5 * math.log10(counts)
    # depth grows as the root of time: 0.3 mag are a factor 10^(0.8 * 0.3) in time
    assert found["effTime"] == pytest.approx(30 * 10 ** (0.8 * (found["magLim"] - limit)))
    better = summary(
        psf=psf,
        zero_points=ZeroPoints(
            photometric=ZERO_POINT + 0.5, photometric_error=0, dx=0, dy=0, offset_scatter=0, matches=9
        ),
    )
    assert better["effTime"] / found["effTime"] == pytest.approx(10**0.4)
    assert found["effTimePsfSigmaScale"] == pytest.approx((1.56 / found["psfSigma"]) ** 2)
    assert found["effTimeSkyBgScale"] == pytest.approx(32.95 * 20 / (found["skyBg"] * 2.5))
    # 31 of 20 s is 31 - 2.5 log 20 of one second
    assert found["effTimeZeroPointScale"] == pytest.approx(10 ** (0.8 * (31 - 2.5 * math.log10(20) - 28.36)))


def test_what_is_not_known_is_not_guessed(psf):
    found = summary(made(wcs=None, band="w"), None, zero_points=None)
    for name in ("ra", "decCorners2", "pixelScale", "astromOffsetMean", "zeroPoint", "psfSigma", "magLim"):
        assert math.isnan(found[name]), name
    assert math.isnan(summary(made(band="w"), psf)["effTime"])
    assert math.isnan(summary(made(gain=None), psf)["magLim"])
    assert found["nPsfStar"] == 0
    no_stars = replace(psf, stars=replace(psf.stars, chi2=array(1, 1, 1)))
    assert summary(psf=no_stars)["nPsfStar"] == 2
