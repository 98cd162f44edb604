"""What a plan says of memory, storage and time, against sums done by hand."""

import os

import pytest

from skysub.campaign.inputs import content_checksum, is_unchanged, stamp
from skysub.campaign.plan import make_plan
from skysub.campaign.recipe import load_recipe
from skysub.campaign.shipped import STEPS
from skysub.errors import InputChangedError


def planned(raw, output, *settings):
    given = ["steps.background.fit.superpixel=32", "steps.background.fit.order=1", *settings]
    recipe = load_recipe("background", inputs=[f"{raw}/*.fits"], cluster="threads", settings=given)
    return make_plan(recipe, output)


def test_storage_memory_and_time_by_hand(tmp_path, make_visit):
    raw = tmp_path / "raw"
    raw.mkdir()
    make_visit(raw / "a.fits", 11, 0, shape=(96, 128))
    make_visit(raw / "b.fits", 11, 1, shape=(160, 64))
    (step,) = planned(raw, tmp_path / "out", "products.compression=none").steps
    pixels = 96 * 128, 160 * 64
    # image and variance 4 bytes a pixel each, mask 4 that shrink to 2 %; 13 bytes a superpixel (mean, error,
    # count, usable), 8 for each of 3 coefficients and 9 covariances; 8000 for the marker
    superpixels = 3 * 4 + 5 * 2
    by_hand = sum(8.08 * each for each in pixels) + 13 * superpixels + 2 * 8 * (3 + 9) + 2 * 8000
    assert step.storage == pytest.approx(by_hand, abs=2)
    assert step.memory == int(STEPS["background"].memory_images * 4 * pixels[0]) + 250 * 2**20
    per_megapixel = STEPS["background"].seconds_per_megapixel
    assert step.core_seconds == pytest.approx(per_megapixel * sum(pixels) / 1e6)
    assert (step.left, step.done, step.blocked) == (2, 0, 0)
    less = planned(raw, tmp_path / "out", "products.pixels=on_demand").steps[0].storage
    assert less == pytest.approx(by_hand - 8 * sum(pixels), abs=2)


def test_an_inputs_stamp_is_that_of_all_its_files(tmp_path):
    kinds = {"i": b"pixels", "d": b"quality!", "w": b"weight weight"}
    for number, (kind, data) in enumerate(kinds.items()):
        path = tmp_path / f"c4d_1_oo{kind}_r.fits"
        path.write_bytes(data)
        os.utime(path, ns=(1, 10**18 + number))
    main = str(tmp_path / "c4d_1_ooi_r.fits")
    assert stamp(main) == (6 + 8 + 13, 10**18 + 2)
    before = content_checksum(main)
    assert before.count("-") == 2
    # the same size, another weight: found by the bytes alone
    (tmp_path / "c4d_1_oow_r.fits").write_bytes(b"weight height")
    assert not is_unchanged(main, (27, 10**18 + 2), was=before)
    (tmp_path / "c4d_1_oow_r.fits").write_bytes(kinds["w"])
    assert is_unchanged(main, (27, 10**18 + 2), was=before)
    assert not is_unchanged(main, (27, 10**18 + 2))
    assert not is_unchanged(main, (28, stamp(main)[1]), was=before)
    (tmp_path / "c4d_1_ooi_r.fits").unlink()
    with pytest.raises(InputChangedError, match="is gone since the campaign was planned"):
        stamp(main)


def test_an_input_that_changes_while_it_is_read(raw, tmp_path, start, monkeypatch):
    from skysub.campaign import unit

    read = unit.content_checksum

    def grown(path, *known):
        crc = read(path, *known)
        if path.endswith("v11_d1.fits"):
            os.utime(path, ns=(1, 10**18))
        return crc

    monkeypatch.setattr(unit, "content_checksum", grown)
    outcome = start(raw, tmp_path / "out", inputs="v11*.fits")
    assert (outcome.done, outcome.failed) == (2, 1)
    import skysub

    (failure,) = skysub.open_campaign(tmp_path / "out").status().failures
    assert (failure.detector, failure.message) == (
        1,
        "changed while it was read: start the same command again",
    )
