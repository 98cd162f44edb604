"""The metrics against numbers worked out by hand, and conditions that a whole simulation never meets."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from skysub.simulation.detector import simulate_detector
from skysub.simulation.metrics import (
    amplifier_step,
    aperture_noise,
    block_mean,
    detector_steps,
    edge_deviation,
    good_pixels,
    magnitude_shift,
    mean_bias,
    pulls,
    relative_scatter,
    star_rings,
)
from skysub.simulation.observation import GAP
from skysub.simulation.scene import named_scene

SHAPE = (256, 320)


@pytest.fixture(scope="module")
def truth():
    return simulate_detector(named_scene("quiet"), 1, 0, seed=1, shape=SHAPE)[1]


def test_means_of_blocks_of_unequal_edges():
    values = np.arange(12.0).reshape(3, 4)
    found = block_mean(values, np.array([0, 1, 3]), np.array([0, 3, 4]))
    np.testing.assert_allclose(found, [[1.0, 3.0], [7.0, 9.0]])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("y", "x", "counts"),
    [
        (48, 160, True),
        (64, 160, False),
        (160, 48, True),
        (160, 64, False),
        (320 - 64, 160, True),
        (320 - 80, 160, False),
        (160, 400 - 64, True),
        (160, 400 - 80, False),
    ],
)
def test_the_edge_is_the_outer_64_pixels(y, x, counts, sign):
    d = np.zeros((320, 400))
    d[y : y + 16, x : x + 16] = sign * 5
    mean = 5 * 256 / d.size
    assert edge_deviation(d) == pytest.approx(5 - mean if counts else mean)


def test_the_edge_of_a_detector_of_any_length_has_whole_blocks():
    d = np.zeros((331, 397))
    d[-16:, -16:] = -5
    assert edge_deviation(d) == pytest.approx(5 - 5 * 256 / d.size)


def test_scatter_of_superpixels_by_hand():
    # 48 superpixels of +1 and -1; with all pixels good, the floor is sigma / 128 * sqrt(28 / 48)
    cells = np.where(np.indices((6, 8)).sum(axis=0) % 2, 1.0, -1.0)
    d = 7 + np.repeat(np.repeat(cells, 128, 0), 128, 1)
    good = np.ones(d.shape, np.bool_)
    assert relative_scatter(d, good, 64.0) == pytest.approx(1 / (64 / 128 * math.sqrt(28 / 48)))
    # a quarter of the pixels: half the precision, by the median of superpixels
    good[:, 1::2] = good[1::2] = False
    good[:128, :128] = False
    assert relative_scatter(d, good, 64.0) == pytest.approx(0.5 / (64 / 128 * math.sqrt(28 / 48)))
    # none: a hundredth of a superpixel is taken
    assert relative_scatter(d, ~good & good, 64.0) == pytest.approx(0.1 / (64 / 128 * math.sqrt(28 / 48)))


def test_the_bias_and_what_of_it_is_faint_light(truth):
    d = np.full(SHAPE, -3.0)
    d[:128] += 1
    bias, of_sky = mean_bias(d, truth)
    assert bias == pytest.approx(-2.5)
    faint = truth.planes["faint_sources"].mean(dtype=np.float64)
    assert faint > 0
    assert of_sky == pytest.approx(-2.5 - faint)


@pytest.mark.parametrize("bias", [-2.0, 2.0])
def test_a_bias_of_either_sign_shifts_magnitudes(truth, bias):
    seen = truth.observation
    # n_eff pixels of the bias beside a star of magnitude 24, in thousandths of a magnitude
    flux = 10 ** (0.4 * (seen.zero_point - 24))
    light = 2 * seen.psf_area
    expected = 1000 * 2.5 * math.log10(math.e) * light / flux
    assert magnitude_shift(bias, truth) == pytest.approx(expected, rel=1e-4)


def test_steps_between_amplifiers_by_hand():
    # 2 x 8 amplifiers: 14 vertical and 8 horizontal boundaries
    d = np.zeros((200, 800))
    d[:, 300:] = 3.0
    # one boundary of a column, met by both rows
    assert amplifier_step(d) == pytest.approx(math.sqrt(2 * 9 / 22))
    d = np.zeros((200, 800))
    d[100:] = -2.0
    assert amplifier_step(d) == pytest.approx(math.sqrt(8 * 4 / 22))
    # a step that is further from the boundary than the strip is none
    d = np.zeros((200, 800))
    d[:, 360:] = 3.0
    assert amplifier_step(d, width=8) == 0


def test_steps_between_detectors_are_signed_and_of_neighbours():
    def at(x0, y0):
        return SimpleNamespace(x0=x0, y0=y0, shape=(100, 200))

    observations = {
        (1, 0): at(0, 0),
        (1, 1): at(200 + GAP, 0),
        (1, 2): at(0, 100 + GAP),
        # of another visit, and one too far away
        (2, 1): at(200 + GAP, 0),
        (1, 3): at(200 + GAP, 100 + GAP + 2),
    }
    edges = ("left", "right", "bottom", "top")
    strips = {key: dict.fromkeys(edges, 0.0) for key in observations}
    strips[1, 0] |= {"right": 1.0, "top": 20.0, "left": 300.0, "bottom": 4000.0}
    strips[1, 1] |= {"left": 1.5, "right": 700.0, "top": 8.0}
    strips[1, 2] |= {"bottom": 50.0, "top": 900.0}
    assert sorted(detector_steps(strips, observations)) == pytest.approx([0.5, 30.0])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_apertures_measure_noise_in_units_of_what_is_expected(truth, scale):
    rng = np.random.default_rng(4)
    light = truth.total("faint_sources", "aureoles", "sources", "cosmic_rays")
    noise = scale * rng.normal(0, 1, SHAPE) * np.sqrt(truth.variance)
    good = np.ones(SHAPE, np.bool_)
    mean, scatter = aperture_noise(light + noise, truth, good)
    # 12 x 16 apertures
    assert scatter == pytest.approx(scale, rel=0.2)
    assert abs(mean) < 4 * scale / math.sqrt(192)
    shifted, _ = aperture_noise(light + noise + 1, truth, good)
    assert shifted - mean == pytest.approx(np.mean(math.sqrt(253) / np.sqrt(truth.variance)), rel=0.01)


def test_good_pixels_have_neither_light_nor_defects(truth):
    good = good_pixels(truth)
    light = truth.total("sources", "cosmic_rays")
    assert good[light == 0].mean() > 0.9
    assert (light[good] < 0.1 * truth.sigma).all()
    assert not good[light > 0.1 * truth.sigma].any()
    assert not good[truth.unusable].any()


def test_pulls_by_hand():
    d, error = np.zeros((64, 64)), np.full((64, 64), 2.0)
    # every 16th pixel, from the 8th on, counts
    d[8::16, 8::16] = np.where(np.arange(4) % 2, -1.0, 8.0)
    assert pulls(d, error) == pytest.approx((math.sqrt((16 + 0.25) / 2), 0.5))
    error[8, 8] = np.nan
    error[8, 24] = 0
    # of the row of four, 8 and -1 are left
    assert pulls(d, error)[1] == pytest.approx(7 / 14)
    assert np.isnan(pulls(d, np.full((64, 64), np.nan))).all()


def star_at(truth, shape, *places):
    catalog = np.zeros(len(places), truth.catalog.dtype)
    for row, (x, y, magnitude) in zip(catalog, places, strict=True):
        row["x"], row["y"], row["magnitude"] = x, y, magnitude
    return replace(truth, catalog=catalog, observation=replace(truth.observation, shape=shape))


def test_rings_about_stars_by_hand(truth):
    shape = (1300, 1500)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    r = np.hypot(xx - 250, yy - 300)

    def ring(inner, outer, value):
        return np.where((r > inner) & (r < outer), value, 0.0)

    one = star_at(truth, shape, (250, 300, 9.0))
    assert np.count_nonzero(r > 900) > 0.02 * r.size
    # far away the model errs by 4, which is no ring's fault
    far = 4.0
    assert star_rings(far + ring(150, 300, 0.7), one) == pytest.approx(0.7, rel=1e-6)
    both = ring(150, 300, 0.7) + ring(300, 600, -0.9)
    assert star_rings(far + both, one) == pytest.approx(-0.9, rel=1e-6)
    assert star_rings(far + both + ring(600, 900, 1.1), one) == pytest.approx(1.1, rel=1e-6)
    # within the innermost, and beyond the outermost
    assert star_rings(far + ring(0, 149, 50.0), one) == pytest.approx(0, abs=1e-9)
    # a ring of which less than a quarter lies on the detector does not count
    corner = star_at(truth, shape, (2, 2, 9.0))
    near_corner = np.hypot(xx - 2, yy - 2)
    d = np.where((near_corner > 600) & (near_corner < 900), 5.0, 0.0)
    assert star_rings(d, corner) == pytest.approx(5.0)
    cut = star_at(truth, (200, 1500), (250, 100, 9.0))
    d = np.where((r > 600) & (r < 900), 5.0, 0.0)[200:400]
    assert abs(star_rings(d, cut)) < 5
    for magnitude in (7.0, 14.5):
        assert math.isnan(star_rings(both, star_at(truth, shape, (250, 300, magnitude))))
    assert math.isnan(star_rings(both, star_at(truth, shape, (-5, 300, 9.0))))
