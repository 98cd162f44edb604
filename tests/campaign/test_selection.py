"""Which visits a condition or a time means, and what is said of one that cannot be read."""

import os
import time

import pytest

from skysub.campaign.plan import make_plan
from skysub.campaign.recipe import load_recipe
from skysub.campaign.records import Exposure
from skysub.campaign.selection import Selection, parsed_condition, parsed_since
from skysub.errors import InputsError, RecipeError


def exposures(band="r", exposure_time=30.0, detectors=2, mtime=0.0):
    return {
        d: Exposure(7, d, band, exposure_time, "electron", "x.fits", 1, int(mtime * 1e9), (9, 9), 0)
        for d in range(detectors)
    }


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("visit = 7", True),
        ("visit==7 and band='r'", True),
        ("visit != 7", False),
        ("visit > 7 or band = 'r'", True),
        # and binds closer than or
        ("band = 'r' or band = 'g' and visit > 7", True),
        ("(band = 'r' or band = 'g') and visit > 7", False),
        ("not visit > 7 and not (band = 'g')", True),
        ("NOT band IN ('g', \"i\")", True),
        ("band in ('g', 'r')", True),
        ("exposure_time >= 30.0 and exposure_time < 3.1e1", True),
        ("detectors <= 1", False),
        ("visit > -1", True),
    ],
)
def test_conditions(condition, holds):
    assert parsed_condition(condition)(7, exposures()) is holds


def test_what_is_not_known_fulfils_no_comparison():
    unknown = exposures(exposure_time=None)
    assert not parsed_condition("exposure_time < 100")(7, unknown)
    assert not parsed_condition("exposure_time != 100")(7, unknown)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("bnd = 'r'", "there is no field 'bnd'; did you mean 'band'"),
        ("band = r", "a quoted text, as 'r' is wanted where 'r' stands"),
        ("visit = 'r'", "a number is wanted where"),
        ("visit 7", "one of =, .* is wanted where '7' stands"),
        ("visit = 7 band = 'r'", "and, or, or the end is wanted where 'band' stands"),
        ("(visit = 7", "a closing bracket is wanted where its end stands"),
        ("visit = ", "more is wanted where its end stands"),
        ("visit in 7", "an opening bracket is wanted"),
        ("visit; drop", "cannot be read"),
        ("'r' = band", "the name of a field is wanted"),
    ],
)
def test_conditions_that_cannot_be_read(condition, words):
    with pytest.raises(RecipeError, match=words):
        parsed_condition(condition)


def test_times():
    assert abs(parsed_since("2h") - (time.time() - 7200)) < 5
    assert parsed_since("1970-01-02T00:00:00Z") == 86400
    assert parsed_since("1970-01-01T01:00:00+01:00") == 0
    for wrong in ("yesterday", "2 hours", ""):
        with pytest.raises(RecipeError, match="--since needs a date"):
            parsed_since(wrong)


def test_a_plan_of_chosen_visits(raw, tmp_path):
    recipe = load_recipe("background", inputs=[f"{raw}/*.fits"])

    def visits(**choice):
        return make_plan(recipe, tmp_path / "out", visits=Selection(**choice)).visits

    assert visits(condition="visit > 11") == 1
    assert visits(condition="band = 'g'") == 0
    for path in raw.glob("v11*"):
        os.utime(path, (1000, 1000))
    assert visits(since="1d") == 1
    with pytest.raises(
        InputsError, match="none of the visits that are asked for: visit 11 and changed since 1d"
    ):
        visits(visits=frozenset({11}), since="1d")
