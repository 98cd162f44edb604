"""The lock of a folder that several machines share, where the system's own lock does not reach the others."""

import json
import os
import threading
import time

import pytest

from skysub.campaign.store import folder_lock, owner
from skysub.campaign.store.folder_lock import locked, spans_machines
from skysub.errors import OutputInUseError


@pytest.fixture
def apart(monkeypatch):
    """Let each holder in this process seem to be on a machine of its own."""
    monkeypatch.setattr(folder_lock, "spans_machines", lambda _folder: True)
    monkeypatch.setattr(folder_lock, "_flock", lambda *_: None)
    monkeypatch.setattr(folder_lock, "_SETTLE", 0.3)
    monkeypatch.setattr(owner, "machine", lambda: "")
    monkeypatch.setattr(owner, "BEAT", 0.2)
    monkeypatch.setattr(owner, "STALE", 1.5)


@pytest.mark.usefixtures("apart")
def test_an_owner_elsewhere_that_renews_its_lock_keeps_it(tmp_path):
    with locked(tmp_path) as hold:
        with pytest.raises(OutputInUseError, match=r"is in use by process .*, heard of"), locked(tmp_path):
            pass
        time.sleep(0.5)
        assert not hold.lost
    with locked(tmp_path):
        pass


@pytest.mark.usefixtures("apart")
def test_the_lock_of_an_owner_that_fell_silent_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text(
        json.dumps({"token": "t", "holder": "process 1 on moon", "machine": "moon"})
    )
    began = time.monotonic()
    with locked(tmp_path):
        waited = time.monotonic() - began
        content = json.loads((tmp_path / "lock").read_text())
    assert waited > 1.0
    assert content["process"] == os.getpid()
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]


@pytest.mark.usefixtures("apart")
def test_of_two_that_take_a_dead_lock_at_once_one_has_it(tmp_path):
    (tmp_path / "lock").write_text(
        json.dumps({"token": "t", "holder": "process 1 on moon", "machine": "moon"})
    )
    os.utime(tmp_path / "lock", (1, 1))
    outcomes, barrier, over = [], threading.Barrier(2), threading.Event()

    def take():
        barrier.wait()
        try:
            with locked(tmp_path):
                outcomes.append("held")
                over.wait(10)
        except OutputInUseError:
            outcomes.append("in use")
            over.set()

    takers = [threading.Thread(target=take) for _ in range(2)]
    for each in takers:
        each.start()
    for each in takers:
        each.join(20)
    assert sorted(outcomes) == ["held", "in use"]


@pytest.mark.usefixtures("apart")
def test_an_owner_that_finds_its_lock_taken_says_so_and_leaves_it(tmp_path):
    with locked(tmp_path) as hold:
        (tmp_path / "lock").write_text(json.dumps({"token": "other", "holder": "process 7 on moon"}))
        deadline = time.monotonic() + 5
        while not hold.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "process 7 on moon" in hold.lost
    assert "moon" in (tmp_path / "lock").read_text()


def test_which_file_systems_other_machines_may_see(monkeypatch, tmp_path):
    from pathlib import Path

    table = f"""1 0 0:1 / / rw - overlay overlay rw
2 1 0:2 / {tmp_path} rw shared:1 - nfs4 server:/export rw
3 1 0:3 / {tmp_path}/with\\040blank rw - ext4 /dev/sda rw
"""
    real = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *a, **k: table if str(self).endswith("mountinfo") else real(self, *a, **k),
    )
    assert not spans_machines(Path("/"))
    assert spans_machines(tmp_path / "sub")
    assert not spans_machines(tmp_path / "with blank" / "sub")
    assert not spans_machines(Path(f"{tmp_path}x"))
