"""Every figure that steps make is described once, and the docs have the description."""

import re
from pathlib import Path

import numpy as np
import pytest

import skysub
from skysub.figures import FIGURES, figure_named
from skysub.pipeline.summary import summarise
from skysub.report.rows import label_of
from skysub.testing import make_visit_image

ROOT = Path(__file__).parents[1]


def test_summary_statistics_are_described():
    image = make_visit_image((256, 384))
    sky = skysub.fit_background(image.image, config=skysub.BackgroundConfig(superpixel=64))
    layers = skysub.BackgroundList([sky])
    stats = summarise(image, layers, psf=None, aperture_correction=None, zero_points=None)
    assert len(stats) > 40
    assert set(stats) <= set(FIGURES)
    assert np.isfinite(stats["skyBg"])


def test_figures_of_steps_are_described():
    given = set()
    for path in (ROOT / "skysub" / "campaign").glob("*shipped*.py"):
        given |= set(re.findall(r"figures\[\"([a-z_A-Z]+)\"\] =", path.read_text(encoding="utf-8")))
    assert {"faint_light", "amplifier_steps"} <= given
    assert given <= set(FIGURES)


def test_the_docs_have_the_table():
    text = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    for figure in FIGURES.values():
        assert f"\n| `{figure.name}` | {figure.label} | {figure.unit} | {figure.meaning} |\n" in text


@pytest.mark.parametrize(
    ("name", "unit", "shown"),
    [
        ("sky", "nJy", ("Sky level", "nJy")),
        ("sky", "", ("Sky level", "")),
        ("sources", "nJy", ("Sources", "")),
        ("covered_by_sources", "", ("Covered by sources", "%")),
        ("depth_of_my_own", "nJy", ("depth of my own", "")),
    ],
)
def test_labels_have_the_unit_of_the_pixels(name, unit, shown):
    assert label_of(name, unit, "adu") == shown


@pytest.mark.parametrize(
    ("name", "counts", "shown"),
    [
        ("meanVar", "adu", ("meanVar", "adu²")),
        ("meanVar", "", ("meanVar", "")),
        ("skyBg", "electron", ("Sky background", "electron")),
        ("skyNoise", "electron", ("Sky noise", "electron")),
    ],
)
def test_statistics_in_counts_stay_in_counts_when_pixels_are_calibrated(name, counts, shown):
    assert label_of(name, "nJy", counts) == shown


def test_shares_of_mask_planes_are_described():
    assert figure_named("sat_mask_fraction").meaning == "share of the pixels with the mask plane SAT"
    assert figure_named("depth_of_my_own").meaning == ""
