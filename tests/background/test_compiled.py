"""Compiling once a machine: notes lie where only this user can have put them, or nowhere."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from skysub.background import compiled

KERNELS = SimpleNamespace(__file__=__file__)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"skysub-{os.getuid()}"


def call(kind):
    """Whether ``first`` was called, when this kind is wanted for the first time and again."""
    calls = []
    for _ in range(2):
        compiled.once(KERNELS, kind, lambda: calls.append(kind))
    return calls == [kind]


def test_a_note_is_left_in_a_folder_of_ones_own(folder):
    assert call("note")
    assert folder.stat().st_mode & 0o777 == 0o700
    (note,) = folder.iterdir()
    assert note.read_bytes() == b"compiled"


def _link(folder):
    target = folder.with_name("target")
    target.mkdir()
    folder.symlink_to(target)


def _open_to_all(folder):
    folder.mkdir()
    folder.chmod(0o777)


def _of_somebody_else(folder):
    if os.getuid():
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize(
    "trap",
    [
        _link,
        _open_to_all,
        _of_somebody_else,
        lambda folder: folder.write_text("a file"),
        lambda folder: folder.symlink_to("nowhere"),
        lambda folder: folder.symlink_to(folder),
        lambda folder: folder.parent.rename(folder.parent.with_name("gone")),
    ],
)
def test_what_others_put_in_its_place_is_not_used_and_stops_nobody(folder, trap, request):
    trap(folder)
    assert call(request.node.name)
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_note_that_cannot_be_written_stops_nobody(folder, monkeypatch):
    def full(*_given, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    assert call("full")
    assert not list(folder.iterdir())
