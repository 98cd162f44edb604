import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skysub.errors import ConfigError, InvalidImageError, VisitFileError
from skysub.visit.fits.read import read_visit_image
from skysub.visit.fits.write import write_visit_image
from skysub.visit.planes import MaskPlanes
from tests.visit.layouts import (
    assert_same_bits,
    assert_same_visit_image,
    make_visit_image,
    tan_wcs,
)


def test_layout_is_lsst_s(tmp_path):
    given = make_visit_image(xy0=(100, 200))
    write_visit_image(given, tmp_path / "v.fits")
    with fits.open(tmp_path / "v.fits", checksum=True) as hdus:
        assert hdus[0].data is None
        assert hdus[0].header["VISIT"] == given.visit
        assert hdus[0].header["LONGKEYWORD"] == 3.25
        assert [hdu.name for hdu in hdus[1:]] == ["IMAGE", "MASK", "VARIANCE"]
        for hdu in hdus[1:]:
            assert hdu.header["EXTTYPE"] == hdu.name
            assert hdu.header["INHERIT"] is True
            assert (hdu.header["LTV1"], hdu.header["LTV2"]) == (-100, -200)
            assert [hdu.header[f"CRVAL{i}A"] for i in (1, 2)] == [100, 200]
            assert hdu.header["CTYPE1A"] == "LINEAR"
            assert hdu.header["CTYPE1"] == "RA---TAN"
        assert hdus["IMAGE"].header["BUNIT"] == "electron"
        assert hdus["VARIANCE"].header["BUNIT"] == "electron2"
        assert hdus["VARIANCE"].header["UTYPE"] == "VarianceUncertainty"
        assert "BUNIT" not in hdus["MASK"].header
        mask = hdus["MASK"].header
        assert (mask["MP_SAT"], mask["MSKN0001"], mask["MSKM0001"]) == (1, "SATURATED", 2)
        assert (mask["MP_SPIKE"], mask["MSKN0017"], mask["MSKM0017"]) == (17, "SPIKE", 1 << 17)
        assert mask["MSKD0000"]
    with fits.open(tmp_path / "v.fits", disable_image_compression=True) as hdus:
        for hdu in hdus[1:]:
            assert (hdu.header["ZCMPTYPE"], hdu.header["ZTILE2"]) == ("GZIP_2", 1)
            assert {"CHECKSUM", "DATASUM"} <= set(hdu.header)


def test_lossy16_is_lsst_s_recipe(tmp_path):
    given = make_visit_image()
    write_visit_image(given, tmp_path / "v.fits", compression="lossy16")
    good = (given.mask & given.bits("NO_DATA", "INTRP")) == 0
    q1, q3 = np.percentile(given.image[good], [25, 75])
    with fits.open(tmp_path / "v.fits", disable_image_compression=True) as hdus:
        image = hdus[1]
        assert (image.header["ZCMPTYPE"], image.header["ZQUANTIZ"]) == ("RICE_1", "SUBTRACTIVE_DITHER_2")
        np.testing.assert_allclose(image.data["ZSCALE"], 0.741 * (q3 - q1) / 16, rtol=1e-6)
        np.testing.assert_allclose(image.header["UZSCALE"], image.data["ZSCALE"][0], rtol=1e-6)
        assert hdus[2].header["ZCMPTYPE"] == "GZIP_2"
    with fits.open(tmp_path / "v.fits", checksum=True) as hdus:
        assert np.isnan(hdus[1].data[3, 4])


def test_lossy16_of_constant_pixels_is_lossless(tmp_path):
    given = make_visit_image(image=np.full((60, 80), 7, np.float32))
    write_visit_image(given, tmp_path / "v.fits", compression="lossy16")
    assert_same_bits(read_visit_image(tmp_path / "v.fits").image, given.image)


