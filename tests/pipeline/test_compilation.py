"""On a machine without compiled kernels several processes compile them, once."""

import logging
import os
import subprocess
import sys

import pytest

from skysub.background import compiled
from skysub.pipeline import compilation

COLD = """
import importlib, numpy, skysub
from skysub.testing import make_visit_image
result = skysub.calibrate_image(make_visit_image((600, 640), sources=40, seed=3))
assert result.psf is not None
for name in (
    "psf.kernels.fit_moffats",
    "sources.cosmic_ray_kernels.search_block",
    "background.kernels.band_statistics",
):
    module, _, kernel = name.rpartition(".")
    stats = getattr(importlib.import_module("skysub." + module), kernel).stats
    print(name, sum(stats.cache_misses.values()), sum(stats.cache_hits.values()))
"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A machine on which nobody has compiled yet, as far as notes tell."""
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.usefixtures("notes")
def test_each_share_is_compiled_by_a_process_of_its_own_and_once(monkeypatch):
    monkeypatch.setattr(compilation, "_processors", lambda: 2)
    started = []
    monkeypatch.setattr(compilation, "_children", started)
    compilation.compile_beside()
    assert len(started) == 3
    assert [child.wait(300) for child in started] == [0, 0, 0]
    compilation.compile_beside()
    assert len(started) == 3


@pytest.mark.usefixtures("notes")
def test_one_processor_has_nobody_to_help_it(monkeypatch):
    monkeypatch.setattr(compilation, "_processors", lambda: 1)
    started = []
    monkeypatch.setattr(compilation, "_children", started)
    compilation.compile_beside()
    assert started == []


@pytest.mark.usefixtures("notes")
def test_who_waits_is_told_why(caplog):
    compiled._say_why_it_takes_time.cache_clear()
    kind = f"test {os.getpid()}"
    with caplog.at_level(logging.WARNING, logger="skysub"):
        compiled.once(compilation, kind, lambda: None)
        compiled.once(compilation, f"{kind} again", lambda: None)
    assert [record.message for record in caplog.records] == [
        "skysub compiles its kernels for this machine, which happens once and takes up to half a minute"
    ]


@pytest.mark.long
def test_what_others_compile_is_only_loaded(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COLD], env=environment, capture_output=True, text=True, check=True
    )
    for line in done.stdout.splitlines():
        _, misses, hits = line.split()
        assert int(misses) == 0
        assert int(hits) >= 1
    assert "compiles its kernels" in done.stderr
