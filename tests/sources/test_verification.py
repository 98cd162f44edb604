"""Regions of faint extended light are told from sky that the model misses."""

import numpy as np
import pytest

from skysub.sources.detect import Footprints, runs_above
from skysub.sources.verification import believed, inclusive_polynomial, polynomial_at_blocks, regions_of


def blocks(values):
    """Sums and numbers of pixels of blocks of 8 x 8 pixels with such means."""
    return (64 * values).astype(np.float32), np.full(values.shape, 64, np.float32)


def places(shape=(96, 120)):
    return np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")


def source_at(y, x, radius, peak):
    one = {name: np.array([value]) for name, value in (("x", x), ("y", y), ("peak", peak))}
    rest = dict.fromkeys(
        ("flux", "xx", "xy", "yy", "core_x", "core_y", "core_width", "saturated"), np.zeros(1)
    )
    runs = runs_above(np.ones((1, 1), np.float32), 0.5, 0.5)
    return Footprints(runs=runs, area=np.array([np.pi * radius**2]), **one, **rest)


def test_the_polynomial_explains_what_is_a_polynomial():
    y, x = places()
    values = 3 + 2 * x - y + 4 * x**2 * y - 2 * y**3
    found, leaves_light = inclusive_polynomial(*blocks(values), noise=1.0, cell=8, order=4)
    assert not leaves_light
    again = polynomial_at_blocks(found, values.shape, 1, values.shape)
    # cells are averages, so that their curvature shifts them a little
    assert np.abs(again - values).max() < 0.1
    coarse = polynomial_at_blocks(found, values.shape, 3, (32, 40))
    assert np.abs(coarse - values.reshape(32, 3, 40, 3).mean((1, 3))).max() < 0.1


def test_a_bump_in_one_place_is_left_as_light_and_a_wave_is_not():
    y, x = places()
    draw = np.random.default_rng(1)
    noise = draw.normal(0, 1 / 8, y.shape)
    bump = 3 * np.exp(-((y - 0.3) ** 2 + (x + 0.2) ** 2) / 0.02)
    assert inclusive_polynomial(*blocks(bump + noise), noise=1.0, cell=8, order=4)[1]
    wave = np.sin(9 * x + 3 * y)
    assert not inclusive_polynomial(*blocks(wave + noise), noise=1.0, cell=8, order=4)[1]


def test_where_nothing_is_seen_nothing_is_fit():
    none = np.zeros((40, 40), np.float32)
    found, leaves_light = inclusive_polynomial(none, none, noise=1.0, cell=8, order=6)
    assert found.tolist() == [0]
    assert not leaves_light


def region_in(above):
    ((_, region),) = regions_of(runs_above(above, 1.5, 4.0), least=4)
    return region


@pytest.mark.parametrize(("dark", "light"), [(-1.0, True), (-9.0, False)])
def test_a_region_must_stand_out_more_than_what_lies_below_beside_it(dark, light):
    above = np.zeros((40, 50), np.float32)
    above[10:20, 10:25] = 8.0
    above[10:20, 28:34] = dark
    region = region_in(above)
    settings = {"footprints": None, "noise": 1.0, "size": 8}
    assert believed(region, above, threshold=4.0, **settings) is light
    # far away it says nothing of the region
    above[:, 28:34] = 0
    above[35:, 45:] = dark
    assert believed(region, above, threshold=4.0, **settings)


def test_a_region_that_the_polynomial_explains_is_sky():
    above = np.zeros((40, 50), np.float32)
    above[10:20, 10:25] = 8.0
    region = region_in(above)
    settings = {"footprints": None, "noise": 1.0, "size": 8}
    assert not believed(region, above / 4, threshold=4.0, **settings)
    assert not believed(region, above, threshold=None, **settings)


@pytest.mark.parametrize(
    ("y", "x", "radius", "peak", "light"),
    [
        (120, 140, 40, 30, True),  # in its middle
        (120, 140, 40, 5, False),  # no bright pixel: itself perhaps sky
        (120, 140, 5, 30, False),  # a star, too small for the region
        (120, 260, 40, 30, True),  # beside it, within reach
        (300, 380, 40, 30, False),  # elsewhere
    ],
)
def test_a_large_source_vouches_for_the_region_round_it(y, x, radius, peak, light):
    above = np.zeros((40, 50), np.float32)
    above[10:20, 10:25] = 8.0
    region = region_in(above)
    source = source_at(y, x, radius, peak)
    assert believed(region, 0 * above, threshold=None, footprints=source, noise=1.0, size=8) is light
