"""Detectors are drawn where they lie."""

import numpy as np
import pytest
from astropy.wcs import WCS

import skysub
from skysub.report.focal_plane import arrange, borrowed, footprint
from skysub.report.panels import common_scales, visit_cards
from skysub.report.rows import rows_of
from skysub.report.views import views_of

SHAPE = (200, 300)


def tan(x0, y0, *, angle=0.0, dec=-20.0, mirrored=False):
    """A detector whose centre lies (x0, y0) pixels from the middle of a camera turned by ``angle``."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10.0, dec]
    flip = np.diag([-1.0, 1.0]) if mirrored else np.eye(2)
    wcs.wcs.crpix = np.array([(SHAPE[1] + 1) / 2, (SHAPE[0] + 1) / 2]) - flip @ [x0, y0]
    wcs.wcs.cd = 1e-4 * np.array([[-c, -s], [-s, c]]) @ flip
    return wcs


def arranged(maps, shape=SHAPE):
    prints = {number: footprint(wcs, shape) for number, wcs in maps.items()}
    return arrange(prints, dict.fromkeys(maps, shape))


@pytest.mark.parametrize("angle", [0.0, 30.0, 137.0])
@pytest.mark.parametrize("dec", [-20.0, 89.9])
def test_the_camera_stays_upright_however_it_is_turned(angle, dec):
    plane = arranged({0: tan(0, 0, angle=angle, dec=dec), 1: tan(310, 0, angle=angle, dec=dec)})
    assert plane.aspect == pytest.approx(610 / 200, rel=1e-3)
    left, right = plane.places[0], plane.places[1]
    assert (left.left, left.top) == pytest.approx((0, 0), abs=1e-3)
    assert left.width == pytest.approx(300 / 610, rel=1e-3)
    assert right.left == pytest.approx(310 / 610, rel=1e-3)
    for place in (left, right):
        assert place.angle == pytest.approx(0, abs=0.1)
        assert not place.mirrored
    assert plane.width == pytest.approx(610e-4, rel=1e-3)
    assert (plane.north - plane.east) % 360 == pytest.approx(90, abs=0.1)


def test_north_points_as_the_sky_does():
    assert arranged({0: tan(0, 0)}).north == pytest.approx(0, abs=1e-6)
    assert arranged({0: tan(0, 0)}).east == pytest.approx(-90, abs=1e-6)
    # columns point 30 degrees to the west of north, and west is to the right
    assert arranged({0: tan(0, 0, angle=30)}).north == pytest.approx(-30, abs=1e-3)


def test_higher_rows_are_higher_on_the_screen():
    plane = arranged({0: tan(0, 0), 1: tan(0, 210)})
    assert plane.places[1].top == pytest.approx(0, abs=1e-6)
    assert plane.places[0].top > 0.5


def test_turned_and_mirrored_detectors():
    whole = {0: tan(0, 0), 1: tan(310, 0)}
    turned = tan(310, 0)
    # by half a turn about its own centre
    turned.wcs.cd = -turned.wcs.cd
    turned.wcs.crpix = np.array([(SHAPE[1] + 1), (SHAPE[0] + 1)]) - turned.wcs.crpix
    plane = arranged(whole | {1: turned})
    assert abs(plane.places[1].angle) == pytest.approx(180, abs=0.01)
    assert plane.places[1].left == pytest.approx(310 / 610, rel=1e-3)
    assert arranged(whole | {1: tan(310, 0, mirrored=True)}).places[1].mirrored


@pytest.mark.parametrize(
    "maps",
    [
        {0: None, 1: None, 2: None},
        {0: tan(0, 0), 1: tan(310, 0), 2: None},
        {0: tan(0, 0), 1: tan(0, 0), 2: tan(310, 0)},
        {0: tan(0, 0), 1: tan(310, 0), 2: tan(1e5, 0)},
        {0: tan(0, 0, dec=-80), 1: tan(310, 0, dec=80), 2: tan(0, 0)},
    ],
    ids=["none", "one missing", "piled up", "far apart", "all over the sky"],
)
def test_places_that_cannot_be_one_cameras_are_side_by_side(maps):
    plane = arranged(maps)
    assert plane.width is None
    assert plane.north is None
    boxes = [(place.left, place.top) for place in plane.places.values()]
    assert len(set(boxes)) == 3
    for place in plane.places.values():
        assert 0 <= place.left <= place.left + place.width <= 1 + 1e-9
        assert 0 <= place.top <= place.top + place.height <= 1 + 1e-9


def test_side_by_side_keeps_proportions():
    plane = arrange({0: None, 1: None}, {0: (100, 100), 1: (50, 100)})
    sizes = [(place.width * plane.aspect, place.height) for place in plane.places.values()]
    assert sizes[0][0] == pytest.approx(sizes[0][1])
    assert sizes[1][0] == pytest.approx(2 * sizes[1][1])


def test_no_place_without_the_sky():
    wcs = WCS(naxis=2)
    assert footprint(wcs, SHAPE) is None
    assert footprint(None, SHAPE) is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_place_is_borrowed_from_another_visit(mirrored):
    """Another pointing, the camera turned: the detector lies where it truly would."""
    places = {0: (0, 0), 1: (310, 0), 2: (310, 210)}

    def visit(angle, dec):
        maps = {n: tan(*at, angle=angle, dec=dec, mirrored=mirrored) for n, at in places.items()}
        return {number: footprint(wcs, SHAPE) for number, wcs in maps.items()}

    here, there = visit(25.0, 40.0), visit(-70.0, -20.0)
    truth = here.pop(2)
    assert borrowed(2, here, [{0: there[0]}]) is None
    assert borrowed(2, here, [{2: there[2]}]) is None
    found = borrowed(2, here, [{2: there[2]}, there])
    pixel = np.radians(1e-4)
    for name in ("centre", "right", "top"):
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), atol=0.05 * pixel)


def test_a_failed_detector_has_a_place_where_another_visit_knows_it(out):
    campaign = skysub.open_campaign(out)
    failures = campaign.status().failures

    def card(*visits):
        rows = [row for row in rows_of(campaign) if row.visit in visits]
        views = list(views_of(campaign, [(row.visit, row.detector) for row in rows], 32))
        made = visit_cards(rows, views, failures, common_scales(views))
        return {each.number: each for each in made}[12]

    together, alone = card(11, 12), card(12)
    (absence,) = together.absences
    assert absence.words.startswith("detector 1 failed: ")
    assert absence.target == "#failures"
    assert not together.troubles
    assert not alone.absences
    assert alone.troubles == (absence.words,)
    # those that are done lie where they do in either case
    assert "1 failed" in alone.words
    assert alone.words == together.words
    assert "wide" in alone.words
