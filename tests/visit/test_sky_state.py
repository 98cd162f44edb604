"""What headers say about a sky that is gone."""

import pytest

from skysub.visit.fits.cards import Cards
from skysub.visit.fits.sky_state import sky_is_gone


def cards(*lines):
    return Cards("".join(line.ljust(80) for line in lines))


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("SKYSUB  =                    T / sky", True),
        ("SKYSUB  =                    F / sky", False),
        ("BACKSUB = 'YES     '", True),
        ("BKGSUB  = 'no      '", False),
        ("BKGSUB  = '        '", False),
        ("S_BKDSUB= 'COMPLETE'", True),
        ("S_BKDSUB= 'SKIPPED '", False),
        ("DESSKYSB= 'Mon Aug 24 12:00:00 2015'", True),
        ("SKYSUB  = 'PERFORM '", False),
        ("SKYSTAT =                    T", False),
        ("HISTORY Sky background subtracted with IRAF", True),
        ("HISTORY The sky was not subtracted", False),
        ("HISTORY sky subtracted flat applied before", False),
        ("COMMENT background has been removed", True),
        ("HISTORY flat fielded", False),
    ],
)
def test_cards_that_say_so(line, gone):
    assert bool(sky_is_gone(cards(line))) == gone


def test_a_number_is_held_against_the_pixels():
    line = cards("SKYSUB  =             3154.453")
    assert not sky_is_gone(line, level=3170.0)
    assert not sky_is_gone(line)
    assert "3154" in sky_is_gone(line, level=-2.0)


def test_surveys():
    assert "SDSS" in sky_is_gone(cards("BUNIT   = 'nanomaggy'"), layout="SDSS frame")
    assert not sky_is_gone(cards("BUNIT   = 'nJy     '"))
    assert "nJy" in sky_is_gone(cards("BUNIT   = 'nJy     '"), layout="LSST afw exposure")
    assert not sky_is_gone(cards("BUNIT   = 'electron'"), layout="LSST afw exposure")
    assert "BGMEAN" in sky_is_gone(cards("BGMEAN  = 812.5", "BGVAR   = 800.1"))
    model = "DATAMODL= 'https://images.lsst.io/schemas/visit_image-1.0.0'"
    assert "visit_image" in sky_is_gone(cards(model))
    drizzled = ("MDRIZSKY= 12.5", "DRIZCORR= 'COMPLETE'")
    assert not sky_is_gone(cards(*drizzled))
    assert sky_is_gone(cards(*drizzled, "NDRIZIM =  4"))
