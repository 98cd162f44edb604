import math

import numpy as np
import pytest

from skysub.errors import ConfigError, InvalidImageError, InvalidPsfError
from skysub.measurement import MeasurementConfig, measure_sources
from skysub.visit.fits.psf import GaussianPsf
from tests.measurement.scenes import PLANES, Gaussian, image_of

STARS = [(30.2, 40.7, 9000.0), (80.4, 100.1, 20000.0), (90.0, 30.0, 4000.0), (91.5, 34.0, 6000.0)]


@pytest.fixture(scope="module")
def measured():
    image, variance = image_of(Gaussian(), STARS)
    mask = np.zeros(image.shape, np.int32)
    mask[80, 104] = 1 << PLANES["SUSPECT"]
    image[29, 47], mask[29, 47] = 1e6, 1 << PLANES["BAD"]
    return measure_sources(image, variance, mask, PLANES, Gaussian())


def row_of(measured, y, x):
    c = measured.columns
    distance = np.where(c["isPrimary"], np.hypot(c["y"] - y, c["x"] - x), np.inf)
    assert distance.min() < 1
    return int(np.argmin(distance))


def test_each_star_is_found_once(measured):
    assert int(measured.columns["isPrimary"].sum()) == len(STARS)
    for y, x, flux in STARS:
        r = row_of(measured, y, x)
        c = measured.columns
        assert abs(c["psfFlux"][r] - flux) < 4 * c["psfFluxErr"][r]
        assert abs(c["y"][r] - y) < 4 * c["yErr"][r]
        assert abs(c["x"][r] - x) < 4 * c["xErr"][r]
        assert c["extendedness"][r] == 0
        # a mean over some 25 pixels' worth of noise
        assert 0.4 < c["deblend_chi2"][r] < 1.8


def test_the_error_of_a_star_alone_is_the_matched_filter_s(measured):
    c = measured.columns
    r = row_of(measured, *STARS[1][:2])
    # noise over the root of the sum of squares, which is 1 / (4 pi sigma^2)
    assert c["psfFluxErr"][r] == pytest.approx(10 * math.sqrt(16 * math.pi), rel=0.01)
    # of a Gaussian: noise sigma^2 sqrt(8 pi) / flux, and the prior of one pixel changes little
    assert c["xErr"][r] == pytest.approx(10 * 4 * math.sqrt(8 * math.pi) / c["psfFlux"][r], rel=0.02)
    assert c["psfFlux_area"][r] == pytest.approx(16 * math.pi, rel=1e-3)


def test_neighbours_make_errors_larger(measured):
    c = measured.columns
    alone = 10 * math.sqrt(16 * math.pi)
    for y, x, _ in STARS[2:]:
        rho = math.exp(-(1.5**2 + 4**2) / 16)
        assert c["psfFluxErr"][row_of(measured, y, x)] > alone / math.sqrt(1 - rho**2) * 0.99


def test_a_blend_has_a_parent(measured):
    c = measured.columns
    rows = [row_of(measured, *star[:2]) for star in STARS[2:]]
    parent = int(c["parentIndex"][rows[0]])
    assert c["parentIndex"][rows[1]] == parent
    assert c["deblend_nChild"][parent] == 2
    assert not c["isPrimary"][parent]
    assert c["parentIndex"][parent] == -1
    assert c["parentIndex"][row_of(measured, *STARS[0][:2])] == -1
    # the blend has the light of both
    assert c["ap12Flux"][parent] == pytest.approx(10000, rel=0.1)
    assert c["blendedness_abs"][rows[0]] > 0.1 > c["blendedness_abs"][row_of(measured, *STARS[0][:2])]


def test_apertures_hold_their_part_of_a_gaussian(measured):
    c = measured.columns
    r = row_of(measured, *STARS[1][:2])
    for name, radius in (("ap03Flux", 3.0), ("ap04_5Flux", 4.5), ("ap06Flux", 6.0), ("ap09Flux", 9.0)):
        expected = STARS[1][2] * (1 - math.exp(-(radius**2) / 8))
        assert c[f"{name}Err"][r] == pytest.approx(10 * math.sqrt(math.pi) * radius, rel=1e-3)
        # sampled at the centres of pixels, a Gaussian's core is a little fainter than its integral
        assert abs(c[name][r] - expected) < 4 * c[f"{name}Err"][r] + 0.01 * expected
    assert not c["ap12Flux_flag"][r]
    assert c["ap50Flux_flag"][r]
    assert np.isnan(c["ap50Flux"][r])


