"""What a report shows, against numbers worked out by hand on detectors that no two directions have alike."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.wcs import WCS

import skysub
from skysub.background.model import BackgroundList
from skysub.report.charts import Point, through_campaign
from skysub.report.focal_plane import arrange, footprint
from skysub.report.outliers import find_outliers
from skysub.report.panels import common_scales, visit_cards
from skysub.report.scales import mask_url, residual_scale, share_scale
from skysub.report.tables import cost_of, outlier_table
from skysub.report.verdict import counted_flags, verdict_of
from skysub.report.views import View, pictures_of
from tests.report.test_focal_plane import SHAPE, arranged, tan
from tests.report.test_numbers import levels, points, row


@pytest.mark.parametrize("angle", [30.0, -75.0, 160.0])
def test_a_turned_detector_is_drawn_turned(angle):
    """Its columns lean to the left when it is turned counterclockwise, which screens count as negative."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[c, -s], [s, c]])
    straight, turned = tan(0, 0), WCS(naxis=2)
    turned.wcs.ctype, turned.wcs.crval = ["RA---TAN", "DEC--TAN"], straight.wcs.crval
    # pixels from the middle of the detector go by the turn to those of the camera, 600 to the right
    middle = np.array([(SHAPE[1] + 1) / 2, (SHAPE[0] + 1) / 2])
    turned.wcs.crpix = middle - turn.T @ [600.0, 0.0]
    turned.wcs.cd = straight.wcs.cd @ turn
    # the frame is that of the detector nearest to the middle
    plane = arranged({0: straight, 1: turned, 2: tan(-600, 0)})
    assert plane.places[0].angle == pytest.approx(0, abs=0.01)
    assert plane.places[1].angle == pytest.approx(-angle, abs=0.05)
    assert not plane.places[1].mirrored
    # its centre is 600 pixels to the right, whatever its turn
    width = plane.width / 1e-4
    centres = [p.left + p.width / 2 for p in (plane.places[0], plane.places[1])]
    assert (centres[1] - centres[0]) * width == pytest.approx(600, rel=2e-3)


@pytest.mark.parametrize("angle", [30.0, -110.0])
def test_north_and_east_of_a_turned_camera(angle):
    # rows run to the west and south by the angle, columns to the north and west: north leans to the left
    plane = arranged({0: tan(0, 0, angle=angle), 1: tan(310, 0, angle=angle)})
    assert plane.north == pytest.approx(-angle, abs=0.05)
    assert (plane.east - (-angle - 90)) % 360 == pytest.approx(0, abs=0.05) or (
        plane.east - (-angle - 90)
    ) % 360 == pytest.approx(360, abs=0.05)


def test_a_footprint_is_the_middle_and_two_edges():
    found = footprint(tan(0, 0, dec=0.0), SHAPE)
    step = np.radians(1e-4)
    assert math.acos(found.centre @ found.right) == pytest.approx(150 * step, rel=1e-3)
    assert math.acos(found.centre @ found.top) == pytest.approx(100 * step, rel=1e-3)
    assert found.top[2] > found.centre[2]


def test_side_by_side_in_the_order_of_numbers():
    plane = arrange(dict.fromkeys([7, 3, 5]), {7: (100, 100), 3: (100, 100), 5: (100, 100)})
    places = sorted(plane.places, key=lambda number: (plane.places[number].top, plane.places[number].left))
    assert places == [3, 5, 7]


@pytest.fixture
def looked_at():
    """60 x 90 pixels in superpixels of 30: sky 100, a source below left, a defect above right."""
    shape = (60, 90)
    planes = skysub.MaskPlanes({"BAD": 0, "DETECTED": 1, "SAT": 2})
    mask = np.zeros(shape, np.int32)
    mask[:15, :30] = planes.bits("DETECTED")
    mask[30:, 60:] = planes.bits("BAD")
    mask[30:45, :30] = planes.bits("SAT")
    image = np.random.default_rng(1).normal(100, 1, shape).astype(np.float32)
    config = skysub.BackgroundConfig(superpixel=30, order=0)
    ignored = (mask, planes.bits("BAD", "DETECTED"))
    subtracted, layer = skysub.subtract_background(image, ignored, config)
    return skysub.VisitImage(
        image=subtracted, mask=mask, planes=planes, visit=1, detector=2, unit="electron", band="r"
    ), BackgroundList([layer])


