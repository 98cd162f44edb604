"""Images with too little, too much or wrong in them: the best that is left, and a sentence about the rest."""

import dataclasses

import numpy as np
import pytest

import skysub
import skysub.errors
from skysub.pipeline.config import SkyConfig
from skysub.sources.mask import SourceMaskConfig
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

SHAPE = (600, 640)
LEVEL = 900.0
NO_CR = skysub.CalibrateImageConfig(cosmic_rays=None)


def blank(shape=SHAPE, seed=0, **changes):
    rng = np.random.default_rng(seed)
    fields = {
        "image": (rng.poisson(LEVEL, shape) + rng.normal(0, 6, shape)).astype(np.float32),
        "mask": np.zeros(shape, np.int32),
        "planes": AFW_PLANES,
        "variance": np.full(shape, LEVEL + 36, np.float32),
        "visit": 12,
        "detector": 5,
    }
    return VisitImage(**fields | changes)


def with_star(visit_image, x, y, flux, *, saturation=np.inf):
    ny, nx = visit_image.shape
    yy, xx = np.mgrid[:ny, :nx]
    star = flux * 2 / (np.pi * 15.2) * (1 + ((xx - x) ** 2 + (yy - y) ** 2) / 15.2) ** -3
    image = np.minimum(visit_image.image + star, saturation).astype(np.float32)
    mask = visit_image.mask.copy()
    mask[image >= saturation] |= visit_image.planes.bits("SAT")
    return visit_image.replace(image=image, mask=mask)


def sane(found, *, level=LEVEL, within=2.0):
    model = found.preliminary_visit_image_background.evaluate()
    assert np.isfinite(model).all()
    assert abs(np.median(model) - level) < within
    for sentence in found.flags.values():
        assert sentence[0].isupper()
        assert sentence.endswith((".", ")."))
    return found


def test_no_stars():
    found = sane(skysub.calibrate_image(blank(), NO_CR))
    assert "no_psf_stars" in found.flags
    assert found.psf is None
    assert found.aperture_correction is None
    assert np.isnan(found.summary["psfSigma"])


def test_one_star():
    found = sane(skysub.calibrate_image(with_star(blank(), 300, 320, 5e4), NO_CR))
    assert found.psf.stars.used.sum() == 1
    assert found.psf.order == 0
    assert "psf_order_reduced" in found.flags
    assert found.psf.fwhm == pytest.approx(4.0, rel=0.1)


def test_only_saturated_stars():
    image = blank()
    for x, y in ((100, 100), (450, 300), (250, 500)):
        image = with_star(image, x, y, 3e6, saturation=30000)
    found = sane(skysub.calibrate_image(image, NO_CR))
    assert "no_psf_stars" in found.flags


def test_a_field_that_is_all_galaxy():
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = 400 * np.exp(-np.hypot(xx - 320, yy - 300) / 120)
    image = blank()
    found = skysub.calibrate_image(image.replace(image=(image.image + light).astype(np.float32)), NO_CR)
    model = found.preliminary_visit_image_background.evaluate()
    assert np.isfinite(model).all()
    assert 0.97 * LEVEL < np.median(model) < LEVEL + 60
    assert found.flags.keys() & {"superpixels_starved", "mask_budget", "crowded", "background_extrapolated"}


def test_a_satellite_trail():
    image = blank()
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    trail = np.abs(yy - 0.7 * xx - 50) < 6
    found = sane(
        skysub.calibrate_image(image.replace(image=(image.image + 500 * trail).astype(np.float32)), NO_CR)
    )
    detected = (
        found.preliminary_visit_image.mask & found.preliminary_visit_image.planes.bits("DETECTED")
    ) != 0
    assert detected[trail].mean() > 0.99
    assert np.ptp(found.preliminary_visit_image_background.evaluate()) < 5


@pytest.mark.parametrize("nan", [True, False])
def test_half_of_the_detector_dead(nan):
    image = blank()
    pixels, mask = image.image.copy(), image.mask.copy()
    pixels[:, :320] = np.nan if nan else 0
    if not nan:
        mask[:, :320] |= image.planes.bits("BAD")
    found = skysub.calibrate_image(image.replace(image=pixels, mask=mask), NO_CR)
    model = found.preliminary_visit_image_background.evaluate()
    assert np.abs(model[:, 320:] - LEVEL).max() < 3
    assert np.abs(model[:, :320] - LEVEL).max() < 30
    assert np.isnan(found.preliminary_visit_image.image[:, :320]).all() == nan


def test_a_wrong_gain():
    image = blank()
    found = sane(skysub.calibrate_image(image.replace(variance=image.variance * 9), NO_CR))
    assert "gain" in found.flags["variance_disagrees"]
    np.testing.assert_array_equal(
        found.preliminary_visit_image_background.evaluate(),
        skysub.calibrate_image(image, NO_CR).preliminary_visit_image_background.evaluate(),
    )