def test_shape_and_kron_of_a_star(measured):
    c = measured.columns
    r = row_of(measured, *STARS[1][:2])
    for name in ("ixx", "iyy", "ixxPSF", "iyyPSF"):
        assert c[name][r] == pytest.approx(4, rel=0.06)
    assert abs(c["ixyPSF"][r]) < 1e-3
    # first moment of a Gaussian's radius: sigma sqrt(pi / 2)
    assert c["kronRadius"][r] == pytest.approx(2 * math.sqrt(math.pi / 2), rel=0.03)
    assert c["kronFlux"][r] == pytest.approx(STARS[1][2], rel=0.03)
    assert c["gaussianFlux"][r] == pytest.approx(STARS[1][2], rel=0.03)


def test_flags_come_from_the_mask(measured):
    c = measured.columns
    r, s = row_of(measured, *STARS[1][:2]), row_of(measured, *STARS[0][:2])
    assert c["pixelFlags_suspect"][r]
    assert not c["pixelFlags_suspectCenter"][r]
    assert not c["pixelFlags_suspect"][s]
    assert not (c["pixelFlags_offimage"] & c["isPrimary"]).any()
    # the bad pixel lies 6.4 pixels off, beyond the source
    assert not c["pixelFlags_bad"][s]


def test_sky_sources_touch_no_detected_light_and_say_zero(measured):
    c = measured.columns
    sky = c["sky_source"]
    assert sky.sum() > 10
    y, x = c["y"][sky].astype(int), c["x"][sky].astype(int)
    assert not measured.detected[y, x].any()
    pulls = c["psfFlux"][sky] / c["psfFluxErr"][sky]
    assert abs(pulls.mean()) < 4 / math.sqrt(sky.sum())
    assert not (sky & c["isPrimary"]).any()


def test_model_and_image_agree(measured):
    image, _ = image_of(Gaussian(), STARS)
    left = image - measured.model
    assert abs(left.std() - 10) < 0.2
    assert measured.model.dtype == np.float32


def test_a_galaxy_is_one_source_with_its_whole_light():
    psf = Gaussian()
    image, variance = image_of(psf, [(20.0, 20.0, 5000.0)], shape=(150, 150))
    y, x = np.mgrid[:150, :150]
    dy, dx = y - 80.3, x - 75.6
    u, v = dx * 0.8 + dy * 0.6, -dx * 0.6 + dy * 0.8
    image += (60 * np.exp(-np.sqrt((u / 10) ** 2 + (v / 6) ** 2 + 0.3))).astype(np.float32)
    total = float(np.sum(60 * np.exp(-np.sqrt((u / 10) ** 2 + (v / 6) ** 2 + 0.3))))
    found = measure_sources(image, variance, None, {}, psf)
    c = found.columns
    near = c["isPrimary"] & (np.hypot(c["y"] - 80, c["x"] - 75) < 40)
    assert near.sum() == 1
    r = int(np.nonzero(near)[0][0])
    assert c["extendedness"][r] == 1
    assert c["kronFlux"][r] == pytest.approx(total, rel=0.06)
    assert c["kronFlux"][r] > 2 * c["psfFlux"][r]
    # its longer axis points up to the right
    assert c["ixy"][r] > 0
    assert c["ixx"][r] > c["iyy"][r]


def de_vaucouleurs(shape, y, x, flux, radius):
    """Light of a galaxy of half-light radius ``radius``, round, its middle averaged over pixels."""
    fine = (np.arange(5) - 2) / 5
    total = np.zeros(shape)
    for dy in fine:
        for dx in fine:
            r = np.hypot(np.arange(shape[0])[:, None] + dy - y, np.arange(shape[1])[None, :] + dx - x)
            total += np.exp(-7.67 * ((r / radius) ** 0.25))
    # 2 pi n b^(-2 n) Gamma(2 n) r^2 of n = 4
    return flux * total / 25 / (2 * np.pi * 4 * 7.67**-8 * 5040 * radius**2)


