"""Zero points against a reference catalogue, and catalogues that do not serve."""

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

import skysub
import skysub.errors
import skysub.testing
from skysub.pipeline.zero_points import Reference, ZeroPoints, find_zero_points, read_reference

SHAPE = (800, 900)
ZERO_POINT = 32.05


def make_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, -30.0]
    wcs.wcs.crpix = [450.0, 400.0]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    return wcs


def make_stars(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(20, 880, n), rng.uniform(20, 780, n), 10 ** rng.uniform(3.5, 5, n)


def reference_of(x, y, flux, *, shift=(0.0, 0.0)):
    ra, dec = make_wcs().all_pix2world(x - shift[0], y - shift[1], 0)
    return Reference(ra=ra, dec=dec, magnitude=ZERO_POINT - 2.5 * np.log10(flux))


def test_offset_and_zero_point_are_found():
    x, y, flux = make_stars()
    rng = np.random.default_rng(1)
    found, said = find_zero_points(
        x + rng.normal(0, 0.05, 40),
        y + rng.normal(0, 0.05, 40),
        flux * rng.normal(1, 0.01, 40),
        make_wcs(),
        reference_of(x, y, flux, shift=(7.3, -11.2)),
        shape=SHAPE,
    )
    assert not said
    assert found.matches == 40
    assert found.dx == pytest.approx(7.3, abs=0.05)
    assert found.dy == pytest.approx(-11.2, abs=0.05)
    assert found.photometric == pytest.approx(ZERO_POINT, abs=0.01)
    assert found.photometric_error < 0.01
    # magnitude 31.4 is 1 nJy
    assert found.photo_calib == pytest.approx(10 ** (0.4 * (31.4 - ZERO_POINT)), rel=0.01)


@pytest.mark.parametrize(("of_x", "of_y"), [(0.3, 0.3), (0.4, 0.0), (0.0, 0.2)])
def test_the_scatter_of_places_is_that_of_an_axis(of_x, of_y):
    x, y, flux = make_stars(300, seed=2)
    rng = np.random.default_rng(3)
    found, _ = find_zero_points(
        x + rng.normal(0, of_x, 300),
        y + rng.normal(0, of_y, 300),
        flux,
        make_wcs(),
        reference_of(x, y, flux),
        shape=SHAPE,
    )
    # the root of the mean square over both axes
    assert found.offset_scatter == pytest.approx(np.hypot(of_x, of_y) / np.sqrt(2), rel=0.12)


@pytest.mark.parametrize("stars", [25, 100])
def test_the_error_of_the_zero_point_is_how_far_it_scatters(stars):
    pulls, errors = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x, y, flux = make_stars(stars, seed=seed)
        noise = rng.normal(0, 0.05, stars)
        found, _ = find_zero_points(
            x, y, flux * 10 ** (0.4 * noise), make_wcs(), reference_of(x, y, flux), shape=SHAPE
        )
        pulls.append((found.photometric - ZERO_POINT) / found.photometric_error)
        errors.append(found.photometric_error)
    # the median of Gaussian values: their standard deviation times the root of pi / 2 over their number
    assert np.median(errors) == pytest.approx(0.05 * np.sqrt(np.pi / 2 / stars), rel=0.07)
    assert np.std(pulls) == pytest.approx(1, abs=0.35)
    assert abs(np.mean(pulls)) < 0.3


def test_a_star_whose_magnitude_is_wrong_does_not_count():
    x, y, flux = make_stars(30)
    noise = np.tile([-0.01, 0.0, 0.01], 10)
    flux_seen = flux * 10 ** (0.4 * noise)
    flux_seen[:3] *= 4
    flux_seen[3] = -1
    found, _ = find_zero_points(x, y, flux_seen, make_wcs(), reference_of(x, y, flux), shape=SHAPE)
    assert found.matches == 30
    assert found.photometric == pytest.approx(ZERO_POINT, abs=1e-6)
    # 26 stars are left, whose median distance from the median is 0.01
    assert found.photometric_error == pytest.approx(1.4826 * 0.01 * np.sqrt(np.pi / 2 / 26), rel=1e-6)


def test_the_calibration_is_nanojansky_per_unit():
    # 31.4 is the magnitude of 1 nJy, and 2.5 mag are a factor of ten
    known = {"photometric_error": 0.0, "dx": 0.0, "dy": 0.0, "offset_scatter": 0.0, "matches": 3}
    assert ZeroPoints(photometric=31.4, **known).photo_calib == pytest.approx(1)
    assert ZeroPoints(photometric=28.9, **known).photo_calib == pytest.approx(10)


def test_others_in_the_field_do_not_confuse_it():
    x, y, flux = make_stars()
    more_x, more_y, more_flux = make_stars(400, seed=5)
    more_flux[:5] *= 20
    both = [np.concatenate(pair) for pair in ((x, more_x), (y, more_y), (flux, more_flux))]
    found, _ = find_zero_points(x, y, flux, make_wcs(), reference_of(*both), shape=SHAPE)
    assert abs(found.dx) < 0.3
    assert found.photometric == pytest.approx(ZERO_POINT, abs=0.02)


def test_a_catalogue_that_does_not_overlap():
    x, y, flux = make_stars()
    far = reference_of(x, y, flux)
    far = Reference(ra=far.ra + 3, dec=far.dec, magnitude=far.magnitude, name="gaia.parquet")
    found, said = find_zero_points(x, y, flux, make_wcs(), far, shape=SHAPE)
    assert found is None
    assert "gaia.parquet" in said["reference_no_overlap"]


def test_too_few_matches():
    x, y, flux = make_stars(2)
    found, said = find_zero_points(x, y, flux, make_wcs(), reference_of(x, y, flux), shape=SHAPE)
    assert found is None
    assert "2 of 2 stars" in said["reference_no_matches"]


def test_no_magnitudes():
    x, y, flux = make_stars()
    known = reference_of(x, y, flux)
    empty = Reference(ra=known.ra, dec=known.dec, magnitude=np.full(40, np.nan))
    found, said = find_zero_points(x, y, flux, make_wcs(), empty, shape=SHAPE)
    assert np.isnan(found.photometric)
    assert "no_photometric_zero_point" in said


@pytest.mark.parametrize("kind", ["ecsv", "parquet"])
@pytest.mark.parametrize("column", ["r_mag", "mag", "r_flux"])
def test_catalogues_from_files(tmp_path, kind, column):
    values = np.array([20.0, 21.0, 22.0])
    if column.endswith("flux"):
        values = 10 ** (0.4 * (31.4 - values))
    path = tmp_path / f"reference.{kind}"
    columns = {"coord_ra": [1.0, 2, 3], "coord_dec": [4.0, 5, 6], column: values}
    if kind == "ecsv":
        Table(columns).write(path, format="ascii.ecsv")
    else:
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), path)
    found = read_reference(path, band="r")
    np.testing.assert_allclose(found.magnitude, [20, 21, 22])
    np.testing.assert_array_equal(found.dec, [4, 5, 6])
    assert str(path) in found.name


