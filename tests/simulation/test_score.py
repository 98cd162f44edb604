import json
import math
from dataclasses import replace

import numpy as np
import pytest

import skysub
from skysub.errors import InvalidImageError
from skysub.simulation.detector import simulate_detector
from skysub.simulation.metrics import aperture_noise, cirrus_transfer, good_pixels, star_rings
from skysub.simulation.report import score_table
from skysub.simulation.scene import Cirrus, Stars, named_scene
from skysub.simulation.score import Scores, combine_scores, score_model, score_visits

SHAPE = (512, 640)
QUIET = named_scene("quiet")


@pytest.fixture(scope="module")
def quiet():
    return simulate_detector(QUIET, 1, 0, seed=1, shape=SHAPE)


def test_the_true_sky_scores_perfectly(quiet):
    visit_image, truth = quiet
    scores = score_model(truth.sky, truth, uncertainty=np.ones(SHAPE), image=visit_image.image)
    assert scores.rho == scores.bias_sky == scores.edge == scores.amplifier_step == scores.shift_24 == 0
    assert scores.bias_faint == pytest.approx(-truth.planes["faint_sources"].mean(), rel=1e-5)
    assert abs(scores.aperture_mean) < 0.15
    assert 0.9 < scores.aperture_scatter < 1.1
    assert scores.pull == 0
    assert scores.coverage == 1
    assert math.isnan(scores.lost_large)
    assert math.isnan(scores.cirrus)


def test_a_constant_error_is_a_bias_and_nothing_else(quiet):
    visit_image, truth = quiet
    scores = score_model(
        truth.sky + np.float32(2), truth, uncertainty=np.full(SHAPE, 1.0), image=visit_image.image
    )
    assert scores.bias_sky == pytest.approx(2, rel=1e-4)
    assert scores.rho < 0.01
    assert scores.edge < 1e-3
    assert scores.pull == pytest.approx(2, rel=1e-3)
    assert scores.coverage == 0
    # 2 electrons in each of 253 pixels
    expected = -2 * math.sqrt(253) / truth.sigma
    clean = score_model(truth.sky, truth, image=visit_image.image)
    assert scores.aperture_mean - clean.aperture_mean == pytest.approx(expected, rel=0.01)
    # 1.086 d n_eff / F
    flux = 10 ** (0.4 * (truth.observation.zero_point - 24))
    assert scores.shift_24 == pytest.approx(1085.7 * 2 * truth.observation.psf_area / flux, rel=1e-3)


def test_rho_is_one_for_noise_of_the_floor(quiet):
    _, truth = quiet
    good = good_pixels(truth)
    floor = truth.sigma / math.sqrt(good.mean() * 128 * 128)
    # 20 superpixels hold fewer than 28 terms, so the floor is that of one superpixel
    cells = np.random.default_rng(1).normal(0, floor, (4, 5))
    d = np.repeat(np.repeat(cells, 128, 0), 128, 1)
    assert score_model(truth.sky + d, truth).rho == pytest.approx(cells.std() / floor, rel=0.05)


def test_edge_sees_only_the_edge(quiet):
    _, truth = quiet
    d = np.zeros(SHAPE)
    d[200:232, 300:332] = 50
    inner = score_model(truth.sky + d, truth).edge
    assert inner < 1
    d = np.zeros(SHAPE)
    d[-16:, :16] = -5
    assert score_model(truth.sky + d, truth).edge == pytest.approx(5, rel=0.01)


def test_galaxy_losses_are_a_share_of_its_light():
    shape = (900, 900)
    scene = replace(named_scene("galaxy:50"), dither=0.0, rotation=0.0)
    _, truth = simulate_detector(scene, 1, 0, seed=1, shape=shape)
    large = truth.catalog[(truth.catalog["type"] == "probe_galaxy") & (truth.catalog["radius"] > 21)]
    large = large[(large["x"] > 0) & (large["x"] < 900)]
    bare = replace(scene, probes=replace(scene.probes, galaxy_radius=None))
    _, without = simulate_detector(bare, 1, 0, seed=1, shape=shape)
    light = truth.planes["sources"] - without.planes["sources"]
    scores = score_model(truth.sky + 0.1 * light, truth)
    assert scores.large_radius == large["radius"][0] == 50
    assert scores.lost_large == pytest.approx(10, rel=0.03)
    assert scores.ring > 0.1
    # what is wrong everywhere is the bias, not the galaxy's loss
    shifted = score_model(truth.sky + 0.1 * light + 3, truth)
    assert shifted.lost_large == pytest.approx(scores.lost_large, rel=1e-3)
    assert shifted.ring == pytest.approx(scores.ring, abs=1e-3)


def test_star_rings_find_a_hidden_halo():
    _, truth = simulate_detector(named_scene("bright_star:9"), 1, 0, seed=1, shape=(1200, 1200))
    star = truth.catalog[truth.catalog["magnitude"] == 9.0][0]
    y, x = np.mgrid[:1200, :1200]
    r = np.hypot(x - star["x"], y - star["y"])
    d = np.where((r > 150) & (r < 300), 0.7, 0.0)
    assert star_rings(d, truth) == pytest.approx(0.7 - d.mean())