def test_the_wings_of_a_galaxy_are_no_sources_of_their_own():
    shape = (260, 300)
    image, variance = image_of(Gaussian(), [(40.0, 250.0, 4000.0)], shape=shape, seed=8)
    image += de_vaucouleurs(shape, 140.2, 120.6, 3e5, 12.0).astype(np.float32)
    c = measure_sources(image, variance, None, {}, Gaussian()).columns
    rows = c["isPrimary"]
    assert rows.sum() <= 4
    brightest = np.nanargmax(np.where(rows, c["kronFlux"], np.nan))
    assert c["kronFlux"][brightest] == pytest.approx(3e5, rel=0.15)
    assert np.hypot(c["y"][brightest] - 140.2, c["x"][brightest] - 120.6) < 0.2


def test_a_giant_galaxy_is_one_source_and_stars_on_it_are_others():
    shape = (380, 340)
    stars = [(140.0, 150.0, 9000.0), (230.0, 200.0, 9000.0), (40.0, 40.0, 9000.0)]
    image, variance = image_of(Gaussian(), stars, shape=shape, seed=9)
    image += de_vaucouleurs(shape, 190.0, 170.0, 3e6, 40.0).astype(np.float32)
    variance += de_vaucouleurs(shape, 190.0, 170.0, 3e6, 40.0).astype(np.float32)
    c = measure_sources(image, variance, None, {}, Gaussian()).columns
    rows = c["isPrimary"]
    # where its window ends some of its light is left
    assert rows.sum() <= 12
    for y, x, flux in stars:
        near = rows & (np.hypot(c["y"] - y, c["x"] - x) < 1)
        assert near.sum() == 1
        assert c["psfFlux"][near] == pytest.approx(flux, rel=0.1)
    whole = rows & (np.hypot(c["y"] - 190, c["x"] - 170) < 2)
    assert whole.sum() == 1
    assert c["kronFlux"][whole][0] > 0.75 * 3e6


def test_a_saturated_star_is_one_source_with_the_flux_of_its_wings():
    psf = Gaussian(size=31)
    image, variance = image_of(psf, [(60.0, 70.0, 3e5)])
    mask = np.zeros(image.shape, np.int32)
    full = image > 5000
    assert full.sum() > 10
    image[full] = 5000
    mask[full] = 1 << PLANES["SAT"]
    c = measure_sources(image, variance, mask, PLANES, psf).columns
    assert c["isPrimary"].sum() == 1
    assert c["pixelFlags_saturatedCenter"][0]
    assert c["psfFlux"][0] == pytest.approx(3e5, rel=0.02)
    assert math.hypot(c["y"][0] - 60, c["x"][0] - 70) < 0.1


def test_any_number_of_threads_gives_the_same_bits():
    random = np.random.default_rng(8)
    places, fluxes = random.uniform(0, 700, (150, 2)), random.uniform(500, 3e4, 150)
    stars = [(y, x, f) for (y, x), f in zip(places, fluxes, strict=True)]
    image, variance = image_of(Gaussian(), stars, shape=(700, 620))
    first, *others = (
        measure_sources(image, variance, None, {}, Gaussian(), MeasurementConfig(threads=n))
        for n in (1, 2, 3)
    )
    for other in others:
        for name, column in first.columns.items():
            np.testing.assert_array_equal(column, other.columns[name], err_msg=name)
        np.testing.assert_array_equal(first.model, other.model)
        np.testing.assert_array_equal(first.detected, other.detected)


def test_byte_order_and_type_of_arrays_do_not_matter():
    image, variance = image_of(Gaussian(), STARS)
    plain = measure_sources(image, variance, np.zeros(image.shape, np.int64), PLANES, Gaussian())
    swapped = measure_sources(
        image.astype(">f4"), variance.astype(">f8"), np.zeros(image.shape, ">i2"), PLANES, Gaussian()
    )
    for name, column in plain.columns.items():
        np.testing.assert_array_equal(column, swapped.columns[name], err_msg=name)


@pytest.mark.parametrize("what", ["none", "zero", "negative", "nan"])
def test_without_a_variance_the_noise_is_measured(what):
    image, variance = image_of(Gaussian(), STARS)
    variance = {"none": None, "zero": variance * 0, "negative": -variance, "nan": variance * np.nan}[what]
    found = measure_sources(image, variance, None, {}, Gaussian())
    assert "variance_unknown" in found.flags
    c = found.columns
    assert c["isPrimary"].sum() == len(STARS)
    assert c["psfFluxErr"][row_of(found, *STARS[1][:2])] == pytest.approx(71, rel=0.1)


