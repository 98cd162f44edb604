"""One small field for all tests of the desk."""

import numpy as np
import pytest
from astropy.io import fits


@pytest.fixture(scope="session")
def field():
    """(pixels, sky): a sloping sky with stars, float32 (260, 300)."""
    rng = np.random.default_rng(12)
    y, x = np.mgrid[:260, :300].astype(np.float32)
    sky = 800 + 0.2 * x - 0.1 * y
    light = np.zeros_like(sky)
    for _ in range(40):
        cy, cx, flux = rng.uniform(0, 260), rng.uniform(0, 300), 10 ** rng.uniform(2.5, 5)
        light += flux / 18 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 6)
    return rng.poisson(sky + light).astype(np.float32), sky


@pytest.fixture
def image(field, tmp_path):
    """The field as a FITS file with a header to keep."""
    header = fits.Header({"OBJECT": "M 33", "BUNIT": "adu", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CRVAL1": 20.0, "CRVAL2": 30.0, "CRPIX1": 100.0, "CRPIX2": 90.0})
    header.update({"CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4})
    path = tmp_path / "field.fits"
    fits.PrimaryHDU(field[0], header).writeto(path, checksum=True)
    return path
