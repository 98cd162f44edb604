"""Amplifiers of visit images, from headers, cameras and users."""

import numpy as np
import pytest
from astropy.io import fits

import skysub
from skysub.background.amplifiers import Amplifier
from skysub.errors import ConfigError, InvalidImageError, LayoutError
from skysub.visit.fits.read import read_visit_image
from skysub.visit.ingest import IngestMap
from tests.visit.layouts import make_visit_image

BOXES = (Amplifier("A", y=(0, 60), x=(0, 30)), Amplifier("B", y=(0, 60), x=(30, 80)))


def write(path, cards, shape=(60, 80)):
    header = fits.Header({"VISIT": 4, "DETECTOR": 2} | cards)
    fits.PrimaryHDU(np.ones(shape, np.float32), header).writeto(path)
    return path


def boxes(path, ingest=None):
    return {a.name: (a.y, a.x) for a in read_visit_image(path, ingest).amplifiers}


def test_unknown_amplifiers_are_none(tmp_path):
    assert boxes(write(tmp_path / "a.fits", {})) == {}


@pytest.mark.parametrize(
    "cards",
    [
        {"DATASECA": "[1:30,1:60]", "DATASECB": "[31:80,1:60]"},
        {"AMPSEC_A": "[30:1,60:1]", "AMPSEC_B": "[80:31,1:60]", "DATASECA": "[1:10,1:60]"},
        # as the chip was read out, behind a prescan of 56 columns and 50 rows
        {"DATASECA": "[57:86,51:110]", "DATASECB": "[87:136,51:110]"},
        {"CCDSECA": "[101:130,201:260]", "CCDSECB": "[131:180,201:260]", "LTV1": -100, "LTV2": -200},
        # the part of a larger detector
        {"CCDSECA": "[1:130,1:400]", "CCDSECB": "[131:900,1:400]", "LTV1": -100, "LTV2": -200},
    ],
)
def test_header_families(tmp_path, cards):
    assert boxes(write(tmp_path / "a.fits", cards)) == {"A": ((0, 60), (0, 30)), "B": ((0, 60), (30, 80))}


@pytest.mark.parametrize(
    "cards",
    [
        {"DATASECA": "[1:30,1:60]"},
        {"DATASECA": "[1:30,1:60]", "DATASECB": "[41:80,1:60]"},
        {"DATASECA": "[1:30,1:60]", "DATASECB": "[30:80,1:60]"},
        {"DATASECA": "UNKNOWN", "DATASECB": 7, "DATASEC": "[1:80,1:60]"},
    ],
)
def test_sections_that_do_not_tile_the_image_say_nothing(tmp_path, cards):
    assert boxes(write(tmp_path / "a.fits", cards)) == {}


@pytest.mark.parametrize(
    ("instrument", "shape", "edges"),
    [
        ("LSSTCam", (4000, 4072), (2000, 509)),
        ("LSSTComCam", (4004, 4096), (2002, 512)),
        ("DECam", (4096, 2048), (4096, 1024)),
        ("Hyper Suprime-Cam", (4176, 2048), (4176, 512)),
    ],
)
def test_cameras_that_are_known(tmp_path, instrument, shape, edges):
    path = write(tmp_path / "a.fits", {"INSTRUME": instrument}, shape)
    found = read_visit_image(path).amplifiers
    assert {a.shape for a in found} == {edges}
    assert len(found) == shape[0] * shape[1] // (edges[0] * edges[1])


def test_a_part_of_a_detector_has_the_amplifiers_it_lies_in(tmp_path):
    cards = {"INSTRUME": "DECam", "LTV1": -1000, "LTV2": -7}
    assert list(boxes(write(tmp_path / "a.fits", cards)).values()) == [
        ((0, 60), (0, 24)),
        ((0, 60), (24, 80)),
    ]
    # ITL and E2V sensors have their boundaries elsewhere, and a part does not tell which it is
    assert boxes(write(tmp_path / "b.fits", {"INSTRUME": "LSSTCam", "LTV1": -480})) == {}
    assert boxes(write(tmp_path / "c.fits", {"INSTRUME": "DECam", "LTV1": -3000})) == {}


def test_what_the_user_says_comes_first(tmp_path):
    path = write(tmp_path / "a.fits", {"DATASECA": "[1:30,1:60]", "DATASECB": "[31:80,1:60]"})
    assert len(boxes(path, IngestMap(amplifiers="2x4"))) == 8
    given = {"low": "[1:80,1:25]", "high": "[1:80,26:60]"}
    assert boxes(path, IngestMap(amplifiers=given)) == {
        "low": ((0, 25), (0, 80)),
        "high": ((25, 60), (0, 80)),
    }
    with pytest.raises(LayoutError, match=r"visit 4 detector 2: the amplifiers low .* do not tile"):
        boxes(path, IngestMap(amplifiers={"low": "[1:80,1:25]"}))
    with pytest.raises(LayoutError, match="61 x 1 amplifiers do not fit"):
        boxes(path, IngestMap(amplifiers="61x1"))


@pytest.mark.parametrize("given", ["2 by 8", "0x4", "", {}, {"A": "[1:80]"}])
def test_amplifiers_that_mean_nothing_are_refused(given):
    with pytest.raises(ConfigError, match="amplifier"):
        IngestMap(amplifiers=given)


def test_written_amplifiers_are_read_again_and_replace_those_of_the_header(tmp_path):
    stale = fits.Header({"AMPSEC01": "[1:40,1:60]", "AMPSEC02": "[41:80,1:60]", "AMPSEC03": "[1:1,1:1]"})
    given = make_visit_image(amplifiers=BOXES, header=stale)
    skysub.write_visit_image(given, tmp_path / "a.fits")
    assert read_visit_image(tmp_path / "a.fits").amplifiers == BOXES


@pytest.mark.parametrize("given", [BOXES[:1], (BOXES[0], Amplifier("A", y=(0, 60), x=(30, 80)))])
def test_a_visit_image_refuses_amplifiers_that_do_not_tile_it(given):
    with pytest.raises(InvalidImageError, match="do not tile"):
        make_visit_image(amplifiers=given)
