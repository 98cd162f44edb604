"""The layer of what amplifiers add: its numbers by hand, its windows, and what it refuses."""

import numpy as np
import pytest

import skysub
from skysub.background.amplifiers import Amplifier, AmplifierBackground, amplifier_grid, do_tile
from skysub.background.estimate import fit_background
from skysub.campaign.store.backgrounds import inline, outline
from skysub.errors import ConfigError
from skysub.testing import assert_backgrounds_equal

SHAPE = (7, 10)
LEFT, RIGHT = Amplifier("A", y=(0, 7), x=(0, 4)), Amplifier("B", y=(0, 7), x=(4, 10))


def layer(**changes):
    given = {
        "shape": SHAPE,
        "amplifiers": (LEFT, RIGHT),
        "steps": np.array([1.5, -1.0]),
        "step_errors": np.array([0.3, 0.1]),
        "rows_per_bin": 3,
        "drift": (np.array([0.25, 0.0, -0.5]), np.array([0.0, 2.0, 0.0])),
        "drift_errors": (np.array([0.4, 0.0, 0.0]), np.zeros(3)),
    }
    return AmplifierBackground(**given | changes)


def test_sections_count_from_one_and_may_run_backwards():
    assert Amplifier.of_section("A", "[1:4,1:7]") == LEFT
    assert Amplifier.of_section("B", " [10:5,7:1] ") == RIGHT
    assert (RIGHT.section, RIGHT.shape) == ("[5:10,1:7]", (7, 6))


@pytest.mark.parametrize("section", ["[1:4]", "1:4,1:7", "[a:4,1:7]", "[0:4,1:7]", ""])
def test_what_is_no_section_is_refused(section):
    with pytest.raises(ConfigError, match="amplifier A"):
        Amplifier.of_section("A", section)


def test_a_grid_goes_row_by_row_from_the_lower_left():
    grid = amplifier_grid(SHAPE, rows=2, columns=3)
    assert [(a.y, a.x) for a in grid] == [
        ((0, 3), (0, 3)), ((0, 3), (3, 6)), ((0, 3), (6, 10)),
        ((3, 7), (0, 3)), ((3, 7), (3, 6)), ((3, 7), (6, 10)),
    ]  # fmt: skip
    assert do_tile(grid, SHAPE)
    with pytest.raises(ConfigError, match="8 x 1 amplifiers"):
        amplifier_grid(SHAPE, rows=8, columns=1)


def test_each_pixel_has_the_step_and_the_drift_of_its_row():
    expected = np.empty(SHAPE, np.float32)
    expected[:3, :4], expected[3:6, :4], expected[6:, :4] = 1.75, 1.5, 1.0
    expected[:3, 4:], expected[3:6, 4:], expected[6:, 4:] = -1.0, 1.0, -1.0
    assert np.array_equal(layer().evaluate(), expected)
    errors = layer().uncertainty()
    assert errors[0, 0] == pytest.approx(0.5)
    assert errors[3, 3] == pytest.approx(0.3)
    assert errors[6, 4] == pytest.approx(0.1)


def test_a_window_is_the_same_cut_of_the_whole():
    whole = layer().evaluate()
    window = (slice(2, 5), slice(3, 9))
    assert np.array_equal(layer().evaluate(y=window[0], x=window[1]), whole[window])
    assert layer().evaluate(y=slice(5, 5)).shape == (0, 10)
    with pytest.raises(ValueError, match="step"):
        layer().evaluate(y=slice(0, 7, 2))


def test_steps_alone_have_no_bins():
    plain = layer(rows_per_bin=0, drift=(), drift_errors=())
    assert np.array_equal(plain.evaluate()[0], np.float32([1.5] * 4 + [-1] * 6))
    assert plain.as_array().shape == (2, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": np.zeros(3)}, "2 amplifiers need as many"),
        ({"drift": (np.zeros(3), np.zeros(2))}, "bins of 3 rows"),
        ({"shape": (7, 11)}, "do not tile"),
        ({"amplifiers": (LEFT, Amplifier("A", y=(0, 7), x=(4, 10)))}, "do not tile"),
        ({"amplifiers": (LEFT, Amplifier("B", y=(0, 7), x=(3, 9)))}, "do not tile"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        layer(**changes)


@pytest.fixture
def background():
    rng = np.random.default_rng(3)
    fitted = fit_background(
        rng.normal(100, 5, SHAPE).astype(np.float32), None, skysub.BackgroundConfig(superpixel=2, order=1)
    )
    return type(fitted)(**vars(fitted) | {"amplifiers": layer()})


def test_a_background_holds_the_layer_beside_its_polynomial(background):
    smooth = background.smooth()
    assert smooth.amplifiers is None
    assert np.array_equal(background.evaluate(), smooth.evaluate() + layer().evaluate())
    assert np.allclose(background.uncertainty(), np.hypot(smooth.uncertainty(), layer().uncertainty()))
    assert background.sky_alone().amplifiers is background.amplifiers


@pytest.mark.parametrize("window", [(slice(0, 7), slice(0, 10)), (slice(2, 6), slice(3, 8))])
def test_subtracting_takes_both_off_in_place_or_not(background, window):
    y, x = window
    image = np.random.default_rng(4).normal(100, 5, SHAPE).astype(np.float32)[window]
    given = image.copy()
    got = background.subtract_from(image, y=y, x=x)
    assert np.array_equal(image, given)
    assert np.array_equal(got, (image - layer().evaluate(y=y, x=x)) - background.smooth().evaluate(y=y, x=x))
    own = np.ascontiguousarray(image)
    background.subtract_from(own, y=y, x=x, out=own)
    assert np.array_equal(own, got)


def test_the_store_gives_the_very_layer_back(background):
    given = skysub.BackgroundList([background])
    again = outline(inline(given))
    assert_backgrounds_equal(again, given)
    assert np.array_equal(again[0].amplifiers.uncertainty(), background.amplifiers.uncertainty())
    with pytest.raises(AssertionError, match="amplifiers"):
        assert_backgrounds_equal(again, skysub.BackgroundList([background.smooth()]))
