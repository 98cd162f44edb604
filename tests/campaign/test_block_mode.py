"""A detector in blocks over several workers: the same bits, markers and faults as in one task."""

import numpy as np
import pytest

import skysub
from skysub.campaign.chain import chained
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import _in_blocks
from skysub.cluster import load_profile
from skysub.errors import RecipeError
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene
from skysub.visit.fits.write import write_visit_image


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


class Planned:
    """What the choice of a mode looks at in a plan."""

    def __init__(self, recipe, *, left=2, memory=2**20, shapes=((4000, 4072),)):
        self.chain = chained(recipe.steps, {})
        self.left, self.memory, self.shapes = left, memory, shapes


@pytest.mark.parametrize(
    ("recipe", "setting", "left", "expected"),
    [
        ("background", "mode=auto", 1, {"background"}),
        ("background", "mode=auto", 2, set()),
        ("background", "mode=detector", 1, set()),
        ("background", "mode=block", 400, {"background"}),
        ("calibrate_image", "mode=auto", 1, {"calibrate_image"}),
        ("calibrate_image", "mode=auto", 2, set()),
        ("calibrate_image", "steps.calibrate_image.flow=lsst", 1, set()),
        ("data_release", "mode=block", 400, {"calibrate_image"}),
    ],
)
def test_the_mode_follows_from_detectors_and_cores(recipe, setting, left, expected):
    profile = load_profile({"profile": "local", "workers": 4, "memory": "1 GiB"})
    loaded = load_recipe(recipe, settings=[setting])
    assert _in_blocks(loaded, Planned(loaded, left=left), profile) == expected


@pytest.mark.parametrize(
    ("shape", "workers", "expected"), [((1000, 1000), 16, False), ((4000, 4072), 2, False)]
)
def test_small_detectors_and_few_cores_gain_nothing_by_blocks(shape, workers, expected):
    profile = load_profile({"profile": "local", "workers": workers, "memory": "500 MiB"})
    recipe = load_recipe("calibrate_image")
    assert bool(_in_blocks(recipe, Planned(recipe, left=1, shapes=(shape,)), profile)) is expected


def test_detectors_larger_than_a_worker_are_cut_however_many_there_are():
    profile = load_profile({"profile": "local", "workers": 4, "memory": "1 GiB"})
    recipe = load_recipe("calibrate_image")
    plan = Planned(recipe, left=400, memory=3 * 2**30, shapes=((20000, 20000),))
    assert _in_blocks(recipe, plan, profile) == {"calibrate_image"}


def test_blocks_are_refused_where_a_step_needs_the_whole():
    recipe = load_recipe("calibrate_image", settings=["mode=block", "steps.calibrate_image.flow=lsst"])
    with pytest.raises(RecipeError, match="mode: block is not for calibrate_image"):
        _in_blocks(recipe, Planned(recipe), load_profile({"profile": "threads"}))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A detector of 400 x 430 pixels, as afw writes it and with its planes in compressed tiles."""
    folder = tmp_path_factory.mktemp("scene")
    visit_image, _ = simulate_detector(named_scene("quiet"), 7, 3, seed=5, shape=(400, 430))
    # a few pixels without variance, which reading masks and notes
    visit_image.variance[[40, 250, 399], [7, 8, 9]] = np.nan
    for name, compression in (("plain", "none"), ("packed", "lossless")):
        (folder / name).mkdir()
        write_visit_image(visit_image, folder / name / "v7_d3.fits", compression=compression)
    return folder


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_calibrate_image_has_the_same_bits_in_blocks(scene, tmp_path, start, name):
    settings = ("steps.calibrate_image.sky.background.superpixel=64",)
    recipes = {"recipe": "calibrate_image"}
    start(scene / name, tmp_path / "whole", "mode=detector", *settings, **recipes)
    start(scene / name, tmp_path / "blocks", "mode=block", "cluster.workers=4", *settings, **recipes)
    whole, blocks = (files_of(tmp_path / each) for each in ("whole", "blocks"))
    assert blocks.keys() == whole.keys()
    assert [path for path in whole if whole[path] != blocks[path]] == []
    first, second = (skysub.open_campaign(tmp_path / each).marker(7, 3) for each in ("whole", "blocks"))
    for key in ("figures", "flags", "products", "input", "key"):
        assert first[key] == second[key], key
    assert "input_mended" in second["flags"]


def files_of(output):
    """Bytes of the arrays of a run, by path."""
    folder = output / "runs/0001"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in ("images.zarr", "backgrounds.zarr")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }


def test_a_sum_that_does_not_hold_fails_the_unit_in_blocks(raw, tmp_path, start):
    from astropy.io import fits

    path = raw / "v11_d1.fits"
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            hdu.add_checksum()
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)
    outcome = start(raw, tmp_path / "out", "mode=block", "cluster.workers=2")
    assert (outcome.done, outcome.failed) == (5, 1)
    (failure,) = skysub.open_campaign(tmp_path / "out").status().failures
    assert "DATASUM" in failure.message