def test_same_bytes_whatever_the_threads(tmp_path):
    for compression in ("lossless", "lossy16"):
        for threads in (1, 3):
            path = tmp_path / f"{threads}.fits"
            write_visit_image(make_visit_image(), path, compression=compression, threads=threads)
        assert (tmp_path / "1.fits").read_bytes() == (tmp_path / "3.fits").read_bytes()


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def visit_images(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 12)))
    names = draw(st.lists(st.from_regex(r"[A-Z][A-Z0-9_]{0,30}", fullmatch=True), unique=True, max_size=6))
    bits = draw(st.lists(st.integers(0, 62), unique=True, min_size=len(names) + 1, max_size=len(names) + 1))
    planes = MaskPlanes(dict(zip(["NO_DATA", *(f"P{name}" for name in names)], bits, strict=True)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = rng.normal(0, 1e3, shape).astype(np.float32)
    image.flat[0] = draw(FLOATS)
    mask = np.zeros(shape, planes.dtype)
    for name in planes:
        mask[rng.random(shape) < 0.5] |= mask.dtype.type(planes.bits(name))
    variance = (rng.random(shape) + 1e-6).astype(np.float32)
    variance[mask != 0] = draw(FLOATS)
    return make_visit_image(
        planes=planes,
        image=image,
        mask=mask,
        variance=draw(st.sampled_from([variance, None])),
        unit=draw(st.sampled_from(["electron", "adu", "nJy", "MJy/sr"])),
        visit=draw(st.integers(0, 2**53)),
        detector=draw(st.integers(0, 400)),
        band=draw(st.sampled_from(["u", "g", "N708", ""])),
        exposure_time=draw(st.floats(0, 1e6) | st.just(float("nan"))),
        gain=draw(st.none() | st.floats(1e-3, 1e3)),
        read_noise=draw(st.none() | st.floats(0, 1e3)),
        xy0=draw(st.tuples(st.integers(-(2**20), 2**20), st.integers(-(2**20), 2**20))),
        photo_calib=draw(st.floats(1e-9, 1e9)),
        wcs=draw(st.sampled_from([tan_wcs(), tan_wcs(sip=True), None])),
        psf=None,
        header=None,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=visit_images(), compression=st.sampled_from(["none", "lossless"]))
def test_round_trips_have_the_same_bits(tmp_path, given, compression):
    write_visit_image(given, tmp_path / "v.fits", compression=compression)
    read = read_visit_image(tmp_path / "v.fits")
    assert_same_visit_image(read, given)
    write_visit_image(read, tmp_path / "again.fits", compression=compression)
    assert (tmp_path / "again.fits").read_bytes() == (tmp_path / "v.fits").read_bytes()


def test_header_survives_and_is_not_doubled(tmp_path):
    write_visit_image(make_visit_image(), tmp_path / "1.fits")
    write_visit_image(read_visit_image(tmp_path / "1.fits"), tmp_path / "2.fits")
    assert (tmp_path / "1.fits").read_bytes() == (tmp_path / "2.fits").read_bytes()
    header = fits.getheader(tmp_path / "2.fits")
    assert (header["OBSERVER"], header.count("TELESCOP")) == ("O'Neill", 1)


def test_tpv_coordinates_survive(shared, tmp_path):
    path = shared / "data/decam/testcase4__c4d_170316_062107_ooi_z_ls9.N2.fits"
    given = read_visit_image(path)
    write_visit_image(given, tmp_path / "v.fits")
    assert_same_visit_image(read_visit_image(tmp_path / "v.fits"), given)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InvalidImageError, match="not dict"):
        write_visit_image(make_visit_image(psf={}), tmp_path / "v.fits")
    with pytest.raises(InvalidImageError, match="mask plane 'lower'"):
        write_visit_image(make_visit_image(planes=MaskPlanes({"lower": 0})), tmp_path / "v.fits")
    with pytest.raises(ConfigError, match="compression must be one of"):
        write_visit_image(make_visit_image(), tmp_path / "v.fits", compression="zip")
    with pytest.raises(VisitFileError, match="cannot be written"):
        write_visit_image(make_visit_image(), tmp_path / "no/such/folder/v.fits")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "v.fits"
    write_visit_image(make_visit_image(), path)
    before = path.read_bytes()
    with pytest.raises(InvalidImageError):
        write_visit_image(make_visit_image(unit="'" * 80), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_urls_are_written_through_fsspec():
    write_visit_image(make_visit_image(), "memory://out/visit.fits")
    assert_same_visit_image(read_visit_image("memory://out/visit.fits"), make_visit_image())


def test_ccddata_opens_it(tmp_path):
    write_visit_image(make_visit_image(), tmp_path / "v.fits")
    ccd = CCDData.read(tmp_path / "v.fits", hdu="IMAGE", hdu_mask=None, hdu_uncertainty=None)
    assert ccd.unit == "electron"
    assert ccd.wcs.has_celestial
    assert_same_bits(np.asarray(ccd.data, np.float32), make_visit_image().image)
