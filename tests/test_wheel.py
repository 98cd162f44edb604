"""What an installation has that a checkout keeps elsewhere."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_wheel_carries_recipes_and_profiles(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel")
    built = next(iter(wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    names = zipfile.ZipFile(built).namelist()
    for folder in ("cluster", "workflows"):
        packaged = {Path(name).name for name in names if name.startswith(f"skysub/packaged/{folder}/")}
        assert packaged >= {path.name for path in (ROOT / folder).glob("*.yaml")}
    assert not [name for name in names if name.startswith(("cluster/", "workflows/", "tests/"))]
