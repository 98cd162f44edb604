import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_small_run_writes_a_table_and_pictures(tmp_path):
    for module in ("scipy", "matplotlib"):
        pytest.importorskip(module, reason=f"the benchmark needs {module}")
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "quality.py"),
        "--shape",
        "256x300",
        "--scenes",
        "quiet,galaxy:20",
    ]
    command += [
        "--methods",
        "skysub plain fit",
        "--output",
        str(tmp_path / "q.md"),
        "--pictures",
        str(tmp_path / "p"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "q.md").read_text()
    assert "## galaxy:20" in table
    assert "| skysub plain fit |" in table
    assert "![quiet](p/quiet.jpg)" in table
    assert (tmp_path / "p" / "galaxy_20.jpg").is_file()
