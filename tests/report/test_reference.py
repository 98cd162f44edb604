"""A campaign beside those before it: what is usual, what is unusual, what has changed."""

import math

import numpy as np
import pytest

from skysub.campaign.campaign import open_campaign
from skysub.report.dashboard.server import start_dashboard
from skysub.report.reference import Reference, reference_of
from skysub.report.rows import Row, rows_of
from skysub.report.write import write_report


def row(visit, detector, *, band="r", unit="adu", **figures):
    return Row(
        visit=visit,
        detector=detector,
        band=band,
        unit=unit,
        counts=unit,
        shape=(10, 10),
        path="",
        host="",
        peak_memory=0,
        flags={},
        timings={},
        figures=figures,
    )


# detector 1 lies at 100 give or take 1, detector 2 at 200, and detector 3 was seen twice
LEVELS = [98.5, 99.5, 99.5, 100.5, 100.5, 101.5, 99.0, 101.0]
BEFORE = [
    *(row(visit, 1, sky=level) for visit, level in enumerate(LEVELS)),
    *(row(visit, 2, sky=level + 100) for visit, level in enumerate(LEVELS)),
    *(row(visit, 3, sky=150.5) for visit in (0, 1)),
]
# about their medians: 0.5 four times, 1.5 twice, 1 twice, for each of the two; the median of these is 0.75
SCATTER = 1.4826 * 0.75


@pytest.fixture
def reference():
    return Reference("before", BEFORE)


def test_a_detector_that_was_seen_often_is_compared_with_itself(reference):
    usual, away = reference.deviations("r", "adu", "sky", np.array([1, 2]), np.array([110.0, 110.0]))
    np.testing.assert_allclose(usual, [100, 200])
    np.testing.assert_allclose(away, [10 / SCATTER, -90 / SCATTER])


def test_others_are_compared_with_the_band(reference):
    usual, away = reference.deviations("r", "adu", "sky", np.array([3, 99]), np.array([150.5, math.nan]))
    # eight values near 100, two of 150.5, eight near 200
    np.testing.assert_allclose(usual, [150.5, 150.5])
    assert away[0] == 0
    assert math.isnan(away[1])


def test_other_bands_and_units_are_not_compared(reference):
    for band, unit, name in (("g", "adu", "sky"), ("r", "nJy", "sky"), ("r", "adu", "noise")):
        usual, away = reference.deviations(band, unit, name, np.array([1]), np.array([1.0]))
        assert math.isnan(usual[0])
        assert math.isnan(away[0])
    assert Reference("few", BEFORE[:7]).outliers([row(9, 1, sky=1e6)]) == []


def test_unusual_detectors_the_farthest_first(reference):
    now = [row(20, 1, sky=106.0), row(20, 2, sky=100.0), row(21, 1, sky=104.0), row(21, 2, ra=5.0)]
    found = [(each.row.key, each.median, round(each.deviations, 3)) for each in reference.outliers(now)]
    assert found == [("20-2", 200.0, round(-100 / SCATTER, 3)), ("20-1", 100.0, round(6 / SCATTER, 3))]


def test_changes_beside_the_same_detectors(reference):
    now = [row(0, 1, sky=103.5), row(1, 1, sky=100.5), row(50, 7, sky=155.5), row(0, 1, band="g", sky=1.0)]
    (change,) = reference.changes(now)
    assert (change.name, change.band, change.now, change.before) == ("sky", "r", 103.5, 150.5)
    # 103.5 - 98.5 and 100.5 - 99.5
    assert (change.same, change.same_change) == (2, 3.0)
    assert change.deviations < 0


def test_counts_are_uncertain_by_one():
    counts = Reference("before", [row(visit, 1, order=6) for visit in range(10)])
    _, away = counts.deviations("r", "adu", "order", np.array([1]), np.array([3.0]))
    assert away[0] == -3


def test_no_campaign_before():
    assert reference_of([]) is None


def test_a_report_beside_another_campaign(out, tmp_path):
    page = write_report(out, tmp_path / "beside.html", against=[out]).read_text()
    section = page.split('<section id="against">')[1].split("</section>")[0]
    assert f"Beside {out.name}" in section
    # what stands apart in the campaign does so beside its own copy
    assert "unusual-table" in section
    rows = list(rows_of(open_campaign(out)))
    changes = reference_of([out]).changes(rows)
    # three detectors in the other band are too few to say what is usual
    assert [each.same for each in changes if each.name == "sky"] == [8]
    assert len(rows) == 11
    assert {each.same_change for each in changes} == {0.0}


def test_a_dashboard_beside_another_campaign(out, monkeypatch):
    import json
    import time
    import urllib.request

    from skysub.report.dashboard import server

    rows = list(rows_of(open_campaign(out)))
    sky = float(np.median([each.figures["sky"] for each in rows]))
    shifted = Reference("earlier", [row(i, i, unit=rows[0].unit, sky=sky + 500 + i % 3) for i in range(9)])
    monkeypatch.setattr(server, "reference_of", lambda _: shifted)
    with start_dashboard(out, token="", every=0.1, against=["earlier"]) as dashboard:
        for _ in range(100):
            with urllib.request.urlopen(dashboard.url + "status.json") as answer:
                status = json.loads(answer.read())
            if status["number"] > 1:
                break
            time.sleep(0.05)
        with urllib.request.urlopen(dashboard.url + "visits.json?wanted=unusual") as answer:
            visits = json.loads(answer.read())["rows"]
        with urllib.request.urlopen(dashboard.url + f"visit-{visits[0]['visit']}") as answer:
            page = answer.read().decode()
    assert "figures are unusual beside earlier" in status["verdict"]["words"]
    assert status["unusual_in_all"] == len([each for each in rows if each.band == "r"])
    assert "Unusual beside earlier" in page
    assert "Sky level" in page