def test_a_psf_that_is_undefined_in_places_is_said_to_be_invalid_there():
    class Partly(Gaussian):
        def stamps(self, x, y):
            out = super().stamps(x, y)
            out[x > 300] = np.nan
            return out

    image, variance = image_of(Gaussian(), [(40.0, 50.0, 9000.0), (80.0, 590.0, 9000.0)], shape=(120, 640))
    c = measure_sources(image, variance, None, {}, Partly()).columns
    np.testing.assert_array_equal(c["invalidPsfFlag"][:2], [False, True])
    assert c["psfFlux"][1] == pytest.approx(9000, rel=0.05)


@pytest.mark.parametrize("psf", [None, GaussianPsf(float("nan")), 3.0])
def test_no_psf_is_a_named_error(psf):
    image, variance = image_of(Gaussian(), STARS)
    with pytest.raises(InvalidPsfError):
        measure_sources(image, variance, None, {}, psf)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (12, 9)])
def test_tiny_frames_are_measured_or_empty(shape):
    image, variance = image_of(Gaussian(), [(1.0, 1.0, 9000.0)], shape=shape)
    found = measure_sources(image, variance, None, {}, Gaussian())
    assert found.detected.shape == shape
    assert all(len(column) == len(found) for column in found.columns.values())


def test_nothing_known_gives_no_source_and_says_so():
    image, variance = image_of(Gaussian(), STARS)
    mask = np.full(image.shape, 1 << PLANES["NO_DATA"], np.int32)
    found = measure_sources(image, variance, mask, PLANES, Gaussian())
    assert not found.columns["isPrimary"].any()
    assert "noise_unknown" in found.flags


def test_a_saturated_region_larger_than_any_star_does_not_fail_the_frame():
    image, variance = image_of(Gaussian(), STARS, shape=(200, 300))
    mask = np.zeros(image.shape, np.int32)
    mask[20:180, 150:280] = 1 << PLANES["SAT"]
    image[20:180, 150:280] = 60000
    found = measure_sources(image, variance, mask, PLANES, Gaussian())
    for y, x, _ in (STARS[0], STARS[2], STARS[3]):
        row_of(found, y, x)
    inside = found.columns["isPrimary"] & (found.columns["x"] > 160)
    assert found.columns["psfFlux_flag"][inside].all()


def test_nan_pixels_are_filled_by_the_model():
    image, variance = image_of(Gaussian(), STARS)
    image[80, 99:102] = np.nan
    found = measure_sources(image, variance, None, {}, Gaussian())
    r = row_of(found, *STARS[1][:2])
    c = found.columns
    assert c["pixelFlags_nodata"][r]
    assert abs(c["psfFlux"][r] - STARS[1][2]) < 5 * c["psfFluxErr"][r]
    assert c["ap09Flux"][r] == pytest.approx(STARS[1][2], rel=0.05)


def test_where_it_is_too_crowded_the_brightest_stay_and_it_is_said():
    random = np.random.default_rng(9)
    stars = [(8 + 16 * (k // 8), 8 + 16 * (k % 8), 2000 + 900 * k) for k in random.permutation(64)]
    stars = [(float(y), float(x), float(f)) for y, x, f in stars]
    image, variance = image_of(Gaussian(), stars, shape=(128, 256))
    found = measure_sources(
        image, variance, None, {}, Gaussian(), MeasurementConfig(most_sources=30 / 128**2)
    )
    c = found.columns
    assert "too_crowded" in found.flags
    assert found.too_crowded[:, :128].all()
    assert not found.too_crowded[:, 128:].any()
    assert 25 <= c["isPrimary"].sum() <= 31
    assert c["psfFlux"][c["isPrimary"]].min() > 2000 + 900 * 30


@pytest.mark.parametrize(
    ("image", "variance", "mask"),
    [
        (np.zeros((0, 5)), None, None),
        (np.zeros((5, 5, 5)), None, None),
        (np.zeros((5, 5)), np.zeros((5, 6)), None),
        (np.zeros((5, 5)), None, np.zeros((6, 5), int)),
        (np.zeros((5, 5)), None, np.zeros((5, 5))),
        (np.full((5, 5), "x"), None, None),
    ],
)
def test_planes_that_do_not_fit_are_a_named_error(image, variance, mask):
    with pytest.raises(InvalidImageError):
        measure_sources(image, variance, mask, {}, GaussianPsf(2.0))


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 0.0), ("passes", -1), ("threads", 0), ("grow", np.inf)]
)
def test_settings_out_of_range_are_a_named_error(name, value):
    with pytest.raises(ConfigError, match=name):
        MeasurementConfig(**{name: value})
