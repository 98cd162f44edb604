"""Splines through superpixels: against SciPy, afw's rules by hand, and a polynomial's habits."""

import pickle

import dask.array as da
import numpy as np
import pytest

import skysub
from skysub.background.spline import SplineSurface
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.errors import ConfigError, NoUsableSuperpixelsError, UndersampledError

Y = np.array([4.0, 15.0, 23.5, 35.0, 47.0, 60.0])
X = np.array([5.0, 13.0, 25.0, 33.5, 44.0, 57.0, 66.0])


def surface(model, values=None, known=None):
    values = np.random.default_rng(3).normal(100, 5, (len(Y), len(X))) if values is None else values
    return SplineSurface(X, Y, values, np.ones(values.shape, bool) if known is None else known, model)


def along(model, x, y, at):
    """One line of pixels: the same spline in both directions of a grid of one column would hide slips."""
    one = SplineSurface(np.array([0.0]), x, y[:, None], np.ones((len(x), 1), bool), model)
    return one.evaluate((0, at), (0, 1))[:, 0]


@pytest.mark.parametrize("model", ["akima", "natural", "bicubic"])
def test_between_centres_it_is_what_scipy_has(model):
    interpolate = pytest.importorskip("scipy.interpolate")
    spline = surface(model)
    inside_y, inside_x = np.arange(4, 61), np.arange(5, 67)

    def one(nodes, values, at):
        if model == "akima":
            return interpolate.Akima1DInterpolator(nodes, values)(at)
        return interpolate.CubicSpline(nodes, values, bc_type="natural")(at)

    columns = np.stack([one(Y, column, inside_y) for column in spline.values.T], axis=1)
    expected = np.stack([one(X, row, inside_x) for row in columns])
    np.testing.assert_allclose(spline.evaluate((4, 61), (5, 67)), expected, atol=2e-5)


def test_beyond_the_centres_each_has_its_own_rule():
    x = np.array([2.0, 4.0, 6.0, 8.0, 10.0])
    # a parabola: Akima goes on with it, a natural spline straight with its end's slope
    parabola = (x - 3) ** 2
    akima = along("akima", x, parabola, 14)
    np.testing.assert_allclose(akima, (np.arange(14) - 3.0) ** 2, atol=1e-5)
    natural = along("natural", x, parabola, 14)
    assert natural[13] - natural[12] == pytest.approx(natural[12] - natural[11], abs=1e-5)
    # the cubic of the last interval goes on, so that its third difference does
    bicubic = along("bicubic", x, parabola, 20)
    third = np.diff(bicubic[8:], 3)
    np.testing.assert_allclose(third, third[0], atol=2e-5)
    assert abs(third[0]) > 0.01
    # mirrored about a border half an interval beyond the outermost centre
    mirrored = along("reflect", x + 0.5, parabola, 14)
    np.testing.assert_allclose(mirrored[1], mirrored[2], atol=1e-5)
    np.testing.assert_allclose(mirrored[11], mirrored[12], atol=1e-5)


def test_reflect_is_scipys_zoom():
    ndimage = pytest.importorskip("scipy.ndimage")
    values = np.random.default_rng(1).normal(100, 5, (6, 8))
    made = SplineSurface(
        10 * np.arange(8) + 4.5, 12 * np.arange(6) + 5.5, values, np.ones(values.shape, bool), "reflect"
    ).evaluate((0, 72), (0, 80))
    expected = ndimage.zoom(values, (12, 10), order=3, mode="reflect", grid_mode=True)
    np.testing.assert_allclose(made, expected, atol=3e-5)


def test_akima_where_chords_do_not_turn_is_straight():
    x = np.arange(6) * 2.0
    step = np.array([0.0, 0, 0, 1, 1, 1])
    made = along("akima", x, step, 11)
    # no overshoot of a step, which a cubic spline has
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_array_equal(made[:5], 0)
    np.testing.assert_array_equal(made[6:], 1)
    assert along("natural", x, step, 11).max() > 1.02


def test_missing_superpixels_are_left_out_of_their_column_and_empty_columns_of_the_row():
    plane = Y[:, None] * 2 + X[None] * 3 + 10
    known = np.ones(plane.shape, bool)
    known[1:4, 2] = False
    known[:, 4] = False
    known[:4, 5] = False
    values = np.where(known, plane, np.nan)
    for model in ("akima", "natural"):
        made = surface(model, values, known).evaluate((0, 70), (0, 72))
        y, x = np.mgrid[:70, :72]
        np.testing.assert_allclose(made, 2 * y + 3 * x + 10, atol=1e-4)


