"""Files of other places: what is read, what is guessed, and that it is said."""

import gzip

import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import AmbiguousImageError, ChecksumError, LayoutError, UnknownEntryError, VisitFileError
from skysub.visit.fits.lenient import detectors_in, open_image
from skysub.visit.fits.read import read_visit_image
from skysub.visit.ingest import IngestMap

PIXELS = np.arange(20 * 31, dtype=np.float32).reshape(20, 31) + 100


def save(path, *hdus, **keywords):
    fits.HDUList(list(hdus)).writeto(path, output_verify="silentfix", **keywords)
    return path


def test_an_image_without_any_header(tmp_path):
    path = save(tmp_path / "bare.fits", fits.PrimaryHDU(PIXELS))
    with pytest.raises(UnknownEntryError):
        read_visit_image(path)
    opened = open_image(path)
    (channel,) = opened.channels
    np.testing.assert_array_equal(channel.image, PIXELS)
    assert (channel.visit, channel.detector, channel.unit) == (0, 0, "adu")
    assert opened.guesses == ("there is no BUNIT: pixels are taken for counts (adu)",)
    assert opened.shape == PIXELS.shape
    assert not opened.sky_is_gone


def test_what_is_said_by_hand_stands(tmp_path):
    path = save(tmp_path / "bare.fits", fits.PrimaryHDU(PIXELS))
    opened = open_image(path, IngestMap(visit=5, unit="electron"))
    assert (opened.channels[0].visit, opened.channels[0].unit) == (5, "electron")
    assert not opened.guesses


def test_a_unit_of_nobody(tmp_path):
    path = save(tmp_path / "odd.fits", fits.PrimaryHDU(PIXELS, fits.Header({"BUNIT": "furlongs^^2"})))
    opened = open_image(path)
    assert opened.channels[0].unit == "adu"
    assert "furlongs" in opened.guesses[0]


def test_the_largest_of_several_images(tmp_path):
    path = save(
        tmp_path / "several.fits",
        fits.PrimaryHDU(),
        fits.ImageHDU(PIXELS[:5], name="A"),
        fits.ImageHDU(PIXELS, name="B"),
        fits.ImageHDU(PIXELS + 1, name="C"),
    )
    with pytest.raises(AmbiguousImageError) as error:
        read_visit_image(path, IngestMap(visit=1, detector=1))
    assert error.value.extensions == (1, 2, 3)
    opened = open_image(path)
    np.testing.assert_array_equal(opened.channels[0].image, PIXELS)
    assert "extension 2 is taken" in opened.guesses[0]
    np.testing.assert_array_equal(open_image(path, IngestMap(image=3)).channels[0].image, PIXELS + 1)


def test_axes_of_length_one_and_cubes(tmp_path):
    path = save(tmp_path / "thin.fits", fits.PrimaryHDU(PIXELS[None, None]))
    opened = open_image(path)
    np.testing.assert_array_equal(opened.channels[0].image, PIXELS)
    assert opened.shape == PIXELS.shape
    assert "length 1" in opened.guesses[0]
    cube = np.stack([PIXELS, PIXELS * 2, PIXELS * 3]).astype(np.uint16)
    path = save(tmp_path / "colour.fits", fits.PrimaryHDU(cube))
    opened = open_image(path)
    assert opened.colours == ("R", "G", "B")
    assert opened.shape == cube.shape
    np.testing.assert_array_equal(opened.whole([c.image for c in opened.channels]), cube)
    with pytest.raises(LayoutError, match="no image"):
        open_image(save(tmp_path / "stack.fits", fits.PrimaryHDU(np.zeros((5, 4, 4), np.float32))))


def test_a_bayer_mosaic_is_four_images(tmp_path):
    raw = PIXELS.astype(np.uint16)
    path = save(tmp_path / "dslr.fits", fits.PrimaryHDU(raw, fits.Header({"BAYERPAT": "GRBG"})))
    opened = open_image(path)
    assert opened.mosaic
    assert opened.colours == ("G1", "R", "B", "G2")
    np.testing.assert_array_equal(opened.channels[1].image, raw[0::2, 1::2])
    assert [c.shape for c in opened.channels] == [(10, 16), (10, 15), (10, 16), (10, 15)]
    np.testing.assert_array_equal(opened.whole([c.image for c in opened.channels]), raw)
    assert "GRBG" in opened.guesses[-1]


