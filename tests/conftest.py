"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the public survey images and reference cases; tests that need it skip where it is not."""
    given = os.environ.get("SKYSUB_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[1] / "../shared"
    if not (folder / "data").is_dir():
        pytest.skip("no folder of public survey images: set SKYSUB_TEST_DATA to one that holds data/")
    return folder.resolve()
