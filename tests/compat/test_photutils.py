"""The stand-in for photutils' Background2D beside photutils."""

import numpy as np
import pytest

from skysub.compat.photutils import Background2D
from skysub.errors import ConfigError, InvalidImageError, NoUsableSuperpixelsError

NOISE = 20.0
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*:UserWarning")


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(5)
    ny, nx = 400, 500
    y, x = np.mgrid[:ny, :nx]
    image = 1000 + 0.3 * x + 0.5 * y + 20 * np.sin(x / 90) * np.cos(y / 70) + rng.normal(0, NOISE, (ny, nx))
    for _ in range(60):
        a, b = rng.integers(5, ny - 5), rng.integers(5, nx - 5)
        image[a - 1 : a + 2, b - 1 : b + 2] += rng.exponential(400)
    mask = rng.random((ny, nx)) < 0.02
    coverage = np.zeros((ny, nx), bool)
    coverage[:3] = True
    return image.astype(np.float32), mask, coverage


CASES = {
    "as it is": {},
    "masked": {"mask": True},
    "covered": {"coverage_mask": True, "fill_value": -1.0, "filter_size": (5, 3)},
    "median": {"bkg_estimator": "MedianBackground", "clip": (2.5, 5)},
    "mean": {"bkg_estimator": "MeanBackground", "clip": None, "filter_size": 1},
    "mode": {"bkg_estimator": "ModeEstimatorBackground"},
    "threshold": {"filter_threshold": 1150.0},
}


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_photutils(scene, case):
    theirs_of = pytest.importorskip("photutils.background")
    from astropy.stats import SigmaClip

    image, mask, coverage = scene
    given = {"exclude_percentile": 50.0} | CASES[case]
    if "clip" in given:
        clip = given.pop("clip")
        given["sigma_clip"] = clip and SigmaClip(clip[0], maxiters=clip[1])
    given |= {"mask": mask} if "mask" in given else {}
    given |= {"coverage_mask": coverage} if "coverage_mask" in given else {}
    named = given.get("bkg_estimator")
    ours = Background2D(image, (40, 50), **given)
    theirs = theirs_of.Background2D(
        image, (40, 50), **given | ({"bkg_estimator": getattr(theirs_of, named)()} if named else {})
    )
    np.testing.assert_array_equal(ours.n_pixels_mesh, theirs.n_pixels_mesh)
    np.testing.assert_allclose(ours.background_mesh, theirs.background_mesh, atol=2e-4 * NOISE)
    np.testing.assert_allclose(ours.background, theirs.background, atol=3e-4 * NOISE)
    np.testing.assert_allclose(ours.background_rms, theirs.background_rms, atol=3e-4 * NOISE)
    assert ours.background_median == pytest.approx(theirs.background_median, abs=1e-3)
    assert ours.background_rms_median == pytest.approx(theirs.background_rms_median, abs=1e-3)
    assert ours.background.dtype == theirs.background.dtype


def test_excluded_cells_are_filled_from_the_nearest_alike(scene):
    theirs_of = pytest.importorskip("photutils.background")
    image, mask, _ = scene
    mask = mask.copy()
    mask[120:200, 200:300] = True
    image = image[:390, :480]
    ours, theirs = (
        kind(image, (40, 50), mask=mask[:390, :480]) for kind in (Background2D, theirs_of.Background2D)
    )
    apart = np.abs(ours.background_mesh - theirs.background_mesh)
    # which of several cells at one distance counts is photutils' tree's choice; they differ by 25 and more
    assert apart.max() < 12
    assert np.median(apart) < 0.5


def test_objects_threads_and_double(scene):
    theirs_of = pytest.importorskip("photutils.background")
    image, _, _ = scene
    plain = Background2D(image, 50, threads=1)
    other = Background2D(
        image.astype(">f4"),
        (50, 50),
        bkg_estimator=theirs_of.SExtractorBackground(),
        bkg_rms_estimator=theirs_of.StdBackgroundRMS(),
        threads=3,
    )
    np.testing.assert_array_equal(other.background, plain.background)
    assert Background2D(image.astype(float), 50).background.dtype == np.float64


def test_what_is_not_offered_is_refused():
    image = np.random.default_rng(1).normal(10, 1, (60, 60))

    class BiweightLocationBackground:
        pass

    class BkgIDWInterpolator:
        pass

    for given, error, said in (
        ({"bkg_estimator": BiweightLocationBackground()}, ConfigError, "MedianBackground"),
        ({"bkg_rms_estimator": "MADStdBackgroundRMS"}, ConfigError, "StdBackgroundRMS"),
        ({"interpolator": BkgIDWInterpolator()}, ConfigError, "spline"),
        ({"filter_size": (2, 3)}, ConfigError, "odd"),
        ({"exclude_percentile": 101}, ConfigError, "0 to 100"),
        ({"sigma_clip": 3}, ConfigError, "SigmaClip"),
        ({"mask": np.zeros((2, 2), bool)}, InvalidImageError, "mask"),
        ({"mask": np.ones((60, 60), bool)}, NoUsableSuperpixelsError, "exclude_percentile"),
    ):
        with pytest.raises(error, match=said):
            Background2D(image, 20, **given)
    from astropy.units import Quantity

    with pytest.raises(InvalidImageError, match="units"):
        Background2D(Quantity(image, "adu"), 20)