def test_one_superpixel_is_a_constant_and_none_is_nan():
    values = np.full((len(Y), len(X)), np.nan)
    known = np.zeros(values.shape, bool)
    assert np.isnan(surface("akima", values, known).evaluate((0, 3), (0, 3))).all()
    values[2, 3], known[2, 3] = 7.0, True
    np.testing.assert_array_equal(surface("akima", values, known).evaluate((0, 70), (0, 72)), 7.0)


@pytest.mark.parametrize("model", ["akima", "natural", "bicubic", "reflect"])
def test_a_window_has_the_bits_of_the_whole(model):
    spline = surface(model)
    whole = spline.evaluate((0, 300), (0, 80))
    np.testing.assert_array_equal(spline.evaluate((131, 290), (7, 61)), whole[131:290, 7:61])
    np.testing.assert_array_equal(
        spline.uncertainty(np.ones((6, 7)), (131, 140), (7, 61)),
        spline.uncertainty(np.ones((6, 7)), (0, 300), (0, 80))[131:140, 7:61],
    )


@pytest.mark.parametrize("model", ["natural", "bicubic", "reflect"])
def test_uncertainty_is_the_scatter_of_the_surface(model):
    rng = np.random.default_rng(8)
    spline, error = surface(model), rng.uniform(1, 4, (len(Y), len(X)))
    made = [
        surface(model, spline.values + error * rng.normal(size=error.shape)).evaluate((0, 64), (0, 70))
        for _ in range(1500)
    ]
    ratio = spline.uncertainty(error, (0, 64), (0, 70)) / np.std(made, axis=0)
    assert 0.9 < ratio.min() < ratio.max() < 1.12
    assert np.median(ratio) == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:300, :410].astype(np.float32)
    sky = 500 + 20 * np.sin(x / 60) * np.cos(y / 50)
    return (sky + rng.normal(0, 5, sky.shape)).astype(np.float32), sky


@pytest.mark.parametrize("model", ["akima", "natural", "bicubic", "reflect"])
def test_a_spline_follows_what_a_polynomial_does_not(image, model):
    pixels, sky = image
    config = skysub.BackgroundConfig(superpixel=32, model=model)
    subtracted, background = skysub.subtract_background(pixels, None, config)
    assert np.std(background.evaluate() - sky) < 0.6
    _, polynomial = skysub.subtract_background(pixels, None, skysub.BackgroundConfig(superpixel=32))
    assert np.std(polynomial.evaluate() - sky) > 1.5
    np.testing.assert_array_equal(subtracted, pixels - background.evaluate())
    assert np.median(background.uncertainty()) == pytest.approx(5 / 32 * 0.8, rel=0.25)


def test_threads_in_place_and_pickles_keep_the_bits(image):
    pixels, _ = image
    config = skysub.BackgroundConfig(superpixel=32, model="akima", superpixel_filter=3)
    subtracted, background = skysub.subtract_background(pixels, None, config)
    again, _ = skysub.subtract_background(pixels, None, config, threads=3)
    np.testing.assert_array_equal(again, subtracted)
    own = pixels.copy()
    background.subtract_from(own, out=own)
    np.testing.assert_array_equal(own, subtracted)
    copy = pickle.loads(pickle.dumps(background))
    np.testing.assert_array_equal(copy.evaluate(), background.evaluate())
    double = background.subtract_from(pixels.astype(float))
    np.testing.assert_array_equal(double, pixels.astype(float) - background.evaluate())


def test_dask_blocks_give_the_same_bits(image):
    pixels, _ = image
    config = skysub.BackgroundConfig(superpixel=32, model="natural")
    expected, background = skysub.subtract_background(pixels, None, config)
    lazy, lazy_background = skysub.subtract_background(da.from_array(pixels, chunks=(97, 130)), None, config)
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), expected)
    model = lazy_background.evaluate()
    assert model.numblocks == (4, 4)
    np.testing.assert_array_equal(model.compute(scheduler="sync"), background.evaluate())


def test_the_filter_takes_out_a_superpixel_that_sticks_out(image):
    pixels = image[0].copy()
    pixels[96:128, 96:128] += 200
    plain, filtered = (
        skysub.fit_background(
            pixels, None, skysub.BackgroundConfig(superpixel=32, model="natural", superpixel_filter=size)
        ).evaluate()[112, 112]
        for size in (0, 3)
    )
    assert plain > 650
    assert filtered < 530


