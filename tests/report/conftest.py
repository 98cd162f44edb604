"""A small campaign with everything a report must cope with, and a browser to look at it."""

import shutil
import tempfile

import numpy as np
import pytest
from astropy.wcs import WCS

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.report.write import write_report

SHAPE = (96, 128)
SCRIPT = "<script>document.title='owned'</script>"
CHROMIUM = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1000",
]


def detector_wcs(detector):
    """Detectors side by side, 4 pixels apart; detector 2 is turned by 180 degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [30.0, -20.0]
    sign = -1 if detector == 2 else 1
    centre = np.array([(SHAPE[1] + 1) / 2, (SHAPE[0] + 1) / 2])
    wcs.wcs.crpix = centre - sign * np.array([(detector - 1) * (SHAPE[1] + 4), 0.0])
    wcs.wcs.cd = sign * np.array([[-5e-5, 0.0], [0.0, 5e-5]])
    return wcs


def make_visit_image(visit, detector, *, band="r", level=900.0, bad=False):
    rng = np.random.default_rng([visit, detector])
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    mask = np.zeros(SHAPE, np.int32)
    planes = skysub.MaskPlanes({"BAD": 0, "SAT": 1, "DETECTED": 5})
    mask[10:30, 10:40] = planes.bits("BAD")
    mask[50:80, 60:100] = planes.bits("DETECTED")
    if bad:
        mask[:] = planes.bits("BAD")
    return skysub.VisitImage(
        image=(level + 0.05 * x + 0.02 * y + rng.normal(0, 30, SHAPE)).astype(np.float32),
        mask=mask,
        planes=planes,
        variance=np.full(SHAPE, 900, np.float32),
        wcs=detector_wcs(detector),
        visit=visit,
        detector=detector,
        band=band,
        exposure_time=30.0,
    )


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """Four visits of three detectors: a band that is a script, a failure, a detector that stands apart."""
    folder = tmp_path_factory.mktemp("raw")
    for visit in (11, 12, 13, 14):
        for detector in (0, 1, 2):
            name = f"v{visit}_d{detector}.fits"
            bad = (visit, detector) == (12, 1)
            if bad:
                name = f"{SCRIPT.replace('/', '')}.fits"
            made = make_visit_image(
                visit,
                detector,
                band=SCRIPT if visit == 13 else "r",
                level=2000.0 if (visit, detector) == (11, 2) else 900.0 + visit,
                bad=bad,
            )
            skysub.write_visit_image(made, folder / name)
    return folder


def run_small(folder, output, *settings):
    recipe = load_recipe(
        "background",
        inputs=[f"{folder}/*.fits"],
        cluster="threads",
        settings=["steps.background.fit.superpixel=16", *settings],
    )
    return run_campaign(recipe, output, stream=None)


@pytest.fixture(scope="session")
def out(raw, tmp_path_factory):
    """The campaign of `raw`."""
    output = tmp_path_factory.mktemp("campaign") / "out"
    outcome = run_small(raw, output)
    assert (outcome.done, outcome.failed) == (11, 1)
    return output


@pytest.fixture(scope="session")
def report(out):
    """Path of its report."""
    return write_report(out)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window, driven by selenium; it keeps logs of the console and of the network."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in [*CHROMIUM, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield opened
        finally:
            opened.quit()
