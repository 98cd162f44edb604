"""What users hand over: either right, or a clear error of ours; never modified."""

import multiprocessing
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

import skysub
from skysub import errors
from skysub.visit.planes import AFW_PLANES

CONFIG = skysub.BackgroundConfig(superpixel=16, order=2)
RANDOM = np.random.default_rng(4)
IMAGE = (1000 + 30 * RANDOM.standard_normal((96, 130))).astype(np.float32)


def visit_image():
    return skysub.VisitImage(
        image=IMAGE, mask=np.zeros(IMAGE.shape, np.int32), planes=AFW_PLANES, visit=1, detector=0
    )


@pytest.mark.parametrize(
    "dtype", ["f4", ">f4", "f8", ">f8", "f2", "i2", ">i2", "u2", "i4", "u4", "i8", "u1", np.longdouble]
)
def test_types_of_images(dtype):
    image = (IMAGE / 8).astype(dtype)
    before = image.copy()
    subtracted, background = skysub.subtract_background(image, None, CONFIG)
    wide = np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize > 4
    wide |= np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize > 2
    assert subtracted.dtype == (np.float64 if wide else np.float32)
    assert subtracted.dtype.isnative
    expected = skysub.fit_background(before.astype(subtracted.dtype), None, CONFIG)
    np.testing.assert_array_equal(background.coefficients, expected.coefficients)
    np.testing.assert_array_equal(image, before)
    assert image.dtype == before.dtype


@pytest.mark.parametrize(
    "view",
    [
        np.asfortranarray,
        lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
        lambda a: np.ascontiguousarray(a[::-1])[::-1],
        lambda a: np.pad(a, 5)[5:-5, 5:-5],
    ],
    ids=["fortran", "strided", "reversed", "cut"],
)
def test_layouts_in_memory(view):
    mask = (RANDOM.random(IMAGE.shape) < 0.1).astype(np.int32)
    expected, _ = skysub.subtract_background(IMAGE, (mask, 1), CONFIG)
    got, _ = skysub.subtract_background(view(IMAGE), (view(mask), 1), CONFIG)
    np.testing.assert_array_equal(got, expected)


def test_read_only_arrays():
    image, ignored = IMAGE.copy(), IMAGE > 1050
    image.flags.writeable = ignored.flags.writeable = False
    subtracted, _ = skysub.subtract_background(image, ignored, CONFIG)
    np.testing.assert_array_equal(subtracted, skysub.subtract_background(IMAGE, IMAGE > 1050, CONFIG)[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones(5), r"must have shape \(ny, nx\).*not \(5,\)"),
        (np.ones((2, 3, 4)), r"not \(2, 3, 4\)"),
        (np.ones((0, 4)), r"at least one pixel, not \(0, 4\)"),
        (np.ones((4, 4), complex), "must hold real numbers, not complex128"),
        (np.ones((4, 4), object), "must hold real numbers, not object"),
        (np.ones((4, 4), bool), "must hold real numbers, not bool"),
        (np.full((4, 4), "a"), "must hold real numbers, not <U1"),
        (np.ma.masked_greater(IMAGE, 1000), "pass image.data, and image.mask as `ignored`"),
        (None, "must have shape"),
        ("a.fits", r"not a path: pass skysub.read_visit_image\('a.fits'\).image"),
        (visit_image(), r"pass visit_image.image, and as `ignored` \(visit_image.mask, visit_image.bits\("),
    ],
)
def test_images_that_cannot_be_worked_on(image, message):
    with pytest.raises(errors.InvalidImageError, match=message):
        skysub.fit_background(image)
    with pytest.raises(errors.InvalidImageError, match=message):
        skysub.subtract_background(image)


