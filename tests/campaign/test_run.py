"""Campaigns from start to end: what is made, what is skipped, what is redone."""

import os
import shutil

import numpy as np
import pytest
from astropy.io import fits

import skysub
from skysub.campaign.plan import make_plan
from skysub.campaign.recipe import load_recipe
from skysub.errors import InputsError, NotDoneError


def test_products_are_what_the_function_gives(raw, tmp_path, start):
    outcome = start(raw, tmp_path / "out")
    assert (outcome.done, outcome.failed, outcome.left) == (6, 0, 0)
    campaign = skysub.open_campaign(tmp_path / "out")
    for path in raw.glob("*.fits"):
        given = skysub.read_visit_image(path)
        config = skysub.BackgroundConfig(superpixel=32)
        image, background = skysub.subtract_background(
            given.image, (given.mask, given.bits("BAD", "EDGE")), config
        )
        made = campaign.visit_image(given.visit, given.detector)
        np.testing.assert_array_equal(made.image, image)
        np.testing.assert_array_equal(made.mask, given.mask)
        np.testing.assert_array_equal(made.variance, given.variance)
        assert (made.unit, made.band, made.exposure_time) == ("electron", "r", 30.0)
        assert made.planes == given.planes
        assert made.header == given.header
        assert made.wcs.pixel_to_world_values(3, 4) == given.wcs.pixel_to_world_values(3, 4)
        layers = campaign.background("preliminary_visit_image_background", given.visit, given.detector)
        np.testing.assert_array_equal(layers[0].coefficients, background.coefficients)
        np.testing.assert_array_equal(layers[0].covariance, background.covariance)
        np.testing.assert_array_equal(layers[0].statistics.error, background.statistics.error)
        np.testing.assert_array_equal(layers.evaluate(), background.evaluate())
    assert campaign.status().exit_code == 0


