"""The model of a background: windows, uncertainty, layers, what it does where too little can be seen."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skysub
from skysub import errors
from skysub.background.chebyshev import degrees, design_matrix, least_squares, monomial_coefficients
from skysub.background.model import BackgroundList

RANDOM = np.random.default_rng(11)


def sky(shape, *, level=1000.0, noise=30.0, seed=1):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    smooth = level * (1 + 0.02 * x / shape[1] - 0.01 * (y / shape[0]) ** 2)
    return (smooth + noise * random.standard_normal(shape)).astype(np.float32)


def test_terms_stand_in_afw_order():
    assert degrees(2) == [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    matrix = design_matrix(np.array([0.0]), np.array([9.5]), shape=(20, 10), order=2)
    np.testing.assert_allclose(matrix[0], [1, -0.9, 0, 2 * 0.81 - 1, 0, -1])


@pytest.mark.parametrize("order", [0, 1, 5, 6, 9, 14])
def test_evaluation_is_the_polynomial(order):
    shape = (23, 61)
    coefficients = RANDOM.standard_normal(len(degrees(order)))
    x, y = np.meshgrid(np.arange(61.0), np.arange(23.0))
    exact = design_matrix(x.ravel(), y.ravel(), shape=shape, order=order) @ coefficients
    monomials = monomial_coefficients(coefficients, order)
    assert monomials.shape == (order + 1, order + 1)
    config = skysub.BackgroundConfig(superpixel=1, order=order, weighting=False)
    background = skysub.fit_background(exact.reshape(shape), None, config)
    np.testing.assert_allclose(background.coefficients, coefficients, atol=2e-4)
    np.testing.assert_allclose(background.evaluate(), exact.reshape(shape), atol=2e-4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_window_has_the_bits_of_the_whole(data):
    shape = (150, 207)
    order = data.draw(st.sampled_from([2, 6, 7]))
    background = skysub.fit_background(sky(shape), None, skysub.BackgroundConfig(superpixel=16, order=order))
    cuts = [slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in shape]
    whole = background.evaluate()
    assert background.evaluate(y=cuts[0], x=cuts[1]).tobytes() == whole[cuts[0], cuts[1]].tobytes()
    spread = background.uncertainty()
    assert background.uncertainty(y=cuts[0], x=cuts[1]).tobytes() == spread[cuts[0], cuts[1]].tobytes()
    image = sky(shape, seed=3)
    left = background.subtract_from(np.ascontiguousarray(image[cuts[0], cuts[1]]), y=cuts[0], x=cuts[1])
    assert left.tobytes() == (image - whole)[cuts[0], cuts[1]].tobytes()


def test_a_window_with_a_step_is_refused():
    background = skysub.fit_background(sky((64, 64)), None, skysub.BackgroundConfig(superpixel=8))
    with pytest.raises(ValueError, match="x must be a slice without a step"):
        background.evaluate(x=slice(0, 20, 2))


@pytest.mark.parametrize("weighting", [True, False])
def test_uncertainty_is_the_scatter_of_the_model(weighting):
    """Over many skies of one truth the model scatters by what `uncertainty` says."""
    config = skysub.BackgroundConfig(superpixel=32, order=3, weighting=weighting)
    fits = [skysub.fit_background(sky((256, 320), seed=s), None, config) for s in range(120)]
    models = np.stack([fit.evaluate() for fit in fits])
    claimed = np.mean([fit.uncertainty() for fit in fits], axis=0)
    ratio = models.std(axis=0) / claimed
    assert 0.85 < np.median(ratio) < 1.15
    assert ratio.max() < 1.6


def test_uncertainty_grows_where_nothing_is_seen():
    image = sky((512, 512))
    ignored = np.zeros(image.shape, bool)
    ignored[:, 320:] = True
    background = skysub.fit_background(image, ignored, skysub.BackgroundConfig(superpixel=32, order=4))
    spread = background.uncertainty()
    assert spread[256, 500] > 20 * spread[256, 160]


def test_layers_add_up_in_order():
    image = sky((256, 256))
    config = skysub.BackgroundConfig(superpixel=32)
    left, first = skysub.subtract_background(image, None, config)
    again, second = skysub.subtract_background(left, None, config)
    layers = first + second
    assert isinstance(layers, skysub.BackgroundList)
    assert len(layers) == 2
    np.testing.assert_array_equal(layers.evaluate(), first.evaluate() + second.evaluate())
    np.testing.assert_allclose(image - layers.evaluate(), again, atol=2e-4)
    np.testing.assert_array_equal(layers.uncertainty(), second.uncertainty())
    assert len(sum([first, second, first], skysub.BackgroundList())) == 3
    other = skysub.fit_background(sky((64, 64)), None, skysub.BackgroundConfig(superpixel=8))
    with pytest.raises(ValueError, match="share one image shape"):
        first + other
    with pytest.raises(ValueError, match="empty list"):
        skysub.BackgroundList().evaluate()


def test_it_pickles_small():
    background = skysub.fit_background(sky((2000, 2036)))
    pickled = pickle.dumps(background)
    assert len(pickled) < 32_000
    again = pickle.loads(pickled)
    assert again.evaluate().tobytes() == background.evaluate().tobytes()


def test_masking_reduces_the_order_where_the_grid_looks_large_enough():
    """afw returns garbage here: 8 x 8 superpixels, but sky is seen in a corner of them alone."""
    image = sky((512, 512), noise=5)
    ignored = np.ones(image.shape, bool)
    ignored[:128, :192] = False
    config = skysub.BackgroundConfig(superpixel=64)
    background = skysub.fit_background(image, ignored, config)
    assert background.order == 1
    assert "order 6 reduced to 1: only 6 of 64 superpixels are usable" in background.reduced
    assert np.abs(background.evaluate() - 1000).max() < 60
    with pytest.raises(errors.UndersampledError, match="order 6 reduced to 1"):
        skysub.fit_background(image, ignored, skysub.BackgroundConfig(superpixel=64, undersampled="raise"))


def test_superpixels_in_one_line_hold_a_constant():
    image = sky((512, 512))
    ignored = np.ones(image.shape, bool)
    ignored[64:128] = False
    background = skysub.fit_background(image, ignored, skysub.BackgroundConfig(superpixel=64, order=3))
    assert background.order == 0
    np.testing.assert_allclose(background.evaluate(), background.coefficients[0], rtol=1e-6)


def test_the_grid_is_refined_until_it_holds_the_order():
    image = sky((512, 512), noise=5)
    ignored = np.ones(image.shape, bool)
    ignored[:320, :256] = False
    settings = {"superpixel": 64, "undersampled": "refine"}
    refined = skysub.fit_background(image, ignored, skysub.BackgroundConfig(**settings))
    assert refined.order == 6
    assert refined.grid.shape[0] > 8
    assert refined.reduced == ""
    ignored[:] = True
    ignored[:20, :20] = False
    with pytest.raises(errors.UndersampledError, match="order 6 reduced to"):
        skysub.fit_background(image, ignored, skysub.BackgroundConfig(**settings))


def test_a_median_filter_tames_one_wild_superpixel():
    image = sky((512, 512), noise=2, level=0)
    image[130:180, 200:250] += 500
    settings = {"superpixel": 64, "weighting": False, "order": 3}
    plain, filtered = (
        skysub.fit_background(image, None, skysub.BackgroundConfig(**settings, superpixel_filter=size))
        for size in (0, 3)
    )
    assert np.abs(plain.evaluate()).max() > 20
    assert np.abs(filtered.evaluate()).max() < 0.5
    assert filtered.statistics.mean[2, 3] > 100, "statistics stay as measured"


def test_superpixels_with_too_few_good_pixels_are_left_out():
    image = sky((256, 256))
    ignored = np.zeros(image.shape, bool)
    ignored[:32, :30] = True
    image[:32, 30:32] += 5000
    settings = {"superpixel": 32, "order": 2}
    assert skysub.fit_background(image, ignored, skysub.BackgroundConfig(**settings)).usable[0, 0]
    careful = skysub.fit_background(image, ignored, skysub.BackgroundConfig(**settings, min_good_pixels=100))
    assert not careful.usable[0, 0]
    assert np.abs(careful.evaluate() - sky((256, 256), noise=0)).max() < 5


@pytest.mark.parametrize("scale", [1e15, 1e-20])
def test_scales_of_images(scale):
    image = sky((256, 256)).astype(np.float64) * scale
    config = skysub.BackgroundConfig(superpixel=32, order=3)
    background = skysub.fit_background(image.astype(np.float32), None, config)
    reference = skysub.fit_background(sky((256, 256)), None, config)
    np.testing.assert_allclose(background.coefficients / scale, reference.coefficients, rtol=1e-3, atol=1e-2)


def test_the_older_grid_of_lsst():
    background = skysub.fit_background(
        np.ones((300, 256)), None, skysub.BackgroundConfig(grid_rule="floor_plus_one", weighting=False)
    )
    assert background.grid.shape == (3, 3)
    assert skysub.fit_background(
        sky((1, 3)),
        None,
        skysub.BackgroundConfig(superpixel=1, grid_rule="floor_plus_one", weighting=False, order=0),
    ).grid.shape == (1, 3)


def test_importing_skysub_pulls_in_nothing_heavy():
    heavy = ("dask", "distributed", "numba", "astropy", "zarr")
    program = f"import sys, skysub; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(skysub.__all__) <= set(dir(skysub))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = skysub.nothing


def test_least_squares_of_points_in_a_line():
    x = np.linspace(0, 99, 40)
    matrix = design_matrix(x, x, shape=(100, 100), order=2)
    values = np.stack([1 + x, 2 - 3 * x], axis=1)
    coefficients = least_squares(matrix, values)
    assert coefficients.shape == (6, 2)
    np.testing.assert_allclose(matrix @ coefficients, values, atol=1e-6)
    assert np.abs(coefficients).max() < 400
    np.testing.assert_allclose(matrix @ least_squares(matrix, values[:, 0]), values[:, 0], atol=1e-6)


def test_layers_are_shown_in_a_line():
    config = skysub.BackgroundConfig(superpixel=16, order=2)
    layer = skysub.fit_background(np.random.default_rng(3).normal(9, 1, (64, 80)), None, config)
    assert repr(layer).startswith("Background(shape=(64, 80), superpixels=(4, 5), usable=20, order=2, chi2")
    assert repr(BackgroundList([layer, layer])) == "BackgroundList(2 layers, shape=(64, 80), orders=[2, 2])"
    assert repr(BackgroundList()) == "BackgroundList(0 layers, orders=[])"
