"""Outputs that are damaged, removed or left over, as runs and readers meet them."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skysub
from skysub.campaign import plan as plan_module
from skysub.campaign.plan import Plan
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import PlanCopy, Run
from skysub.campaign.store.seals import sealed, sealed_metadata, unsealed, unsealed_metadata
from skysub.errors import DamagedError, OutputError, StoreVersionError

IMAGES = "runs/0001/images.zarr/preliminary_visit_image"


@pytest.fixture
def raw(tmp_path, make_visit):
    """One visit of two detectors."""
    (tmp_path / "raw").mkdir()
    for detector in (0, 1):
        make_visit(tmp_path / f"raw/v11_d{detector}.fits", 11, detector)
    return tmp_path / "raw"


def test_a_seal_is_the_checksum_of_the_text_without_it():
    text = b'{"a":1,"b":"x"}'
    # CRC-32C of that text, worked out with another implementation
    assert sealed(text) == b'{"crc32c":"%08x","a":1,"b":"x"}' % crc32c(text)
    assert unsealed(sealed(text)) == {"a": 1, "b": "x"}
    assert json.loads(sealed(text))["b"] == "x"
    for place in range(len(sealed(text))):
        broken = bytearray(sealed(text))
        broken[place] ^= 2
        assert unsealed(bytes(broken)) is None, place
    assert unsealed(text) is None
    assert unsealed(b"") is None


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_metadata_keep_their_checksum_whatever_their_spelling():
    kept = sealed_metadata(b'{"shape": [2, 3], "attributes": {"units": "adu"}}')
    assert unsealed_metadata(kept) == {"shape": [2, 3], "attributes": {"units": "adu"}}
    values = json.loads(kept)
    assert unsealed_metadata(json.dumps(values).encode()) is not None
    assert unsealed_metadata(json.dumps(values | {"shape": [3, 2]}).encode()) is None
    assert unsealed_metadata(b'{"shape": [2, 3], "attributes": {}}') is None
    assert unsealed_metadata(b"[]") is None


def test_a_missing_mask_is_no_good_mask(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    (tmp_path / "out" / IMAGES / "mask/c.0.1.0.0").unlink()
    campaign = skysub.open_campaign(tmp_path / "out")
    words = r"mask/c\.0\.1\.0\.0 is gone \(visit 11 detector 1\): the same `skysub run` with --verify"
    for look in (campaign.mask, campaign.visit_image):
        with pytest.raises(DamagedError, match=words):
            look(11, 1)
    with pytest.raises(DamagedError, match=r"c\.0\.1\.0\.0 is gone or empty \(visit 11 detector 1\)"):
        campaign.open_dataset("preliminary_visit_image")
    assert campaign.mask(11, 0).any()


def test_a_window_of_a_damaged_detector_names_it_and_others_are_read(raw, tmp_path, start):
    start(raw, tmp_path / "out", "products.compression=none")
    shard = tmp_path / "out" / IMAGES / "image/c.0.1.0.0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 16
    shard.write_bytes(data)
    image = skysub.open_campaign(tmp_path / "out").open_dataset("preliminary_visit_image")["image"]
    assert np.isfinite(image.isel(visit=0, detector=0)).all()
    with pytest.raises(
        DamagedError, match=r"preliminary_visit_image/image is damaged \(visit 11 detector 1\)"
    ):
        image.isel(visit=0, y=slice(0, 5), x=slice(0, 5)).to_numpy()


def test_a_lost_plan_is_made_again_of_its_copy_and_said_plainly_without(raw, tmp_path, start):
    output = tmp_path / "out"
    start(raw, output)
    run = output / "runs/0001"
    before = {
        name: (run / name).read_bytes() for name in ("run.json", "units.jsonl", "visits.json", "plan.copy")
    }
    for lost in before:
        (run / lost).unlink()
        if lost != "plan.copy":
            with pytest.raises(DamagedError, match=rf"{lost} is gone.*--verify"):
                skysub.open_campaign(output).units  # noqa: B018
        assert start(raw, output, verify=True).done == 0
        assert {name: (run / name).read_bytes() for name in before} == before
    (run / "run.json").write_bytes(b"")
    (run / "plan.copy").unlink()
    with pytest.raises(
        DamagedError, match=r"run\.json and plan\.copy are both damaged or gone.*remove .*0001"
    ):
        start(raw, output, verify=True)
    # nothing was taken away
    assert (run / "units/background/11.visit").stat().st_size


def test_a_copy_has_every_line(tmp_path, raw, start):
    start(raw, tmp_path / "out")
    run = Run(place_at(tmp_path / "out/runs/0001"))
    record, lines = PlanCopy.read(run.copy_file)
    assert record == run.record_file.read()
    assert [line + b"\n" for line in lines] == list(run.units_file.lines())
    run.copy_file.put(b"0" + run.copy_file.read())
    assert PlanCopy.read(run.copy_file) is None


def test_an_output_deleted_under_its_run_stops_it_with_one_error(raw, tmp_path, start, monkeypatch):
    freeze = Plan.freeze

    def freeze_and_lose(what):
        def act(plan):
            run = freeze(plan)
            shutil.rmtree(tmp_path / "out" / what)
            return run

        return act

    monkeypatch.setattr(Plan, "freeze", freeze_and_lose("runs/0001/images.zarr"))
    with pytest.raises(OutputError, match=r"zarr\.json is gone.*it was removed or damaged under this run"):
        start(raw, tmp_path / "out")
    monkeypatch.undo()
    assert skysub.open_campaign(tmp_path / "out").status().counts["failed"] == 0
    assert start(raw, tmp_path / "out", verify=True).done == 2


def test_leftovers_of_a_coordinator_killed_while_it_gathers(raw, tmp_path, start):
    output = tmp_path / "out"
    start(raw, output)
    left = [output / ".unreadable.json.a.partial", output / "runs/0001/.visits.json.b.partial"]
    left.append(output / "runs/0001/units/background/.11.visit.c.partial")
    for path in left:
        path.write_bytes(b"half")
    start(raw, output)
    assert not [path for path in left if path.exists()]


def test_what_failed_of_an_input_that_is_gone_is_forgotten(raw, tmp_path, start, make_visit):
    output = tmp_path / "out"
    # all pixels ignored: nothing to fit a background to
    with fits.open(raw / "v11_d1.fits", mode="update") as file:
        file["MASK"].data[:] = 1
    assert start(raw, output).failed == 1
    assert skysub.open_campaign(output).status().exit_code == 1
    (raw / "v11_d1.fits").rename(tmp_path / "away.fits")
    start(raw, output)
    status = skysub.open_campaign(output).status()
    assert (status.exit_code, status.counts["done"], status.failures) == (0, 1, ())
    # it comes back: it counts again
    make_visit(raw / "v11_d1.fits", 11, 1)
    assert start(raw, output).done == 1
    status = skysub.open_campaign(output).status()
    assert (status.exit_code, status.counts["done"]) == (0, 2)


def test_a_mosaic_beside_small_detectors_costs_their_shards_nothing(raw, tmp_path, start, make_visit):
    make_visit(raw / "v11_d2.fits", 11, 2, shape=(1500, 1100))
    start(raw, tmp_path / "out", "products.compression=none")
    sizes = [(tmp_path / "out" / IMAGES / f"image/c.0.{i}.0.0").stat().st_size for i in (0, 2)]
    # the detector in one chunk of the array's edge, checksums, an index
    assert sizes[0] < 1100 * 1500 * 4 / 3 < sizes[1]
    campaign = skysub.open_campaign(tmp_path / "out")
    assert campaign.visit_image(11, 0).shape == (96, 128)
    assert np.isfinite(campaign.visit_image(11, 0).image).all()


def test_a_hollow_file_is_left_out_before_the_plan_is_frozen(raw, tmp_path, start):
    path = raw / "v11_d7.fits"
    header = fits.Header(
        [("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", 12000), ("NAXIS2", 12000)]
    )
    header.update(VISIT=11, DETECTOR=7)
    with Path(path).open("wb") as file:
        file.write(header.tostring().encode())
        file.truncate(2880 + 4 * 12000**2)
    outcome = start(raw, tmp_path / "out")
    assert (outcome.done, outcome.failed, outcome.unreadable) == (2, 0, 1)
    (failure,) = skysub.open_campaign(tmp_path / "out").status().failures
    assert failure.path == str(path)
    assert "were ever written" in failure.message
    plan = next(Run(place_at(tmp_path / "out/runs/0001")).plans())
    assert plan.exposures.keys() == {0, 1}


def test_another_shape_under_the_same_stamp_is_another_run(raw, tmp_path, start, monkeypatch):
    found_inputs = plan_module.found_inputs

    def misread(*arguments):
        for each in found_inputs(*arguments):
            yield dataclasses.replace(each, shape=(300, 400)) if each.detector == 1 else each

    monkeypatch.setattr(plan_module, "found_inputs", misread)
    assert start(raw, tmp_path / "out").failed == 1
    monkeypatch.undo()
    outcome = start(raw, tmp_path / "out")
    assert (outcome.run, outcome.done, outcome.left) == ("0002", 1, 0)
    assert skysub.open_campaign(tmp_path / "out").visit_image(11, 1).shape == (96, 128)


@pytest.mark.parametrize("name", ["../../../away", ".hidden", "a/b", ""])
def test_a_store_names_no_folder_outside_of_it(raw, tmp_path, start, name):
    start(raw, tmp_path / "out")
    path = tmp_path / "out/runs/0001/run.json"
    for change in ("step", "product"):
        values = unsealed(path.read_bytes())
        if change == "step":
            values["steps"][0]["name"] = name
        else:
            values["steps"][0]["description"]["outputs"][0]["name"] = name
        kept = path.read_bytes()
        path.write_bytes(sealed(json.dumps(values).encode()))
        with pytest.raises(StoreVersionError, match="is no name of a folder"):
            skysub.open_campaign(tmp_path / "out").status()
        path.write_bytes(kept)


def test_what_was_mended_is_said(raw, tmp_path, capsys):
    recipe = load_recipe(
        "background",
        inputs=[f"{raw}/*.fits"],
        cluster="threads",
        settings=["steps.background.fit.superpixel=32"],
    )
    run_campaign(recipe, tmp_path / "out")
    (tmp_path / "out/runs/0001/visits.json").write_bytes(b"{}")
    run_campaign(recipe, tmp_path / "out", verify=True, stream=sys.stdout)
    assert "mended: " in capsys.readouterr().out
