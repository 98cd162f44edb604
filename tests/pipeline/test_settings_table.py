"""The table of settings in docs/calibrate_image.md says what the configurations' docstrings say."""

import dataclasses
import inspect
import json
import re
import textwrap
from pathlib import Path

import pytest

import skysub
from skysub.campaign.steps import find_step

DOCUMENT = Path(__file__).parents[2] / "docs" / "calibrate_image.md"


def entries(cls):
    """Names and description of each entry under Parameters of a class's docstring."""
    section = inspect.cleandoc(cls.__doc__).split("Parameters\n----------\n")[1]
    section = re.split(r"\n\n\w+\n-+\n", section)[0]
    for names, text in re.findall(r"^(\S.*)\n((?:(?: .*)?(?:\n|$))+)", section, re.MULTILINE):
        yield names.split(", "), re.sub(r"\s+", " ", textwrap.dedent(text)).strip().replace("``", "`")


def shown(value):
    if dataclasses.is_dataclass(value):
        return "on"
    return "`" + json.dumps(value).replace('"', "") + "`"


def rows(config, place=""):
    """Lines of the table: paths, defaults, meaning; configurations inside follow where they stand."""
    described = list(entries(type(config)))
    assert {name for names, _ in described for name in names} == {f.name for f in dataclasses.fields(config)}
    for names, text in described:
        values = [getattr(config, name) for name in names]
        inner = [
            (name, value)
            for name, value in zip(names, values, strict=True)
            if dataclasses.is_dataclass(value)
        ]
        optional = "None" in text
        if optional or not inner:
            paths = ", ".join(f"`{place}{name}`" for name in names)
            meaning = text.replace("None to", "`null` to")
            yield f"| {paths} | {', '.join(map(shown, values))} | {meaning} |"
        for name, value in inner:
            yield from rows(value, f"{place}{name}.")


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