def test_nothing_is_done_twice(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    again = start(raw, tmp_path / "out")
    assert (again.run, again.done, again.earlier) == ("", 0, 6)
    assert skysub.open_campaign(tmp_path / "out").runs == ("0001",)


def test_new_visits_become_a_new_run(raw, tmp_path, start, make_visit):
    start(raw, tmp_path / "out")
    make_visit(raw / "v13_d1.fits", 13, 1)
    outcome = start(raw, tmp_path / "out")
    assert (outcome.run, outcome.done, outcome.earlier) == ("0002", 1, 6)
    campaign = skysub.open_campaign(tmp_path / "out")
    assert list(campaign.visits["visit"]) == [11, 12, 13]
    assert campaign.status().counts == {"done": 7, "failed": 0, "waiting": 0, "left": 0, "unreadable": 0}
    assert campaign.visit_image(13, 1).shape == (96, 128)
    assert campaign.visit_image(11, 1).shape == (96, 128)


def test_settings_redo_only_what_they_change(raw, tmp_path, start, fingerprint):
    out = tmp_path / "out"
    start(raw, out)
    first = fingerprint(out)
    other = start(raw, out, "steps.background.fit.order=2")
    assert (other.run, other.done) == ("0002", 6)
    second = fingerprint(out)
    assert all(second[unit] != first[unit] for unit in first)
    # settings that no result depends on
    same = start(raw, out, "steps.background.fit.order=2", "cluster.workers=1", "products.compression=none")
    assert same.done == 0
    # back to the first ones: their results count again, nothing is computed
    back = start(raw, out)
    assert back.done == 0
    assert fingerprint(out) == first
    assert start(raw, out).done == 0


def test_a_changed_input_is_redone_and_a_touched_one_is_not(raw, tmp_path, start, make_visit, fingerprint):
    out = tmp_path / "out"
    start(raw, out)
    before = fingerprint(out)
    os.utime(raw / "v11_d0.fits", ns=(1, 1))
    make_visit(raw / "v12_d1.fits", 12, 1, level=500.0)
    make_visit(raw / "v12_d2.fits", 12, 2, shape=(80, 90))
    outcome = start(raw, out)
    assert (outcome.run, outcome.done) == ("0002", 2)
    after = fingerprint(out)
    assert {unit for unit in before if before[unit] != after[unit]} == {(12, 1), (12, 2)}
    assert skysub.open_campaign(out).visit_image(12, 2).shape == (80, 90)


def test_a_copy_of_the_inputs_elsewhere_is_the_same_input(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    shutil.copytree(raw, tmp_path / "copy", copy_function=shutil.copyfile)
    assert start(tmp_path / "copy", tmp_path / "out").done == 0


def test_pixels_on_demand_have_the_stored_bits(raw, tmp_path, start):
    start(raw, tmp_path / "stored")
    start(raw, tmp_path / "lean", "products.pixels=on_demand")
    stored, lean = (skysub.open_campaign(tmp_path / name) for name in ("stored", "lean"))
    for visit, detector in stored.units:
        a, b = stored.visit_image(visit, detector), lean.visit_image(visit, detector)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.variance, b.variance)
    assert not (tmp_path / "lean/runs/0001/images.zarr/preliminary_visit_image/image").exists()
    # wanting the pixels stored after all is work
    assert start(raw, tmp_path / "lean").done == 6
    # the other way round is none
    assert start(raw, tmp_path / "stored", "products.pixels=on_demand").done == 0


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_compression_changes_no_bit(raw, tmp_path, start, compression):
    start(raw, tmp_path / "a")
    start(raw, tmp_path / "b", f"products.compression={compression}", "products.durable=true")
    for visit, detector in skysub.open_campaign(tmp_path / "a").units:
        a, b = (skysub.open_campaign(tmp_path / name).visit_image(visit, detector) for name in "ab")
        np.testing.assert_array_equal(a.image, b.image)


def test_durable_results_are_on_the_disk_before_they_count(raw, tmp_path, start, monkeypatch):
    """Counted where it happens: which files are waited for, and whether a marker's turn comes last."""
    synced = []

    def fsync(handle):
        synced.append(os.fstat(handle).st_ino)
        os_fsync(handle)

    os_fsync = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    start(raw, tmp_path / "fast")
    run = tmp_path / "fast/runs/0001"
    assert set(synced) <= {
        path.stat().st_ino
        for path in (run, *(run / name for name in ("run.json", "units.jsonl", "visits.json", "plan.copy")))
    }
    synced.clear()
    start(raw, tmp_path / "safe", "products.durable=true")
    run = tmp_path / "safe/runs/0001"
    # the log is for people
    files = {path for path in run.rglob("*") if path.is_file() and path.name != "run.log"}
    # the last time: a number may have been another file's before
    turns = {number: turn for turn, number in enumerate(synced)}
    at = {path: turns[path.stat().st_ino] for path in files if path.stat().st_ino in turns}
    assert files == at.keys()
    folders = {path.parent for path in files}
    assert folders <= {path for path in folders if path.stat().st_ino in turns}
    for position, visit in enumerate((11, 12)):
        marker = run / f"units/background/{visit}.visit"
        written = [path for path in files if path.name.startswith(f"c.{position}.")]
        # three planes of three detectors, six arrays of backgrounds
        assert len(written) == 15
        assert all(at[path] < at[marker] for path in written)
    assert at[run / "run.json"] > max(at[path] for path in files if path.name == "zarr.json")


def test_detectors_of_different_shapes_and_files_without_variance(tmp_path, start, make_visit):
    raw = tmp_path / "raw"
    raw.mkdir()
    make_visit(raw / "a.fits", 1, 0, shape=(60, 200))
    make_visit(raw / "b.fits", 1, 7, shape=(130, 90))
    bare = fits.PrimaryHDU(np.full((70, 80), 5, np.float32) + np.arange(80, dtype=np.float32))
    bare.header.update(VISIT=2, DETECTOR=0, FILTER="g")
    bare.writeto(raw / "c.fits")
    start(raw, tmp_path / "out", "steps.background.fit.order=1")
    campaign = skysub.open_campaign(tmp_path / "out")
    assert [campaign.visit_image(*unit).shape for unit in campaign.units] == [(60, 200), (130, 90), (70, 80)]
    assert campaign.visit_image(2, 0).variance is None
    assert campaign.visit_image(1, 7).variance.min() == 900


@pytest.mark.usefixtures("steps")
def test_more_layers_than_the_arrays_have_room_for(raw, tmp_path, start):
    name = "campaign_steps:two_layers"
    recipe = tmp_path / "two.yaml"
    recipe.write_text(f"steps: {{'{name}': {{fit: {{superpixel: 32}}}}}}\n")
    start(raw, tmp_path / "out", recipe=str(recipe))
    campaign = skysub.open_campaign(tmp_path / "out")
    layers = campaign.background("preliminary_visit_image_background", 11, 2)
    assert len(layers) == 2
    given = skysub.read_visit_image(raw / "v11_d2.fits").image
    expected = layers[1].subtract_from(layers[0].subtract_from(given))
    np.testing.assert_array_equal(campaign.visit_image(11, 2).image, expected)


def test_what_was_mended_on_reading_is_a_flag(tmp_path, start, make_visit):
    raw = tmp_path / "raw"
    raw.mkdir()
    path = make_visit(raw / "v1_d0.fits", 1, 0)
    with fits.open(path, mode="update") as hdus:
        hdus["VARIANCE"].data[50, 60] = 0
    start(raw, tmp_path / "out")
    campaign = skysub.open_campaign(tmp_path / "out")
    assert campaign.marker(1, 0)["flags"]["input_mended"].startswith("1 of ")
    visit_image = campaign.visit_image(1, 0)
    assert "no positive finite variance" in visit_image.notes[0]
    assert visit_image.mask[50, 60] & visit_image.bits("NO_DATA")


def test_the_plan_says_what_run_does(raw, tmp_path):
    recipe = load_recipe("background", inputs=[f"{raw}/*.fits"])
    plan = make_plan(recipe, tmp_path / "out")
    assert (plan.left, plan.done, plan.resumes, plan.run.name) == (6, 0, False, "0001")
    assert not (tmp_path / "out").exists()
    assert plan.storage > 6 * 96 * 128 * 4
    assert plan.memory > 250 * 2**20
    assert plan.core_seconds > 0


def test_two_files_of_one_detector_are_refused_by_name(raw, tmp_path, start):
    shutil.copy(raw / "v11_d0.fits", raw / "w.fits")
    with pytest.raises(InputsError, match=r"v11_d0\.fits and .*w\.fits both claim to be visit 11 detector 0"):
        start(raw, tmp_path / "out")


def test_units_that_are_not_there(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    campaign = skysub.open_campaign(tmp_path / "out")
    with pytest.raises(NotDoneError, match="there is no such visit"):
        campaign.visit_image(99, 0)
    with pytest.raises(NotDoneError, match="its detectors are 0, 1, 2"):
        campaign.marker(11, 9)
    with pytest.raises(NotDoneError, match="makes no 'sky'"):
        campaign.background("sky", 11, 0)


def test_xarray_sees_names_units_and_coordinates(raw, tmp_path, start):
    xarray = pytest.importorskip("xarray")
    start(raw, tmp_path / "out")
    campaign = skysub.open_campaign(tmp_path / "out")
    pixels = campaign.open_dataset("preliminary_visit_image")
    assert pixels["image"].dims == ("visit", "detector", "y", "x")
    assert pixels["image"].attrs["units"] == "electron"
    assert pixels["variance"].attrs["units"] == "electron**2"
    assert pixels["mask"].attrs["flag_masks"] == [1, 2, 16]
    assert pixels["mask"].attrs["flag_meanings"] == "BAD SAT EDGE"
    chosen = pixels["image"].sel(visit=12, detector=1).to_numpy()
    np.testing.assert_array_equal(chosen, campaign.visit_image(12, 1).image)
    assert bool(pixels["done"].all())
    assert list(pixels["band"].to_numpy()) == ["r", "r"]
    backgrounds = campaign.open_dataset("preliminary_visit_image_background")
    assert backgrounds["mean"].dims == ("visit", "detector", "layer", "gy", "gx")
    assert backgrounds["coefficients"].sizes["term"] == 28
    plain = xarray.open_zarr(
        tmp_path / "out/runs/0001/images.zarr",
        group="preliminary_visit_image",
        consolidated=False,
        chunks=None,
    )
    assert list(plain["visit"].to_numpy()) == [11, 12]


def test_xarray_sees_several_runs_as_one(raw, tmp_path, start, make_visit):
    pytest.importorskip("xarray")
    start(raw, tmp_path / "out")
    make_visit(raw / "v12_d2.fits", 12, 2, shape=(80, 140), level=500.0)
    make_visit(raw / "v13_d7.fits", 13, 7)
    start(raw, tmp_path / "out")
    campaign = skysub.open_campaign(tmp_path / "out")
    assert campaign.runs == ("0001", "0002")
    product, background = campaign.products
    pixels = campaign.open_dataset(product)
    assert pixels.sizes == {"visit": 3, "detector": 4, "y": 96, "x": 140}
    assert pixels["image"].attrs["units"] == "electron"
    assert int(pixels["done"].sum()) == 7
    means = campaign.open_dataset(background)["mean"]
    for visit, detector in campaign.units:
        made = campaign.visit_image(visit, detector)
        ny, nx = made.shape
        chosen = pixels.sel(visit=visit, detector=detector)
        np.testing.assert_array_equal(chosen["image"][:ny, :nx], made.image)
        np.testing.assert_array_equal(chosen["mask"][:ny, :nx], made.mask)
        mean = campaign.background(background, visit, detector)[0].statistics.mean
        stored = means.sel(visit=visit, detector=detector)[0].to_numpy()
        np.testing.assert_array_equal(stored[: mean.shape[0], : mean.shape[1]], mean)
    assert bool(pixels["image"].sel(visit=11, detector=7).isnull().all())
    assert list(campaign.open_dataset(product, run="0001")["visit"].to_numpy()) == [11, 12]


def test_names_and_numbers_that_are_none(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    campaign = skysub.open_campaign(tmp_path / "out")
    with pytest.raises(NotDoneError, match="visit must be a whole number, as in units, not '11'"):
        campaign.visit_image("11", "0")
    assert campaign.visit_image(np.int64(11), np.int64(0)).visit == 11
    with pytest.raises(NotDoneError, match=r"makes no 'ps'"):
        campaign.product("ps", 11, 0)
    assert campaign.psf(11, 0) is None
    assert campaign.aperture_correction(11, 0) is None