@pytest.mark.parametrize("name", ["default", "lsst"])
@pytest.mark.parametrize("variance", [None, 0.0, np.nan])
def test_variance_missing_or_zero(name, variance):
    image = with_star(blank(), 300, 300, 1e5)
    image = image.replace(variance=None if variance is None else np.full(SHAPE, variance, np.float32))
    config = dataclasses.replace(skysub.CalibrateImageConfig.named(name), cosmic_rays=None)
    found = sane(skysub.calibrate_image(image, config))
    assert "no_variance" in found.flags
    preliminary = found.preliminary_visit_image
    if name == "default" or variance is None:
        assert preliminary.mask[300, 300] & preliminary.planes.bits("DETECTED")


@pytest.mark.parametrize("shape", [(3, 2), (20, 17), (1, 300), (130, 40)])
@pytest.mark.parametrize("name", ["default", "lsst"])
def test_tiny_images(shape, name):
    found = skysub.calibrate_image(blank(shape, variance=None), skysub.CalibrateImageConfig.named(name))
    assert found.preliminary_visit_image.shape == shape
    model = found.preliminary_visit_image_background.evaluate()
    assert np.abs(model - LEVEL).max() < 150


def test_a_single_pixel():
    found = skysub.calibrate_image(blank((1, 1)))
    assert abs(found.preliminary_visit_image_background.evaluate()[0, 0] - LEVEL) < 150
    lsst = skysub.CalibrateImageConfig.named("lsst")
    with pytest.raises(skysub.errors.NoUsableSuperpixelsError, match="visit 12 detector 5"):
        skysub.calibrate_image(blank((1, 1)), lsst)


def test_a_detector_that_is_all_vignetted():
    image = blank()
    image = image.replace(mask=np.full(SHAPE, image.planes.bits("VIGNETTED"), np.int32))
    found = sane(skysub.calibrate_image(image, NO_CR))
    assert "vignetted" in found.flags


def test_constant_pixels_have_a_background():
    image = blank(image=np.full(SHAPE, 1000, np.float32))
    found = skysub.calibrate_image(image, skysub.CalibrateImageConfig())
    np.testing.assert_allclose(found.preliminary_visit_image_background.evaluate(), 1000, rtol=1e-6)
    assert "no_noise" in found.flags


def test_integers_do_not_bias_the_sky():
    rng = np.random.default_rng(3)
    counts = rng.poisson(30, SHAPE)
    image = blank(image=counts.astype(np.float32), variance=None, unit="adu", gain=1.0)
    found = skysub.calibrate_image(image, NO_CR)
    assert abs(found.preliminary_visit_image_background.evaluate().mean() - 30) < 0.1


@pytest.mark.parametrize("name", ["default", "lsst"])
@pytest.mark.parametrize("kind", ["nan", "bad"])
def test_no_background_at_all(name, kind):
    image = blank(path="raw/a.fits")
    if kind == "nan":
        image = image.replace(image=np.full(SHAPE, np.nan, np.float32))
    else:
        image = image.replace(mask=np.full(SHAPE, image.planes.bits("NO_DATA"), np.int32))
    with pytest.raises(
        skysub.errors.NoUsableSuperpixelsError, match=r"raw/a\.fits: visit 12 detector 5: no background"
    ):
        skysub.calibrate_image(image, skysub.CalibrateImageConfig.named(name))


def test_infinite_pixels_are_left_out():
    image = blank()
    pixels = image.image.copy()
    pixels[100:110, 200:210] = np.inf
    pixels[300, 300] = -np.inf
    sane(skysub.calibrate_image(image.replace(image=pixels), skysub.CalibrateImageConfig()))


def test_a_field_of_nothing_but_stars_is_said_to_be_crowded():
    rng = np.random.default_rng(2)
    image = blank()
    yy, xx = np.mgrid[-15:16, -15:16]
    stamp = 2 / (np.pi * 15.2) * (1 + (xx**2 + yy**2) / 15.2) ** -3
    light = np.zeros((SHAPE[0] + 40, SHAPE[1] + 40))
    for x, y, flux in zip(
        rng.integers(15, 660, 12000),
        rng.integers(15, 620, 12000),
        10 ** rng.uniform(3, 5, 12000),
        strict=True,
    ):
        light[y - 15 : y + 16, x - 15 : x + 16] += flux * stamp
    pixels = (image.image + light[20:-20, 20:-20]).astype(np.float32)
    config = dataclasses.replace(NO_CR, sky=SkyConfig(mask=SourceMaskConfig(least_sky=0.03)))
    found = skysub.calibrate_image(image.replace(image=pixels), config)
    assert found.flags.keys() & {"crowded", "mask_budget"}
    off = found.preliminary_visit_image_background.evaluate() - LEVEL
    assert -5 < np.median(off) < 40
    plain = skysub.fit_background(pixels).evaluate() - LEVEL
    assert np.median(off) < 0.2 * np.median(plain)


@pytest.mark.parametrize("given", ["a.fits", np.zeros((64, 64), np.float32), None])
def test_what_is_no_visit_image(given):
    with pytest.raises(
        skysub.errors.InvalidImageError, match=r"takes a VisitImage, not .*skysub.read_visit_image\(path\)"
    ):
        skysub.calibrate_image(given)


def test_a_result_is_shown_in_a_line():
    shown = repr(skysub.calibrate_image(blank((128, 128)), NO_CR))
    assert len(shown) < 500
    assert shown.startswith("CalibrateImageResult(VisitImage(visit=12, detector=5, ")
    assert "no_psf_stars" in shown
