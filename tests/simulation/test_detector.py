from dataclasses import replace

import numpy as np
import pytest

from skysub.simulation import kernels
from skysub.simulation.detector import simulate_detector
from skysub.simulation.observation import GAP, observe
from skysub.simulation.scene import (
    Cirrus,
    Electronics,
    Fringes,
    Galaxies,
    Moonlight,
    ScatteredLight,
    Scene,
    Stars,
    Vignetting,
    named_scene,
)
from skysub.simulation.sky import SKY_PLANES, sky_planes

SHAPE = (240, 320)
EVERYTHING = Scene(
    name="everything",
    moonlight=Moonlight(level=0.5, gradient=0.1, curvature=0.05),
    scattered=ScatteredLight(ghosts=6.0, wedges=3.0),
    fringes=Fringes(amplitude=2e-3),
    cirrus=Cirrus(surface_brightness=26.0),
    electronics=Electronics(amplifier_pedestal=1.0, amplifier_gain=2e-4, detector_offset=1.0),
    band="z",
)


def test_same_arguments_same_bits():
    (one, truth), (other, again) = (
        simulate_detector(EVERYTHING, 3, 2, seed=7, shape=SHAPE) for _ in range(2)
    )
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(truth.catalog, again.catalog)
    for name, plane in truth.planes.items():
        np.testing.assert_array_equal(plane, again.planes[name])


def test_a_component_has_its_own_seed():
    _, truth = simulate_detector(EVERYTHING, 1, 0, seed=1, shape=SHAPE)
    _, other = simulate_detector(
        replace(EVERYTHING, moonlight=Moonlight(), stars=Stars(density=5)), 1, 0, seed=1, shape=SHAPE
    )
    for name in ("airglow", "scattered", "fringes", "cirrus", "detector_offset", "cosmic_rays"):
        np.testing.assert_array_equal(truth.planes[name], other.planes[name])
    assert not np.array_equal(truth.planes["sources"], other.planes["sources"])


def test_planes_add_up_exactly_in_any_order():
    _, truth = simulate_detector(EVERYTHING, 1, 0, seed=1, shape=SHAPE)
    assert tuple(truth.planes)[: len(SKY_PLANES)] == SKY_PLANES
    backwards = np.zeros(SHAPE, np.float32)
    for name in reversed(SKY_PLANES):
        backwards += truth.planes[name]
    np.testing.assert_array_equal(truth.sky, backwards)
    for name in SKY_PLANES:
        assert np.any(truth.planes[name] != 0) or name == "vignetting"
        assert truth.planes[name].dtype == np.float32


def test_image_is_truth_plus_noise_of_its_variance():
    visit_image, truth = simulate_detector(EVERYTHING, 1, 0, seed=1, shape=SHAPE)
    good = ~truth.unusable
    pulls = (visit_image.image - truth.total(*truth.planes))[good] / np.sqrt(visit_image.variance[good])
    assert abs(pulls.mean()) < 0.05
    assert 0.97 < pulls.std() < 1.03
    assert visit_image.unit == "electron"
    assert not np.any(visit_image.mask & visit_image.bits("DETECTED", "CR"))


@pytest.mark.parametrize("mu", [60.0, 400.0, 2000.0])
def test_noise_has_the_moments_of_a_poisson_distribution(mu):
    random = np.random.default_rng(1)
    shape = (1500, 1000)
    out = np.empty(shape, np.float32)
    z = random.standard_normal(shape, dtype=np.float32)
    kernels.add_noise(np.full(shape, mu, np.float32), z, np.zeros(shape, np.float32), out)
    n = out.size
    x = out.ravel().astype(np.float64)
    assert abs(x.mean() - mu) < 5 * np.sqrt(mu / n)
    assert x.var() == pytest.approx(mu, rel=6 * np.sqrt(2 / n))
    skewness = np.mean((x - x.mean()) ** 3) / x.std() ** 3
    assert skewness == pytest.approx(1 / np.sqrt(mu), abs=6 * np.sqrt(6 / n))


def test_a_dark_band_is_drawn_from_the_poisson_distribution_itself():
    bare = replace(named_scene("quiet"), galaxies=Galaxies(density=0), stars=Stars(density=0))
    bare = replace(bare, electronics=Electronics(read_noise=0.0), exposure_time=15.0)
    visit_image, truth = simulate_detector(bare, 1, 0, seed=1, shape=(200, 300), band="u")
    empty = ~truth.unusable & (truth.planes["cosmic_rays"] == 0)
    assert np.all(visit_image.image[empty] == np.round(visit_image.image[empty]))