def test_catalogues_that_cannot_be_read(tmp_path):
    path = tmp_path / "reference.ecsv"
    with pytest.raises(skysub.errors.ReferenceCatalogueError, match=r"reference.ecsv: cannot be read"):
        read_reference(path, band="r")
    Table({"ra": [1.0], "dec": [2.0]}).write(path, format="ascii.ecsv")
    with pytest.raises(skysub.errors.ReferenceCatalogueError, match=r"it has ra, dec"):
        read_reference(path, band="r")


def test_calibrate_image_attaches_what_it_finds():
    visit_image = skysub.testing.make_visit_image((600, 640), sources=40, seed=3)
    if visit_image.wcs is None:
        pytest.fail("the test image has no world coordinates")
    config = skysub.CalibrateImageConfig(cosmic_rays=None)
    first = skysub.calibrate_image(visit_image, config)
    if first.psf is None or len(first.psf.stars.x) < 3:
        pytest.skip("the field has too few stars")
    stars = first.psf.stars
    flux = stars.flux * first.aperture_correction.at(stars.x, stars.y)
    ra, dec = visit_image.wcs.all_pix2world(stars.x - 4, stars.y + 2, 0)
    reference = Reference(ra=ra, dec=dec, magnitude=28 - 2.5 * np.log10(flux))
    found = skysub.calibrate_image(visit_image, config, reference=reference)
    preliminary = found.preliminary_visit_image
    assert found.zero_points.photometric == pytest.approx(28, abs=1e-3)
    assert preliminary.photo_calib == pytest.approx(10 ** (0.4 * 3.4), rel=1e-3)
    assert found.summary["zeroPoint"] == pytest.approx(28, abs=1e-3)
    assert np.isfinite(found.summary["magLim"])
    there = preliminary.wcs.all_world2pix(ra, dec, 0)
    np.testing.assert_allclose(there[0], stars.x, atol=0.01)
    far = Reference(ra=ra + 40, dec=dec, magnitude=reference.magnitude)
    none = skysub.calibrate_image(visit_image, config, reference=far)
    assert none.zero_points is None
    assert "reference_no_overlap" in none.flags
    assert none.preliminary_visit_image.photo_calib == visit_image.photo_calib
