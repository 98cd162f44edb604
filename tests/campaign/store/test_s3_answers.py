"""Answers of an S3 server that arrive spoilt: they are asked for again, and nothing of them is believed."""

import random
import threading

import pytest

import skysub
from skysub.campaign.store import s3_client
from skysub.campaign.store.address import place_at
from skysub.errors import OutputError
from tests.campaign.store.s3_server import FAULTS

BYTES = bytes(range(256)) * 40


class Faults:
    """Spoil answers at random, or the next ones."""

    def __init__(self, seed, part, *, most=10**9):
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._part = part
        self._most = most
        self.counts = dict.fromkeys(FAULTS, 0)

    def __call__(self, method, path):
        with self._lock:
            kind = self._random.choice(FAULTS)
            if self._random.random() >= self._part or sum(self.counts.values()) >= self._most:
                return ""
            # of a listing no client could tell; a write has no body that could be flipped
            if kind == "flip" and (method != "GET" or path.strip("/").count("/") < 1):
                return ""
            self.counts[kind] += 1
            return kind


def once(kind):
    left = [kind]
    return lambda *_: left.pop() if left else ""


@pytest.mark.parametrize("kind", FAULTS)
def test_each_operation_survives_a_spoilt_answer(server, url, kind):
    place = place_at(f"{url}/object")
    operations = {
        "put": lambda: place.put(BYTES),
        "read": lambda: place.read() == BYTES,
        "lines": lambda: b"".join(place.lines()) == BYTES,
        "checksum": lambda: place.checksum() == expected,
        "exists": place.exists,
        "version_token": lambda: place.version_token() == seen,
        "names": lambda: place_at(url).names() == ["object"] if kind != "flip" else True,
    }
    place.put(BYTES)
    expected, seen = place.checksum(), place.version_token()
    for name, act in operations.items():
        server.fault = once(kind)
        assert act() in {None, True}, name
        if name == "put":
            expected, seen = place.checksum(), place.version_token()
    server.fault = once(kind)
    assert not place_at(f"{url}/absent").exists()
    server.fault = once(kind)
    place.remove()
    assert not place.exists()


def test_flipped_bits_are_noticed_where_a_server_keeps_only_a_tag(server, url, monkeypatch):
    place = place_at(f"{url}/object")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    s3_client.client.cache_clear()
    place.put(BYTES)
    for read in (place.read, lambda: b"".join(place.lines())):
        server.fault = once("flip")
        assert read() == BYTES
    # a tag that is no sum of the bytes is not mistaken for damage
    server.fault = lambda *_: "flip"
    assert place.read() != BYTES


def test_a_server_that_gives_nothing_but_damage_is_given_up(server, url, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    place_at(f"{url}/object").put(BYTES)
    server.fault = lambda *_: "garbage"
    with pytest.raises(OutputError, match=r"cannot be read: .* has given 10 answers that are damaged"):
        place_at(f"{url}/object").version_token()


def test_a_password_in_the_address_of_a_server_is_printed_nowhere(url, monkeypatch, caplog):
    monkeypatch.setattr(s3_client, "_FIRST_PATIENCE", 0.2)
    monkeypatch.setattr(s3_client, "PATIENCE", 0.2)
    for address in ("http://me:s3cret@127.0.0.1:9", "http://me:s3cret@no host"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        s3_client.client.cache_clear()
        with pytest.raises(OutputError) as caught:
            place_at(url).names()
        assert "s3cret" not in str(caught.value)
        assert "s3cret" not in caplog.text


def test_a_run_with_spoilt_answers_makes_the_same(raw, tmp_path, start, server, url, fingerprint):
    faults = Faults(1, 0.05)
    server.fault = faults
    outcome = start(raw, url)
    server.fault = None
    assert (outcome.done, outcome.failed) == (6, 0)
    assert sum(faults.counts.values()) > 5
    start(raw, tmp_path / "undisturbed")
    assert fingerprint(url) == fingerprint(tmp_path / "undisturbed")


@pytest.mark.long
def test_two_hundred_spoilt_answers(raw, tmp_path, start, server, url, fingerprint):
    """Each run ends by itself, or is ended by at most one restart, with the bits of an undisturbed one."""
    start(raw, tmp_path / "undisturbed")
    reference = fingerprint(tmp_path / "undisturbed")
    total, restarts, run = dict.fromkeys(FAULTS, 0), 0, 0
    while sum(total.values()) < 200 or not all(total.values()):
        faults, output = Faults(run, 0.05), f"{url}/{run}"
        server.fault = faults
        try:
            start(raw, output)
        except OutputError:
            restarts += 1
            start(raw, output)
        server.fault = None
        assert fingerprint(output) == reference
        assert skysub.open_campaign(output).status().exit_code == 0
        total = {kind: total[kind] + faults.counts[kind] for kind in FAULTS}
        run += 1
    print(run, "runs,", restarts, "restarts:", total)