def test_pictures_of_a_detector(looked_at):
    pictures = pictures_of(*looked_at, 3)
    np.testing.assert_allclose(pictures["model"], 100, atol=0.2)
    np.testing.assert_allclose(pictures["image"][:, :2], 100, atol=0.3)
    assert np.isnan(pictures["image"][1, 2])
    np.testing.assert_allclose(pictures["sources"], [[0.5, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(pictures["defects"], [[0, 0, 0], [0.5, 0, 1]])
    np.testing.assert_allclose(pictures["used"], [[0.5, 1, 1], [1, 1, 0]])
    np.testing.assert_allclose(pictures["superpixels"][:, :2], 100, atol=0.3)
    assert np.isnan(pictures["superpixels"][1, 2])
    assert abs(np.nanmean(pictures["residual"])) < 0.3


def view(visit=1, detector=0, *, unit="electron", **pictures):
    plain = np.zeros((2, 3), np.float32)
    names = ("image", "model", "residual", "sources", "defects", "superpixels", "used")
    return View(
        visit=visit,
        detector=detector,
        unit=unit,
        pictures=dict.fromkeys(names, plain) | pictures,
        maps={"noise": plain + 3},
    )


def test_panels_show_each_picture_by_the_scale_that_is_named():
    used = np.array([[0.25, 1.0, 0.0], [0.5, 0.75, 0.1]], np.float32)
    residual = np.array([[-4, 0, 1], [2, 3, -1]], np.float32)
    sources, defects = used[::-1].copy(), used[:, ::-1].copy()
    seen = view(used=used, residual=residual, sources=sources, defects=defects)
    rows = [row(1, 0, figures={"sky": 812.0})]
    scales = common_scales([seen])
    (card,) = visit_cards(rows, [seen], [], scales)
    panels = {panel.title: panel for panel in card.panels}
    # shares are shown in per cent
    assert (panels["Pixels used"].unit, panels["Pixels used"].scale) == ("%", share_scale())
    assert panels["Pixels used"].tiles[0].url == share_scale().url(100 * used)
    assert panels["Residual"].tiles[0].url == scales.residual["electron"].url(residual)
    assert panels["Residual"].scale.zero_centred
    assert panels["Mask"].tiles[0].url == mask_url(sources, defects) != mask_url(defects, sources)
    assert panels["Noise of a pixel"].unit == "electron"
    assert {panel.title for panel in card.panels if panel.main} == {"Image", "Sky model", "Residual", "Mask"}
    assert "sky 812 electron" in card.words
    assert card.words.startswith("1 detector · ")


def test_the_scale_of_residuals_is_as_far_as_99_of_100_cells_reach():
    cells = np.concatenate([np.linspace(-3, 3, 990), np.full(10, 50.0)]).reshape(25, 40)
    scale = residual_scale([view(residual=cells.astype(np.float32))], "electron")
    assert scale.high == -scale.low == pytest.approx(np.percentile(np.abs(cells), 99), rel=1e-5)
    assert scale.high < 50


def test_a_low_outlier_is_below():
    rows = levels([10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, -30.0])
    (found,) = find_outliers(rows)
    # the median is 9.9; distances from it are 0.1, 0.1, 0.3, 0.4, 0.6, 0.9, 1.1, 39.9: their median is 0.5
    assert found.median == pytest.approx(9.9)
    assert found.deviations == pytest.approx(-39.9 / (1.4826 * 0.5))
    columns, (line,) = outlier_table([found])
    assert [cell.words for cell in line.cells][:2] == ["visit 1 detector 7", "r"]
    assert line.cells[3].words == "\N{MINUS SIGN}30"
    assert line.cells[5].words == "\N{MINUS SIGN}53.8"
    assert columns[5].label == "Deviations"


def test_counts_are_uncertain_by_one_and_other_figures_by_a_thousandth():
    counts = levels([100.0] * 9 + [104.0, 106.0])
    assert [each.value for each in find_outliers(counts)] == [106.0]
    assert find_outliers(counts)[0].deviations == pytest.approx(6)
    others = levels([100.5] * 9 + [100.9, 101.1])
    (found,) = find_outliers(others)
    assert found.deviations == pytest.approx(0.6 / 0.1005)


def test_heights_of_a_chart_are_proportional():
    drawn = through_campaign([("1", points([10.0, 13.0])), ("2", points([20.0]))])
    y = {dot.point.value: dot.y for dot in drawn.dots}
    assert (y[10.0] - y[13.0]) / (y[10.0] - y[20.0]) == pytest.approx(0.3)
    # six hundredths of the range are left free below and above
    assert drawn.base - y[10.0] == pytest.approx(y[20.0] - 10)
    for tick in drawn.y_ticks:
        value = float(tick.words)
        assert tick.at == pytest.approx(y[10.0] - (value - 10) / 10 * (y[10.0] - y[20.0]))
    first, second = drawn.bars
    assert first.y == pytest.approx(y[13.0] - 1)
    assert first.height == pytest.approx(y[10.0] - y[13.0] + 2)
    assert first.words == "visit 1: 10 to 13, median 11.5"
    assert second.height == pytest.approx(2)
    outlying = [Point(1.0, "a", "one", outlying=True)]
    assert through_campaign([("1", outlying)]).dots[0].point.outlying


def test_costs_by_hand():
    rows = [row(1, 0), row(1, 1, timings={"read": 2.0, "fit": 3.0, "write": 1.0}), row(2, 0)]
    cost = cost_of(rows)
    # 4 + 6 + 4 s for three detectors of 0.02 megapixels
    assert cost.words == (
        "14 s of work on 1 host: 4 s for a detector in the median, 233.3 s per megapixel; "
        "a worker held 256 MiB at most."
    )
    assert [stage.share for stage in cost.stages] == pytest.approx([4 / 14, 9 / 14, 1 / 14])
    assert [cell.words for cell in cost.rows[0].cells] == [
        "read",
        "4",
        "28.6%",
        "1",
        "2",
        "visit 1 detector 1",
    ]


def test_doubts_stand_before_notes_and_notes_need_nobody():
    flags = counted_flags(
        [("amplifiers", 1, (0, 1, 2)), ("sky_structure", 1, (4,)), ("crowded", 2, (5, 6)), ("mine", 3, (7,))]
    )
    assert [(flag.name, flag.count, flag.doubt) for flag in flags] == [
        ("crowded", 2, True),
        ("sky_structure", 1, True),
        ("mine", 1, True),
        ("amplifiers", 3, False),
    ]
    assert flags[0].meaning.startswith("Sources leave no sky")
    assert flags[2].meaning == ""
    counts = {"left": 0, "failed": 0, "unreadable": 0, "waiting": 0}
    done = SimpleNamespace(counts=counts)
    assert (
        verdict_of(done, flags).words == "All is done. 2 detectors have the flag crowded, and 2 other flags."
    )
    assert verdict_of(done, flags).grade == "look"
    assert verdict_of(done, flags[3:]).grade == "good"
