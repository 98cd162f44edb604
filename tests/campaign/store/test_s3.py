"""Campaigns in a bucket: a server on this machine that speaks S3."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skysub
from skysub.campaign.store import s3_client
from skysub.campaign.store.address import place_at
from skysub.cli import main
from skysub.errors import CampaignNotFoundError, OutputError


def test_products_are_those_of_a_local_run(raw, tmp_path, start, fingerprint, url):
    outcome = start(raw, url)
    assert (outcome.done, outcome.failed, outcome.log) == (6, 0, f"{url}/runs/0001/run.log")
    start(raw, tmp_path / "out")
    assert fingerprint(url) == fingerprint(tmp_path / "out")
    # the very same files, and not the lock
    local = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    remote = place_at(url)
    assert {key.removeprefix(f"{remote.key}/") for key in remote.all_keys()} == local - {"lock"}
    shard = "runs/0001/images.zarr/preliminary_visit_image/image/c.1.2.0.0"
    assert (remote / shard).read() == (tmp_path / "out" / shard).read_bytes()
    campaign = skysub.open_campaign(f"{url}/")
    dataset = campaign.open_dataset("preliminary_visit_image")
    assert dataset["done"].all()
    window = dataset["image"].sel(visit=12, detector=1)[10:20, 30:50]
    np.testing.assert_array_equal(window.to_numpy(), campaign.visit_image(12, 1).image[10:20, 30:50])
    background = campaign.open_dataset("preliminary_visit_image_background")
    assert np.isfinite(background["mean"].sel(visit=11, detector=0)).all()


def test_all_verbs(raw, tmp_path, url, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["background", "--inputs", f"{raw}/*.fits", "--output", url, "--cluster", "threads"]
    given += ["--set", "steps.background.fit.superpixel=32"]
    assert main(["plan", *given]) == 0
    assert f"0001, new, in {url}" in capsys.readouterr().out
    assert main(["run", *given]) == 0
    assert "6 units done in" in capsys.readouterr().out
    assert main(["status", url]) == 0
    assert "6 of 6 units done" in capsys.readouterr().out
    assert main(["export", url, "--to", "fits", "--visit", "11"]) == 0
    name = "preliminary_visit_image"
    with fits.open(f"fits/{name}/11/{name}_11_2.fits") as file:
        stored = skysub.open_campaign(url).visit_image(11, 2)
        np.testing.assert_array_equal(file["IMAGE"].data, stored.image)
    assert main(["export", url, "--to", f"{url}/fits", "--visit", "12", "--detector", "0"]) == 0
    again = skysub.read_visit_image(f"{url}/fits/{name}/12/{name}_12_0.fits")
    np.testing.assert_array_equal(again.image, skysub.open_campaign(url).visit_image(12, 0).image)
    assert main(["report", url]) == 0
    text = Path("report.html").read_text()
    assert url in text
    assert "<title>" in text


def test_what_is_missing_is_done_and_nothing_else(raw, start, fingerprint, url):
    good = (raw / "v11_d1.fits").read_bytes()
    (raw / "v11_d1.fits").write_bytes(good[: len(good) // 2])
    outcome = start(raw, url, inputs="v11*.fits")
    assert (outcome.done, outcome.unreadable) == (2, 1)
    assert skysub.open_campaign(url).status().exit_code == 1
    log = (place_at(url) / "runs/0001/run.log").read()
    assert b"starts: 2 units to do" in log
    assert b"ends: 2 done, 0 failed" in log
    (raw / "v11_d1.fits").write_bytes(good)
    outcome = start(raw, url, inputs="v11*.fits")
    assert (outcome.run, outcome.done, outcome.earlier) == ("0002", 1, 2)
    assert start(raw, url, inputs="v11*.fits").run == ""
    assert skysub.open_campaign(url).status().exit_code == 0
    # a marker that is gone is work to be done, and the log goes on
    before = fingerprint(url)
    (place_at(url) / "runs/0002/units/background/11.visit").remove()
    assert start(raw, url, inputs="v11*.fits").done == 1
    log = (place_at(url) / "runs/0002/run.log").read()
    assert log.count(b"starts: 1 units to do") == 2
    # so is a shard that is damaged or gone, for whoever looks
    arrays = place_at(url) / "runs/0001/images.zarr/preliminary_visit_image"
    shard = arrays / "image/c.0.0.0.0"
    data = bytearray(shard.read())
    data[100] ^= 1
    shard.put(bytes(data))
    (arrays / "mask/c.0.1.0.0").remove()
    assert start(raw, url, inputs="v11*.fits").done == 0
    assert start(raw, url, inputs="v11*.fits", verify=True).done == 2
    assert fingerprint(url) == before


def test_one_of_many_writers_comes_first(url):
    place = place_at(url) / "marker.json"
    ready = threading.Barrier(16)

    def write(number):
        ready.wait()
        return place.put_if_absent(b"%d" % number)

    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            first = list(pool.map(write, range(16)))
        assert sum(first) == 1
        assert int(place.read()) == first.index(True)
        place.remove()


def test_places(url, monkeypatch):
    # a listing has several pages
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    folder = place_at(f"{url}//a/")
    assert str(folder) == f"{url}/a"
    assert folder.names() == []
    for number in range(15):
        (folder / f"{number:04d}").put(b"x" * number)
    (folder / "inner" / "deep").put(memoryview(b"abc"))
    assert len(folder.names()) == 16
    assert folder.sizes()["0007"] == 7
    assert "inner" not in folder.sizes()
    (folder / "lines").put_lines(["one", "two"])
    assert list((folder / "lines").lines()) == [b"one\n", b"two\n"]
    assert (folder / "inner/deep").checksum() == "364b3fb7"
    made = (folder / "0001").version_token()
    (folder / "0001").put(b"other")
    assert (folder / "0001").version_token() != made
    with pytest.raises(FileNotFoundError):
        (folder / "none").version_token()
    folder.remove_tree()
    assert folder.names() == []
    (folder / "none").remove()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://", "names no bucket: write s3://BUCKET/PREFIX"),
        ("gs://bucket/out", "kept in a folder or at s3://BUCKET/PREFIX, not at gs://"),
        ("s3://nowhere/out", "there is no bucket 'nowhere' at http://127.0.0.1:.*AWS_ENDPOINT_URL"),
    ],
)
@pytest.mark.usefixtures("url")
def test_addresses_that_are_no_good(raw, start, address, words):
    with pytest.raises(OutputError, match=words):
        start(raw, address)
    with pytest.raises(OutputError, match=words):
        skysub.open_campaign(address)


def test_no_campaign_there(url):
    with pytest.raises(CampaignNotFoundError, match=f"there is no campaign at {url}"):
        skysub.open_campaign(url)


@contextmanager
def as_user(server, user):
    """Use a user's keys, and let the server look at them."""
    with server.strict(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", user[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", user[1])
        s3_client.client.cache_clear()
        yield
    s3_client.client.cache_clear()