def statistics(values):
    values = np.asarray(values, np.float32)
    count = np.where(np.isfinite(values), 100, 0).astype(np.int32)
    return SuperpixelStatistics(mean=values, error=np.ones_like(values), count=count)


def test_too_few_superpixels_are_said_or_refused():
    grid = SuperpixelGrid.of_counts((60, 60), gy=4, gx=6)
    from skysub.background.model import fit_statistics

    values = np.arange(24.0).reshape(4, 6)
    reduced = fit_statistics(grid, statistics(values), skysub.BackgroundConfig(model="akima")).reduced
    assert "akima" in reduced
    assert "4 x 6" in reduced
    assert not fit_statistics(grid, statistics(values), skysub.BackgroundConfig(model="natural")).reduced
    with pytest.raises(UndersampledError, match="needs 5 superpixels"):
        fit_statistics(grid, statistics(values), skysub.BackgroundConfig(model="akima", undersampled="raise"))
    values[:3, 2] = np.nan
    with pytest.raises(UndersampledError, match="1 of 6 columns"):
        fit_statistics(
            grid, statistics(values), skysub.BackgroundConfig(model="natural", undersampled="raise")
        )
    with pytest.raises(NoUsableSuperpixelsError, match="not finite"):
        fit_statistics(grid, statistics(np.full((4, 6), np.nan)), skysub.BackgroundConfig(model="natural"))


def test_refined_grids_hold_the_spline():
    image = np.random.default_rng(1).normal(10, 1, (60, 300))
    config = skysub.BackgroundConfig(superpixel=128, model="akima", undersampled="refine")
    background = skysub.fit_background(image, None, config)
    assert min(background.grid.shape) >= 5


def test_the_default_flow_refuses_it():
    spline = skysub.BackgroundConfig(model="akima")
    sky = skysub.CalibrateImageConfig().sky
    import dataclasses

    with pytest.raises(ConfigError, match="flow 'lsst'"):
        skysub.CalibrateImageConfig(sky=dataclasses.replace(sky, background=spline))
    with pytest.raises(ConfigError, match="model must be one of chebyshev, akima"):
        skysub.BackgroundConfig(model="spline")


def test_light_of_undetected_sources_comes_off(image):
    from dataclasses import replace

    background = skysub.fit_background(
        image[0], None, skysub.BackgroundConfig(superpixel=32, model="natural")
    )
    held = replace(background, faint_light=skysub.FaintLight(3.0, 0.5, "test"))
    np.testing.assert_allclose(held.evaluate() - held.evaluate(faint_light=False), 3.0, atol=1e-4)
    # what is not known of it is common to all pixels
    np.testing.assert_allclose(
        held.uncertainty(faint_light=False), np.hypot(held.uncertainty(), 0.5), rtol=1e-6
    )


@pytest.mark.parametrize("model", ["akima", "natural"])
def test_files_of_lsst_keep_the_spline(image, tmp_path, model):
    pixels = image[0].copy()
    pixels[64:96, 128:160] = np.nan
    config = skysub.BackgroundConfig(superpixel=32, model=model, superpixel_filter=3)
    background = skysub.fit_background(pixels, None, config)
    skysub.write_background(background, tmp_path / "b.fits")
    (again,) = skysub.read_background(tmp_path / "b.fits")
    np.testing.assert_array_equal(again.evaluate(), background.evaluate())
    np.testing.assert_array_equal(again.uncertainty(), background.uncertainty())
    from astropy.io import fits

    header = fits.getheader(tmp_path / "b.fits")
    assert (header["APPROXSTYLE"], header["INTERPSTYLE"]) == (-1, {"akima": 5, "natural": 2}[model])


def test_files_of_lsst_have_no_other_spline(image, tmp_path):
    config = skysub.BackgroundConfig(superpixel=32, model="reflect")
    with pytest.raises(skysub.errors.LayoutError, match="akima and natural"):
        skysub.write_background(skysub.fit_background(image[0], None, config), tmp_path / "b.fits")


def test_stores_keep_the_spline(image):
    from skysub.campaign.store.backgrounds import inline, outline

    config = skysub.BackgroundConfig(superpixel=32, model="akima")
    background = skysub.fit_background(image[0], None, config)
    (again,) = outline(inline([background]))
    np.testing.assert_array_equal(again.evaluate(), background.evaluate())
