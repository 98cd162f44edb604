"""Releases that are killed, asked for twice, damaged, or would mix or lack something."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import skysub
from skysub.campaign.store.local import LocalPath
from skysub.cli import main
from skysub.errors import DamagedError, NotDoneError, OutputInUseError, ReleaseError
from skysub.release.files import verify_release
from skysub.release.publish import publish
from tests.campaign.conftest import write_visit

IMAGE, BACKGROUND = "preliminary_visit_image", "preliminary_visit_image_background"

KILLED = """
import os, signal, sys
from skysub.release import files
from skysub.release.publish import publish
put, left = files.Shelf.put, int(sys.argv[3])
def counted(shelf, name, data):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(shelf, name, data)
files.Shelf.put = counted
publish(sys.argv[1], sys.argv[2], name="night", workers=1)
"""


@pytest.fixture
def out(raw, start, tmp_path):
    """A finished campaign of one step: two visits of three detectors."""
    assert start(raw, tmp_path / "out").done == 6
    return tmp_path / "out"


def sums(release):
    """Checksums of all files but those that say when the release was published."""
    lines = (release / "SHA256SUMS").read_text().splitlines()
    dated = {"README.md", "release.zarr/zarr.json"}
    return {line[66:]: line[:64] for line in lines if line[66:] not in dated}


def test_a_release_that_was_killed_goes_on(out, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    publish(out, whole, name="night")
    files = len(sums(whole)) + 2
    per_visit = len([name for name in sums(whole) if "/c.0." in name or "visit=11." in name])
    # in the first visit, in the second, and before the last of the files that are of all visits together
    for left in (3, per_visit + 2, files - 2 * per_visit + per_visit - 1):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(out), str(killed), str(left)], check=False, capture_output=True
        )
        assert ended.returncode == -9, ended.stderr
        assert not (killed / "release.json").exists()
        assert not (killed / "release.zarr/zarr.json").exists()
        with pytest.raises(ReleaseError, match="no complete release: the same `skysub publish`"):
            verify_release(killed)
    assert publish(out, killed, name="night").state == "published"
    assert sums(killed) == sums(whole)
    assert not verify_release(killed).problems
    assert sorted(os.listdir(killed)) == sorted(os.listdir(whole))


def test_visits_that_were_published_are_not_read_again(out, tmp_path, monkeypatch):
    from skysub.release import publish as module

    seen = []
    rows_of = module.rows_of

    def failing(source, parts, axes, groups, visit, shelf):
        seen.append(visit.visit)
        if visit.visit == 12 and seen.count(12) == 1:
            raise KeyboardInterrupt
        return rows_of(source, parts, axes, groups, visit, shelf)

    monkeypatch.setattr(module, "rows_of", failing)
    with pytest.raises(KeyboardInterrupt):
        publish(out, tmp_path / "dr", workers=1)
    publish(out, tmp_path / "dr", workers=1)
    assert seen == [11, 12, 12]


def test_the_same_again_changes_nothing(out, tmp_path, capsys):
    assert main(["publish", str(out), "--to", str(tmp_path / "dr"), "--name", "night"]) == 0
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "dr").rglob("*")}
    assert main(["publish", str(out), "--to", str(tmp_path / "dr"), "--name", "night"]) == 0
    assert "release 'night' was complete: 2 visits" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "dr").rglob("*")} == made


def test_a_release_is_never_written_over(out, raw, start, tmp_path):
    publish(out, tmp_path / "dr")
    write_visit(raw / "v13_d0.fits", 13, 0)
    start(raw, out)
    with pytest.raises(ReleaseError, match=r"holds release 'dr' of 20.* with 6 units, and this would have 7"):
        publish(out, tmp_path / "dr")
    with pytest.raises(ReleaseError, match="other results or settings"):
        publish(out, tmp_path / "dr", name="dr", visits=[11, 12], products=[IMAGE])
    assert publish(out, tmp_path / "dr2").counts == {"done": 7}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ReleaseError, match=r"is not empty \(it has notes.txt\)"):
        publish(out, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["notes.txt"]


def begin(out, target, monkeypatch, **options):
    """Begin a release, and stop in its first visit."""
    from skysub.release import publish as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "rows_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(out, target, **options)


def test_what_was_begun_is_finished_as_it_was(out, raw, start, tmp_path, monkeypatch):
    begin(out, tmp_path / "dr", monkeypatch)
    with pytest.raises(ReleaseError, match=r"\(visits: \[\] then, \[11\] now\): finish it"):
        publish(out, tmp_path / "dr", visits=[11])
    write_visit(raw / "v13_d0.fits", 13, 0)
    start(raw, out)
    published = publish(out, tmp_path / "dr")
    assert (published.later, published.visits, published.counts) == (True, 2, {"done": 6})


def test_a_result_that_was_made_anew_is_not_mixed_in(out, raw, start, tmp_path, monkeypatch):
    begin(out, tmp_path / "dr", monkeypatch)
    write_visit(raw / "v12_d1.fits", 12, 1, level=1000.0)
    start(raw, out)
    with pytest.raises(ReleaseError, match="background for visit 12 detector 1 was made anew since"):
        publish(out, tmp_path / "dr")


def test_settings_are_not_mixed(out, raw, start, tmp_path):
    start(raw, out, "steps.background.fit.order=1", inputs="v12*.fits")
    with pytest.raises(
        ReleaseError, match=r"background were made in several ways: 3 by skysub .* 3 by skysub"
    ):
        publish(out, tmp_path / "dr")
    assert not (tmp_path / "dr" / "release.json").exists()
    assert publish(out, tmp_path / "one", visits=[12]).counts == {"done": 3}
    assert publish(out, tmp_path / "both", mixed=True).counts == {"done": 6}
    rows = pd.read_parquet(tmp_path / "both" / "provenance" / "products.parquet")
    assert rows.groupby("visit")["run"].unique().map(list).to_dict() == {11: ["0001"], 12: ["0002"]}
    found = xr.open_zarr(f"{tmp_path}/both/release.zarr", group=BACKGROUND)
    # twelve superpixels allow order 2, which has 6 terms; order 1 has 3
    for visit, terms in ((11, 6), (12, 3)):
        given = found.coefficients.sel(visit=visit, detector=0).to_numpy()[0]
        assert np.isfinite(given).sum() == terms


def test_work_that_is_left_is_said(raw, start, tmp_path):
    start(raw, tmp_path / "out")
    (tmp_path / "out/runs/0001/units/background/12.visit").unlink()
    with pytest.raises(ReleaseError, match="3 units are left to do: finish them"):
        publish(tmp_path / "out", tmp_path / "dr")
    assert publish(tmp_path / "out", tmp_path / "eleven", select="visit < 12").visits == 1
    published = publish(tmp_path / "out", tmp_path / "dr", partial=True)
    assert published.counts == {"done": 3, "left": 3}
    absent = pd.read_parquet(tmp_path / "dr" / "provenance" / "absent.parquet")
    assert absent[["visit", "detector", "state"]].to_numpy().tolist() == [
        [12, each, "left"] for each in (0, 1, 2)
    ]
    found = xr.open_zarr(f"{tmp_path}/dr/release.zarr", group=IMAGE)
    assert found.done.to_numpy().tolist() == [[True] * 3, [False] * 3]
    assert np.isnan(found.image.sel(visit=12)).all()


def test_what_cannot_be_published_is_said(out, tmp_path):
    with pytest.raises(NotDoneError, match=r"no product 'preliminary_visit_imag'.*did you mean"):
        publish(out, tmp_path / "dr", products=["preliminary_visit_imag"])
    with pytest.raises(ReleaseError, match="no visit is chosen"):
        publish(out, tmp_path / "dr", select="visit > 99")
    with pytest.raises(ReleaseError, match=r"no complete release: it has no release.json"):
        verify_release(tmp_path / "nothing")
    assert main(["publish", str(out)]) == 1
    assert main(["publish", str(out), "--verify", str(tmp_path)]) == 1


def test_two_at_once_exclude_each_other(out, tmp_path):
    with LocalPath(tmp_path / "dr" / "building").locked():
        with pytest.raises(OutputInUseError, match="in use by process"):
            publish(out, tmp_path / "dr")
        assert main(["publish", str(out), "--to", str(tmp_path / "dr")]) == 75
    assert publish(out, tmp_path / "dr").state == "published"


def test_damage_in_the_campaign_stops_and_is_mended(out, raw, start, tmp_path):
    shard = out / "runs/0001/images.zarr" / IMAGE / "image/c.1.2.0.0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=r"c\.1\.2\.0\.0 is damaged \(visit 12 detector 2\).*then publish"):
        publish(out, tmp_path / "dr")
    start(raw, out, verify=True)
    assert publish(out, tmp_path / "dr").counts == {"done": 6}
    same = skysub.open_campaign(out).visit_image(12, 2).image
    found = xr.open_zarr(f"{tmp_path}/dr/release.zarr", group=IMAGE)
    assert found.image.sel(visit=12, detector=2).to_numpy().tobytes() == same.tobytes()


def test_damage_in_a_release_is_found(out, tmp_path, capsys):
    release = tmp_path / "dr"
    publish(out, release)
    image = release / "release.zarr" / IMAGE / "image"
    data = bytearray((image / "c.0.0.0.0").read_bytes())
    data[7] ^= 128
    (image / "c.0.0.0.0").write_bytes(data)
    (image / "c.0.1.0.0").unlink()
    (image / "c.7.0.0.0").write_bytes(b"x")
    assert main(["publish", "--verify", str(release)]) == 1
    said = capsys.readouterr().out.splitlines()
    inner = f"release.zarr/{IMAGE}/image"
    assert said[:3] == [
        f"{inner}/c.0.0.0.0 is damaged",
        f"{inner}/c.0.1.0.0 is gone",
        f"{inner}/c.7.0.0.0 is not of this release",
    ]
    (release / "SHA256SUMS").write_text("")
    with pytest.raises(ReleaseError, match="SHA256SUMS is not the one"):
        verify_release(release)
    record = (release / "release.json").read_text()
    (release / "release.json").write_text(record.replace('"visits": 2', '"visits": 3'))
    with pytest.raises(ReleaseError, match=r"release.json is damaged"):
        verify_release(release)


def test_detectors_of_several_shapes_planes_and_units(raw, start, tmp_path):
    """Shards of a run with other shapes are made anew, and masks get one set of planes."""
    from astropy.io import fits

    start(raw, tmp_path / "out")
    write_visit(raw / "v13_d5.fits", 13, 5, shape=(120, 100))
    with fits.open(raw / "v13_d5.fits", mode="update") as hdus:
        header = hdus["MASK"].header
        # plane 0 is another one here, and BAD has a place that EDGE has elsewhere
        del header["MP_*"]
        header.update(MP_CR=0, MP_BAD=4)
        hdus["MASK"].data[10:20, 10:20] = 16
        hdus["MASK"].data[30, 31] = 1
        hdus["IMAGE"].header["BUNIT"] = "adu"
    start(raw, tmp_path / "out")
    publish(tmp_path / "out", tmp_path / "dr")
    found = xr.open_zarr(f"{tmp_path}/dr/release.zarr", group=IMAGE)
    assert found.image.shape[2:] == (120, 128)
    assert found.sizes["detector"] == 4
    planes = dict(zip(found.mask.attrs["flag_meanings"].split(), found.mask.attrs["flag_masks"], strict=True))
    assert len(set(planes.values())) == len(planes)
    there = skysub.open_campaign(tmp_path / "out")
    for visit, detector in ((11, 0), (12, 2), (13, 5)):
        own = there.visit_image(visit, detector)
        ny, nx = own.shape
        one = found.sel(visit=visit, detector=detector)
        assert (int(one.ny), int(one.nx), str(one.unit.to_numpy())) == (ny, nx, own.unit)
        assert one.image.to_numpy()[:ny, :nx].tobytes() == own.image.tobytes()
        assert np.isnan(one.image.to_numpy()[ny:]).all()
        mask = one.mask.to_numpy()[:ny, :nx]
        for plane in own.planes:
            assert (((mask & planes[plane]) != 0) == ((own.mask & own.bits(plane)) != 0)).all(), plane
    last = found.mask.sel(visit=13, detector=5).to_numpy()
    assert last[30, 31] == planes["CR"]
    assert last[10, 10] == planes["BAD"]
    assert "units" not in found.image.attrs


def test_pixels_on_demand_are_made(raw, start, tmp_path):
    start(raw, tmp_path / "stored")
    start(raw, tmp_path / "out", "products.pixels=on_demand")
    publish(tmp_path / "out", tmp_path / "dr", products=[IMAGE])
    own = skysub.open_campaign(tmp_path / "stored").visit_image(12, 1)
    one = xr.open_zarr(f"{tmp_path}/dr/release.zarr", group=IMAGE).sel(visit=12, detector=1)
    assert one.image.to_numpy().tobytes() == own.image.tobytes()
    assert one.variance.to_numpy().tobytes() == own.variance.tobytes()


def test_a_release_in_a_bucket(out, server, tmp_path):
    target = "s3://night/releases/dr1"
    published = publish(out, target)
    assert (published.name, published.target) == ("dr1", target)
    assert not verify_release(target).problems
    assert publish(out, target).state == "was complete"
    options = {"key": "testing", "secret": "testing", "endpoint_url": server.url}
    found = xr.open_zarr(f"{target}/release.zarr", group=IMAGE, storage_options=options)
    own = skysub.open_campaign(out).visit_image(12, 2)
    assert found.image.sel(visit=12, detector=2).to_numpy().tobytes() == own.image.tobytes()
    publish(out, tmp_path / "dr1")
    lines = LocalPath(tmp_path / "dr1" / "SHA256SUMS").read().decode().splitlines()
    from skysub.campaign.store.s3 import S3Path

    remote = (S3Path.at(target) / "SHA256SUMS").read().decode().splitlines()
    dated = ("README.md", "release.zarr/zarr.json")
    assert [each for each in remote if not each.endswith(dated)] == [
        each for each in lines if not each.endswith(dated)
    ]


@pytest.mark.parametrize("remote", [False, True])
def test_a_snapshot_of_icechunk(out, raw, start, tmp_path, server, remote, monkeypatch):  # noqa: ARG001
    icechunk = pytest.importorskip("icechunk")
    from skysub.release import snapshot as module

    repository = "s3://night/ice" if remote else str(tmp_path / "ice")
    published = publish(out, tmp_path / "dr1", icechunk=repository)
    again = publish(out, tmp_path / "dr1", icechunk=repository)
    assert (again.state, again.snapshot) == ("was complete", published.snapshot)
    write_visit(raw / "v13_d0.fits", 13, 0)
    start(raw, out)
    # killed between commit and tag
    with monkeypatch.context() as patch:
        patch.setattr(icechunk.Repository, "create_tag", lambda *_, **__: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            publish(out, tmp_path / "dr2", icechunk=repository)
    publish(out, tmp_path / "dr2", icechunk=repository)
    opened = icechunk.Repository.open(module._storage(icechunk, repository))
    assert opened.list_tags() == {"dr1", "dr2"}
    assert len(list(opened.ancestry(branch="main"))) == 3
    own = skysub.open_campaign(out).visit_image(12, 2)
    for tag, visits in (("dr1", [11, 12]), ("dr2", [11, 12, 13])):
        store = opened.readonly_session(tag=tag).store
        found = xr.open_zarr(store, group=IMAGE, consolidated=False)
        assert found.visit.to_numpy().tolist() == visits
        assert found.image.sel(visit=12, detector=2).to_numpy().tobytes() == own.image.tobytes()
        assert bool(found.done.sel(visit=12, detector=2))
    with pytest.raises(ReleaseError, match="has a tag 'dr1' of other content, and a tag never moves"):
        publish(out, tmp_path / "other", name="dr1", icechunk=repository)


def test_release_json_says_what_it_is(out, tmp_path):
    publish(out, tmp_path / "dr", products=[BACKGROUND])
    record = json.loads((tmp_path / "dr" / "release.json").read_text())
    assert record["products"] == {BACKGROUND: {"kind": "background", "of": "detector", "step": "background"}}
    assert record["campaign"] == str(out)
    assert (record["visits"], record["detectors"], record["counts"]) == (2, 3, {"done": 6})
    assert "skysub" in (tmp_path / "dr" / "README.md").read_text()
