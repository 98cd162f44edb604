"""What tests of several rooms share."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

# numba knows that a kernel is stale by its own file alone, not by those it calls into
_kernels = sorted(Path(__file__).resolve().parents[1].glob("skysub/**/*.py"))
_state = hashlib.sha256(
    b"".join(path.read_bytes() for path in _kernels if b"numba" in path.read_bytes())
).hexdigest()
os.environ.setdefault(
    "NUMBA_CACHE_DIR", f"{tempfile.gettempdir()}/skysub-kernels-{os.getuid()}-{_state[:16]}"
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the public survey images and reference cases; tests that need it skip where it is not."""
    given = os.environ.get("SKYSUB_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[1] / "../shared"
    if not (folder / "data").is_dir():
        pytest.skip("no folder of public survey images: set SKYSUB_TEST_DATA to one that holds data/")
    return folder.resolve()
