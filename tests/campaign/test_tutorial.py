"""docs/steps.md: the steps that it builds run, and give what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

import skysub

PAGE = Path(__file__).parents[2] / "docs/steps.md"


@pytest.fixture
def written(raw, tmp_path, monkeypatch):  # noqa: ARG001 - the page names raw/*.fits
    """Files of the page, in the folder in which it is followed."""
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for _, text in blocks:
        name = re.match(r"# (\S+\.(?:py|yaml))\n", text)
        if name:
            (tmp_path / name[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return [text for kind, text in blocks if kind == "python" and not text.startswith("# mysky")]


def test_the_page_is_true(written, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__ADMIN__LOG_LENGTH", "10")
    (Path("mysky.yaml")).write_text(Path("mysky.yaml").read_text() + "cluster: threads\n")
    (python,) = written
    names: dict = {}
    exec(python, names)
    assert names["outcome"].done == 14
    campaign = names["campaign"]
    levels = [
        campaign.background("preliminary_visit_image_background", 11, detector).evaluate().mean()
        for detector in (0, 1, 2)
    ]
    assert campaign.product("shared_sky", 11)[0] == np.median(levels)
    offset = campaign.product("sky_offset", 11, 0)
    below = campaign.visit_image(11, 0, "preliminary_visit_image").image - np.float32(offset[0])
    np.testing.assert_array_equal(campaign.visit_image(11, 0).image, below)
    assert len(campaign.table("bright")) == campaign.figures("mysky:levelled")["bright"].sum()
    assert campaign.status().exit_code == 0


def test_a_missing_detector_is_borne(written, raw):
    del written
    good = (raw / "v11_d2.fits").read_bytes()
    skysub.write_visit_image(
        skysub.read_visit_image(raw / "v11_d2.fits").replace(image=np.full((96, 128), np.nan, np.float32)),
        raw / "v11_d2.fits",
    )
    run = {"inputs": ["raw/*.fits"], "settings": ["cluster.profile=threads"]}
    outcome = skysub.run_campaign("mysky.yaml", "out", **run)
    assert (outcome.done, outcome.failed, outcome.waiting) == (12, 1, 1)
    assert skysub.open_campaign("out").marker(11, None, "mysky:shared")["missing"] == [2]
    (raw / "v11_d2.fits").write_bytes(good)
    assert skysub.run_campaign("mysky.yaml", "out", **run).failed == 0
    assert skysub.open_campaign("out").status().exit_code == 0
