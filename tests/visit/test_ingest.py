import re

import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import ConfigError, LayoutError
from skysub.visit.fits.read import read_visit_image
from skysub.visit.ingest import IngestMap, by_hand


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ("gain", -1),
        ("gain", 0),
        ("gain", float("nan")),
        ("gain", True),
        ("read_noise", -5.0),
        ("exposure_time", float("inf")),
        ("visit", -3),
        ("detector", True),
        ("detector", 1.0),
    ],
)
def test_numbers_that_cannot_be(entry, wrong):
    with pytest.raises(ConfigError, match=f"^{entry} must be a header keyword or a .*, not {wrong}$"):
        IngestMap(**{entry: wrong})


def test_numbers_that_can():
    assert IngestMap(gain=1.6, read_noise=0, exposure_time=0.0, visit=0, detector="CCD").read_noise == 0


def test_readers_say_it_in_python_and_in_a_recipe():
    assert by_hand("mask", verify=False) == (
        "IngestMap(mask=..., verify=False); in a recipe: `ingest: {mask: ..., verify: false}` under `inputs:`"
    )


def test_what_the_header_lacks_can_be_said_in_a_recipe(tmp_path):
    fits.PrimaryHDU(np.ones((4, 5), np.float32)).writeto(tmp_path / "a.fits")
    with pytest.raises(LayoutError, match=re.escape("in a recipe: `ingest: {visit: ...}` under `inputs:`")):
        read_visit_image(tmp_path / "a.fits")
    with pytest.raises(
        LayoutError, match=r"R, mapped as the band, is missing or blank; a word .* before it: band='=r'"
    ):
        read_visit_image(tmp_path / "a.fits", IngestMap(visit=1, detector=2, band="r"))
    assert read_visit_image(tmp_path / "a.fits", IngestMap(visit=1, detector=2, band="=r")).band == "r"


def test_a_frame_of_sdss_says_that_its_sky_is_gone(files):
    (note,) = read_visit_image(files["sdss"]).notes
    assert note.startswith("SDSS has subtracted the sky already; ")
    assert "`ingest: {add_sky: true}`" in note
    assert read_visit_image(files["sdss"], IngestMap(add_sky=True)).notes == ()
