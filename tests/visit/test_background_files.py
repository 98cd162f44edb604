import dataclasses

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import skysub
from skysub.background.amplifiers import Amplifier, AmplifierBackground
from skysub.background.config import BackgroundConfig
from skysub.background.estimate import fit_background
from skysub.background.faint_light import FaintLight
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
    (read,) = read_background(tmp_path / "c.fits")
    assert read.config.model == "akima"
    with fits.open(tmp_path / "c.fits") as hdus:
        for hdu in hdus:
            hdu.header["INTERPSTYLE"] = 1
        rewrite(hdus, tmp_path / "d.fits")
    with pytest.raises(LayoutError, match=r"layer 0: INTERPSTYLE is 1"):
        read_background(tmp_path / "d.fits")


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


def with_amplifiers(*, drift):
    """A layer of 200 x 260 pixels whose amplifiers have 250 and 10 columns."""
    amplifiers = (Amplifier("A", y=(0, 200), x=(0, 250)), Amplifier("O'B", y=(0, 200), x=(250, 260)))
    rng = np.random.default_rng(2)
    bins = -(-200 // 8)
    return AmplifierBackground(
        shape=(200, 260),
        amplifiers=amplifiers,
        steps=np.array([0.7, -1.3]),
        step_errors=np.array([0.1, 0.25]),
        rows_per_bin=8 if drift else 0,
        drift=tuple(rng.normal(0, 1, (2, bins))) if drift else (),
        drift_errors=tuple(rng.random((2, bins))) if drift else (),
    )


@pytest.mark.parametrize("drift", [False, True])
def test_what_amplifiers_add_is_a_layer_of_constants(tmp_path, drift):
    given = layers(2)
    added = with_amplifiers(drift=drift)
    given = BackgroundList([given[0], dataclasses.replace(given[1], amplifiers=added)])
    write_background(given, tmp_path / "b.fits", xy0=(3, 5))
    read = read_background(tmp_path / "b.fits")
    assert len(read) == 2
    assert read[0].amplifiers is None
    assert read[1].amplifiers.amplifiers == added.amplifiers
    assert_same_bits(read.evaluate(), given.evaluate())
    assert_same_bits(read[1].amplifiers.evaluate(), added.evaluate())
    assert_same_bits(read[1].amplifiers.uncertainty(), added.uncertainty())
    with fits.open(tmp_path / "b.fits") as hdus:
        assert len(hdus) == 9
        # steps need a column for every 10 pixels and one row; 200 rows in bins of 8 need 25
        assert hdus[6].data.shape == (25 if drift else 1, 26)
        cards = {name: hdus[6].header[name] for name in ("INTERPSTYLE", "APPROXSTYLE", "BKGD_X0", "BKGD_Y0")}
        assert cards == {"INTERPSTYLE": 0, "APPROXSTYLE": -1, "BKGD_X0": 3, "BKGD_Y0": 5}
        assert not hdus[7].data.any()


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("AMPSEC02", "[251:261,1:200]", "do not tile"),
        ("AMPSEC02", 7, "AMPSEC02"),
        ("AMPROWS", -8, "AMPROWS"),
        ("BKGD_WIDTH", "wide", "BKGD_WIDTH"),
        ("BKGD_WIDTH", 5, "do not fit"),
    ],
)
def test_layers_of_amplifiers_that_contradict_themselves_are_refused(tmp_path, keyword, value, words):
    given = dataclasses.replace(layers(1)[0], amplifiers=with_amplifiers(drift=True))
    write_background(given, tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        hdus[3].header[keyword] = value
        rewrite(hdus, tmp_path / "bad.fits")
    with pytest.raises(LayoutError, match=words):
        read_background(tmp_path / "bad.fits")


def test_amplifiers_need_a_layer_before_them(tmp_path):
    write_background(
        dataclasses.replace(layers(1)[0], amplifiers=with_amplifiers(drift=False)), tmp_path / "b.fits"
    )
    with fits.open(tmp_path / "b.fits") as hdus:
        first = fits.PrimaryHDU(hdus[3].data, hdus[3].header)
        rewrite(fits.HDUList([first, *hdus[4:]]), tmp_path / "alone.fits")
    with pytest.raises(LayoutError, match="must follow a layer"):
        read_background(tmp_path / "alone.fits")


def test_a_long_provenance_of_faint_light_is_kept(tmp_path):
    said = (
        "2.2 magnitudes' worth of the light per magnitude of sources at 14 times a point source's  limit, so "
    )
    light = FaintLight(0.7, 0.3, said)
    write_background(dataclasses.replace(layers(1)[0], faint_light=light), tmp_path / "b.fits")
    assert read_background(tmp_path / "b.fits")[0].faint_light == light
