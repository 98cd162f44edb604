"""Visits to run campaigns on, and a fingerprint of what a campaign made."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign

HERE = Path(__file__).parent
VOLATILE = {"timings", "started", "host", "process", "peak_memory", "versions", "input"}


def write_visit(path, visit, detector, *, shape=(96, 128), band="r", level=900.0, seed=0):
    """An afw exposure with a sky gradient and a patch of bad pixels."""
    rng = np.random.default_rng([seed, visit, detector])
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = (level + 0.05 * x + 0.02 * y + rng.normal(0, 30, shape)).astype(np.float32)
    mask = np.zeros(shape, np.int32)
    mask[10:20, 10:20] = 1
    primary = fits.PrimaryHDU()
    primary.header.update(VISIT=visit, DETECTOR=detector, BAND=band, EXPTIME=30.0)
    hdus = [primary]
    for name, data in (("IMAGE", image), ("MASK", mask), ("VARIANCE", np.full(shape, 900, np.float32))):
        hdu = fits.ImageHDU(data, name=name)
        hdu.header["EXTTYPE"] = name
        if name == "IMAGE":
            hdu.header["BUNIT"] = "electron"
            hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=30.0, CRVAL2=-20.0)
            hdu.header.update(CRPIX1=64.0, CRPIX2=48.0, CD1_1=-5e-5, CD2_2=5e-5)
        if name == "MASK":
            hdu.header.update(MP_BAD=0, MP_SAT=1, MP_EDGE=4)
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


@pytest.fixture
def make_visit():
    return write_visit


@pytest.fixture
def raw(tmp_path):
    """Two visits of three detectors."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for visit in (11, 12):
        for detector in (0, 1, 2):
            write_visit(folder / f"v{visit}_d{detector}.fits", visit, detector)
    return folder


@pytest.fixture
def steps(monkeypatch):
    """Make the steps of campaign_steps known, here and to processes started from here."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))


@pytest.fixture
def start():
    """Run a recipe in threads of this process, on files of a folder."""

    def run(folder, output, *settings, recipe="background", inputs="*.fits", verify=False):
        given = ["steps.background.fit.superpixel=32"] if recipe == "background" else []
        made = load_recipe(
            recipe, inputs=[f"{folder}/{inputs}"], cluster="threads", settings=[*given, *settings]
        )
        return run_campaign(made, output, verify=verify)

    return run


@pytest.fixture
def command(tmp_path):
    """Start ``skysub`` as a process group of its own."""
    program = "from skysub.cli import main; raise SystemExit(main())"

    def begin(*arguments, **options):
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                program,
                *map(str, arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=tmp_path,
            **options,
        )

    return begin


@pytest.fixture
def fingerprint():
    """Digest of each finished unit: pixels, backgrounds, and its marker but for when and where."""

    def digest(output):
        campaign = skysub.open_campaign(output)
        _, background = campaign.products
        made = {}
        for visit, detector, marker in campaign.markers():
            visit_image = campaign.visit_image(visit, detector)
            sha = hashlib.sha256()
            for array in (visit_image.image, visit_image.mask, visit_image.variance):
                if array is not None:
                    sha.update(array.tobytes())
            for layer in campaign.background(background, visit, detector):
                for array in (
                    layer.statistics.mean,
                    layer.statistics.error,
                    layer.coefficients,
                    layer.covariance,
                ):
                    sha.update(array.tobytes())
            kept = {key: value for key, value in marker.items() if key not in VOLATILE}
            kept["payload"] = {
                name: [{key: value for key, value in layer.items() if key != "arrays"} for layer in value]
                if name == background
                else value
                for name, value in kept["payload"].items()
            }
            sha.update(json.dumps(kept, sort_keys=True).encode())
            made[visit, detector] = sha.hexdigest()
        return made

    return digest