@pytest.mark.parametrize(
    ("ignored", "message"),
    [
        (
            np.zeros((96, 129), bool),
            r"Shape of the mask \(96, 129\) does not match that of the image \(96, 130\)",
        ),
        (np.zeros((96, 130)), "must be of bool, not float64; pass planes as"),
        (np.zeros((96, 130), int), r"must be of bool, not int64; pass planes as \(mask, bits\)"),
        ((np.zeros((96, 130)), 1), "must be of integers, not float64"),
        ((np.zeros((96, 130), int), 1.5), "must be one integer, not 1.5"),
        ((np.zeros((96, 130), int), True), "must be one integer, not True"),
        ((np.zeros((96, 130), int), "BAD"), r"not 'BAD'; use visit_image.bits\('BAD'\)$"),
        ((np.zeros((96, 130), int), ("BAD", "SAT")), r"; use visit_image.bits\('BAD', 'SAT'\)$"),
        ((np.zeros((96, 130), np.uint8), 256), "bits 0x100 do not fit into the mask's type uint8"),
        ((np.zeros((96, 130), int), 1, 2), "not 3 items"),
    ],
)
def test_masks_that_cannot_be_worked_on(ignored, message):
    with pytest.raises(errors.InvalidImageError, match=message):
        skysub.fit_background(IMAGE, ignored)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"superpixel": 0}, "superpixel must be a whole number of at least 1, not 0"),
        ({"superpixel": -5}, "not -5"),
        ({"superpixel": 1.5}, "superpixel"),
        ({"superpixel": (3, 4, 5)}, r"one number or \(x, y\)"),
        ({"superpixel": (3, 0)}, "not 0"),
        ({"order": -1}, "order must be a whole number from 0 to 20"),
        ({"order": 21}, "order must be"),
        ({"clip_sigma": 0}, "clip_sigma must be a positive number"),
        ({"clip_sigma": float("nan")}, "clip_sigma"),
        ({"clip_passes": 0}, "clip_passes"),
        ({"statistic": "mode"}, "statistic must be one of meanclip, mean, median, not 'mode'"),
        ({"undersampled": "ignore"}, "undersampled must be one of"),
        ({"superpixel_filter": 2}, "must be odd or 0"),
        ({"min_good_pixels": -1}, "min_good_pixels"),
        ({"grid_rule": "round"}, "grid_rule"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        skysub.BackgroundConfig(**settings)


@pytest.mark.parametrize(
    ("image", "settings", "message"),
    [
        (np.full((32, 32), np.nan), {}, "every pixel is masked or not finite"),
        (np.full((32, 32), np.inf), {}, "every pixel is masked or not finite"),
        (np.full((32, 32), 5.0), {}, "their variance is zero"),
        (IMAGE[:1, :1], {}, "a single good pixel has no error"),
        (
            IMAGE[:32, :32],
            {"min_good_pixels": 2000},
            r"none has the 2000 good pixels asked for \(the most is 256\)",
        ),
    ],
)
def test_nothing_usable_says_why(image, settings, message):
    with pytest.raises(errors.NoUsableSuperpixelsError, match=message):
        skysub.fit_background(image, None, skysub.BackgroundConfig(superpixel=16, **settings))


def test_nan_stays_nan_and_masked_pixels_are_subtracted_too():
    image, ignored = IMAGE.copy(), np.zeros(IMAGE.shape, bool)
    image[3, 4] = np.nan
    ignored[10, 10] = True
    subtracted, background = skysub.subtract_background(image, ignored, CONFIG)
    assert np.isnan(subtracted[3, 4])
    assert np.isnan(subtracted).sum() == 1
    assert subtracted[10, 10] == image[10, 10] - background.evaluate()[10, 10]


def test_one_pixel_without_weighting():
    subtracted, background = skysub.subtract_background(
        IMAGE[:1, :1], None, skysub.BackgroundConfig(weighting=False)
    )
    assert background.order == 0
    assert subtracted[0, 0] == 0


def test_memory_beyond_the_output():
    """The issue of copies: output and 32 MiB, whatever the mask's type."""
    program = """
import resource, sys
import numpy as np, skysub
small = np.random.default_rng(1).standard_normal((256, 256)).astype("f4")
skysub.subtract_background(small, (np.zeros(small.shape, "i4"), 1))
image = np.tile(small, (16, 16)); mask = np.zeros(image.shape, "i4")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out, _ = skysub.subtract_background(image, (mask, 1))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024 - out.nbytes / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 32


def _compile(_):
    from skysub.background import kernels

    skysub.fit_background(IMAGE, None, CONFIG)
    stats = kernels.band_statistics.stats
    return sum(stats.cache_misses.values()), sum(stats.cache_hits.values())


def test_kernels_are_compiled_once_a_machine(tmp_path):
    """Of processes that start together on a cold cache one compiles, the others load."""
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("TMPDIR")
    os.environ["NUMBA_CACHE_DIR"], os.environ["TMPDIR"] = str(tmp_path / "cache"), str(tmp_path)
    try:
        with context.Pool(3) as pool:
            counted = pool.map(_compile, range(3), chunksize=1)
    finally:
        for name, value in zip(("NUMBA_CACHE_DIR", "TMPDIR"), before, strict=True):
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    compiled = [misses for misses, _ in counted if misses]
    assert len(compiled) <= 1
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0


@pytest.mark.parametrize("order", [2, 6])
def test_out_may_be_the_image_itself(order):
    config = skysub.BackgroundConfig(superpixel=12, order=order)
    expected, _ = skysub.subtract_background(IMAGE, None, config)
    elsewhere, image = np.empty_like(IMAGE), IMAGE.copy()
    for pixels, out in ((IMAGE, elsewhere), (image, image)):
        got, _ = skysub.subtract_background(pixels, None, config, out=out)
        assert got is out
        np.testing.assert_array_equal(out, expected)
    for wrong in (
        np.empty((96, 131), np.float32),
        np.empty(IMAGE.shape),
        np.empty((192, 130), np.float32)[::2],
    ):
        with pytest.raises(errors.InvalidImageError, match="out must be C-contiguous of shape"):
            skysub.subtract_background(IMAGE, None, config, out=wrong)


def test_a_window_and_its_pixels_must_agree():
    background = skysub.fit_background(IMAGE, None, CONFIG)
    with pytest.raises(
        errors.InvalidImageError, match=r"\(96, 130\) does not match that of the window \(10, 130\)"
    ):
        background.subtract_from(IMAGE, y=slice(0, 10))
