"""From counts and pixels to the calibrated table: values by hand, and other programs that read it."""

import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from skysub.errors import OutputError, SourceIdError
from skysub.measurement.columns import COLUMNS, DP1_COLUMNS
from skysub.measurement.ids import SourceIds
from skysub.measurement.parquet import write_sources
from skysub.measurement.places import local_axes
from skysub.measurement.table import make_source_table
from skysub.testing import make_visit_image
from skysub.visit.calibrations import Calibrations
from skysub.visit.fits.psf import GaussianPsf
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration

SHAPE = (40, 60)


def make_wcs(dec=-60.0):
    """Pixels of 0.2 arcsec turned by 30 degrees, RA to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [359.9999, dec]
    wcs.wcs.crpix = [21.0, 11.0]
    turn = np.radians(30)
    scale = 0.2 / 3600
    wcs.wcs.cd = scale * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.set()
    return wcs


def make_calibrations(**changes):
    # 2 nJy per count at the middle, 3 at the right edge; the correction is 1.1, and 0.9 at the bottom edge
    box = (0, 0, SHAPE[1] - 1, SHAPE[0] - 1)
    parts = {
        "wcs": make_wcs(),
        "photo_calib": PhotometricCalibration.of_field(
            ChebyshevField(coefficients=np.array([[2.0, 1.0]]), box=box), error=0.02
        ),
        "psf": GaussianPsf(1.7),
        "aperture_corrections": {
            "psfFlux": ChebyshevField(coefficients=np.array([[1.1], [0.2]]), box=box),
            "psfFluxErr": ChebyshevField(coefficients=np.array([[0.01]]), box=box),
        },
    }
    return Calibrations(**parts | changes)


def measured(**changes):
    columns = {
        "x": np.array([44.5, 10.0, 20.0, 14.5]),
        "y": np.array([29.75, 10.2, 9.8, 19.5]),
        "xErr": np.array([0.3, 0.1, 0.2, 0.1]),
        "yErr": np.array([0.1, 0.1, 0.1, 0.2]),
        "psfFlux": np.array([100.0, 200.0, 300.0, 400.0]),
        "psfFluxErr": np.array([3.0, 4.0, 5.0, 6.0]),
        "ap12Flux": np.array([110.0, 210.0, np.nan, 410.0]),
        "ap12FluxErr": np.array([3.0, 4.0, 5.0, 6.0]),
        "ap12Flux_flag": np.array([False, False, True, False]),
        "sky": np.array([1.0, 2.0, 3.0, 4.0]),
        "parentIndex": np.array([-1, 0, 0, -1]),
        "deblend_nChild": np.array([2, 0, 0, 0]),
        "isPrimary": np.array([False, True, True, True]),
    }
    return SimpleNamespace(columns=columns | changes)


@pytest.fixture(scope="module")
def table():
    image = make_visit_image(SHAPE, sources=0, visit=2024112400123, detector=94)
    return make_source_table(measured(), image, make_calibrations())


def test_rows_are_sorted_by_position_and_numbered(table):
    # rows of pixels 10, 10, 20, 30: within row 10 by x, although y is larger there
    np.testing.assert_array_equal(table["x"], [10.0, 20.0, 14.5, 44.5])
    numbers = SourceIds().of(2024112400123, 94, 4)
    np.testing.assert_array_equal(table["sourceId"], numbers)
    np.testing.assert_array_equal(table["parentSourceId"], [numbers[3], numbers[3], 0, 0])
    np.testing.assert_array_equal(table["detect_isPrimary"], [True, True, True, False])
    assert set(table["visit"]) == {2024112400123}


def test_fluxes_by_hand(table):
    # x' = (2 x - 59) / 60 and y' = (2 y - 39) / 40
    x, y = 14.5, 19.5
    scale = 2 + (2 * x - 59) / 60
    correction = 1.1 + 0.2 * (2 * y - 39) / 40
    assert scale == 1.5
    assert correction == 1.1
    assert table["psfFlux"][2] == pytest.approx(400 * 1.5 * 1.1, rel=1e-14)
    assert table["psfFluxErr"][2] == pytest.approx(np.hypot(6 * 1.5 * 1.1, 660 * 0.01), rel=1e-14)
    assert table["psfFlux_apCorr"][2] == pytest.approx(1.1)
    assert table["psfFlux_apCorrErr"][2] == pytest.approx(0.01)
    assert table["ap12Flux"][2] == pytest.approx(410 * 1.5, rel=1e-14)
    assert table["apFlux_12_0_instFlux"][2] == 410
    assert table["calibFlux"][2] == table["ap12Flux"][2]
    assert table["normCompTophatFlux_instFlux"][2] == 410
    assert table["localPhotoCalib"][2] == pytest.approx(1.5)
    assert table["localPhotoCalibErr"][2] == pytest.approx(0.015)
    assert table["localBackground_instFlux"][2] == 4.0
    assert table["sky"][2] == pytest.approx(6.0)
    np.testing.assert_array_equal(table["apFlux_12_0_flag"], [False, True, False, False])
    assert np.isnan(table["ap12Flux"][1])
    assert np.isnan(table["kronFlux"]).all()
    assert not table["psfFlux_flag_apCorr"].any()


def test_places_and_their_errors_by_hand(table):
    # the second row lies at the reference pixel (20, 10) but for 0.2 pixels down
    scale, turn = 0.2 / 3600, np.radians(30)
    expected = -60 + scale * np.cos(turn) * -0.2
    assert table["dec"][1] == pytest.approx(expected, abs=1e-11)
    offset = (table["ra"][1] - 359.9999) * np.cos(np.radians(-60))
    assert offset == pytest.approx(scale * np.sin(turn) * -0.2, abs=1e-11)
    np.testing.assert_array_equal(table["ra"], table["coord_ra"])
    c, s = np.cos(turn), np.sin(turn)
    ra_error = scale * np.hypot(c * 0.2, s * 0.1)
    dec_error = scale * np.hypot(s * 0.2, c * 0.1)
    assert table["raErr"][1] == pytest.approx(ra_error, rel=1e-6)
    assert table["decErr"][1] == pytest.approx(dec_error, rel=1e-6)
    covariance = scale**2 * (-c * s * 0.2**2 + s * c * 0.1**2)
    assert table["ra_dec_Cov"][1] == pytest.approx(covariance, rel=1e-6)
    assert table["localWcs_CDMatrix_1_2"][1] == pytest.approx(scale * s, rel=1e-6)
    np.testing.assert_allclose(table["jacobian_value"], 1.0, rtol=1e-6)
    # the last row lies beyond the zero of right ascension
    assert table["ra"][0] < 1 or table["ra"][0] > 359


def test_axes_at_the_pole():
    wcs = make_wcs(dec=90.0)
    x, y = np.array([20.0, 23.0]), np.array([10.0, 10.0])
    (a, b), (c, d) = local_axes(wcs, x, y)
    np.testing.assert_allclose(np.abs(a * d - b * c), (0.2 / 3600) ** 2, rtol=1e-7)


def test_the_detector_s_own_coordinates_and_what_has_no_place():
    image = make_visit_image(SHAPE, sources=0, visit=5).replace(xy0=(0, 0))
    given = measured(x=np.array([44.5, np.nan, 20.0, 14.5]))
    table = make_source_table(given, image, make_calibrations())
    assert np.isnan(table["x"][-1])
    assert np.isnan(table["ra"][-1])
    assert table["jacobian_flag"].tolist() == [False, False, False, True]
    cut = image.replace(xy0=(2, 3))
    moved = make_source_table(given, cut, make_calibrations())
    np.testing.assert_array_equal(moved["x"], table["x"] + 2)
    np.testing.assert_array_equal(moved["y"], table["y"] + 3)
    np.testing.assert_array_equal(moved["ra"], table["ra"])
    np.testing.assert_allclose(moved["localPhotoCalib"], table["localPhotoCalib"] + 2 / 30)


def test_no_source_at_all_and_too_many():
    image = make_visit_image(SHAPE, sources=0, visit=5)
    nothing = SimpleNamespace(columns={"x": np.zeros(0), "y": np.zeros(0), "parentIndex": np.zeros(0, int)})
    table = make_source_table(nothing, image, make_calibrations())
    assert len(table) == 0
    assert table.to_arrow().num_rows == 0
    with pytest.raises(SourceIdError, match="4 sources do not fit"):
        make_source_table(
            measured(), image, make_calibrations(), ids=SourceIds(counter_bits=1, release_bits=22)
        )


def test_stars_of_the_psf_are_flagged():
    stars = SimpleNamespace(
        x=np.array([14.9, 10.0, 30.0]), y=np.array([19.5, 10.9, 30.0]), used=np.array([True, False, True])
    )
    image = make_visit_image(SHAPE, sources=0, visit=5)
    psf = SimpleNamespace(stars=stars)
    table = make_source_table(measured(), image, make_calibrations(psf=psf))
    assert table["calib_psf_candidate"].tolist() == [True, False, True, False]
    assert table["calib_psf_used"].tolist() == [False, False, True, False]


def test_dp1_s_columns_types_and_units(table):
    assert len(DP1_COLUMNS) == 156
    assert list(table.columns) == [known.name for known in COLUMNS]
    for known in COLUMNS:
        kind = table[known.name].dtype
        assert kind.kind == "U" if known.dtype == "str" else kind == known.dtype, known.name
    units = {known.name: known.unit for known in DP1_COLUMNS}
    assert units["psfFlux"] == "nJy"
    assert units["apFlux_35_0_instFluxErr"] == "count"
    assert units["ra_dec_Cov"] == "deg**2"
    assert units["ixyDebiasedPSF"] == "pixel**2"
    dtypes = {known.name: known.dtype for known in DP1_COLUMNS}
    assert (dtypes["xErr"], dtypes["psfFlux_area"], dtypes["footprintArea_value"]) == (
        "float32",
        "float32",
        "int32",
    )


def test_astropy_and_pandas_read_the_file(table, tmp_path):
    path = tmp_path / "source.parquet"
    write_sources(table, path)
    read = Table.read(path)
    assert str(read["psfFlux"].unit) == "nJy"
    assert str(read["ixx"].unit) == "pix2"
    assert read["psfFlux"].description == "Flux of the PSF fit to the source together with its neighbours."
    np.testing.assert_array_equal(read["psfFlux"], table["psfFlux"])
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(path)
    assert frame["psfFlux_flag"].dtype == bool
    assert frame["deblend_nChild"].dtype == np.int32
    assert frame["sourceId"].tolist() == table["sourceId"].tolist()
    assert frame["band"].tolist() == ["r"] * 4
    fields = {field.name: field.metadata for field in pyarrow.parquet.read_schema(path)}
    assert fields["raErr"][b"unit"] == b"deg"
    assert fields["psfFlux_flag"] == {b"description": b"The flux of the PSF could not be fit."} | {
        key: value for key, value in fields["psfFlux_flag"].items() if key.startswith(b"PARQUET")
    }
    again = tmp_path / "again.parquet"
    write_sources(table, again)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(OutputError, match="cannot be written"):
        write_sources(table, tmp_path / "no" / "such" / "folder.parquet")


def test_polars_reads_the_file(table, tmp_path):
    polars = pytest.importorskip("polars")
    path = tmp_path / "source.parquet"
    write_sources(table, path)
    frame = polars.read_parquet(path)
    assert frame.shape == (4, len(COLUMNS))
    assert frame["psfFlux"].to_list()[2] == table["psfFlux"][2]


def test_stilts_reads_the_file(table, tmp_path):
    program = shutil.which("stilts")
    if program is None:
        pytest.skip("STILTS is not installed")
    path, out = tmp_path / "source.parquet", tmp_path / "out.csv"
    write_sources(table, path)
    command = [program, "tpipe", f"in={path}", "ifmt=parquet", "cmd=keepcols 'sourceId psfFlux'"]
    done = subprocess.run(
        [*command, f"out={out}", "ofmt=csv"], capture_output=True, text=True, check=False, timeout=120
    )
    if "parquet" in done.stderr.lower() and ("unknown" in done.stderr.lower() or "No" in done.stderr):
        pytest.skip("this STILTS was built without Parquet")
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    assert lines[0] == "sourceId,psfFlux"
    assert int(lines[1].split(",")[0]) == table["sourceId"][0]
