"""A detector in blocks over several workers: the same bits, markers and faults as in one task."""

import pytest

import skysub
from skysub.campaign.chain import chained
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import _Counts, _in_blocks
from skysub.cluster import load_profile
from skysub.errors import RecipeError


@pytest.mark.parametrize("undersampled", ["reduce", "refine"])
def test_the_same_bits_in_blocks(raw, tmp_path, start, fingerprint, undersampled):
    setting = f"steps.background.fit.undersampled={undersampled}"
    start(raw, tmp_path / "whole", "mode=detector", setting)
    start(raw, tmp_path / "blocks", "mode=block", "cluster.workers=3", setting)
    assert fingerprint(tmp_path / "blocks") == fingerprint(tmp_path / "whole")


def test_the_same_bits_on_processes(raw, tmp_path, start, fingerprint, command):
    start(raw, tmp_path / "whole", "mode=detector", "products.pixels=on_demand")
    arguments = [
        "--set",
        "mode=block",
        "--set",
        "steps.background.fit.superpixel=32",
        "--set",
        "cluster.workers=2",
    ]
    process = command(
        "run", "background", "--inputs", f"{raw}/*.fits", "--output", tmp_path / "blocks",
        "--set", "products.pixels=on_demand", *arguments,
    )  # fmt: skip
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert "detectors cut into blocks" in text
    assert fingerprint(tmp_path / "blocks") == fingerprint(tmp_path / "whole")


def test_a_damaged_input_in_blocks(raw, tmp_path, start, make_visit, monkeypatch):
    from skysub.campaign.plan import Plan

    freeze = Plan.freeze

    def freeze_then_change(plan):
        run = freeze(plan)
        make_visit(raw / "v12_d0.fits", 12, 0, level=100.0)
        return run

    monkeypatch.setattr(Plan, "freeze", freeze_then_change)
    outcome = start(raw, tmp_path / "out", "mode=block")
    assert (outcome.done, outcome.failed) == (5, 1)
    (failure,) = skysub.open_campaign(tmp_path / "out").status().failures
    assert "changed since the campaign was planned" in failure.message


@pytest.mark.parametrize(
    ("step", "mode", "left", "expected"),
    [
        ("background", "auto", 2, True),
        ("background", "auto", 4, False),
        ("background", "detector", 2, False),
        ("background", "block", 400, True),
        ("calibrate_image", "auto", 2, False),
    ],
)
def test_the_mode_follows_from_detectors_and_cores(step, mode, left, expected):
    profile = load_profile({"profile": "local", "workers": 4, "memory": "1 GiB"})
    counts = _Counts(left=left, earlier=0, unreadable=0, memory=2**20)
    recipe = load_recipe(step, settings=[f"mode={mode}"])
    assert _in_blocks(recipe, chained(recipe.steps, {}), profile, counts) is expected


def test_blocks_are_refused_where_a_step_needs_the_whole():
    profile = load_profile({"profile": "threads"})
    recipe = load_recipe("calibrate_image", settings=["mode=block"])
    with pytest.raises(RecipeError, match="mode: block is not for calibrate_image"):
        _in_blocks(recipe, chained(recipe.steps, {}), profile, _Counts(1, 0, 0, 1))
