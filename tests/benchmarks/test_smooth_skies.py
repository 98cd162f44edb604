import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import skysub

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "smooth_skies.py"


@pytest.fixture(scope="module")
def smooth():
    spec = importlib.util.spec_from_file_location("smooth_skies", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "smooth_skies", module)
        spec.loader.exec_module(module)
        yield module


def test_every_family_has_its_level_and_amplitude(smooth):
    for family in smooth.FAMILIES:
        drawn = dataclasses.replace(
            smooth.draw(1, 0), family=family, shape=(40, 60), level=500.0, amplitude=0.2
        )
        sky = smooth.true_sky(drawn, np.random.default_rng(3))
        assert sky.shape == (40, 60)
        assert sky.mean() == pytest.approx(500)
        assert np.ptp(sky) == pytest.approx(100)


def test_defects_are_told_by_the_mask_or_are_nan(smooth):
    for defect in set(smooth.DEFECTS):
        drawn = dataclasses.replace(smooth.draw(1, 0), shape=(80, 90), defect=defect)
        image = np.full((80, 90), 7, np.float32)
        mask = smooth.with_defects(image, drawn, np.random.default_rng(3))
        assert (image[(mask == 0) & np.isfinite(image)] == 7).all()
        assert ((mask != 0) | np.isnan(image)).any() == (defect != "none")


def test_the_error_of_a_mean_is_that_of_the_mean(smooth):
    rng = np.random.default_rng(5)
    config = skysub.BackgroundConfig(superpixel=32, order=2)
    # where the fit is extrapolated along x the two axes differ
    good = np.zeros((192, 192), bool)
    good[:, 160:] = True
    unseen = np.zeros(good.shape, bool)
    unseen[:, 128:] = True
    means, errors = [], []
    for _ in range(60):
        image = rng.normal(0, 10, good.shape).astype(np.float32)
        layer = skysub.fit_background(image, unseen, config)
        means.append(layer.evaluate()[good].mean())
        errors.append(smooth.mean_error(layer, good))
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.3)


def test_rules_are_broken_one_by_one(smooth):
    right = smooth.Result(
        drawn=smooth.draw(1, 0),
        rms=1.0,
        plain_rms=1.0,
        fit_noise=1.0,
        unfollowed=0.1,
        mean=0.2,
        mean_error=0.1,
        masked=0.01,
        pull=1.0,
        flags=(),
        seconds=0.0,
    )
    assert right.broken == ()
    assert dataclasses.replace(right, rms=1.9).broken == ("rms",)
    assert dataclasses.replace(right, mean=-0.31).broken == ("level",)
    assert dataclasses.replace(right, masked=0.03).broken == ("masked",)
    assert dataclasses.replace(right, pull=0.4).broken == ("pull_low",)
    assert dataclasses.replace(right, pull=2.0).broken == ("pull_high",)
    assert dataclasses.replace(right, pull=2.0, unfollowed=1.1).broken == ()
    assert dataclasses.replace(right, pull=2.6, unfollowed=1.1).broken == ("pull_high",)


def test_a_draw_is_measured(smooth):
    drawn = (smooth.draw(1, i) for i in range(500))
    index = next(d.index for d in drawn if d.shape[0] < 300 and d.amplitude == 0)
    first, again = smooth.measure(1, index), smooth.measure(1, index)
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(again, seconds=0)
    assert 0 < first.rms < 3 * first.fit_noise
    assert f"{index:4d} {first.drawn.family}" in str(first)
