"""One image without its sky: arrays, files, colours, and what is put back."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

import skysub
from skysub.errors import (
    ConfigError,
    InvalidImageError,
    LayoutError,
    NoUsableSuperpixelsError,
    OutputError,
    SkyIsGoneError,
)


@pytest.fixture(scope="module")
def result(field):
    return skysub.subtract(field[0])


def test_an_array(field, result):
    pixels, sky = field
    assert np.abs(result.background - sky).mean() < 0.6
    np.testing.assert_array_equal(result.image, pixels - result.background)
    assert result.image.dtype == np.float32
    assert result.mask.dtype == bool
    # stars are masked, the sky between them is not
    assert result.mask[pixels > 1500].all()
    assert 0.02 < result.masked < 0.5
    assert result.masked == pytest.approx(result.mask.mean(), abs=1e-9)
    assert result.sky == pytest.approx(np.median(sky), abs=2)
    assert result.noise == pytest.approx(np.sqrt(800), rel=0.1)
    np.testing.assert_array_equal(result.model.evaluate(), result.background)
    assert result.uncertainty().shape == pixels.shape
    assert "sky=8" in repr(result)
    assert len(repr(result)) < 300


def test_threads_do_not_matter(field, result):
    np.testing.assert_array_equal(skysub.subtract(field[0], threads=1).image, result.image)


def test_kinds_of_arrays(field, result):
    pixels = field[0]
    double = skysub.subtract(pixels.astype(float))
    assert double.image.dtype == np.float64
    np.testing.assert_array_equal(double.image, pixels.astype(float) - double.background)
    np.testing.assert_array_equal(double.background, result.background)
    np.testing.assert_array_equal(skysub.subtract(pixels.astype(np.int32)).background, result.background)
    np.testing.assert_array_equal(skysub.subtract(pixels.astype(">f4")).background, result.background)
    ignored = np.zeros(pixels.shape, bool)
    ignored[:60, :80] = True
    expected = skysub.subtract(np.where(ignored, 5e4, pixels).astype(np.float32), ignored)
    assert np.abs(expected.background - field[1]).mean() < 1
    masked = skysub.subtract(np.ma.array(pixels, mask=ignored))
    np.testing.assert_array_equal(masked.background, expected.background)
    assert masked.mask[:60, :80].all()
    ccd = skysub.subtract(CCDData(pixels, unit="adu", mask=ignored))
    np.testing.assert_array_equal(ccd.background, expected.background)
    assert skysub.subtract(CCDData(pixels, unit="electron")).unit == "electron"
    bits = skysub.subtract(pixels, (ignored * 4, 4))
    np.testing.assert_array_equal(bits.background, expected.background)


def test_models_and_configurations(field, result):
    pixels, sky = field
    lsst = skysub.subtract(pixels, config="lsst")
    assert len(lsst.model) > 1
    np.testing.assert_array_equal(lsst.image, pixels - lsst.background)
    plane = skysub.subtract(pixels, config=skysub.BackgroundConfig(order=1))
    assert plane.order == 1
    spline = skysub.subtract(pixels, config=skysub.BackgroundConfig(model="natural", superpixel=64))
    assert np.abs(spline.background - sky).mean() < 1.5
    assert spline.model[0].config.model == "natural"
    # the mask is that of the default flow
    np.testing.assert_array_equal(spline.mask, result.mask)
    calibrate = skysub.CalibrateImageConfig(cosmic_rays=None)
    assert np.abs(skysub.subtract(pixels, config=calibrate).background - sky).mean() < 0.6


def test_what_cannot_be_subtracted(field):
    import dask.array as da

    pixels = field[0]
    with pytest.raises(ConfigError, match="default and lsst"):
        skysub.subtract(pixels, config="fast")
    with pytest.raises(ConfigError, match="not int"):
        skysub.subtract(pixels, config=3)
    with pytest.raises(InvalidImageError, match="subtract_background"):
        skysub.subtract(da.from_array(pixels))
    with pytest.raises(InvalidImageError, match="shape"):
        skysub.subtract(np.zeros(5))
    with pytest.raises(NoUsableSuperpixelsError):
        skysub.subtract(np.full((64, 64), np.nan, np.float32))


def test_an_image_near_zero_is_said(field):
    flat = field[0] - field[1]
    assert "sky_near_zero" in skysub.subtract(flat).flags


def test_a_file_and_what_comes_out(image, tmp_path):
    found = skysub.subtract(image)
    assert found.opened.channels[0].wcs is not None
    out = tmp_path / "out.fits"
    found.write(out)
    with fits.open(out, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus][:3] == ["PRIMARY", "MASK", "BACKGROUND"]
        np.testing.assert_array_equal(hdus[0].data, found.image)
        np.testing.assert_array_equal(hdus["BACKGROUND"].data, found.background)
        np.testing.assert_array_equal(hdus["MASK"].data != 0, found.mask)
        header = hdus[0].header
        assert header["OBJECT"] == "M 33"
        assert header["CRVAL2"] == 30.0
        assert header["SKYSUB"] is True
        assert header["SKYLEVEL"] == pytest.approx(found.sky)
        assert hdus["MASK"].header["MP_DETECTED"] == 5
        assert hdus["MASK"].header["CRVAL1"] == 20.0
    again = skysub.read_visit_image(out, skysub.IngestMap(visit=1, detector=1))
    np.testing.assert_array_equal(again.image, found.image)
    assert again.planes["DETECTED"] == 5
    read = CCDData.read(out)
    assert read.unit == "adu"
    np.testing.assert_array_equal(read.mask, found.mask)


def test_it_is_not_subtracted_twice(image, tmp_path):
    out = tmp_path / "out.fits"
    skysub.subtract(image).write(out)
    with pytest.raises(SkyIsGoneError, match="skysub restore"):
        skysub.subtract(out)
    twice = skysub.subtract(out, again=True)
    assert abs(twice.sky) < 1
    assert "SKYSUB = T" in twice.flags["again"]


def test_restored_to_the_last_bit(image, field, tmp_path):
    # numbers with all their digits: sums of whole ones seldom round
    pixels = field[0] * np.float32(1.2345678)
    with fits.open(image, mode="update", checksum=True) as hdus:
        hdus[0].data = pixels
    out, back = tmp_path / "out.fits", tmp_path / "back.fits"
    skysub.subtract(image).write(out)
    with fits.open(out) as hdus:
        # without the list of exceptions it would not be exact: many sums round
        plain = hdus[0].data + hdus["BACKGROUND"].data
        assert (plain != pixels).sum() == hdus["RESTORE"].data.shape[1] > 0
    restored = skysub.restore(out)
    assert restored.exact
    np.testing.assert_array_equal(restored.image, pixels)
    restored.write(back)
    with fits.open(back, checksum=True) as hdus, fits.open(image) as before:
        np.testing.assert_array_equal(hdus[0].data, pixels)
        ours = {"HISTORY", "CHECKSUM", "DATASUM", "EXTEND"}
        assert set(hdus[0].header) - ours == set(before[0].header) - ours
    # and it may be subtracted anew, with the same result
    np.testing.assert_array_equal(skysub.subtract(back).image, skysub.subtract(image).image)


def test_restored_where_pixels_are_small_negative_huge_or_nothing(tmp_path):
    rng = np.random.default_rng(2)
    pixels = rng.normal(3, 5, (200, 200)).astype(np.float32)
    pixels[5, 5:9] = [np.nan, 1e30, -1e-30, 7.25e8]
    path, out = tmp_path / "a.fits", tmp_path / "b.fits"
    fits.PrimaryHDU(pixels).writeto(path)
    skysub.subtract(path).write(out)
    np.testing.assert_array_equal(skysub.restore(out).image, pixels)


def test_types_that_float32_rounds_are_said(tmp_path, field):
    path, out = tmp_path / "a.fits", tmp_path / "b.fits"
    fits.PrimaryHDU(field[0].astype(np.float64) + 1e-9).writeto(path)
    skysub.subtract(path).write(out)
    restored = skysub.restore(out)
    assert not restored.exact
    assert "float64" in restored.why
    fits.PrimaryHDU(field[0].astype(np.uint16)).writeto(path, overwrite=True)
    skysub.subtract(path).write(out)
    restored = skysub.restore(out)
    assert restored.exact
    np.testing.assert_array_equal(restored.image, field[0].astype(np.uint16))


def test_what_cannot_be_restored(image, tmp_path):
    with pytest.raises(LayoutError, match="--background"):
        skysub.restore(image)
    out = tmp_path / "out.fits"
    skysub.subtract(image).write(out)
    with fits.open(out, mode="update") as hdus:
        hdus["BACKGROUND"].data = hdus["BACKGROUND"].data[:50]
    with pytest.raises(LayoutError, match="alike"):
        skysub.restore(out, verify=False)


def test_an_exported_visit_image_and_its_background(field, tmp_path):
    pixels, _ = field
    visit_image = skysub.VisitImage(
        image=pixels,
        mask=np.zeros(pixels.shape, np.int32),
        planes=skysub.MaskPlanes({"BAD": 0}),
        visit=1,
        detector=2,
    )
    found = skysub.calibrate_image(visit_image)
    skysub.write_visit_image(found.preliminary_visit_image, tmp_path / "image.fits")
    skysub.write_background(found.preliminary_visit_image_background, tmp_path / "background.fits")
    restored = skysub.restore(tmp_path / "image.fits", tmp_path / "background.fits")
    assert not restored.exact
    np.testing.assert_allclose(restored.image, pixels, rtol=0, atol=np.spacing(np.float32(2 * pixels.max())))
    other = skysub.fit_background(pixels[:64, :64], None, skysub.BackgroundConfig(superpixel=16))
    skysub.write_background(other, tmp_path / "other.fits")
    with pytest.raises(LayoutError, match=r"\(64, 64\)"):
        skysub.restore(tmp_path / "image.fits", tmp_path / "other.fits")


def test_colours_have_skies_of_their_own(field, tmp_path):
    pixels, _ = field
    mosaic = np.clip(pixels, 0, 60000).astype(np.uint16)
    # red and green skies differ far more than the noise
    mosaic[::2, ::2] //= 2
    path, out = tmp_path / "dslr.fits", tmp_path / "out.fits"
    fits.PrimaryHDU(mosaic, fits.Header({"BAYERPAT": "RGGB"})).writeto(path)
    found = skysub.subtract(path)
    assert len(found.models) == 4
    with pytest.raises(ValueError, match="4 colours"):
        _ = found.model
    for j in (0, 1):
        for i in (0, 1):
            cut = (slice(j, None, 2), slice(i, None, 2))
            left = found.image[cut][~found.mask[cut]]
            assert abs(np.median(left)) < 2
    found.write(out)
    np.testing.assert_array_equal(skysub.restore(out).image, mosaic)
    cube = np.stack([pixels, pixels * 2])
    fits.PrimaryHDU(cube).writeto(path, overwrite=True)
    found = skysub.subtract(path)
    assert found.image.shape == cube.shape
    assert found.uncertainty().shape == cube.shape
    found.write(out)
    np.testing.assert_array_equal(skysub.restore(out).image, cube)
    found.picture(tmp_path / "cube.png")


def test_the_picture(result, tmp_path):
    from skysub.desk.picture import picture_of

    drawn = picture_of(result, edge=100)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (87, 4 * 100 + 3 * 8, 3)
    result.picture(tmp_path / "a.png", edge=100)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    image = pytest.importorskip("matplotlib.image").imread(tmp_path / "a.png")
    # row 0 of the image is drawn at the bottom
    np.testing.assert_array_equal(np.rint(image[::-1, :, :3] * 255), drawn)
    with pytest.raises(OutputError, match="cannot be written"):
        result.picture(tmp_path / "no" / "a.png")
