"""All public images as one campaign of six sources."""

import numpy as np
import pytest

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign

UNITS = [
    (4, 0),
    (5, 0),
    (5754, 13),
    (431608, 41),
    (630780, 33),
    (695765, 37),
    (940139, 51),
    (201606250060, 29),
]


@pytest.fixture(scope="module")
def campaign(shared, tmp_path_factory):
    output = tmp_path_factory.mktemp("mixed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared / "data")
        outcome = run_campaign(load_recipe("mixed_sources", cluster="threads"), output)
    assert (outcome.failed, outcome.unreadable, outcome.left) == (0, 0, 0)
    return skysub.open_campaign(output)


def test_every_image_is_done(campaign):
    assert set(UNITS) < set(campaign.units)
    assert len(campaign.units) == 9
    assert campaign.status().exit_code == 0


def test_products_are_what_the_function_gives(campaign, shared):
    path = shared / "data/sdss/post_isr_image_5754_13.fits"
    result = skysub.calibrate_image(skysub.read_visit_image(path))
    made = campaign.visit_image(5754, 13)
    np.testing.assert_array_equal(made.image, result.preliminary_visit_image.image)
    np.testing.assert_array_equal(made.mask, result.preliminary_visit_image.mask)
    layers = campaign.background("preliminary_visit_image_background", 5754, 13)
    np.testing.assert_array_equal(layers.evaluate(), result.preliminary_visit_image_background.evaluate())


def test_models_lie_near_the_sky_of_each_image(campaign):
    for visit, detector in campaign.units:
        made = campaign.visit_image(visit, detector)
        layers = campaign.background("preliminary_visit_image_background", visit, detector)
        masked = made.mask & made.bits("DETECTED", "BAD", "SAT", "NO_DATA", "EDGE") != 0
        sky = made.image[~masked & np.isfinite(made.image)]
        spread = np.diff(np.percentile(sky, [16, 84]))[0] / 2
        assert abs(np.median(sky)) < spread, (visit, detector)
        assert np.isfinite(layers.evaluate()).all()
