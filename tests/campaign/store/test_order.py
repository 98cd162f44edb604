"""In which order writes reach the disk: what a kill, a power failure or a second writer meets in between."""

import errno
import os
from pathlib import Path

import pytest

from skysub.campaign.records import Failure, Marker
from skysub.campaign.store.address import place_at
from skysub.campaign.store.local import LocalPath, put, put_if_absent
from skysub.campaign.store.markers import Markers

MARKERS = [Marker(step="s", visit=3, detector=each, key="k") for each in (0, 1)]
FAILURE = Failure(path="/a.fits", message="why", visit=3, detector=0, step="s")


@pytest.fixture
def events(monkeypatch):
    """What is done to files, in order: (act, name)."""
    seen = []

    def watched(owner, name, label):
        before = getattr(owner, name)

        def act(first, *rest, **named):
            what = str(Path(f"/proc/self/fd/{first}").readlink()) if label == "sync" else str(first)
            seen.append((label, Path(what).name))
            return before(first, *rest, **named)

        monkeypatch.setattr(owner, name, act)

    watched(os, "fsync", "sync")
    watched(os, "link", "link")
    watched(Path, "replace", "replace")
    return seen


def test_a_visits_marker_is_there_before_its_detectors_go(tmp_path, monkeypatch):
    markers = Markers(place_at(tmp_path))
    for each in MARKERS:
        markers.finish(each)
    seen = []
    remove_tree = LocalPath.remove_tree

    def watched(place):
        seen.append(markers.visit_path(3).size())
        # whoever reads now finds all of it
        assert markers.of_visit(3) == {0: MARKERS[0], 1: MARKERS[1]}
        remove_tree(place)

    monkeypatch.setattr(LocalPath, "remove_tree", watched)
    markers.finish_visit(3, MARKERS)
    assert len(seen) == 1
    assert seen[0] > 0
    assert markers.visit_folder(3).names() == []


def test_a_marker_is_there_before_its_failure_goes(tmp_path, monkeypatch):
    markers = Markers(place_at(tmp_path))
    markers.fail(FAILURE)
    there = []
    remove = LocalPath.remove

    def watched(place):
        there.append(markers.detector_path(3, 0).exists())
        remove(place)

    monkeypatch.setattr(LocalPath, "remove", watched)
    markers.finish(MARKERS[0])
    assert there == [True]
    assert markers.failures(3) == {}


def test_one_units_loss_never_leaves_the_others_without_markers(tmp_path, monkeypatch):
    markers = Markers(place_at(tmp_path))
    markers.finish_visit(3, MARKERS)
    remove = LocalPath.remove

    def watched(place):
        if place.name == "3.visit":
            assert markers.detector_path(3, 1).exists()
        remove(place)

    monkeypatch.setattr(LocalPath, "remove", watched)
    markers.forget(3, 0)
    assert markers.done(3, [0, 1]) == {1}


def test_the_first_writer_wins(tmp_path):
    path = tmp_path / "a.json"
    assert put_if_absent(path, b"first")
    assert not put_if_absent(path, b"second")
    assert path.read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_second_writer_between_look_and_write_wins_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    link = os.link

    def late(temporary, target):
        Path(target).write_bytes(b"first")
        link(temporary, target)

    monkeypatch.setattr(os, "link", late)
    assert not put_if_absent(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_file_system_without_links_is_written_by_renaming(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert put_if_absent(tmp_path / "a.json", b"bytes")
    assert (tmp_path / "a.json").read_bytes() == b"bytes"

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="full"):
        put_if_absent(tmp_path / "b.json", b"bytes")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_bytes_are_on_the_disk_before_they_have_their_name(tmp_path, events):
    put(tmp_path / "a.json", (b"bytes",), durable=True)
    acts = [act for act, name in events if name.startswith(".a.json")]
    assert acts == ["sync", "replace"]
    events.clear()
    place_at(tmp_path / "b.json").put_if_absent(b"bytes", durable=True)
    # the bytes, the name, and then that the name stays: the file and its folder
    assert [act for act, _ in events] == ["sync", "link", "sync", "sync"]
    assert [name for _, name in events[2:]] == ["b.json", tmp_path.name]
    events.clear()
    put(tmp_path / "c.json", (b"bytes",))
    assert [act for act, _ in events] == ["replace"]


def test_a_write_that_ends_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    put(path, (b"old",))

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        put(path, (b"new and longer",))
    assert path.read_bytes() == b"old"
