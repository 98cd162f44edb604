"""The table of settings in docs/calibrate_image.md says what the configurations' docstrings say."""

from pathlib import Path

import pytest

import skysub
from docs.site_hooks.settings_tables import rows
from skysub.campaign.steps import find_step

DOCUMENT = Path(__file__).parents[2] / "docs" / "calibrate_image.md"


@pytest.mark.parametrize("row", list(rows(skysub.CalibrateImageConfig())))
def test_every_setting_stands_in_the_table(row):
    assert row in DOCUMENT.read_text().splitlines()


def test_the_table_has_no_settings_that_are_gone():
    section = DOCUMENT.read_text().split("## Settings\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert table == list(rows(skysub.CalibrateImageConfig()))


def test_paths_are_those_of_a_recipe():
    configured = find_step("calibrate_image").configured
    assert configured({"psf": None}).psf is None
    assert configured({"sky": {"mask": {"extended": None}}}).sky.mask.extended is None
    assert configured({"ignored_planes": ["BAD"]}).ignored_planes == ("BAD",)
    assert configured({"flow": "lsst"}) == skysub.CalibrateImageConfig.named("lsst")
