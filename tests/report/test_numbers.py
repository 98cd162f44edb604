"""Outliers, charts, scales and tables."""

import math

import numpy as np
import pytest

from skysub.report.charts import MOST_DOTS, Point, distribution, short, through_campaign
from skysub.report.outliers import find_outliers
from skysub.report.rows import Row
from skysub.report.scales import Scale, map_scale, mask_url
from skysub.report.tables import cost_of, detector_table, span


def row(visit=1, detector=0, *, band="r", figures=None, timings=None, unit="electron"):
    return Row(
        visit=visit,
        detector=detector,
        band=band,
        unit=unit,
        counts=unit,
        shape=(100, 200),
        path=f"raw/v{visit}_d{detector}.fits",
        host="here",
        peak_memory=2**28,
        flags={},
        timings=timings or {"read": 1.0, "fit": 3.0},
        figures=figures or {},
    )


def levels(values, **more):
    return [row(1, i, figures={"sky": value}, **more) for i, value in enumerate(values)]


def test_an_outlier_is_named_with_how_far_it_is():
    rows = levels([10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, 30.0])
    (found,) = find_outliers(rows)
    assert (found.row.detector, found.name, found.value) == (7, "sky", 30.0)
    values = np.array([r.figures["sky"] for r in rows])
    scatter = 1.4826 * np.median(np.abs(values - np.median(values)))
    assert found.deviations == pytest.approx((30.0 - np.median(values)) / scatter)


def test_bands_are_compared_with_themselves():
    rows = levels([10.0, 10.1] * 6, band="u") + levels([500.0, 501.0] * 6, band="y")
    assert find_outliers(rows) == []


def test_few_detectors_have_no_outliers_and_equal_ones_no_scatter():
    assert find_outliers(levels([1.0, 1.0, 1.1, 50.0])) == []
    assert [each.value for each in find_outliers(levels([1.0] * 9 + [1.2, 1.000001]))] == [1.2]
    assert find_outliers(levels([0.0] * 9)) == []


def test_unknown_figures_are_left_out():
    rows = levels([10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, math.nan, 30.0])
    rows.append(row(1, 20, figures={"flow": "lsst"}))
    assert [each.row.detector for each in find_outliers(rows)] == [8]


def points(values):
    return [Point(float(value), f"1-{i}", f"detector {i}", value > 100) for i, value in enumerate(values)]


def test_a_distribution_shows_every_detector_within_its_frame():
    rng = np.random.default_rng(1)
    drawn = distribution(points(rng.normal(50, 5, MOST_DOTS)))
    assert len(drawn.dots) == MOST_DOTS
    assert {dot.point.key for dot in drawn.dots} == {f"1-{i}" for i in range(MOST_DOTS)}
    assert all(0 <= dot.x <= drawn.width and 0 < dot.y <= drawn.base for dot in drawn.dots)
    # no two in one place
    assert len({(dot.x, dot.y) for dot in drawn.dots}) == MOST_DOTS


def test_a_large_distribution_has_bars_and_only_its_outliers_as_dots():
    values = np.append(np.random.default_rng(1).normal(50, 5, 5000), 200.0)
    drawn = distribution(points(values))
    assert [dot.point.value for dot in drawn.dots] == [200.0]
    assert sum(int(bar.words.split()[0]) for bar in drawn.bars) == 5001
    assert min(bar.y for bar in drawn.bars) >= 0


@pytest.mark.parametrize("values", [[3.0, 3.0], [0.0, 0.0], [-5.0, 1e9], [1e-12, 2e-12]])
def test_distributions_of_odd_ranges(values):
    drawn = distribution(points(values))
    assert all(math.isfinite(dot.x) and 0 <= dot.x <= drawn.width for dot in drawn.dots)


def test_through_the_campaign_higher_is_higher():
    drawn = through_campaign([("1", points([10.0, 12.0])), ("2", points([20.0])), ("3", [])])
    heights = {dot.point.value: dot.y for dot in drawn.dots}
    assert heights[10.0] > heights[12.0] > heights[20.0]
    assert [tick.words for tick in drawn.x_ticks] == ["1", "2", "3"]
    ticks = [(tick.at, float(tick.words)) for tick in drawn.y_ticks]
    assert ticks == sorted(ticks, key=lambda tick: -tick[0])
    many = through_campaign([(str(i), [Point(float(i), f"{i}-0", "one")]) for i in range(4000)])
    assert len(many.x_ticks) < 40
    assert many.dots == ()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234567.0, "1,234,567"),
        (0.012345, "0.01235"),
        (-3.0, "\N{MINUS SIGN}3"),
        (math.inf, "–"),
        (math.nan, "–"),
    ],
)
def test_short_numbers(value, words):
    assert short(value) == words


def test_times_for_people():
    assert [span(s) for s in (3.21, 61, 7325)] == ["3.2 s", "1 min 1 s", "2 h 2 min"]


def test_scales_have_round_ends_that_hold_the_values():
    scale = map_scale([np.linspace(12.3, 98.7, 1000).reshape(10, 100)], "electron")
    assert scale.low <= 14
    assert scale.high >= 97
    assert scale.ticks[0] == f"{scale.low:.0f}"
    assert Scale(-4.0, 4.0, "adu", zero_centred=True).ticks == ("\N{MINUS SIGN}4.0", "0", "+4.0")
    nothing = map_scale([np.full((3, 3), np.nan)], "")
    assert nothing.url(np.full((3, 3), np.nan)).startswith("data:image/png;base64,")
    constant = map_scale([np.full((3, 3), 7.0)], "")
    assert constant.low < constant.high


def test_a_mask_without_pixels_is_clean():
    assert mask_url(np.full((2, 2), np.nan), np.zeros((2, 2))) == mask_url(np.zeros((2, 2)), np.zeros((2, 2)))


def test_costs_add_up():
    rows = [row(1, 0), row(1, 1, timings={"read": 2.0, "fit": 3.0, "write": 1.0})]
    cost = cost_of(rows)
    assert [stage.name for stage in cost.stages] == ["read", "fit", "write"]
    assert sum(stage.share for stage in cost.stages) == pytest.approx(1)
    assert cost.words.startswith("10 s of work on 1 host: 5 s")
    assert [cell.words for cell in cost.rows[0].cells][-1] == "visit 1 detector 1"


def test_the_table_has_all_figures_known_ones_first():
    rows = [row(1, 0, figures={"own_figure": 1.0, "sky": 2.0}), row(1, 1, figures={"sky": math.nan})]
    columns, made = detector_table(rows)
    assert [column.label for column in columns[3:5]] == ["Sky level", "own figure"]
    assert [cell.sort for cell in made[1].cells[3:5]] == ["", ""]
