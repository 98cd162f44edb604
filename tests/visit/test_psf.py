"""A point-spread function that varies, in the file of a visit."""

import dataclasses

import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import LayoutError
from skysub.visit.fits.psf import GaussianPsf
from skysub.visit.fits.read import read_visit_image
from skysub.visit.fits.write import write_visit_image
from tests.visit.layouts import assert_same_visit_image, make_psf, make_visit_image, rewrite


def leaves(value, path=""):
    """Every number and array of a dataclass of dataclasses, by its path."""
    if not dataclasses.is_dataclass(value):
        return {path: value}
    found = {}
    for field in dataclasses.fields(value):
        found |= leaves(getattr(value, field.name), f"{path}.{field.name}")
    return found


@pytest.mark.parametrize("compression", ["none", "lossless", "lossy16"])
@pytest.mark.parametrize("stars", [1, 7])
def test_it_comes_back_with_every_bit(tmp_path, compression, stars):
    given = make_psf(stars=stars)
    write_visit_image(make_visit_image(psf=given), tmp_path / "v.fits", compression=compression)
    read = read_visit_image(tmp_path / "v.fits").psf
    assert type(read) is type(given)
    expected = leaves(given)
    for path, value in leaves(read).items():
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.shape) == (expected[path].dtype, expected[path].shape), path
            assert value.tobytes() == expected[path].tobytes(), path
        else:
            assert value == expected[path], path
    assert np.array_equal(read.stamp(x=40.3, y=30.8), given.stamp(x=40.3, y=30.8))


def test_it_is_a_table_that_others_read_or_pass_over(tmp_path):
    write_visit_image(make_visit_image(psf=make_psf()), tmp_path / "v.fits")
    with fits.open(tmp_path / "v.fits", checksum=True) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["IMAGE", "MASK", "VARIANCE", "PSF"]
        assert (hdus["PSF"].header["PSFMODEL"], hdus["PSF"].header["PSFVER"]) == ("MOFFAT", 1)
        (row,) = hdus["PSF"].data
        assert row["RESIDUAL"].shape == (11, 11)
        assert row["COEFFICIENTS"].shape == (3, 6)
        assert row["STAR_USED"].tolist() == make_psf().stars.used.tolist()
        assert "PSFSIGMA" not in hdus[0].header


def changed(tmp_path, change):
    """Write a visit with a PSF whose table is then changed."""
    write_visit_image(make_visit_image(psf=make_psf()), tmp_path / "v.fits", compression="none")
    with fits.open(tmp_path / "v.fits") as hdus:
        change(hdus)
        rewrite(hdus, tmp_path / "changed.fits")
    return tmp_path / "changed.fits"


def test_tables_of_other_software_are_passed_over(tmp_path):
    path = changed(tmp_path, lambda hdus: hdus["PSF"].header.remove("PSFMODEL"))
    assert read_visit_image(path).psf is None

    def sigma_instead(hdus):
        hdus["PSF"].header.remove("PSFMODEL")
        hdus[0].header["PSFSIGMA"] = 2.5

    assert read_visit_image(changed(tmp_path, sigma_instead)).psf == GaussianPsf(2.5)


def test_later_versions_are_refused(tmp_path):
    path = changed(tmp_path, lambda hdus: hdus["PSF"].header.set("PSFVER", 2))
    with pytest.raises(LayoutError, match=r"'MOFFAT' of version 2; this skysub reads MOFFAT of version 1"):
        read_visit_image(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("BETA", np.nan, "BETA nan are no PSF's"),
        ("ORDER", 1, "COEFFICIENTS is float64 of shape"),
        ("ORDER", -1, "are no PSF's"),
        ("SHAPE", 0, "are no PSF's"),
        ("RESIDUAL", np.inf, "are not finite"),
    ],
)
def test_values_that_no_psf_has_are_refused(tmp_path, column, value, message):
    def change(hdus):
        hdus["PSF"].data[column][:] = value

    with pytest.raises(LayoutError, match=rf"extension 4 PSF: .*{message}.*; the file is damaged"):
        read_visit_image(changed(tmp_path, change))


def test_a_missing_column_is_refused(tmp_path):
    def change(hdus):
        hdus["PSF"].columns.del_col("STAR_MXX")

    with pytest.raises(LayoutError, match="there is no column STAR_MXX"):
        read_visit_image(changed(tmp_path, change))


def test_it_survives_a_second_writing(tmp_path):
    write_visit_image(make_visit_image(psf=make_psf()), tmp_path / "1.fits")
    read = read_visit_image(tmp_path / "1.fits")
    write_visit_image(read, tmp_path / "2.fits")
    assert (tmp_path / "1.fits").read_bytes() == (tmp_path / "2.fits").read_bytes()
    assert_same_visit_image(read_visit_image(tmp_path / "2.fits"), read)
