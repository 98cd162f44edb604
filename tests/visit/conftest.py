"""Files of every layout, and a client of another make to open ours."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skysub.visit.fits.write import write_visit_image
from tests.visit.layouts import (
    make_psf,
    make_visit_image,
    write_decam,
    write_lsst_images,
    write_plain,
    write_sdss,
)


@pytest.fixture(scope="session")
def lsst_images_python():
    """Python of an environment with the package lsst-images, made beside the repository's own."""
    root = Path(__file__).resolve().parents[2]
    environment = root / ".venv-lsst-images"
    python = environment / "bin/python"
    check = "import lsst.images"
    if (
        python.exists()
        and subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0
    ):
        return python
    base = _newest_python()
    if base is None:
        pytest.skip("lsst-images needs Python 3.12 or later, and none is found")
    for command in (
        [base, "-m", "venv", environment],
        [python, "-m", "pip", "install", "-q", "lsst-images", "astropy"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"lsst-images cannot be installed: {done.stderr.strip()[-200:]}")
    done = subprocess.run([python, "-c", check], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"lsst-images cannot be imported: {done.stderr.strip()[-200:]}")
    return python


def _newest_python():
    if sys.version_info >= (3, 12):
        return sys.executable
    for minor in (14, 13, 12):
        candidates = [shutil.which(f"python3.{minor}")]
        candidates += sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"), reverse=True)
        for candidate in filter(None, candidates):
            # a shim of a version that is not switched on exists and fails
            if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
                return candidate
    return None


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Path by name of one file per layout."""
    folder = tmp_path_factory.mktemp("layouts")
    visit_image = make_visit_image()
    made = {}
    for compression in ("none", "lossless", "lossy16"):
        made[f"afw-{compression}"] = folder / f"afw-{compression}.fits"
        write_visit_image(visit_image, made[f"afw-{compression}"], compression=compression)
    made["afw-psf"] = folder / "afw-psf.fits"
    write_visit_image(visit_image.replace(psf=make_psf()), made["afw-psf"])
    made["lsst_images"] = write_lsst_images(folder / "lsst_images.fits")
    made["decam"] = write_decam(folder, detectors=(33,))
    made["plain"] = write_plain(folder / "plain.fits.fz")
    made["sdss"] = write_sdss(folder / "frame.fits")
    return made
