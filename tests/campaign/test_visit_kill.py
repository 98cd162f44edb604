"""A joint fit that is killed in its middle leaves nothing behind, and the next start makes the same bits."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.wcs import WCS

import skysub
from skysub.testing import make_visit_image

DETECTORS = range(3)
SETTINGS = ["cluster.profile=threads", "steps.calibrate_image.fwhm=4"]

SCRIPT = """
import sys, time
from pathlib import Path
import skysub
from skysub.pipeline.joint import solved

finish = solved._finished

def held(*arguments, **options):
    # the coefficients are known, nothing is written yet
    Path(sys.argv[3]).touch()
    time.sleep(300)
    return finish(*arguments, **options)

solved._finished = held
skysub.run_campaign(
    "visit_background", sys.argv[2], inputs=[sys.argv[1] + "/*.fits"], settings=sys.argv[4:]
)
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    for detector in DETECTORS:
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [60.0, -30.0]
        wcs.wcs.crpix = [160 - 330 * detector, 128]
        wcs.wcs.cd = [[-5.5e-5, 0], [0, 5.5e-5]]
        made = make_visit_image((256, 320), visit=5, detector=detector, sources=8, detected=False)
        skysub.write_visit_image(made.replace(wcs=wcs), folder / f"{detector}.fits", compression="none")
    return folder


def _run(raw, output):
    return skysub.run_campaign("visit_background", output, inputs=[f"{raw}/*.fits"], settings=SETTINGS)


def _bytes(output):
    campaign = skysub.open_campaign(output)
    sky = campaign.product("visit_sky", 5)
    parts = [sky.coefficients.tobytes(), sky.covariance.tobytes()]
    for detector in DETECTORS:
        for which in ("faint_light", "detection"):
            layer = campaign.background("visit_image_background", 5, detector, which)
            parts += [layer.evaluate().tobytes(), layer.uncertainty().tobytes()]
    return b"".join(parts)


def test_kill_during_the_fit(raw, tmp_path):
    assert _run(raw, tmp_path / "plain").done == 4
    held = tmp_path / "held"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(raw), str(tmp_path / "out"), str(held), *SETTINGS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 240
        while not held.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    left = skysub.open_campaign(tmp_path / "out").status()
    assert left.left == 1
    outcome = _run(raw, tmp_path / "out")
    assert (outcome.done, outcome.failed) == (1, 0)
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "plain")
    assert np.isfinite(np.frombuffer(_bytes(tmp_path / "out")[:80])).all()
