import numpy as np
import pytest

from skysub.errors import ConfigError
from skysub.simulation.observation import GAP, observe, spiral
from skysub.simulation.scene import named_scene

QUIET = named_scene("quiet")


def seen(visit=1, detector=0, **changes):
    arguments = {"seed": 1, "shape": (300, 400), "band": "r"} | changes
    return observe(QUIET, visit, detector, **arguments)


def test_spiral_is_compact_and_never_repeats():
    places = [spiral(number) for number in range(189)]
    assert len(set(places)) == 189
    for edge in (2, 3, 10):
        x, y = zip(*places[: edge * edge], strict=True)
        assert max(x) - min(x) == max(y) - min(y) == edge - 1


def test_neighbours_lie_a_gap_apart():
    first, second = seen(detector=0), seen(detector=1)
    assert second.x0 - first.x0 == 400 + GAP
    assert second.y0 == first.y0


def test_wcs_agrees_with_positions_and_between_visits():
    for visit in (1, 2):
        one = seen(visit=visit, detector=5)
        x, y = one.to_pixel(np.array([700.0, -300.0]), np.array([250.0, 900.0]))
        ra, dec = one.wcs().wcs_pix2world(x, y, 0)
        if visit == 1:
            first = ra, dec
    np.testing.assert_allclose((ra, dec), first, rtol=0, atol=1e-9)
    back = one.sky_of_pixel(float(x[0]), float(y[0]))
    np.testing.assert_allclose(back, (700.0, 250.0), rtol=0, atol=1e-8)


def test_wcs_has_the_right_scale_and_east_to_the_left():
    ra, dec = seen().wcs().wcs_pix2world([200, 201, 200], [150, 150, 151], 0)
    assert ra[1] < ra[0]
    assert dec[2] > dec[0]
    assert (dec[2] - dec[0]) * 3600 == pytest.approx(0.2, rel=1e-3)


def test_conditions_vary_from_visit_to_visit():
    assert len({seen(visit=visit).zero_point for visit in range(5)}) == 5
    assert len({seen(visit=visit).seeing for visit in range(5)}) == 5
    assert seen(detector=0).zero_point != seen(detector=1).zero_point
    assert seen(detector=0).seeing == seen(detector=1).seeing


def test_one_electron_has_the_surface_brightness_lsst_says():
    one = seen(seed=3)
    dimmed = one.zero_point - (28.36 + 2.5 * np.log10(30))
    assert one.surface_brightness(28.56 + dimmed) == pytest.approx(1.0, rel=0.01)
    # LSST's r-band depth in 30 s is near 24.5 in 0.8 arcsec seeing
    assert 24.0 < one.depth < 24.7


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"band": "w"}, "no band 'w'"), ({"seed": -1}, "0 or more"), ({"shape": (4, 400)}, "at least 16 x 16")],
)
def test_bad_arguments_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        seen(**changes)
