"""What is written down comes back as it was, and what is written down by others is refused."""

import dataclasses
import json
import sqlite3

import numpy as np
import pytest
from astropy.table import QTable
from astropy.units import Quantity, nJy

import skysub
from skysub.campaign.input_index import InputIndex, opened_index
from skysub.campaign.products.table import as_arrow, as_qtable
from skysub.campaign.records import Exposure, Marker, Place3, StepPlan, VisitPlan, WorkUnit
from skysub.campaign.store.address import place_at
from skysub.campaign.store.container import column, packed_visit, read_header, read_marker
from skysub.campaign.store.markers import Markers
from skysub.errors import DamagedError, RecipeError, StoreVersionError


def exposure(detector, **changes):
    made = Exposure(
        visit=2**40,
        detector=detector,
        band="ü",
        exposure_time=None,
        unit="adu",
        path=f"/a b/{detector}.fits",
        size=2**41,
        mtime_ns=2**60 + 1,
        shape=(3, 4),
        source=0,
        known=(("visit", 2**40), ("band", "ü")),
    )
    return dataclasses.replace(made, **changes)


def marker(detector, **changes):
    made = Marker(
        step="s",
        visit=3,
        detector=detector,
        key="k",
        figures={"count": detector, "level": 0.1 + detector, "word": f"w{detector}", "mixed": None},
        flags={"odd": "it is odd"} if detector % 2 else {},
        timings={"read": 0.25, "write": 0.5},
        shape=(5, 6),
        products={"image": {"unit": "adu"}},
        payload={"noise": {"zlib": "x" * 10}},
    )
    return dataclasses.replace(made, **changes)


def test_plans_of_visits_come_back():
    exposures = {0: exposure(0), 7: exposure(7, shape=(8, 9), band="r")}
    plan = VisitPlan(
        visit=2**40,
        exposures=exposures,
        steps={
            "first": StepPlan({0: "a", 7: "b"}, {0: "", 7: "0001"}),
            "second": StepPlan({None: "c"}, {None: ""}),
            "third": StepPlan({7: "d"}, {7: ""}),
        },
        index=4,
        places={0: 3, 7: 11},
    )
    assert VisitPlan.from_json(plan.to_json()) == plan
    assert plan.band == "ü,r"
    assert list(plan.own()) == [("first", 0), ("second", None), ("third", 7)]
    # what is the same for all stands there once
    assert plan.to_json().count(str(2**41)) == 1
    # lines are found by bytes
    assert plan.to_json().isascii()


def test_units_of_work_come_back():
    unit = WorkUnit(
        step="third",
        visit=1,
        detector=None,
        key="k",
        visit_index=2,
        places={0: 1, 5: 4},
        exposures=(exposure(0), exposure(5)),
        held={"first": {0: Place3("0001", 1, 2)}, "second": {None: Place3("0002", 0, -1)}},
        missing={5: "it failed"},
    )
    assert WorkUnit.from_json(unit.to_json()) == unit


def test_a_finished_visit_is_read_in_parts(tmp_path):
    made = [marker(detector) for detector in (0, 1, 5)]
    place = place_at(tmp_path / "3.visit")
    place.put(packed_visit(made))
    assert packed_visit(made) == packed_visit(made)
    header = read_header(place)
    assert header.detectors == (0, 1, 5)
    np.testing.assert_array_equal(column(place, "figures.level"), [0.1, 1.1, 5.1])
    assert column(place, "figures.count").dtype == np.int64
    assert column(place, "figures.word") == ["w0", "w1", "w5"]
    assert np.isnan(column(place, "figures.mixed")).all()
    assert column(place, "figures.none") is None
    assert column(place, "flags") == ["", "odd", "odd"]
    assert read_marker(place, 2, payload=True) == made[2]
    light = read_marker(place, 1)
    assert light.payload == {}
    assert dataclasses.replace(light, payload=made[1].payload) == made[1]


def test_long_headers_are_read_whole(tmp_path):
    made = [marker(i, figures={f"figure {n} of many": float(n) for n in range(900)}) for i in range(3)]
    place = place_at(tmp_path / "3.visit")
    place.put(packed_visit(made))
    assert column(place, "figures.figure 899 of many").tolist() == [899.0] * 3
    assert read_marker(place, 2, payload=True) == made[2]


def test_a_visits_marker_that_is_empty_is_none(tmp_path):
    markers = Markers(place_at(tmp_path))
    markers.visit_path(3).put(b"")
    assert markers.header(3) is None
    assert markers.of_unit(3, 0) is None


