import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import skysub
from skysub.background.config import BackgroundConfig
from skysub.background.estimate import fit_background
from skysub.background.model import BackgroundList
from skysub.errors import LayoutError, NoUsableSuperpixelsError
from skysub.visit.fits.background import read_background, write_background
from tests.visit.layouts import assert_same_bits, rewrite

BLOCK = 2880


def layers(count=2, *, shape=(200, 260), **settings):
    rng = np.random.default_rng(11)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = (500 + 0.1 * x - 0.05 * y + rng.normal(0, 20, shape)).astype(np.float32)
    image[:25, :25] = np.nan
    found = []
    for index in range(count):
        config = BackgroundConfig(
            superpixel=32, **({"order": 3} | settings | ({"order": 1} if index else {}))
        )
        found.append(fit_background(image, None, config))
        image = found[-1].subtract_from(image)
    return BackgroundList(found)


def test_layers_are_refit_to_the_same_model(tmp_path):
    given = layers()
    write_background(given, tmp_path / "b.fits")
    read = read_background(tmp_path / "b.fits")
    assert len(read) == 2
    for one, other in zip(given, read, strict=True):
        assert_same_bits(one.coefficients, other.coefficients)
        assert one.order == other.order
        assert np.array_equal(one.usable, other.usable)
    assert_same_bits(given.evaluate(), read.evaluate())
    write_background(read, tmp_path / "again.fits")
    assert (tmp_path / "again.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(40, 150), st.integers(40, 150)),
    order=st.integers(0, 6),
    weighting=st.booleans(),
    min_good_pixels=st.integers(0, 900),
    grid_rule=st.sampled_from(["ceil", "floor_plus_one"]),
)
def test_any_layer_is_the_same_after_a_file(tmp_path, shape, **config):
    try:
        given_layers = layers(1, shape=shape, **config)
    except NoUsableSuperpixelsError:
        return
    write_background(given_layers, tmp_path / "b.fits")
    assert_same_bits(given_layers.evaluate(), read_background(tmp_path / "b.fits").evaluate())


def test_byte_layout_is_afw_s(tmp_path):
    given = layers()
    write_background(given, tmp_path / "b.fits", xy0=(11, 12))
    raw = (tmp_path / "b.fits").read_bytes()
    assert raw.startswith(b"SIMPLE  =                    T")
    gy, gx = given[0].grid.shape
    with fits.open(tmp_path / "b.fits", checksum=True) as hdus:
        assert len(hdus) == 6
        assert [hdu.header["BITPIX"] for hdu in hdus] == [-32, 32, -32] * 2
        for index, hdu in enumerate(hdus):
            layer = given[index // 3]
            header = hdu.header
            assert hdu.shape == (gy, gx)
            assert "EXTNAME" not in header
            assert "ZIMAGE" not in header
            assert header["INTERPSTYLE"] == 5
            assert header["UNDERSAMPLESTYLE"] == 1
            assert header["APPROXSTYLE"] == 0
            assert header["APPROXORDERX"] == header["APPROXORDERY"] == layer.order
            assert header["APPROXWEIGHTING"] is True
            assert [header[f"BKGD_{key}"] for key in ("X0", "Y0", "WIDTH", "HEIGHT")] == [11, 12, 260, 200]
            assert ("MP_BAD" in header) == (index % 3 == 1)
            plane = (layer.statistics.mean, np.zeros((gy, gx), np.int32), layer.statistics.error)[index % 3]
            start = hdus.fileinfo(index)["datLoc"]
            assert start % BLOCK == 0
            stored = np.frombuffer(raw[start : start + 4 * gy * gx], hdu.data.dtype.newbyteorder(">"))
            assert np.array_equal(stored.reshape(gy, gx), plane, equal_nan=index % 3 != 1)
            # the slot of a variance holds the standard error itself
        for key in ("INTERPSTYLE", "UNDERSAMPLESTYLE", "APPROXORDERX", "APPROXWEIGHTING", "BKGD_HEIGHT"):
            assert f"HIERARCH {key} = ".encode() in raw
        for key in ("APPROXSTYLE", "BKGD_WIDTH", "BKGD_X0"):
            assert key.encode() in raw
    assert len(raw) % BLOCK == 0


def test_a_file_without_approx_cards_is_a_spline(tmp_path):
    write_background(layers(1), tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        for hdu in hdus:
            del hdu.header["APPROXSTYLE"]
        rewrite(hdus, tmp_path / "c.fits")
    with pytest.raises(LayoutError, match=r"layer 0: APPROXSTYLE is -1: this layer is a spline"):
        read_background(tmp_path / "c.fits")


def test_what_is_no_background_list(tmp_path, files):
    with pytest.raises(LayoutError, match="three images per layer; this file has 4 HDUs"):
        read_background(files["afw-none"])
    with pytest.raises(LayoutError, match="list of no layers"):
        write_background(BackgroundList(), tmp_path / "b.fits")
    with pytest.raises(LayoutError, match="superpixel_filter=3"):
        write_background(layers(1, superpixel_filter=3), tmp_path / "b.fits")


@pytest.mark.parametrize(
    ("index", "keyword", "value", "message"),
    [
        (0, "APPROXORDERX", 40, "APPROXORDERX is 40"),
        (0, "APPROXORDERY", 2, "orders in x and y are 3 and 2"),
        (0, "APPROXWEIGHTING", 3, "neither T nor F"),
        (0, "BKGD_WIDTH", 2, "do not fit into an image"),
        (0, "BKGD_HEIGHT", "tall", "BKGD_HEIGHT is 'tall'"),
    ],
)
def test_wrong_cards(tmp_path, index, keyword, value, message):
    write_background(layers(1), tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        hdus[index].header[keyword] = value
        rewrite(hdus, tmp_path / "c.fits")
    with pytest.raises(LayoutError, match=message):
        read_background(tmp_path / "c.fits")


def test_public_names():
    assert skysub.read_background is read_background
    assert skysub.write_background is write_background
