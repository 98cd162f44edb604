"""Checksums of files from the pieces they are read in, and threads that read the same."""

import gzip

import google_crc32c
import numpy as np
import pytest

from skysub.visit.fits import file as fits_file
from skysub.visit.fits.read import read_visit_image, read_with_checksum
from skysub.visit.fits.tally import Tally
from tests.visit.layouts import assert_same_visit_image


def crc_of(data):
    return f"{google_crc32c.value(bytes(data)):08x}"


def test_pieces_in_any_order_with_holes_and_overlaps():
    rng = np.random.default_rng(1)
    for size in (0, 1, 9, 5000):
        data = rng.integers(0, 256, size, np.uint8)
        for _ in range(30):
            tally = Tally()
            for start, stop in np.sort(rng.integers(0, size + 1, (rng.integers(0, 6), 2)), axis=1):
                tally.add(int(start), data[start:stop])
            assert tally.total(size, lambda at, count, data=data: bytes(data[at : at + count])) == crc_of(
                data
            )


def test_what_was_taken_in_is_not_read_again_and_long_holes_come_in_pieces():
    data = np.random.default_rng(2).integers(0, 256, 3 * 2**20, np.uint8)
    tally = Tally()
    tally.add(10, data[10:50])
    asked = []

    def read(at, count):
        asked.append((at, count))
        return bytes(data[at : at + count])

    assert tally.total(len(data), read) == crc_of(data)
    assert asked == [(0, 10), (50, 2**20), (50 + 2**20, 2**20), (50 + 2**21, 2**20 - 50)]


@pytest.mark.parametrize("layout", ["afw-none", "afw-lossy16", "lsst_images", "plain", "sdss"])
def test_the_checksum_is_that_of_the_file(files, layout):
    visit_image, crc = read_with_checksum(files[layout])
    assert crc == crc_of(files[layout].read_bytes())
    assert_same_visit_image(visit_image, read_visit_image(files[layout]))


def test_packed_files_have_none(files, tmp_path):
    path = tmp_path / "visit.fits.gz"
    path.write_bytes(gzip.compress(files["afw-none"].read_bytes()))
    assert read_with_checksum(path)[1] is None


@pytest.mark.parametrize("layout", ["afw-none", "afw-lossy16", "afw-lossless", "plain", "sdss"])
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_read_the_same(files, layout, threads, monkeypatch):
    alone = read_visit_image(files[layout])
    # so small that each thread has several
    monkeypatch.setattr(fits_file, "_PIECE", 1 << 10)
    assert_same_visit_image(read_visit_image(files[layout], threads=threads), alone)