@pytest.mark.parametrize("length", [5, 30, 200, -1])
def test_a_visits_marker_that_is_not_whole(tmp_path, length):
    markers = Markers(place_at(tmp_path))
    data = packed_visit([marker(0)])
    markers.visit_path(3).put(data[:length])
    with pytest.raises(DamagedError, match=r"3\.visit is damaged \(visit 3.*--verify"):
        markers.of_unit(3, 0, payload=True)


def test_a_finished_visit_can_lose_one_of_its_units(tmp_path):
    markers = Markers(place_at(tmp_path))
    made = [marker(detector) for detector in (0, 1, 5)]
    assert markers.finish_visit(3, made)
    markers.forget(3, 1)
    assert not markers.is_finished(3)
    assert markers.done(3, [0, 1, 5]) == {0, 5}
    assert markers.of_unit(3, 5, payload=True) == made[2]
    assert markers.finish(made[1])
    assert not markers.finish(dataclasses.replace(made[1], key="another"))
    assert markers.of_unit(3, 1).key == "k"


def test_tables_keep_units_words_vectors_and_what_is_masked():
    from astropy.table import MaskedColumn

    table = QTable(
        {
            "flux": [1.5, 2.5] * nJy,
            "name": ["a", "bc"],
            "position": np.arange(4.0).reshape(2, 2),
            "good": [True, False],
            "count": MaskedColumn([1, 2], mask=[False, True]),
        }
    )
    back = as_qtable(as_arrow(table, {"visit": 7, "detector": None}))
    assert back.colnames == ["visit", *table.colnames]
    assert isinstance(back["flux"], Quantity)
    assert back["flux"].unit == nJy
    np.testing.assert_array_equal(back["position"], table["position"])
    assert back["name"].tolist() == ["a", "bc"]
    assert back["count"].mask.tolist() == [False, True]
    assert back["good"].tolist() == [True, False]
    with pytest.raises(TypeError, match="a table must be astropy's, Arrow's or columns by name, not float"):
        as_arrow(3.0, {})


def test_a_store_of_an_older_layout_is_refused_with_what_to_do(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    path = tmp_path / "out/runs/0001/run.json"
    path.write_text(json.dumps({"format": 1, "step": "background", "versions": {"skysub": "0.1"}}))
    words = (
        r"layout 1, written by skysub 0\.1.*layout 3: read it with skysub 0\.1, or run the recipe again into"
    )
    for act in (lambda: start(raw, tmp_path / "out"), lambda: skysub.open_campaign(tmp_path / "out")):
        with pytest.raises(StoreVersionError, match=words):
            act()


def test_the_index_of_inputs_knows_what_did_not_change(tmp_path):
    index = InputIndex(tmp_path / "inputs.sqlite", keep=True)
    index.add("/a.fits", "m", (1, 2), [exposure(0), exposure(1)])
    index.close()
    index = InputIndex(tmp_path / "inputs.sqlite", keep=False)
    assert index.find("/a.fits", "m", (1, 2)) == [exposure(0), exposure(1)]
    assert index.find("/a.fits", "m", (1, 3)) is None
    assert index.find("/a.fits", "other", (1, 2)) is None
    assert index.find("/b.fits", "m", (1, 2)) is None
    index.close()


def test_an_index_that_is_none_is_made_anew(tmp_path):
    path = tmp_path / "inputs.sqlite"
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)
    with opened_index(place_at(tmp_path), keep=False) as index:
        assert index.find("/a.fits", "m", (1, 2)) is None
    with opened_index(place_at(tmp_path), keep=True) as index:
        index.add("/a.fits", "m", (1, 2), [exposure(0)])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with opened_index(place_at(tmp_path), keep=True) as index:
        assert index.find("/a.fits", "m", (1, 2)) is None
        index.add("/a.fits", "m", (1, 2), [exposure(0)])
        assert index.find("/a.fits", "m", (1, 2)) == [exposure(0)]


def test_a_plan_writes_no_index(tmp_path):
    with opened_index(place_at(tmp_path / "none"), keep=False) as index:
        index.add("/a.fits", "m", (1, 2), [exposure(0)])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scope": "visit"}, "goes over visits, so it cannot read the file of a detector"),
        ({"missing": 2}, "goes over detectors, so none can be missing"),
        ({"scope": "visit", "inputs": ()}, "is an image, which detectors alone have"),
    ],
)
def test_steps_that_cannot_be(changes, words):
    from skysub.campaign.shipped import STEPS

    with pytest.raises(RecipeError, match=words):
        dataclasses.replace(STEPS["background"], **changes)
