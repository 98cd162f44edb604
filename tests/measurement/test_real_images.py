"""What nobody here made: empty sky says zero, stars repeat aperture photometry, a galaxy is one source."""

import numpy as np
import pytest

import skysub
from skysub.measurement import MeasurementConfig, measure_sources

SDSS = "sdss/post_isr_image_5754_13.fits"
LCO = "lco/banzai_test_frame.fits.fz"
GALAXY = "decam/testcase8__c4d_171113_060340_ooi_r_ls9.N6.fits"


def measured(shared, name, **settings):
    """Sources of a file, its sky and PSF by `skysub.calibrate_image`; the image, and its columns."""
    visit_image = skysub.read_visit_image(shared / "data" / name)
    found = skysub.calibrate_image(visit_image)
    image = found.preliminary_visit_image
    sources = measure_sources(
        image.image,
        image.variance,
        image.mask,
        image.planes,
        found.psf,
        MeasurementConfig(**settings),
        gain=visit_image.gain,
    )
    return image, sources.columns


@pytest.fixture(scope="module")
def sdss(shared):
    return measured(shared, SDSS, sky_sources=400)


def sky_pull(columns):
    empty = columns["sky_source"]
    pulls = columns["ap09Flux"][empty] / columns["ap09FluxErr"][empty]
    assert np.isfinite(pulls).sum() > 150
    return np.nanmean(pulls)


def test_empty_sky_of_sdss_says_zero(sdss):
    assert abs(sky_pull(sdss[1])) < 0.1


def test_empty_sky_of_lco_says_zero(shared):
    assert abs(sky_pull(measured(shared, LCO, sky_sources=400)[1])) < 0.15


def test_stars_of_sdss_repeat_aperture_photometry(sdss):
    columns = sdss[1]
    star = columns["isPrimary"] & (columns["extendedness"] == 0) & (columns["parentIndex"] < 0)
    star &= (columns["psfFlux"] > 50 * columns["psfFluxErr"]) & ~columns["pixelFlags_saturated"]
    star &= ~columns["ap12Flux_flag"]
    ratio = columns["psfFlux"][star] / columns["ap12Flux"][star]
    assert star.sum() > 20
    # the PSF's stamp and the aperture hold nearly the same share of a star's light
    assert abs(np.median(ratio) - 1) < 0.03
    assert np.subtract(*np.percentile(ratio, [75, 25])) < 0.04


def test_a_galaxy_that_fills_the_frame_is_one_source(shared):
    image, columns = measured(shared, GALAXY)
    primary = columns["isPrimary"]
    x, y, kron = (columns[name][primary] for name in ("x", "y", "kronFlux"))
    brightest = np.nanargmax(kron)
    assert np.hypot(x[brightest] - 135.5, y[brightest] - 162.3) < 3
    near = np.hypot(x - x[brightest], y - y[brightest]) < 100
    # itself, two stars and a small galaxy on it, and few more
    assert near.sum() <= 12
    # far wings lie beyond the Kron aperture
    assert kron[brightest] > 0.5 * image.image.sum(dtype=float)