def test_sky_joins_between_detectors_but_their_offsets_do_not():
    planes = {}
    for detector in (0, 1):
        planes[detector] = sky_planes(
            EVERYTHING, observe(EVERYTHING, 1, detector, seed=1, shape=SHAPE, band="z"), seed=1
        )
    # a detector as wide as both and the gap sees the same sky in between
    both = observe(EVERYTHING, 1, 0, seed=1, shape=SHAPE, band="z")
    wide = sky_planes(EVERYTHING, replace(both, shape=(SHAPE[0], 2 * SHAPE[1] + GAP)), seed=1)
    for name in ("airglow", "moonlight", "scattered", "cirrus"):
        np.testing.assert_allclose(wide[name][:, : SHAPE[1]], planes[0][name], atol=2e-3)
        zero_points = 10 ** (0.4 * 0.03) if name == "cirrus" else 1.0
        right = wide[name][:, SHAPE[1] + GAP :]
        np.testing.assert_allclose(right, planes[1][name], atol=2e-3, rtol=zero_points - 1)
    assert planes[0]["detector_offset"][0, 0] != planes[1]["detector_offset"][0, 0]


def test_sky_objects_stay_put_between_visits_while_the_air_changes():
    still = replace(EVERYTHING, dither=0.0, rotation=0.0)
    _, one = simulate_detector(still, 1, 0, seed=1, shape=SHAPE)
    _, two = simulate_detector(still, 2, 0, seed=1, shape=SHAPE)
    common = np.intersect1d(one.catalog["id"], two.catalog["id"])
    assert len(common) > 50
    first, second = (t.catalog[np.isin(t.catalog["id"], common)] for t in (one, two))
    np.testing.assert_allclose(first["ra"], second["ra"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(first["magnitude"], second["magnitude"])
    assert np.corrcoef(one.planes["cirrus"].ravel(), two.planes["cirrus"].ravel())[0, 1] > 0.9999
    assert not np.array_equal(one.planes["airglow"], two.planes["airglow"])


def test_bleeds_keep_charge_and_stop_between_the_halves():
    image = np.full((40, 3), 100.0, np.float32)
    image[10, 1] = 5_000
    saturated = np.zeros(image.shape, bool)
    total = image.sum(dtype=np.float64)
    kernels.bleed(image, 1000.0, 20, saturated)
    assert image.sum(dtype=np.float64) == pytest.approx(total)
    assert image.max() == 1000
    assert not saturated[:, [0, 2]].any()
    rows = np.flatnonzero(saturated[:, 1])
    assert rows.min() >= 7
    assert rows.max() <= 13
    image[19, 1] = 1e6
    kernels.bleed(image, 1000.0, 20, saturated)
    assert saturated[:20, 1].all()
    assert not saturated[20:, 1].any()


def test_bright_star_saturates_and_is_flagged():
    visit_image, truth = simulate_detector(named_scene("bright_star:10"), 1, 0, seed=1, shape=SHAPE)
    flagged = (visit_image.mask & visit_image.bits("SAT")) != 0
    assert flagged.any()
    assert np.all(truth.unusable[flagged])
    assert np.all(visit_image.image[flagged & ((visit_image.mask & visit_image.bits("BAD")) == 0)] >= 132_000)
    assert truth.planes["aureoles"].max() > 10


def test_vignetted_corner_is_noisier_and_flagged():
    scene = replace(named_scene("vignetted"), vignetting=Vignetting(depth=0.9, start=1.4), axis_distance=1.65)
    visit_image, truth = simulate_detector(scene, 1, 0, seed=1, shape=(400, 600))
    assert np.any(visit_image.mask & visit_image.bits("VIGNETTED"))
    assert truth.planes["vignetting"].max() <= 0
    assert np.median(visit_image.variance) > 1.2 * np.median(truth.sky)
    noise = (visit_image.image - truth.total(*truth.planes))[~truth.unusable]
    for variance in (visit_image.variance, truth.variance):
        assert np.std(noise / np.sqrt(variance[~truth.unusable])) == pytest.approx(1, abs=0.05)


def test_fringes_only_in_the_red():
    _, blue = simulate_detector(named_scene("fringes"), 1, 0, seed=1, shape=SHAPE, band="r")
    _, red = simulate_detector(named_scene("fringes"), 1, 0, seed=1, shape=SHAPE)
    assert red.observation.band == "z"
    assert not blue.planes["fringes"].any()
    assert 1 < np.abs(red.planes["fringes"]).max() < 12
