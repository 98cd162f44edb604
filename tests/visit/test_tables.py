import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from skysub.errors import LayoutError
from skysub.visit.fits.write import write_visit_image
from skysub.visit.tables import ingest_files_table, obscore_row, obscore_table
from tests.visit.layouts import make_visit_image


def test_ingest_files_table(tmp_path):
    table = ingest_files_table([("b.fits", 2, 1), (tmp_path / "a.fits", 1, 3)], instrument="LSSTCam")
    assert table.colnames == ["filename", "instrument", "visit", "detector"]
    assert table["visit"].tolist() == [1, 2]
    assert table["filename"][1] == "b.fits"
    table.write(tmp_path / "files.ecsv")
    assert Table.read(tmp_path / "files.ecsv")["detector"].dtype == np.int64
    with pytest.raises(LayoutError, match=r"visit 1 detector 3 has two files: a and b"):
        ingest_files_table([("b", 1, 3), ("a", 1, 3)], instrument="LSSTCam")


def test_obscore_row_describes_the_product(tmp_path):
    header = fits.Header({"INSTRUME": "LSSTCam", "TELESCOP": "Simonyi", "DATE-OBS": "2025-11-22T03:00:00"})
    given = make_visit_image(header=header)
    write_visit_image(given, tmp_path / "v.fits")
    row = obscore_row(given, str(tmp_path / "v.fits"), collection="demo")
    assert (row["instrument_name"], row["facility_name"]) == ("LSSTCam", "Simonyi")
    assert (row["s_xel1"], row["s_xel2"]) == (80, 60)
    assert row["access_estsize"] == -(-(tmp_path / "v.fits").stat().st_size // 1000)
    np.testing.assert_allclose(row["t_min"], 61001.125)
    np.testing.assert_allclose(row["t_max"] - row["t_min"], 30 / 86400, rtol=1e-4)
    diagonal = np.hypot(60, 80) * 5.5e-5
    np.testing.assert_allclose(row["s_fov"], diagonal, rtol=0.01)
    assert row["em_min"] < 620e-9 < row["em_max"]
    corners = np.array(row["s_region"].split()[2:], float).reshape(4, 2)
    x, y = given.wcs.all_world2pix(corners[:, 0], corners[:, 1], 0)
    np.testing.assert_allclose(x, [-0.5, 79.5, 79.5, -0.5], atol=1e-4)
    np.testing.assert_allclose(y, [-0.5, -0.5, 59.5, 59.5], atol=1e-4)
    np.testing.assert_allclose(row["s_resolution"], 2.3548 * 1.75 * 5.5e-5 * 3600, rtol=1e-3)


def test_obscore_table_masks_what_is_not_known(tmp_path):
    bare = make_visit_image(header=None, wcs=None, band="", exposure_time=float("nan"))
    known = make_visit_image()
    table = obscore_table([obscore_row(image, "s3://x/v.fits", collection="c") for image in (bare, known)])
    assert table["s_ra"].mask.tolist() == [True, False]
    assert table["t_exptime"].unit == "s"
    assert table["lsst_visit"].dtype == np.int64
    table.write(tmp_path / "obscore.vot", format="votable")