def test_steps_between_amplifiers_and_detectors():
    scene = named_scene("amplifiers:2")
    units = [(1, detector) for detector in range(4)]
    truths = {key: simulate_detector(scene, *key, seed=1, shape=(256, 256))[1] for key in units}
    # a model without the steps leaves them in d
    models = {
        key: truth.sky - truth.planes["amplifiers"] - truth.planes["detector_offset"]
        for key, truth in truths.items()
    }
    scores, total = score_visits(models, truths)
    steps = [np.diff(truth.planes["amplifiers"][::128, ::32], axis=1) for truth in truths.values()]
    assert total.amplifier_step == pytest.approx(np.sqrt(np.mean(np.square(steps))), rel=0.3)
    assert total.detector_step_max > 0.5
    assert math.isnan(scores[0].detector_step_max)
    exact = {key: truth.sky for key, truth in truths.items()}
    _, total = score_visits(exact, truths)
    assert total.detector_step_max == total.amplifier_step == 0
    shifted = {key: truth.sky + np.float32(0.5 * key[1]) for key, truth in truths.items()}
    _, total = score_visits(shifted, truths)
    # a block of 2 x 2 has four pairs, of detectors 0-1, 1-2, 2-3 and 0-3
    assert total.detector_step_median == pytest.approx(0.5, rel=1e-3)
    assert total.detector_step_max == pytest.approx(1.5, rel=1e-3)


def test_cirrus_transfer_is_the_part_that_survives():
    scene = replace(QUIET, cirrus=Cirrus(surface_brightness=26.0))
    _, truth = simulate_detector(scene, 1, 0, seed=1, shape=(800, 800))
    cirrus = truth.planes["cirrus"].astype(np.float64)
    without = truth.sky - cirrus
    assert cirrus_transfer(without - truth.sky, truth) == pytest.approx(1, rel=1e-3)
    assert cirrus_transfer(np.zeros(truth.shape), truth) == pytest.approx(0, abs=1e-6)
    assert cirrus_transfer(-0.25 * cirrus, truth) == pytest.approx(0.25, rel=1e-6)


def test_crowded_field_leaves_no_empty_aperture():
    scene = replace(QUIET, stars=Stars(density=300, aureole=0.0, brightest=16.0))
    visit_image, truth = simulate_detector(scene, 1, 0, seed=1, shape=(256, 256))
    mean, scatter = aperture_noise(visit_image.image - truth.sky, truth, good_pixels(truth))
    assert math.isnan(mean)
    assert math.isnan(scatter)
    assert np.isfinite(score_model(truth.sky + 1, truth).rho)


def test_pixels_without_light_do_not_count():
    scene = replace(named_scene("vignetted"), axis_distance=1.65)
    _, truth = simulate_detector(scene, 1, 2, seed=1, shape=(1000, 1000))
    dark = truth.lightless
    assert dark is not None
    assert 0 < dark.mean() < 1
    scores = score_model(np.where(dark, 1e6, truth.sky), truth)
    assert scores.rho == pytest.approx(0, abs=1e-3)
    assert scores.edge == pytest.approx(0, abs=1e-3)


def test_a_plain_fit_scores_as_known(quiet):
    visit_image, truth = quiet
    background = skysub.fit_background(
        visit_image.image, ~good_pixels(truth), skysub.BackgroundConfig(order=2)
    )
    scores = score_model(background.evaluate(), truth, uncertainty=background.uncertainty())
    # faint sources and aureoles are its bias
    pedestal = (truth.planes["faint_sources"] + truth.planes["aureoles"]).mean()
    assert 0 < scores.bias_sky < 2 * pedestal
    assert abs(scores.bias_faint) < 0.5 * pedestal + 0.3
    assert scores.rho < 5


def test_bad_models_are_refused(quiet):
    _, truth = quiet
    with pytest.raises(InvalidImageError, match=r"visit 1 detector 0: the model has the shape \(3, 4\)"):
        score_model(np.zeros((3, 4)), truth)
    holed = truth.sky.copy()
    holed[3, 4] = np.nan
    with pytest.raises(InvalidImageError, match="not finite in 1 pixels"):
        score_model(holed, truth)
    with pytest.raises(InvalidImageError, match="the uncertainty has the shape"):
        score_model(truth.sky, truth, uncertainty=np.zeros((3, 4)))


def test_scores_combine_and_print(quiet):
    _, truth = quiet
    first = score_model(truth.sky + 1, truth)
    second = replace(first, detector=1, bias_sky=3.0, edge=-4.0)
    total = combine_scores([first, second])
    assert total.bias_sky == pytest.approx(2)
    assert total.edge == -4.0
    assert total.visit is None
    table = score_table([first, second], total).splitlines()
    assert len(table) == 5
    assert "M11" not in table[0]
    assert table[-1].split()[0] == "all"
    values = json.loads(json.dumps(total.to_dict()))
    assert values["cirrus"] is None
    assert set(values) == set(Scores.__dataclass_fields__)
