"""Visit summaries in three formats, what stands in for what they lack, and what they may not hold."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy.table import MaskedColumn, Table
from astropy.wcs import WCS

from skysub.errors import CalibrationError, UpstreamFailureError, VisitSummaryError
from skysub.testing import make_visit_image
from skysub.visit.calibrations import Calibrations, find_calibrations, summary_row
from skysub.visit.fits.psf import GaussianPsf
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration
from skysub.visit.summary_file import VisitSummary, read_visit_summary, write_visit_summary
from tests.visit.layouts import make_psf

SHAPE = (40, 50)


def make_wcs(crpix=(20.5, 15.25)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, -30.0]
    wcs.wcs.crpix = crpix
    wcs.wcs.cd = [[-5e-5, 1e-6], [2e-6, 6e-5]]
    wcs.wcs.set()
    return wcs


def make_image(**changes):
    visit_image = make_visit_image(SHAPE, sources=0, visit=7, detector=3)
    return visit_image.replace(wcs=None, psf=None, photo_calib=None).replace(**changes)


def corrections(value=1.03):
    box = (0, 0, SHAPE[1] - 1, SHAPE[0] - 1)
    return {
        "psfFlux": ChebyshevField(coefficients=np.array([[value, 0.01], [0.02, 0.0]]), box=box),
        "psfFluxErr": ChebyshevField(coefficients=np.array([[0.001]]), box=box),
    }


def make_calibrations(**changes):
    field = ChebyshevField(coefficients=np.array([[2.5, 0.1], [-0.2, 0.05]]), box=(0, 0, 49, 39))
    parts = {
        "wcs": make_wcs(),
        "photo_calib": PhotometricCalibration.of_field(field, error=0.004),
        "psf": make_psf(),
        "aperture_corrections": corrections(),
    }
    return Calibrations(**parts | changes)


def make_row(**changes):
    return summary_row(make_calibrations(), visit=7, detector=3, statistics={"skyBg": 900.5}) | changes


@pytest.mark.parametrize("suffix", [".parquet", ".ecsv", ".fits"])
def test_a_summary_comes_back_from_every_format(tmp_path, suffix):
    path = tmp_path / f"summary{suffix}"
    write_visit_summary([make_row(), make_row(detector=4), make_row(visit=8)], path)
    summary = read_visit_summary(path)
    assert set(summary) == {(7, 3), (7, 4), (8, 3)}
    found = find_calibrations(make_image(), row=summary.row(7, 3), row_name=summary.name)
    assert set(found.provenance.values()) == {str(path)}
    given = make_calibrations()
    np.testing.assert_array_equal(found.photo_calib.field.coefficients, given.photo_calib.field.coefficients)
    assert found.photo_calib.field.box == (0, 0, 49, 39)
    assert found.photo_calib.error == 0.004
    np.testing.assert_array_equal(found.psf.coefficients, given.psf.coefficients)
    np.testing.assert_array_equal(found.psf.residual, given.psf.residual)
    np.testing.assert_array_equal(found.psf.stars.used, given.psf.stars.used)
    for name, field in corrections().items():
        np.testing.assert_array_equal(found.aperture_corrections[name].coefficients, field.coefficients)
    x, y = np.array([0.0, 31.5]), np.array([3.25, 39.0])
    np.testing.assert_allclose(
        found.wcs.all_pix2world(x, y, 0), given.wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-10
    )
    assert set(read_visit_summary(path, visit=8)) == {(8, 3)}


def test_lsst_names_of_ccd_visit():
    columns = {"visitId": [7, 7], "detector": [3, 4], "zeroPoint": [28.9, np.nan], "psfSigma": [1.7, np.nan]}
    summary = VisitSummary(columns, name="CcdVisit")
    image = make_image(wcs=make_wcs())
    found = find_calibrations(image, row=summary.row(7, 3), aperture_corrections=corrections())
    # 10^(0.4 (31.4 - 28.9)) = 10
    assert found.photo_calib.mean == pytest.approx(10.0, rel=1e-12)
    assert found.psf == GaussianPsf(1.7)
    assert found.provenance["wcs"] == "header"
    assert found.provenance["aperture_corrections"] == "calibrate_image"
    # a model of the PSF that was fit to the pixels goes before a mere width
    better = find_calibrations(
        image,
        row=summary.row(7, 3),
        calibrated=make_image(psf=make_psf()),
        aperture_corrections=corrections(),
    )
    assert better.provenance["psf"] == "calibrate_image"
    with pytest.raises(UpstreamFailureError, match="photo_calib \\(empty in visit summary\\), psf") as caught:
        find_calibrations(
            image.replace(detector=4, photo_calib=5.0),
            row=summary.row(7, 4),
            calibrated=make_image(psf=make_psf(), photo_calib=2.0),
            aperture_corrections=corrections(),
        )
    assert caught.value.missing == ("photo_calib", "psf")
    assert "visit 7 detector 4" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).missing == ("photo_calib", "psf")


def test_keywords_of_a_header_as_columns():
    row = {
        "visit": 7,
        "detector": 3,
        "ctype1": "RA---TAN",
        "ctype2": "DEC--TAN",
        "crval1": 150.0,
        "crval2": -30.0,
        "crpix1": 20.5,
        "crpix2": 15.25,
        "cd1_1": -5e-5,
        "cd1_2": 1e-6,
        "cd2_1": 2e-6,
        "cd2_2": 6e-5,
    }
    rest = {"photo_calib": 2.0, "psf": GaussianPsf(1.7)}
    found = find_calibrations(make_image(**rest), row=row, aperture_corrections=corrections())
    expected = make_wcs().all_pix2world([[3.0, 4.0]], 0)
    np.testing.assert_allclose(found.wcs.all_pix2world([[3.0, 4.0]], 0), expected, rtol=0, atol=1e-12)
    # a summary speaks of the whole detector; this image begins at x = 8, y = 6 of it
    cut = make_image(**rest, xy0=(8, 6))
    found = find_calibrations(cut, row=row, aperture_corrections=corrections())
    np.testing.assert_allclose(found.wcs.all_pix2world([[-5.0, -2.0]], 0), expected, rtol=0, atol=1e-12)
    with pytest.raises(UpstreamFailureError, match=r"wcs \(empty"):
        find_calibrations(make_image(**rest), row=row | {"crval1": None}, aperture_corrections=corrections())


def test_the_header_is_the_last_resort_and_names_what_it_lacks():
    with pytest.raises(UpstreamFailureError, match="its header lacks wcs, photo_calib, psf, aperture_corr"):
        find_calibrations(make_image())
    with pytest.raises(UpstreamFailureError) as caught:
        find_calibrations(
            make_image(wcs=make_wcs(), photo_calib=2.0), calibrated=make_image(psf=GaussianPsf(1.5))
        )
    assert caught.value.missing == ("aperture_corrections",)
    found = find_calibrations(
        make_image(wcs=make_wcs(), photo_calib=2.0),
        calibrated=make_image(psf=GaussianPsf(1.5), photo_calib=3.0),
        aperture_corrections=corrections(),
    )
    assert found.photo_calib.mean == 3.0
    assert found.provenance == {
        "wcs": "header",
        "photo_calib": "calibrate_image",
        "psf": "calibrate_image",
        "aperture_corrections": "calibrate_image",
    }


def test_a_psf_that_is_none():
    row = make_row()
    row["psf_COEFFICIENTS"] = np.full_like(row["psf_COEFFICIENTS"], np.nan)
    with pytest.raises(UpstreamFailureError, match=r"psf \(empty"):
        find_calibrations(make_image(), row=row)
    row["psf_COEFFICIENTS"] = make_row()["psf_COEFFICIENTS"].copy()
    row["psf_COEFFICIENTS"][0, 1] = 900.0  # no PSF in one half
    assert find_calibrations(make_image(), row=row).psf.coefficients[0, 1] == 900.0
    row["psf_COEFFICIENTS"][0] = [900.0, 0, 0, 0, 0, 0]
    with pytest.raises(CalibrationError, match="visit 7 detector 3: its PSF is none anywhere"):
        find_calibrations(make_image(), row=row)
    row["psf_RESIDUAL"] = np.ones((4, 4))
    with pytest.raises(CalibrationError, match="no square with a middle pixel"):
        find_calibrations(make_image(), row=row)
    with pytest.raises(CalibrationError, match="width of nan"):
        find_calibrations(make_image(psf=GaussianPsf(np.nan)))


def test_fields_that_cannot_be_right():
    row = make_row(photoCalib_coefficients=np.array([[1.0, 1.5], [0.0, 0.0]]))
    with pytest.raises(CalibrationError, match="detector 3: the field of the photometric calibration is -0"):
        find_calibrations(make_image(), row=row)
    with pytest.raises(CalibrationError, match="wrong size"):
        find_calibrations(make_image(), row=make_row(photoCalib_box=np.array([0, 0, 48, 39])))
    with pytest.raises(CalibrationError, match="not 3 numbers"):
        find_calibrations(make_image(), row=make_row(photoCalib_coefficients=np.ones(3)))
    with pytest.raises(CalibrationError, match="x_min, y_min"):
        find_calibrations(make_image(), row=make_row(photoCalib_box=np.array([0, 49, 39])))
    with pytest.raises(CalibrationError, match="positive number"):
        find_calibrations(make_image(), row={"photoCalib": 0.0})
    with pytest.raises(UpstreamFailureError, match=r"photo_calib \(empty"):
        find_calibrations(make_image(), row=make_row(photoCalib_coefficients=None, photoCalib=None))


def test_rows_that_are_twice_or_not_there():
    columns = {"visit": [7, 7, 8], "id": [3, 3, 3]}
    with pytest.raises(VisitSummaryError, match="another for visit 7 detector 3"):
        VisitSummary(columns)
    summary = VisitSummary({"visit": [7], "id": [3]}, name="here.fits")
    with pytest.raises(UpstreamFailureError, match=r"visit 7 detector 4: here.fits has no row"):
        summary.row(7, 4)
    with pytest.raises(VisitSummaryError, match="needs a column visit or visitId"):
        VisitSummary({"detector": [3]})
    for value in (3.5, None, np.nan, "three", -1, True):
        with pytest.raises(VisitSummaryError, match="whole number"):
            VisitSummary({"visit": [7], "detector": [value]})


def test_files_that_are_no_summary(tmp_path):
    with pytest.raises(VisitSummaryError, match="no such"):
        read_visit_summary(tmp_path / "none.parquet")
    for suffix in (".parquet", ".ecsv", ".fits"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"neither of these")
        with pytest.raises(VisitSummaryError, match="cannot be read as a visit summary"):
            read_visit_summary(path)
    path = tmp_path / "summary.csv"
    path.write_text("visit,detector\n7,3\n")
    with pytest.raises(VisitSummaryError, match=r"not '\.csv'"):
        read_visit_summary(path)
    with pytest.raises(VisitSummaryError, match="same columns"):
        write_visit_summary([{"visit": 1}, {"detector": 1}], tmp_path / "summary.parquet")


def test_masked_cells_and_a_folder_named_like_a_column(tmp_path):
    table = Table({"visit": [7, 7], "detector": [3, 4]})
    table["zeroPoint"] = MaskedColumn([28.9, 30.0], mask=[False, True])
    table.write(tmp_path / "masked.ecsv", format="ascii.ecsv")
    summary = read_visit_summary(tmp_path / "masked.ecsv")
    assert summary.row(7, 3)["zeroPoint"] == 28.9
    assert summary.row(7, 4)["zeroPoint"] is None
    folder = tmp_path / "visit=9"
    folder.mkdir()
    pyarrow.parquet.write_table(pa.table({"visit": [7], "detector": [3]}), folder / "summary.parquet")
    assert set(read_visit_summary(folder / "summary.parquet")) == {(7, 3)}
