"""The light of undetected sources beside a background: evaluated, written, read."""

import dataclasses

import numpy as np
import pytest

import skysub
from skysub.campaign.store.backgrounds import inline, outline
from skysub.errors import ConfigError

LIGHT = skysub.FaintLight(0.75, 0.3, "2.2 magnitudes' worth")


@pytest.fixture(scope="module")
def background():
    draw = np.random.default_rng(2)
    image = (900 + np.linspace(-5, 9, 700) + draw.normal(0, 30, (600, 700))).astype(np.float32)
    return dataclasses.replace(skysub.fit_background(image), faint_light=LIGHT)


def test_the_sky_alone_lacks_it_and_is_less_certain(background):
    np.testing.assert_allclose(
        background.evaluate() - background.evaluate(faint_light=False), 0.75, atol=2e-4
    )
    alone = background.uncertainty(faint_light=False).astype(float)
    np.testing.assert_allclose(alone**2, background.uncertainty().astype(float) ** 2 + 0.09, rtol=1e-4)
    assert background.sky_alone().faint_light is None
    np.testing.assert_array_equal(background.sky_alone().evaluate(), background.evaluate(faint_light=False))


def test_layers_have_it_too(background):
    layers = background + dataclasses.replace(background, faint_light=None)
    np.testing.assert_allclose(layers.evaluate() - layers.evaluate(faint_light=False), 0.75, atol=5e-4)
    np.testing.assert_array_equal(layers.sky_alone().evaluate(), layers.evaluate(faint_light=False))
    cut = {"y": slice(10, 50), "x": slice(600, None)}
    np.testing.assert_array_equal(
        background.evaluate(faint_light=False, **cut), background.evaluate(faint_light=False)[10:50, 600:]
    )


def test_without_an_estimate_nothing_is_taken_off(background):
    unknown = dataclasses.replace(background, faint_light=None)
    assert unknown.sky_alone() is unknown
    np.testing.assert_array_equal(unknown.evaluate(faint_light=False), background.evaluate())


def test_it_goes_through_fits(background, tmp_path):
    skysub.write_background(background, tmp_path / "sky.fits")
    (again,) = skysub.read_background(tmp_path / "sky.fits")
    assert again.faint_light == LIGHT
    np.testing.assert_allclose(again.evaluate(), background.evaluate(), rtol=1e-6)


def test_a_model_that_least_squares_would_not_give_goes_through_fits(background, tmp_path):
    raised = background.coefficients.copy()
    raised[0] += 3.0
    raised[4] -= 1.5
    moved = dataclasses.replace(background, coefficients=raised)
    skysub.write_background(moved, tmp_path / "sky.fits")
    (again,) = skysub.read_background(tmp_path / "sky.fits")
    np.testing.assert_allclose(again.evaluate(), moved.evaluate(), rtol=3e-7)


def test_it_goes_through_the_store(background):
    (again,) = outline(inline(skysub.BackgroundList([background])))
    assert again.faint_light == LIGHT
    (bare,) = outline(inline(skysub.BackgroundList([dataclasses.replace(background, faint_light=None)])))
    assert bare.faint_light is None


@pytest.mark.parametrize(("value", "uncertainty"), [(np.nan, 1.0), (1.0, np.inf), (1.0, -0.1)])
def test_numbers_that_cannot_be_are_refused(value, uncertainty):
    with pytest.raises(ConfigError, match="faint light must be"):
        skysub.FaintLight(value, uncertainty, "")
