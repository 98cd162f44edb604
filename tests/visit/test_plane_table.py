from pathlib import Path

import pytest

import skysub
from skysub.campaign.shipped import BackgroundStep
from skysub.pipeline.reprocess_config import ReprocessVisitImageConfig
from skysub.visit.plane_table import KNOWN_PLANES, PLANES, lsst_name, our_name, planes_with
from skysub.visit.planes import AFW_PLANES


def test_planes_stand_once_and_in_order():
    names = [plane.name for plane in PLANES]
    assert names == sorted(set(names))
    assert all(plane.meaning for plane in PLANES)


def test_bits_are_those_of_afw():
    assert dict(AFW_PLANES) == {
        "BAD": 0,
        "SAT": 1,
        "INTRP": 2,
        "CR": 3,
        "EDGE": 4,
        "DETECTED": 5,
        "DETECTED_NEGATIVE": 6,
        "SUSPECT": 7,
        "NO_DATA": 8,
        "VIGNETTED": 9,
        "STREAK": 10,
    }


def test_lsst_has_other_names_for_some():
    assert our_name("COSMIC_RAY") == "CR"
    assert our_name("SPIKE") == "SPIKE"
    assert our_name("GLINT") == "GLINT"
    for plane in PLANES:
        assert our_name(lsst_name(plane.name)) == plane.name
    assert lsst_name("GLINT") == "GLINT"


def test_roles_are_what_the_steps_leave_out():
    assert set(BackgroundStep().ignored) == {"BAD", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "NO_DATA"}
    config = skysub.CalibrateImageConfig()
    assert set(config.saturated_planes) == {"SAT", "SUSPECT"}
    assert {"CR", "BAD", "VIGNETTED", "STREAK", "SPIKE"} < set(config.ignored_planes)
    assert set(config.ignored_planes).isdisjoint({"DETECTED", "SAT", "SUSPECT", "HIGH_VARIANCE"})
    sky = {"BAD", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "NO_DATA", "SAT", "SUSPECT", "SPIKE"}
    assert set(ReprocessVisitImageConfig().sky_ignored) == sky
    assert set(ReprocessVisitImageConfig().measurement.unusable) == {"BAD", "NO_DATA", "CR"}


def test_several_roles_are_either():
    either = planes_with("saturated", "detected")
    assert set(either) == {*planes_with("saturated"), *planes_with("detected")}
    assert set(either) <= set(KNOWN_PLANES)


def test_a_role_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no role bright"):
        planes_with("bright")


def test_the_docs_have_the_table():
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    for plane in PLANES:
        bit = "" if plane.bit is None else plane.bit
        roles = ", ".join(f"`{role}`" for role in plane.roles)
        row = f"| {plane.name} | {plane.lsst_images_name or ''} | {bit} | {plane.meaning} | {roles} |"
        assert f"\n{row}\n" in text