def test_a_bucket_that_may_only_be_read(raw, start, url, server, reader):
    start(raw, url, inputs="v11_d0.fits")
    with as_user(server, reader):
        with pytest.raises(OutputError, match=r"permission denied \(AccessDenied.*s3:PutObject"):
            start(raw, url)
        assert main(["status", url]) == 0
        assert skysub.open_campaign(url).visit_image(11, 0).shape == (96, 128)


def test_wrong_credentials(raw, start, url, server, reader):
    users = {"SignatureDoesNotMatch": (reader[0], "wrong"), "InvalidAccessKeyId": ("AKIANOBODY", "x")}
    for word, user in users.items():
        words = rf"does not accept the credentials \({word}.*AWS_PROFILE"
        with as_user(server, user), pytest.raises(OutputError, match=words):
            start(raw, url)


def test_no_credentials(raw, start, url, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.fspath(tmp_path / "none"))
    s3_client.client.cache_clear()
    with pytest.raises(OutputError, match=r"Unable to locate credentials\. Set AWS_ACCESS_KEY_ID"):
        start(raw, url)
    s3_client.client.cache_clear()


def test_settings_of_s3fs_are_settings_here(url, server, monkeypatch):
    from fsspec.config import conf

    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setitem(conf, "s3", {"key": "testing", "secret": "testing", "endpoint_url": server.url})
    s3_client.client.cache_clear()
    place_at(url).put(b"here")
    assert place_at(url).read() == b"here"


def test_packages_that_are_missing(raw, start, monkeypatch):
    import sys

    s3_client.client.cache_clear()
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(OutputError, match="for campaigns at s3:// install skysub with the extra s3"):
        start(raw, "s3://night/out")
    s3_client.client.cache_clear()
