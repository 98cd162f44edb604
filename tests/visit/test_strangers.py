"""Files that nobody vouches for: what they claim is checked, and costs neither memory nor the process."""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import LayoutError, VisitFileError
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.packed import Unpacking
from skysub.visit.fits.read import read_visit_header, read_visit_headers, read_visit_image
from skysub.visit.fits.write import write_visit_image
from skysub.visit.ingest import IngestMap
from tests.visit.bombs import header, image_hdu
from tests.visit.layouts import assert_same_bits, make_visit_image, rewrite, write_lsst_images

READERS = (read_visit_headers, read_visit_image)
MIB = 2**20


def plain_file(path, **cards):
    known = {"VISIT": 77, "DETECTOR": 2} | cards
    path.write_bytes(image_hdu(np.ones((3, 4), np.float32), **known))
    return path


def peak_of(act):
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("written", ["77", "77.0", "'77.'", "'77'", "'077.00'", "7.7E1", "77."])
def test_whole_numbers_however_they_are_written(tmp_path, written):
    read = read_visit_header(plain_file(tmp_path / "v.fits", VISIT=written, DETECTOR=written))
    assert (read.visit, read.detector) == (77, 77)
    assert type(read.visit) is type(read.detector) is int


@pytest.mark.parametrize("written", ["77.5", "-77.0", "-1", "1E40", "T", "1E400", "1" * 19, "9.1E15"])
def test_numbers_that_are_not_whole_are_refused(tmp_path, written):
    with pytest.raises(LayoutError, match=r"the visit, from VISIT, is .*, not a whole number"):
        read_visit_header(plain_file(tmp_path / "v.fits", VISIT=written))


def test_numbers_too_large_for_a_table_are_refused_wherever_they_come_from(tmp_path):
    path = plain_file(tmp_path / "v.fits")
    with pytest.raises(LayoutError, match=r"the detector, from the mapping, is 10{30}, not a whole number"):
        read_visit_header(path, IngestMap(detector=10**30))
    shutil.copy(path, tmp_path / "v٣.fits")
    with pytest.raises(LayoutError, match="from the file's name"):
        read_visit_header(tmp_path / "v٣.fits", IngestMap(filename=r"v(?P<visit>\w+)"))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_small_image_with_much_behind_it_is_unpacked_up_to_its_end(tmp_path, pack):
    path = tmp_path / "v.fits.x"
    path.write_bytes(pack(image_hdu(np.ones((3, 4), np.float32), VISIT=77, DETECTOR=2) + bytes(64 * MIB)))
    for read in READERS:
        read(path)
        # the dictionary of xz takes 8 MiB
        assert peak_of(lambda read=read: read(path)) < (12 if pack is lzma.compress else 2) * MIB


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_headers_that_claim_what_no_packed_pixels_unpack_to(tmp_path, pack):
    head = header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=20000, NAXIS2=20000, VISIT=1, DETECTOR=2)
    path = tmp_path / "v.fits.x"
    path.write_bytes(pack(head + bytes(MIB)))
    for read in READERS:
        with pytest.raises(VisitFileError, match="packed bytes would unpack to more than 1600"):
            read(path)


def test_packed_headers_are_read_in_little_memory_however_large_the_pixels(tmp_path):
    image = np.random.default_rng(1).normal(0, 1, (2, 1500, 1000)).astype(np.float32)
    primary = fits.PrimaryHDU(image[0], fits.Header({"VISIT": 1, "DETECTOR": 2}))
    fits.HDUList([primary, fits.ImageHDU(image[1], name="VARIANCE")]).writeto(tmp_path / "v.fits")
    (tmp_path / "v.x").write_bytes(bz2.compress((tmp_path / "v.fits").read_bytes()))
    assert peak_of(lambda: read_visit_headers(tmp_path / "v.x")) < 2 * MIB


def test_xz_that_asks_for_gigabytes_as_its_dictionary(tmp_path):
    small = lzma.compress(plain_file(tmp_path / "v.fits").read_bytes(), preset=0)
    # such a dictionary is a byte of the block's header: making one would take as much memory
    start, size = 12, (small[12] + 1) * 4
    block = bytearray(small[start : start + size])
    block[block.index(bytes([lzma.FILTER_LZMA2, 1])) + 2] = 36
    block[-4:] = zlib.crc32(bytes(block[:-4])).to_bytes(4, "little")
    (tmp_path / "v.xz").write_bytes(small[:start] + bytes(block) + small[start + size :])
    with pytest.raises(VisitFileError, match="cannot be unpacked: Memory usage limit"):
        read_visit_headers(tmp_path / "v.xz")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("keep", [True, False])
