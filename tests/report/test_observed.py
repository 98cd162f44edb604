"""What headers say of time and sky, and figures in observers' units."""

import math

import pytest
from astropy.io.fits import Header

from skysub.report.observed import derived_figures, observed


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        (
            {"DATE-OBS": "2026-05-01T03:10:22.25", "AIRMASS": 1.214},
            ("2026-05-01 03:10:22 UTC", "airmass 1.21"),
        ),
        ({"MJD-OBS": 61161.13215, "AIRMASS": "1.5"}, ("MJD 61161.1321", "airmass 1.50")),
        ({"DATE-OBS": "27/05/26", "MJD": "unknown", "AIRMASS": -999.0}, ()),
        ({"MOONANGL": 42.6, "MOONFRAC": 0.815}, ("Moon 43\N{DEGREE SIGN} away", "82 % lit")),
        ({"AIRMASS": True, "MOONFRAC": 7.0}, ()),
        ({}, ()),
    ],
)
def test_words_of_a_header(cards, words):
    header = Header()
    header.update(cards)
    assert observed(header) == words


def test_seeing_and_sky_by_hand():
    found = derived_figures(
        {"psfSigma": 2.0, "pixelScale": 0.2, "skyBg": 400.0, "zeroPoint": 32.0}, "electron"
    )
    assert found["seeing"] == pytest.approx(0.94193, abs=1e-4)
    # 400 in a pixel of 0.04 square arcsec is 10,000 in one square arcsec: ten magnitudes
    assert found["skyBrightness"] == pytest.approx(22.0)


def test_nanojansky_have_their_own_zero_point():
    assert derived_figures({"sky": 1.0, "pixelScale": 1.0}, "nJy")["skyBrightness"] == pytest.approx(31.4)


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"psfSigma": math.nan, "pixelScale": 0.2},
        {"psfSigma": 2.0},
        {"skyBg": -3.0, "pixelScale": 0.2, "zeroPoint": 30},
    ],
)
def test_what_cannot_be_known_is_left_out(figures):
    assert derived_figures(figures, "electron") == {}
