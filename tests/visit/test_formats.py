"""Rules of formats that lie in a number or a word: which card counts, where versions and pixels begin."""

import numpy as np
import pytest
from astropy.io import fits

from skysub.visit.fits.cards import Cards
from skysub.visit.fits.decam import PLANES, planes_of_quality
from skysub.visit.fits.header import find_origin, find_wcs
from skysub.visit.fits.read import read_visit_image
from skysub.visit.ingest import IngestMap
from tests.visit.layouts import SHAPE, rewrite


def cards(**values):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4})
    header.update(values)
    return Cards(header.tostring(endcard=False, padding=False))


@pytest.mark.parametrize(
    ("values", "equinox", "frame"),
    [
        ({"EPOCH": 1950.0, "EQUINOX": 2000.0}, 2000.0, "FK5"),
        ({"EQUINOX": 1975.0, "EPOCH": 2000.0}, 1975.0, "FK4"),
        ({"EPOCH": 1950.0}, 1950.0, "FK4"),
        ({"RADECSYS": "FK4", "RADESYS": "FK5", "EQUINOX": 2000.0}, 2000.0, "FK5"),
        ({"RADECSYS": "FK5", "EPOCH": 2010.0}, 2010.0, "FK5"),
    ],
)
def test_the_newer_name_of_a_card_counts_where_both_are_there(values, equinox, frame):
    found = find_wcs("x", cards(**values)).wcs
    assert found.equinox == equinox
    assert found.radesys == frame


@pytest.mark.parametrize(
    ("version", "codes"),
    [
        ("V3.4.9", False),
        ("V3.5", True),
        ("V3.5.0", True),
        ("V3.10.0", True),
        ("V4.0", True),
        ("V2.9", False),
        ("DES  V3.5", True),
        ("3.5", True),
    ],
)
def test_decam_s_quality_is_a_code_from_version_3_5_on(version, codes):
    # code 4 is a bleed trail, bit 4 an interpolated pixel
    expected = PLANES.bits("SAT", "BLEED") if codes else PLANES.bits("INTRP")
    assert planes_of_quality("x", np.array([[4, 0]]), version).tolist() == [[expected, 0]]


def test_the_sky_of_sdss_is_interpolated_at_the_places_it_names(files):
    with fits.open(files["sdss"]) as hdus:
        image = hdus[0].data.astype(np.float64)
    counts = read_visit_image(files["sdss"], IngestMap(add_sky=True))
    # the coarse sky is j + i / 2 at row j of 15 and column i of 10, held at its ends
    y, x = np.arange(SHAPE[0]) / 4 - 0.4, np.arange(SHAPE[1]) / 8 - 0.4
    sky = np.add.outer(np.clip(y, 0, 14), 0.5 * np.clip(x, 0, 9))
    np.testing.assert_allclose(counts.image, image / 0.004 + sky, atol=2e-4)
    assert counts.unit == "adu"
    # 3631 nJy in a nanomaggy, of which a count is 0.004
    assert counts.photo_calib == pytest.approx(3631 * 0.004)
    assert read_visit_image(files["sdss"]).photo_calib == 3631


@pytest.mark.parametrize("keyword", ["BLANK", "ZBLANK"])
def test_the_integer_that_stands_for_no_value(tmp_path, keyword):
    data = np.arange(60, dtype=np.int16).reshape(6, 10)
    header = fits.Header({"VISIT": 1, "DETECTOR": 2})
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header, name="SCI")]).writeto(
        tmp_path / "v.fits"
    )
    with fits.open(tmp_path / "v.fits", disable_image_compression=True) as hdus:
        hdus[1].header[keyword] = 23
        rewrite(hdus, tmp_path / "w.fits")
    image = read_visit_image(tmp_path / "w.fits").image
    assert np.argwhere(np.isnan(image)).tolist() == [[2, 3]]
    assert image[2, 4] == 24


def test_the_origin_along_each_axis():
    linear = {"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRVAL1A": 30.0, "CRPIX1A": 11.0}
    assert find_origin("x", cards(**linear, CRVAL2A=5.0, CRPIX2A=2.0)) == (20, 4)
    assert find_origin("x", cards(LTV1=-7.0, LTV2=3.0)) == (7, -3)
    assert find_origin("x", cards(LTV1=-7.0, LTV2=3.0, LTM1_1=0.5, LTM2_2=0.5)) == (0, 0)


def test_the_noise_of_an_image_follows_from_gain_and_read_noise(tmp_path):
    image = np.array([[-5.0, 0.0, 30.0], [np.nan, 300.0, 8.0]], np.float32)
    for unit, expected in (("adu", [[4, 4, 16], [np.nan, 124, 7.2]]), ("electron", [[25, 25, 55]])):
        header = fits.Header({"VISIT": 1, "DETECTOR": 2, "GAIN": 2.5, "RDNOISE": 5.0, "BUNIT": unit})
        fits.PrimaryHDU(image, header).writeto(tmp_path / "v.fits", overwrite=True)
        found = read_visit_image(tmp_path / "v.fits").variance
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-6)