def test_unpacking_gives_the_same_bytes_however_they_are_asked_for(pack, keep):
    whole = np.random.default_rng(3).integers(0, 9, 700_001, np.uint8).tobytes()
    # several streams one after the other, and padding behind them
    packed = b"".join(pack(part) for part in (whole[:1], whole[1:400_000], b"", whole[400_000:])) + bytes(512)
    stream = Unpacking("x", io.BytesIO(packed), keep=keep)
    assert stream.read(5) == whole[:5]
    assert stream.seek(399_990) == 399_990
    assert stream.read(20) == whole[399_990:400_010]
    assert stream.reached(700_001)
    assert not stream.reached(700_002)
    assert stream.read(10) == whole[400_010:400_020] if keep else True
    if keep:
        stream.seek(3)
        view = bytearray(300_000)
        assert stream.readinto(memoryview(view)) == 300_000
        assert bytes(view) == whole[3:300_003]
        stream.seek(700_000)
        assert stream.readinto(memoryview(view)) == 1


CLAIMS = {
    "axes": ({"NAXIS": 999} | {f"NAXIS{i}": 2**40 for i in range(1, 1000)}, "more than any file holds"),
    "tiles": (
        {"XTENSION": "'BINTABLE'", "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 2, "ZIMAGE": "T", "ZBITPIX": -32}
        | {"ZNAXIS": 99} | {f"ZNAXIS{i}": 2**40 for i in range(1, 100)},
        "more than any file holds",
    ),
    "mosaic": (
        {"XTENSION": "'BINTABLE'", "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 2, "ZIMAGE": "T", "ZBITPIX": -32}
        | {"ZNAXIS": 2, "ZNAXIS1": 2**20, "ZNAXIS2": 2**20},
        r"16 bytes cannot hold \(1048576, 1048576\) pixels",
    ),
    "parameters": ({"NAXIS": 2, "NAXIS1": 4, "NAXIS2": 3, "PCOUNT": 8}, "PCOUNT and GCOUNT are 8 and 1"),
    "groups": ({"NAXIS": 2, "NAXIS1": 4, "NAXIS2": 3, "GCOUNT": 2}, "PCOUNT and GCOUNT are 0 and 2"),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("read", READERS)
def test_claims_that_no_file_can_hold(tmp_path, claim, read):
    cards, message = CLAIMS[claim]
    image = np.ones((3, 4), np.float32)
    first = image_hdu(image, VISIT=1, DETECTOR=2)
    extension = header(**({"XTENSION": "'IMAGE   '", "BITPIX": 8} | cards)) + bytes(2880)
    (tmp_path / "v.fits").write_bytes(first + extension)
    with pytest.raises((LayoutError, VisitFileError), match=message) as caught:
        read(tmp_path / "v.fits")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("cards", [{"PCOUNT": 8}, {"GCOUNT": 2}])
def test_a_primary_image_with_parameters_or_groups(tmp_path, cards):
    path = tmp_path / "v.fits"
    path.write_bytes(image_hdu(np.ones((3, 4), np.float32), VISIT=1, DETECTOR=2, **cards) + bytes(2880))
    for read in READERS:
        with pytest.raises(LayoutError, match="where an image has 0 and 1"):
            read(path)


def test_a_sparse_giant_ends_in_an_error(tmp_path):
    path = tmp_path / "v.fits"
    edge = 40_000
    path.write_bytes(header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=edge, NAXIS2=edge, VISIT=1, DETECTOR=2))
    os.truncate(path, 2880 + -(-4 * edge**2 // 2880) * 2880)
    assert read_visit_header(path).shape == (edge, edge)
    program = (
        "import resource, sys\n"
        "from skysub.errors import VisitFileError\n"
        "from skysub.visit.fits.read import read_visit_image\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "try:\n    read_visit_image(sys.argv[1])\n"
        "except VisitFileError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert "there is not enough memory to read it" in done.stdout
    assert str(path) in done.stdout


def test_an_image_larger_than_any_detector(tmp_path):
    path = tmp_path / "v.fits"
    path.write_bytes(header(SIMPLE="T", BITPIX=8, NAXIS=2, NAXIS1=2**16, NAXIS2=2**16, VISIT=1, DETECTOR=2))
    os.truncate(path, 2880 + -(-(2**32) // 2880) * 2880)
    for read in READERS:
        with pytest.raises(LayoutError, match="more than the 2147483648 that one detector may have"):
            read(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "v.fits")
    for read in READERS:
        with pytest.raises(VisitFileError, match="this is a pipe, socket or device"):
            read(tmp_path / "v.fits")
    with pytest.raises(VisitFileError, match="this is a pipe, socket or device"):
        read_visit_header("/dev/zero")


@pytest.mark.parametrize(
    ("keyword", "extension"),
    [("VISIT", 0), ("EXPTIME", 0), ("GAIN", 0), ("CRVAL1", 1), ("MP_SAT", 2), ("EXTNAME", 2), ("BUNIT", 3)],
)
def test_a_changed_character_in_a_header_is_noticed_by_its_sum(files, tmp_path, keyword, extension):
    raw = bytearray(files["afw-none"].read_bytes())
    starts = [0, *(found.start() for found in re.finditer(rb"XTENSION=", raw))]
    at = raw.index(f"{keyword:8}= ".encode(), starts[extension])
    place = re.compile(rb"[A-Za-z0-9]").search(raw, at + 10).start()
    raw[place] ^= 1
    path = tmp_path / "v.fits"
    path.write_bytes(raw)
    for read in READERS:
        with pytest.raises(VisitFileError, match=rf"header of extension {extension}.*not have the CHECKSUM"):
            read(path)
    with open_fits(path, verify=False) as file:
        assert len(file.hdus) == 4


def test_headers_without_a_sum_or_with_an_unset_one_are_read(files, tmp_path):
    with fits.open(files["afw-none"]) as hdus:
        hdus[0].header["EXPTIME"] = 31.5
        rewrite(hdus, tmp_path / "v.fits")
    assert read_visit_image(tmp_path / "v.fits").exposure_time == 31.5
    raw = (
        files["afw-none"]
        .read_bytes()
        .replace(b"EXPTIME =                 30.0", b"EXPTIME =                 31.5")
    )
    for unset in (b"''                ", b"'0000000000000000'"):
        (tmp_path / "v.fits").write_bytes(re.sub(rb"CHECKSUM= '.{16}'", b"CHECKSUM= " + unset, raw))
        assert read_visit_image(tmp_path / "v.fits").exposure_time == 31.5
    (tmp_path / "v.fits").write_bytes(raw)
    assert read_visit_image(tmp_path / "v.fits", IngestMap(verify=False)).exposure_time == 31.5


def test_sums_are_those_of_another_program(tmp_path):
    hdu = fits.PrimaryHDU(np.ones((3, 4), np.float32), fits.Header({"VISIT": 1, "DETECTOR": 2}))
    hdu.writeto(tmp_path / "v.fits", checksum=True)
    assert read_visit_image(tmp_path / "v.fits").visit == 1
    raw = (tmp_path / "v.fits").read_bytes()
    (tmp_path / "v.fits").write_bytes(
        raw.replace(b"VISIT   =                    1", b"VISIT   =                    3")
    )
    with pytest.raises(VisitFileError, match="CHECKSUM"):
        read_visit_image(tmp_path / "v.fits")


def test_a_mask_of_lsst_images_whose_name_is_damaged_is_not_passed_over(tmp_path):
    path = write_lsst_images(tmp_path / "v.fits")
    assert "FAR" in read_visit_image(path).planes
    raw = bytearray(path.read_bytes())
    second = raw.index(b"EXTNAME = 'MASK", raw.index(b"EXTNAME = 'MASK") + 80)
    raw[second + 11 : second + 15] = b"MBSK"
    path.write_bytes(raw)
    for read in READERS:
        with pytest.raises(LayoutError, match="extension 3 MBSK names mask planes, but is no MASK"):
            read(path)


def test_bands_of_any_characters_can_be_written(tmp_path):
    path = plain_file(tmp_path / "v.fits", BUNIT="'adu     '")
    read = read_visit_image(path, IngestMap(band="=\x1b[31mé"))
    assert read.band == "\\x1b[31mé"
    write_visit_image(read.replace(variance=np.ones((3, 4), np.float32)), tmp_path / "w.fits")
    assert read_visit_header(tmp_path / "w.fits").band == "\\x1b[31m?"
    with pytest.raises(LayoutError, match="the band has 70 characters"):
        read_visit_header(path, IngestMap(band="=" + "r" * 70))


def test_messages_quote_nothing_that_a_terminal_would_obey(tmp_path):
    path = tmp_path / os.fsdecode(b"\x1b]0;title\x07\xe9.fits")
    path.write_bytes(b"no")
    with pytest.raises(VisitFileError) as caught:
        read_visit_image(path)
    assert str(caught.value).isprintable()
    assert r"\x1b]0;title\x07\xe9.fits: " in str(caught.value)


def test_packed_pixels_are_read_as_plain_ones(tmp_path):
    visit_image = make_visit_image(shape=(300, 400))
    write_visit_image(visit_image, tmp_path / "v.fits", compression="none")
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "v.x").write_bytes(pack((tmp_path / "v.fits").read_bytes()))
        assert_same_bits(read_visit_image(tmp_path / "v.x").image, visit_image.image)
