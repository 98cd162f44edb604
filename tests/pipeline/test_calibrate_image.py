"""calibrate_image on fields whose truth is known."""

import dataclasses

import numpy as np
import pytest

import skysub
import skysub.errors
from skysub.pipeline.characterise import PsfConfig
from skysub.pipeline.config import CorrectionsConfig, SkyConfig
from skysub.pipeline.cosmic_rays import CosmicRayConfig
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

SHAPE = (1024, 1024)
FAST = skysub.CalibrateImageConfig(cosmic_rays=None, psf=None)


def moffat(dx, dy, fwhm=4.0, beta=3.0):
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    return (beta - 1) / (np.pi * alpha**2) * (1 + (dx * dx + dy * dy) / alpha**2) ** -beta


def make_field(seed=0, *, stars=60, galaxies=150, galaxy=None, shape=SHAPE, level=900.0):
    """Visit image, its true sky, and the light of the one large galaxy."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx].astype(np.float64)
    sky = level * (1 + 0.01 * (x / nx - 0.5) - 0.006 * (y / ny - 0.5) + 0.004 * (x / nx) * (y / ny))
    light = np.zeros(shape)
    places = []
    for k in range(stars + galaxies):
        px, py = rng.uniform(0, nx), rng.uniform(0, ny)
        flux = 10 ** rng.uniform(3.2, 5.3) if k < stars else 10 ** rng.uniform(2.3, 4)
        fwhm = 4.0 if k < stars else rng.uniform(4.5, 7)
        cut = (slice(max(0, int(py) - 40), int(py) + 41), slice(max(0, int(px) - 40), int(px) + 41))
        light[cut] += flux * moffat(x[cut] - px, y[cut] - py, fwhm)
        if k < stars:
            places.append((px, py, flux))
    large = np.zeros(shape)
    if galaxy is not None:
        gx, gy, radius, peak = galaxy
        large = peak * np.exp(-np.hypot(x - gx, y - gy) / radius)
    image = rng.poisson(sky + light + large) + rng.normal(0, 6, shape)
    visit_image = VisitImage(
        image=image.astype(np.float32),
        mask=np.zeros(shape, np.int32),
        planes=AFW_PLANES,
        variance=(sky + light + large + 36).astype(np.float32),
        visit=7,
        detector=3,
        band="r",
        exposure_time=30.0,
        path="field.fits",
    )
    return visit_image, sky, large, np.array(places)


@pytest.fixture(scope="module")
def field():
    return make_field()


@pytest.fixture(scope="module")
def result(field):
    return skysub.calibrate_image(field[0])


def model_of(found):
    return found.preliminary_visit_image_background.evaluate().astype(np.float64)


def test_the_sky_is_found(field, result):
    off = model_of(result) - field[1]
    assert abs(off.mean()) < 0.6
    assert off.std() < 0.4
    assert result.passes <= 5
    assert not result.flags.keys() & {"crowded", "mask_budget", "background_not_converged"}


def test_what_is_returned_fits_together(field, result):
    visit_image = field[0]
    preliminary = result.preliminary_visit_image
    np.testing.assert_allclose(
        preliminary.image + result.preliminary_visit_image_background.evaluate(), visit_image.image, atol=1e-3
    )
    assert preliminary.psf is result.psf
    assert (preliminary.visit, preliminary.detector) == (7, 3)
    assert preliminary.image.dtype == np.float32
    detected = (preliminary.mask & preliminary.planes.bits("DETECTED")) != 0
    good = result.sky.mask.good.sum()
    crs = (preliminary.mask & preliminary.planes.bits("CR")) != 0
    assert detected.size - (detected | crs).sum() == good
    assert set(result.timings) >= {"mask", "statistics", "fit", "psf", "summary"}


def test_the_input_is_not_modified():
    visit_image, *_ = make_field(3, stars=10, galaxies=10, shape=(300, 260))
    image, mask = visit_image.image.copy(), visit_image.mask.copy()
    skysub.calibrate_image(visit_image, FAST)
    np.testing.assert_array_equal(visit_image.image, image)
    np.testing.assert_array_equal(visit_image.mask, mask)


@pytest.mark.parametrize("name", ["default", "lsst"])
def test_any_number_of_threads_gives_the_same_bits(field, name):
    config = dataclasses.replace(skysub.CalibrateImageConfig.named(name), cosmic_rays=None, psf=None)
    one, three = (skysub.calibrate_image(field[0], config, threads=n) for n in (1, 3))
    np.testing.assert_array_equal(model_of(one), model_of(three))
    np.testing.assert_array_equal(one.preliminary_visit_image.image, three.preliminary_visit_image.image)
    np.testing.assert_array_equal(one.preliminary_visit_image.mask, three.preliminary_visit_image.mask)


def test_default_follows_the_sky_better_than_lsst(field):
    visit_image, sky, *_ = field
    ours = model_of(skysub.calibrate_image(visit_image, FAST)) - sky
    theirs = model_of(skysub.calibrate_image(visit_image, skysub.CalibrateImageConfig.named("lsst"))) - sky
    assert ours.std() < 0.7 * theirs.std()


def test_lsst_has_four_layers(field):
    found = skysub.calibrate_image(field[0], skysub.CalibrateImageConfig.named("lsst"))
    layers = found.preliminary_visit_image_background
    assert len(layers) == 4
    # Data Preview 1 put n // 128 + 1 superpixels along an axis
    assert layers[0].grid.shape == (9, 9)
    assert found.sky is None
    assert found.psf is not None
    np.testing.assert_allclose(
        found.preliminary_visit_image.image + layers.evaluate(), field[0].image, atol=2e-3
    )


def test_a_galaxy_in_the_corner_keeps_its_light():
    visit_image, sky, galaxy, _ = make_field(5, stars=20, galaxies=40, galaxy=(60, 60, 75, 150))
    found = skysub.calibrate_image(visit_image, FAST)
    off = model_of(found) - sky
    inside = galaxy > 0.3
    lost = (off - off[~inside].mean())[inside].sum() / galaxy[inside].sum()
    assert abs(lost) < 0.05
    assert "background_extrapolated" in found.flags
    deviation = found.preliminary_visit_image_background.uncertainty()
    assert deviation[0, 0] > 2 * np.median(deviation)


def test_corrections_can_be_left_out(field):
    bare = CorrectionsConfig(clip_skew=False, noise_peaks=False, masked_faint=False, faint_light=False)
    without = skysub.calibrate_image(field[0], dataclasses.replace(FAST, sky=SkyConfig(corrections=bare)))
    with_all = skysub.calibrate_image(field[0], FAST)
    assert without.sky.corrections.total == 0
    shift = with_all.sky.corrections.total
    assert with_all.sky.corrections.clip_skew == pytest.approx(0.041, abs=0.002)
    np.testing.assert_allclose(model_of(with_all) - model_of(without), shift, atol=1e-3)
    assert without.preliminary_visit_image_background[0].faint_light is None
    assert with_all.preliminary_visit_image_background.uncertainty().min() >= (
        without.preliminary_visit_image_background.uncertainty().min()
    )


def test_the_illumination_ratio(field):
    visit_image = field[0]
    ny, nx = SHAPE
    ratio = (1 + 0.2 * np.linspace(-1, 1, nx)[None, :] * np.ones((ny, 1))).astype(np.float32)
    tilted = visit_image.replace(image=visit_image.image / ratio)
    found = skysub.calibrate_image(tilted, FAST, background_to_photometric_ratio=ratio)
    straight = skysub.calibrate_image(visit_image, FAST)
    np.testing.assert_allclose(model_of(found), model_of(straight), atol=0.05)
    np.testing.assert_allclose(
        found.preliminary_visit_image.image * ratio, straight.preliminary_visit_image.image, atol=0.1
    )
    with pytest.raises(skysub.errors.InvalidImageError, match=r"field.fits: visit 7 detector 3: the ratio"):
        skysub.calibrate_image(visit_image, FAST, background_to_photometric_ratio=ratio[1:])


def test_the_psf_is_that_of_the_stars(result):
    psf = result.psf
    assert psf.fwhm == pytest.approx(4.0, rel=0.05)
    assert psf.stars.used.sum() > 8
    assert result.summary["nPsfStar"] == psf.stars.used.sum()
    assert result.summary["psfSigma"] == pytest.approx(psf.sigma)
    correction = result.aperture_correction
    stamp = moffat(*np.meshgrid(np.arange(-60, 61), np.arange(-60, 61)))
    r = np.hypot(*np.meshgrid(np.arange(-60, 61), np.arange(-60, 61)))
    window = np.abs(np.meshgrid(np.arange(-60, 61), np.arange(-60, 61))).max(0) <= psf.size // 2
    expected = stamp[r <= 12].sum() / stamp[window].sum()
    assert correction.at(500.0, 500.0)[0] == pytest.approx(expected, rel=0.02)


def test_summary_has_lsst_s_names(field, result):
    summary = result.summary
    assert summary["skyBg"] == pytest.approx(np.median(field[1]), rel=0.01)
    assert summary["skyNoise"] == pytest.approx(np.sqrt(936), rel=0.1)
    assert summary["meanVar"] == pytest.approx(936, rel=0.05)
    assert summary["expTime"] == 30
    assert np.isnan(summary["zeroPoint"])
    assert np.isnan(summary["magLim"])
    assert summary["psfArea"] > 30


@pytest.mark.parametrize("flow", ["default", "lsst"])
def test_a_caller_who_is_done_with_the_input_gets_the_same_bits_in_its_arrays(field, flow):
    visit_image = field[0]
    config = skysub.CalibrateImageConfig.named(flow)
    config = dataclasses.replace(config, cosmic_rays=None, psf=None)
    apart = skysub.calibrate_image(visit_image, config).preliminary_visit_image
    assert not np.shares_memory(apart.image, visit_image.image)
    assert not np.shares_memory(apart.mask, visit_image.mask)
    own = visit_image.replace(image=visit_image.image.copy(), mask=visit_image.mask.copy())
    within = skysub.calibrate_image(own, config, overwrite=True).preliminary_visit_image
    assert within.image is own.image
    assert within.mask is own.mask
    np.testing.assert_array_equal(within.image, apart.image)
    np.testing.assert_array_equal(within.mask, apart.mask)


def test_what_cannot_be_written_to_is_not_overwritten(field):
    visit_image = field[0]
    image, mask = visit_image.image.copy(), visit_image.mask.copy()
    image.flags.writeable = mask.flags.writeable = False
    config = skysub.CalibrateImageConfig(cosmic_rays=None, psf=None)
    found = skysub.calibrate_image(visit_image.replace(image=image, mask=mask), config, overwrite=True)
    np.testing.assert_array_equal(image, visit_image.image)
    assert not np.shares_memory(found.preliminary_visit_image.image, image)


def test_cosmic_rays_are_found_marked_and_interpolated():
    visit_image, _, _, places = make_field(9, stars=20, galaxies=30, shape=(400, 420))
    image = visit_image.image.copy()
    rng = np.random.default_rng(1)
    tracks = []
    for _ in range(25):
        y, x = rng.integers(20, 380), rng.integers(20, 380)
        if np.hypot(places[:, 0] - x, places[:, 1] - y).min() > 25:
            image[y, x : x + 5] += 1500
            tracks.append((y, x))
    hit_image = visit_image.replace(image=image)
    config = dataclasses.replace(FAST, cosmic_rays=CosmicRayConfig(interpolate=True))
    found = skysub.calibrate_image(hit_image, config).preliminary_visit_image
    marked = (found.mask & found.planes.bits("CR")) != 0
    assert np.mean([marked[y, x : x + 5].mean() for y, x in tracks]) > 0.9
    assert marked.sum() < 3 * 5 * len(tracks)
    for x, y, _ in places:
        assert not marked[round(y) % 400, round(x) % 420] or min(y, x) < 0
    assert np.abs(found.image[marked]).max() < 400
    assert ((found.mask & found.planes.bits("INTRP")) != 0)[marked].all()


def test_named_configurations():
    assert skysub.CalibrateImageConfig.named("default") == skysub.CalibrateImageConfig()
    lsst = skysub.CalibrateImageConfig.named("lsst")
    assert lsst.flow == "lsst"
    assert "SAT" not in (*lsst.ignored_planes, *lsst.saturated_planes)
    with pytest.raises(skysub.errors.ConfigError, match="default and lsst"):
        skysub.CalibrateImageConfig.named("best")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: skysub.CalibrateImageConfig(fwhm=0), "fwhm"),
        (lambda: skysub.CalibrateImageConfig(flow="fast"), "flow"),
        (lambda: SkyConfig(passes=0), "passes"),
        (lambda: SkyConfig(tolerance=float("nan")), "tolerance"),
        (lambda: CorrectionsConfig(faint_magnitudes=-1), "faint_magnitudes"),
        (lambda: CosmicRayConfig(iterations=0), "iterations"),
        (lambda: CosmicRayConfig(sigma=-1), "sigma"),
        (lambda: PsfConfig(order=9), "order"),
        (lambda: PsfConfig(aperture=0), "aperture"),
    ],
)
def test_settings_out_of_range(make, word):
    with pytest.raises(skysub.errors.ConfigError, match=word):
        make()
