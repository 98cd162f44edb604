import dataclasses

import numpy as np
import pytest

import skysub
from skysub.testing import (
    assert_backgrounds_equal,
    assert_planes_equal,
    assert_visit_images_equal,
    make_sky,
    make_visit_image,
)
from skysub.visit.planes import MaskPlanes


def changed(visit_image, at, by=1.0):
    image = visit_image.image.copy()
    image[at] += by
    return visit_image.replace(image=image)


def test_visit_image_is_reproducible_and_plausible():
    one, two = make_visit_image(seed=3), make_visit_image(seed=3)
    assert_visit_images_equal(one, two)
    assert one.shape == (300, 400)
    assert not np.array_equal(one.image, make_visit_image(seed=4).image)
    for plane in ("BAD", "SAT", "DETECTED"):
        assert np.any(one.mask & one.planes.bits(plane))
    free = one.mask == 0
    pulls = (one.image - make_sky())[free] / np.sqrt(one.variance[free])
    assert abs(pulls.mean()) < 0.05
    assert pulls.std() == pytest.approx(1, abs=0.03)


def test_visit_image_without_anything():
    bare = make_visit_image((50, 60), sources=0, bad_columns=0, gradient=0.0)
    assert not bare.mask.any()
    assert bare.image.mean() == pytest.approx(900, rel=0.01)


def test_first_different_pixel_is_named():
    one = make_visit_image()
    with pytest.raises(
        AssertionError, match=r"image differs in 1 of 120000 .* \(y, x\) = \(7, 9\).*by 1 at most"
    ):
        assert_visit_images_equal(changed(one, (7, 9)), one)
    assert_visit_images_equal(changed(one, (7, 9), by=1e-3), one, atol=0.01)


def test_nan_equals_nan_but_not_a_number():
    one = changed(make_visit_image(), (0, 0), by=np.nan)
    assert_visit_images_equal(one, changed(make_visit_image(), (0, 0), by=np.nan))
    with pytest.raises(AssertionError, match="image differs in 1"):
        assert_visit_images_equal(one, make_visit_image())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"visit": 2}, "visit is 2, expected 1"),
        ({"unit": "nJy"}, "unit is 'nJy'"),
        ({"gain": None}, "gain is None"),
        ({"photo_calib": 2.0}, "photo_calib is 2.0"),
        ({"variance": None}, "variance is 'absent'"),
        ({"wcs": None}, "wcs is 'absent'"),
    ],
)
def test_other_fields_are_compared(changes, says):
    one = make_visit_image()
    with pytest.raises(AssertionError, match=says):
        assert_visit_images_equal(dataclasses.replace(one, **changes), one)


def test_a_shifted_wcs_is_seen():
    one, two = make_visit_image(), make_visit_image()
    two.wcs.wcs.crpix = two.wcs.wcs.crpix + 1
    with pytest.raises(AssertionError, match="wcs puts the corners"):
        assert_visit_images_equal(two, one)


def test_planes_are_compared_by_name():
    first, second = MaskPlanes({"BAD": 0, "SAT": 1}), MaskPlanes({"SAT": 5, "BAD": 7})
    mask = np.array([[1, 2], [3, 0]], np.int32)
    same = np.array([[128, 32], [160, 0]], np.int32)
    assert_planes_equal((mask, first), (same, second))
    same[1, 1] = 32
    with pytest.raises(AssertionError, match=r"mask plane SAT differs in 1 of 4 .* \(1, 1\)"):
        assert_planes_equal((mask, first), (same, second))
    assert_planes_equal((mask, first), (same, second), names=("BAD",))
    with pytest.raises(AssertionError, match=r"missing \['CR'\]"):
        assert_planes_equal((mask, first), (mask, first.with_plane("CR")))


def test_backgrounds():
    one = skysub.fit_background(make_sky() + np.random.default_rng(1).normal(size=(300, 400)), None)
    two = skysub.fit_background(make_sky() + np.random.default_rng(2).normal(size=(300, 400)), None)
    assert_backgrounds_equal(one, one)
    assert_backgrounds_equal(one + two, one + two)
    assert_backgrounds_equal(one, two, rtol=0.5, atol=0.5)
    with pytest.raises(
        AssertionError, match=r"layer 0: statistics.mean differs in .* first at \(y, x\) = \(0, 0\)"
    ):
        assert_backgrounds_equal(one, two)
    with pytest.raises(AssertionError, match="number of layers is 1, expected 2"):
        assert_backgrounds_equal(one, one + two)
    coarse = skysub.fit_background(make_sky() + 0.0, None, skysub.BackgroundConfig(order=1, weighting=False))
    with pytest.raises(AssertionError, match="layer 0"):
        assert_backgrounds_equal(coarse, one)