def test_a_raw_sdss_frame(tmp_path):
    header = fits.Header({"RUN": 94, "CAMCOL": 1, "FIELD": 131, "FILTER": "g", "SOFTBIAS": 1000})
    path = save(tmp_path / "fpC-000094-g1-0131.fit", fits.PrimaryHDU(PIXELS.astype(np.int16), header))
    opened = open_image(path)
    assert any("SOFTBIAS = 1000" in guess for guess in opened.guesses)
    assert not opened.sky_is_gone
    # before its second release SDSS wrote unsigned integers without BZERO
    high = np.full((4, 5), 40000, np.uint16)
    header["UNSIGNED"] = True
    path = save(tmp_path / "old.fit", fits.PrimaryHDU(high.view(np.int16), header))
    np.testing.assert_array_equal(open_image(path).channels[0].image, 40000)


def test_an_image_whose_companions_are_missing(tmp_path):
    header = fits.Header({"INSTRUME": "DECam", "EXPNUM": 5, "PLVER": "V4.8"})
    path = save(
        tmp_path / "c4d_170316_062107_ooi_z_ls9.fits",
        fits.PrimaryHDU(header=header),
        fits.ImageHDU(PIXELS, fits.Header({"CCDNUM": 3}), name="N2"),
    )
    with pytest.raises(VisitFileError):
        read_visit_image(path)
    opened = open_image(path)
    np.testing.assert_array_equal(opened.channels[0].image, PIXELS)
    assert "data quality file is missing" in opened.guesses[0]
    other = path.with_name(path.name.replace("ooi", "ood"))
    path.rename(other)
    with pytest.raises(LayoutError, match="data quality of a visit"):
        open_image(other)


def test_a_checksum_that_does_not_hold_is_a_flag(tmp_path):
    path = save(tmp_path / "sum.fits", fits.PrimaryHDU(PIXELS), checksum=True)
    whole = bytearray(path.read_bytes())
    whole[-2880] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ChecksumError):
        read_visit_image(path, IngestMap(visit=0, detector=0))
    opened = open_image(path)
    assert "DATASUM" in opened.flags["checksum"]
    assert opened.channels[0].shape == PIXELS.shape
    # pixels that cannot be read are no flag
    packed = tmp_path / "sum.fits.gz"
    packed.write_bytes(gzip.compress(bytes(whole))[:-400])
    with pytest.raises(VisitFileError):
        open_image(packed)


def test_detectors_of_a_file(tmp_path):
    header = fits.Header({"INSTRUME": "DECam", "EXPNUM": 5, "PLVER": "V4.8"})
    path = save(
        tmp_path / "c4d_1_ooi_z.fits",
        fits.PrimaryHDU(header=header),
        *(fits.ImageHDU(PIXELS, fits.Header({"CCDNUM": n}), name=f"N{n}") for n in (3, 7)),
    )
    assert detectors_in(path) == [3, 7]
    with pytest.raises(LayoutError, match=r"several detectors \(3, 7\)"):
        open_image(path)
    assert open_image(path, detector=7).channels[0].detector == 7
    with pytest.raises(LayoutError, match="does not hold detector 9"):
        open_image(path, detector=9)


@pytest.mark.parametrize(
    ("name", "level", "gone"),
    [
        ("sdss/post_isr_image_5754_13.fits", 1841, False),
        ("sdss/frame-g-000094-1-0131.fits.bz2", 0, True),
        ("lco/banzai_test_frame.fits.fz", 533, False),
        ("eso_emmi/galaxies.fits", 6850, False),
        ("decam/testcase5__c4d_150411_035242_ooi_z_v1-N10.fits", 3641, False),
        ("apogee/aligned_eso085-030-004.fit", 8140, False),
    ],
)
def test_real_files(shared, name, level, gone):
    path = shared / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    opened = open_image(path)
    assert np.nanmedian(opened.channels[0].image) == pytest.approx(level, rel=0.05, abs=1)
    assert bool(opened.sky_is_gone) == gone
