"""Counts to nJy and back again: within one unit in the last place, whatever pixels, sky and factor are."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import skysub
from skysub.errors import CalibrationError, InvalidImageError
from skysub.testing import make_visit_image
from skysub.visit.calibrated import (
    calibrate_pixels,
    calibrate_variance,
    calibration_cards,
    calibration_of_header,
    exchange_background,
    restore_post_isr_image,
    subtract_model,
)
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration

SHAPE = (16, 24)


def make_layers(level, slope=0.0):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = (level + slope * (x - 12) / 12 + 1e-3 * level * ((x + y) % 2)).astype(np.float32)
    config = skysub.BackgroundConfig(superpixel=4, order=1, weighting=False)
    return skysub.BackgroundList([skysub.fit_background(image, None, config)])


LAYERS = [make_layers(*each) for each in [(900.0, 30.0), (0.5, 0.4), (-3.0, 1.0), (45_000.0, 900.0)]]


def make_calibration(mean, tilt):
    if tilt is None:
        return PhotometricCalibration(mean)
    field = ChebyshevField(coefficients=mean * np.array([[1.0, tilt], [tilt / 3, 0.0]]), box=(3, 5, 30, 25))
    return PhotometricCalibration.of_field(field, error=mean / 100)


def back_and_forth(image, layers, calibration, ratio=None):
    """Pixels in nJy, and the counts that come back of them."""
    xy0 = (4, 7)
    pixels = calibrate_pixels(image, layers, calibration, xy0=xy0, ratio=ratio)
    calibrated = make_visit_image(SHAPE, sources=0).replace(image=pixels, xy0=xy0, unit="nJy")
    header = calibrated.header.copy() if calibrated.header is not None else _header()
    for name, card in calibration_cards(calibration, unit="electron", ratio=ratio is not None).items():
        header[name] = card
    return pixels, restore_post_isr_image(calibrated.replace(header=header), layers, ratio=ratio)


def _header():
    from astropy.io.fits import Header

    return Header()


pixels = npst.arrays(
    np.float32,
    SHAPE,
    elements=st.floats(-(2.0**17), 2.0**20, width=32, allow_subnormal=False)
    | st.floats(800, 1000, width=32)
    | st.just(np.float32(np.nan)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    image=pixels,
    layers=st.sampled_from(LAYERS),
    mean=st.floats(1e-4, 1e6),
    tilt=st.none() | st.floats(-0.4, 0.4),
    tilted_ratio=st.booleans(),
)
def test_image_and_background_give_the_input_back(image, layers, mean, tilt, tilted_ratio):
    ratio = None
    if tilted_ratio:
        ratio = np.linspace(0.9, 1.2, image.size, dtype=np.float32).reshape(SHAPE)
    calibration = make_calibration(mean, tilt)
    _, back = back_and_forth(image, layers, calibration, ratio)
    model = layers.evaluate().astype(np.float64) / (1 if ratio is None else ratio)
    with np.errstate(invalid="ignore"):
        left = (image - model).astype(np.float32)
    largest = np.spacing(np.maximum(np.abs(image), np.abs(left)))
    known = np.isfinite(image)
    assert (np.isnan(back) == ~known).all()
    assert (np.abs(back.astype(np.float64) - image)[known] <= largest[known]).all()


def test_sky_pixels_come_back_within_one_unit_of_their_own():
    rng = np.random.default_rng(0)
    image = (900 + 30 * rng.standard_normal(SHAPE)).astype(np.float32)
    pixels, back = back_and_forth(image, LAYERS[0], make_calibration(0.55, 0.02))
    assert (np.abs(back - image) <= np.spacing(image)).all()
    # that is more than calibrating what was subtracted in float32 would keep of faint sky
    assert pixels.dtype == np.float32


def test_pixels_by_hand():
    image = np.full(SHAPE, 901.5, np.float32)
    calibration = make_calibration(2.0, 0.1)
    pixels = calibrate_pixels(image, LAYERS[0], calibration, xy0=(4, 7))
    model = LAYERS[0].evaluate()
    # x = 4 + 5, y = 7 + 3 in a box from (3, 5) to (30, 25)
    u, v = (2 * 9 - 33) / 28, (2 * 10 - 30) / 21
    expected = (901.5 - float(model[3, 5])) * 2 * (1 + 0.1 * u + 0.1 / 3 * v)
    assert pixels[3, 5] == np.float32(expected)
    variance = calibrate_variance(np.full(SHAPE, 4.0, np.float32), calibration, xy0=(4, 7))
    assert variance[3, 5] == pytest.approx(4 * (2 * (1 + 0.1 * u + 0.1 / 3 * v)) ** 2, rel=1e-6)
    assert subtract_model(image, LAYERS[0])[3, 5] == np.float32(901.5 - float(model[3, 5]))
    ratio = np.full(SHAPE, 1.25, np.float32)
    assert subtract_model(image, LAYERS[0], ratio=ratio)[3, 5] == np.float32(
        901.5 - float(model[3, 5]) / 1.25
    )


def test_threads_and_place_do_not_change_bits():
    rng = np.random.default_rng(1)
    image = rng.normal(900, 30, SHAPE).astype(np.float32)
    calibration = make_calibration(0.3, 0.1)
    first = calibrate_pixels(image, LAYERS[0], calibration, threads=1)
    np.testing.assert_array_equal(first, calibrate_pixels(image, LAYERS[0], calibration, threads=3))
    again = image.copy()
    assert calibrate_pixels(again, LAYERS[0], calibration, out=again) is again
    np.testing.assert_array_equal(first, again)


def test_the_calibration_comes_back_from_the_header():
    calibration = make_calibration(0.3, 0.1)
    header = {name: value for name, (value, _) in calibration_cards(calibration, unit="adu").items()}
    again = calibration_of_header(header)
    assert again.mean == calibration.mean
    assert again.error == calibration.error
    np.testing.assert_array_equal(again.field.coefficients, calibration.field.coefficients)
    assert again.field.box == (3, 5, 30, 25)
    with pytest.raises(CalibrationError, match="has not calibrated"):
        calibration_of_header({})
    with pytest.raises(CalibrationError, match="damaged"):
        calibration_of_header(header | {"PHOTBOX": "3,5,30"})
    with pytest.raises(CalibrationError, match="damaged"):
        calibration_of_header({"PHOTMEAN": "many"})


def test_what_does_not_fit():
    image = np.zeros((3, 4), np.float32)
    with pytest.raises(InvalidImageError, match=r"the background has the shape \(16, 24\)"):
        calibrate_pixels(image, LAYERS[0], PhotometricCalibration(1.0))
    calibrated = make_visit_image(SHAPE, sources=0)
    header = _header()
    for name, card in calibration_cards(PhotometricCalibration(1.0), unit="adu", ratio=True).items():
        header[name] = card
    with pytest.raises(CalibrationError, match="calibrated with a background-to-photometric ratio"):
        restore_post_isr_image(calibrated.replace(header=header), LAYERS[0])


@pytest.mark.parametrize("unit", ["electron", "nJy"])
def test_backgrounds_are_exchanged_in_both_directions(unit):
    rng = np.random.default_rng(3)
    image = rng.normal(900, 30, SHAPE).astype(np.float32)
    first, second = LAYERS[0], make_layers(905.0, -20.0)
    visit_image = make_visit_image(SHAPE, sources=0)
    calibration = make_calibration(3.1, 0.2)
    if unit == "nJy":
        header = _header()
        for name, card in calibration_cards(calibration, unit="electron").items():
            header[name] = card
        visit_image = visit_image.replace(unit="nJy", header=header, xy0=(4, 7))
        one, two = (calibrate_pixels(image, each, calibration, xy0=(4, 7)) for each in (first, second))
    else:
        one, two = (subtract_model(image, each) for each in (first, second))
    there = exchange_background(visit_image.replace(image=one), first, second)
    # 5 counts of level and 50 of slope are apart
    assert np.abs(one - two).max() > 10
    unit_of = np.spacing(np.maximum(np.abs(one), np.abs(two)))
    assert (np.abs(there.image - two) <= 2 * unit_of).all()
    back = exchange_background(there, second, first)
    assert (np.abs(back.image - one) <= 2 * unit_of).all()
    assert there.mask is visit_image.mask
    if unit == "nJy":
        with pytest.raises(CalibrationError, match="without a"):
            exchange_background(there, first, second, ratio=np.ones(SHAPE, np.float32))
        with pytest.raises(CalibrationError, match="PHOTMEAN"):
            exchange_background(there.replace(header=_header()), first, second)
    with pytest.raises(InvalidImageError, match="background has the shape"):
        exchange_background(make_visit_image((16, 25), sources=0), first, second)
