"""The first row of a binary table, beside astropy's."""

import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import VisitFileError
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.row import read_row

RNG = np.random.default_rng(4)
COLUMNS = {
    "BYTES": ("5B", None, RNG.integers(0, 255, 5).astype("u1")),
    "SHORT": ("1I", None, np.array([-7], "i2")),
    "INT": ("3J", None, np.array([1, -2, 3], "i4")),
    "LONG": ("2K", None, np.array([2**60, -5], "i8")),
    "FLOATS": ("6E", "(3, 2)", RNG.normal(size=(2, 3)).astype("f4")),
    "DOUBLES": ("24D", "(4,3,2)", RNG.normal(size=(2, 3, 4))),
    "FLAGS": ("4L", None, np.array([True, False, True, True])),
    "NOTHING": ("0D", None, np.zeros(0)),
    "SHORTER": ("PE()", None, RNG.normal(size=9).astype("f4")),
    "LONGER": ("QD()", None, RNG.normal(size=2)),
}


@pytest.fixture
def table(tmp_path):
    def column(name, form, dim, array):
        rows = np.empty(2, object)
        rows[:] = [array, array[:1]]
        return fits.Column(name, form, dim=dim, array=rows if "(" in form else np.stack([array, array]))

    hdu = fits.BinTableHDU.from_columns([column(name, *rest) for name, rest in COLUMNS.items()])
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "t.fits")
    return tmp_path / "t.fits"


def row(path):
    with open_fits(path) as file:
        return read_row(file, file.hdus[1])


def test_columns_of_every_type(table):
    found = row(table)
    assert list(found) == list(COLUMNS)
    for name, (_, _, array) in COLUMNS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("TFORM1", "5Z", "TFORM1 is '5Z'"),
        ("TFORM1", 5, "TFORM1 is 5"),
        ("TFORM6", "999D", "column 6 does not fit into rows"),
        ("TFORM9", "2PE(9)", "column 9 does not fit into rows"),
        ("TDIM5", "(3, 3)", "TDIM5 '(3, 3)' is not that of 6 values"),
        ("TDIM5", "six", "TDIM5 'six'"),
        ("THEAP", 10**6, "column 9 lies outside of it"),
        ("NAXIS2", 0, "no rows"),
    ],
)
def test_what_is_damaged(table, keyword, value, message):
    raw = bytearray(table.read_bytes())
    shown = f"'{value}'" if isinstance(value, str) else f"{value:>20}"
    card = f"{keyword:8}= {shown}".ljust(80).encode()
    at = raw.find(f"{keyword:8}=".encode(), 2880)
    if at < 0:
        at = raw.find(b"END".ljust(80), 2880)
        raw[at + 80 : at + 160] = b"END".ljust(80)
    raw[at : at + 80] = card
    table.write_bytes(raw)
    with pytest.raises(VisitFileError, match="the table cannot be read") as caught:
        row(table)
    assert message in str(caught.value)
