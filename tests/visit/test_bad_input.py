import bz2
import gzip
import lzma
import warnings

import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import ConfigError, LayoutError, SkysubError, VisitFileError, VisitFileNotFoundError
from skysub.visit.fits.read import read_visit_header, read_visit_image
from skysub.visit.fits.write import write_visit_image
from skysub.visit.ingest import IngestMap
from tests.visit.layouts import SHAPE, rewrite, write_decam, write_plain


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def changed(files, tmp_path, change, source="afw-none"):
    path = tmp_path / "changed.fits"
    with fits.open(files[source]) as hdus:
        change(hdus)
        rewrite(hdus, path)
    return path


def test_no_such_file(tmp_path):
    with pytest.raises(VisitFileNotFoundError, match=r"absent\.fits: there is no such file") as caught:
        read_visit_image(tmp_path / "absent.fits")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(VisitFileNotFoundError):
        read_visit_image("memory://nothing/here.fits")


def test_a_directory(tmp_path):
    with pytest.raises(VisitFileError, match="this is a directory"):
        read_visit_image(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello", "no FITS file"),
        (b"SIMPLE  =                    T", "truncated or still being written"),
        (gzip.compress(b"x" * 5000), "no FITS file"),
        (b"\x1f\x8b" + b"garbage" * 99, "cannot be unpacked"),
        (b"BZh9" + b"garbage" * 99, "cannot be unpacked"),
        (b"\xfd7zXZ\x00" + b"garbage" * 99, "cannot be unpacked"),
        (b"SIMPLE  =                    T".ljust(2880 * 5), "no END card|truncated"),
    ],
)
def test_what_is_no_fits(tmp_path, content, message):
    path = tmp_path / "x.fits"
    path.write_bytes(content)
    with pytest.raises(VisitFileError, match=message) as caught:
        read_visit_image(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, OSError)


READERS = (read_visit_image, read_visit_header)


@pytest.mark.parametrize("part", [0.999, 0.8, 0.5, 0.1])
def test_truncated_files(files, tmp_path, part):
    path = tmp_path / "t.fits"
    for name in ("afw-none", "afw-lossless", "lsst_images", "plain"):
        whole = files[name].read_bytes()
        for cut in (int(len(whole) * part), int(len(whole) * part) // 2880 * 2880 - 100):
            path.write_bytes(whole[:cut])
            for read in READERS:
                with pytest.raises(SkysubError, match=r"t\.fits"):
                    read(path)


@pytest.mark.parametrize("part", [0.999, 0.5])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["afw-none", "plain"])
def test_truncated_packed_files(files, tmp_path, pack, part, name):
    packed = pack(files[name].read_bytes())
    (tmp_path / "t.fits.x").write_bytes(packed[: int(len(packed) * part)])
    for read in READERS:
        with pytest.raises(VisitFileError, match="cannot be unpacked"):
            read(tmp_path / "t.fits.x")


def test_a_packed_file_that_was_cut_before_it_was_packed(files, tmp_path):
    whole = files["afw-none"].read_bytes()
    (tmp_path / "t.fits.gz").write_bytes(gzip.compress(whole[: int(len(whole) * 0.999)]))
    for read in READERS:
        with pytest.raises(VisitFileError, match="truncated or still being written"):
            read(tmp_path / "t.fits.gz")


def test_a_file_that_is_being_written(files, tmp_path):
    path = tmp_path / "growing.fits"
    whole = files["afw-none"].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VisitFileError, match="still being written"):
        read_visit_header(path)
    path.write_bytes(whole)
    assert read_visit_header(path).shape == SHAPE


@pytest.mark.parametrize("name", ["IMAGE", "MASK", "VARIANCE"])
def test_missing_extensions(files, tmp_path, name):
    path = changed(files, tmp_path, lambda hdus: hdus.__delitem__(name))
    with pytest.raises(LayoutError, match=f"no {name} extension|not plain which image") as caught:
        read_visit_image(path)
    assert "IngestMap" in str(caught.value)


@pytest.mark.parametrize("bit", ["x", -1, 40, True, 1.5])
def test_planes_without_a_bit(files, tmp_path, bit):
    path = changed(files, tmp_path, lambda hdus: hdus["MASK"].header.set("MP_SAT", bit))
    with pytest.raises(LayoutError, match="MP_SAT"):
        read_visit_image(path)


def test_planes_that_share_a_bit(files, tmp_path):
    path = changed(files, tmp_path, lambda hdus: hdus["MASK"].header.set("MP_SAT", 0))
    with pytest.raises(LayoutError, match="BAD and SAT share bit 0"):
        read_visit_image(path)


def test_bits_without_a_plane(files, tmp_path):
    path = changed(files, tmp_path, lambda hdus: hdus["MASK"].header.remove("MP_SPIKE"))
    with pytest.raises(
        LayoutError, match=r"visit 2025112200123 detector 94: mask pixels have the bits 17 set"
    ):
        read_visit_image(path)


@pytest.mark.parametrize("value", [np.nan, 0, -3, np.inf])
def test_a_few_pixels_without_variance_are_masked_and_noted(files, tmp_path, value):
    with fits.open(files["afw-none"]) as hdus:
        good = hdus["MASK"].data == 0
        y, x = np.argwhere(good)[5]
    path = changed(files, tmp_path, lambda hdus: hdus["VARIANCE"].data.__setitem__((y, x), value))
    read = read_visit_image(path, IngestMap(verify=False))
    assert read.mask[y, x] == read.bits("BAD", "NO_DATA")
    assert np.isnan(read.variance[y, x])
    assert (read.mask[good] != 0).sum() == 1
    (note,) = read.notes
    assert note.startswith(f"1 of {good.sum()} unmasked pixels had no positive finite variance")
    write_visit_image(read, tmp_path / "again.fits")
    again = read_visit_image(tmp_path / "again.fits")
    assert again.notes == ()
    assert " ".join(again.header["HISTORY"]) == note
    with pytest.raises(LayoutError, match=rf"1 of {good.sum()} unmasked .* {float(value)} at x={x}, y={y}:"):
        read_visit_image(path, IngestMap(bad_variance=0, verify=False))


def test_a_variance_that_is_wrong_as_a_whole(files, tmp_path):
    def change(hdus, rows):
        hdus["VARIANCE"].data[:rows] = 0

    path = changed(files, tmp_path, lambda hdus: change(hdus, 7))
    with pytest.raises(LayoutError, match=r"is the variance what it should be\?.*bad_variance"):
        read_visit_image(path, IngestMap(verify=False))
    read = read_visit_image(path, IngestMap(verify=False, bad_variance=0.2))
    assert np.isnan(read.variance[:7][read.mask[:7] == read.bits("BAD", "NO_DATA")]).all()
    path = changed(files, tmp_path, lambda hdus: change(hdus, 5))
    assert len(read_visit_image(path, IngestMap(verify=False)).notes) == 1


def test_shapes_that_disagree(files, tmp_path):
    for name in ("MASK", "VARIANCE"):

        def change(hdus, name=name):
            hdus[name].data = hdus[name].data[:-1].copy()

        with pytest.raises(LayoutError, match=rf"{name} has the shape \(59, 80\), the image \(60, 80\)"):
            read_visit_image(changed(files, tmp_path, change))


def test_units(files, tmp_path):
    path = changed(files, tmp_path, lambda hdus: hdus["IMAGE"].header.set("BUNIT", "furlong/fortnite"))
    with pytest.raises(LayoutError, match="BUNIT is 'furlong/fortnite', which is no unit"):
        read_visit_image(path)
    assert read_visit_image(path, IngestMap(unit="electron")).unit == "electron"
    path = changed(files, tmp_path, lambda hdus: hdus["VARIANCE"].header.set("BUNIT", "electron"))
    with pytest.raises(LayoutError, match="not the square of the image's"):
        read_visit_image(path)


@pytest.mark.parametrize("keyword", ["VISIT", "DETECTOR"])
def test_header_without_identity(files, tmp_path, keyword):
    path = changed(files, tmp_path, lambda hdus: hdus[0].header.remove(keyword))
    with pytest.raises(
        LayoutError, match=rf"does not say the {keyword.lower()}.*IngestMap\({keyword.lower()}="
    ):
        read_visit_image(path)
    assert read_visit_image(path, IngestMap(**{keyword.lower(): 3})).shape == SHAPE


@pytest.mark.parametrize(
    ("keyword", "value"), [("CRPIX1", True), ("CRVAL2", "x"), ("CUNIT1", 1), ("LONPOLE", "1"), ("CD1_1", "")]
)
def test_world_coordinates_that_others_would_leave_out(files, tmp_path, keyword, value):
    path = changed(files, tmp_path, lambda hdus: hdus["IMAGE"].header.set(keyword, value))
    with pytest.raises(LayoutError, match=rf"{keyword} is .*, which is of no use for world coordinates"):
        read_visit_image(path)


@pytest.mark.parametrize("keyword", ["EQUINOX", "RADESYS"])
def test_an_equinox_or_frame_of_old_headers_is_left_out(files, tmp_path, keyword):
    path = changed(files, tmp_path, lambda hdus: hdus["IMAGE"].header.set(keyword, True))
    assert read_visit_image(path).wcs.has_celestial


def test_tiles_of_an_unknown_kind(files, tmp_path):
    raw = files["afw-lossless"].read_bytes().replace(b"'GZIP_2  '", b"'LZ4     '", 1)
    (tmp_path / "t.fits").write_bytes(raw)
    with pytest.raises(LayoutError, match=r"ZCMPTYPE and ZTENSION are \('LZ4', 'IMAGE'\)"):
        read_visit_image(tmp_path / "t.fits", IngestMap(verify=False))


@pytest.mark.parametrize("setting", ["BLOCKSIZE", "BYTEPIX"])
@pytest.mark.parametrize("value", [-1, 0, 3, 2**31, True])
def test_settings_of_tiles_that_would_crash_the_decoder(files, tmp_path, setting, value):
    raw = bytearray(files["lsst_images"].read_bytes())
    name = raw.index(f"'{setting}".ljust(9).encode())
    at = raw.index(b"ZVAL", name)
    shown = f"{'T' if value is True else value:>20}"
    raw[at : at + 80] = raw[at : at + 10] + shown.ljust(70).encode()
    (tmp_path / "t.fits").write_bytes(raw)
    with pytest.raises(LayoutError, match=f"{setting} of the tiles is {value}"):
        read_visit_image(tmp_path / "t.fits")


def test_damaged_pixels_are_noticed_by_their_sum(files, tmp_path):
    for name in ("afw-none", "afw-lossless"):
        raw = bytearray(files[name].read_bytes())
        with fits.open(files[name], disable_image_compression=True) as hdus:
            raw[hdus.fileinfo(1)["datLoc"] + 1000] ^= 4
        (tmp_path / "d.fits").write_bytes(raw)
        with pytest.raises(VisitFileError, match="DATASUM"):
            read_visit_image(tmp_path / "d.fits")
    with pytest.raises(VisitFileError):
        read_visit_image(tmp_path / "d.fits", IngestMap(verify=False))


def test_decam_files_beside_are_missing_or_wrong(tmp_path):
    path = write_decam(tmp_path, detectors=(33,))
    quality = tmp_path / path.name.replace("ooi", "ood")
    with pytest.raises(LayoutError, match="holds the data quality of a visit; give its image, ooi"):
        read_visit_image(quality)
    quality.rename(tmp_path / "elsewhere.fits")
    with pytest.raises(
        VisitFileNotFoundError, match="visit 630780 detector 33: its data quality file is missing"
    ):
        read_visit_image(path)
    write_decam(tmp_path, detectors=(34,))
    (tmp_path / "elsewhere.fits").rename(quality)
    with pytest.raises(LayoutError, match="has no extension N34"):
        read_visit_image(path)


def test_several_images_to_choose_from(tmp_path):
    header = fits.Header({"VISIT": 1, "DETECTOR": 2})
    image = np.zeros(SHAPE, np.float32)
    hdus = [fits.PrimaryHDU(header=header), fits.ImageHDU(image, name="A"), fits.ImageHDU(image, name="B")]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    with pytest.raises(LayoutError, match="1 A, 2 B"):
        read_visit_image(tmp_path / "x.fits")
    with pytest.raises(LayoutError, match="no extension 'C'; there are: 0"):
        read_visit_image(tmp_path / "x.fits", IngestMap(image="C"))
    assert read_visit_image(tmp_path / "x.fits", IngestMap(image="B")).visit == 1


def test_maps_that_contradict_themselves(tmp_path):
    for wrong in (
        {"image": 1, "variance": 2, "weight": 3},
        {"mask": 2},
        {"bad_variance": "mask"},
        {"bad_variance": 1.5},
        {"filename": "("},
    ):
        with pytest.raises(ConfigError):
            IngestMap(**wrong)
    path = write_plain(tmp_path / "p.fits")
    with pytest.raises(LayoutError, match="does not match the ingest's filename"):
        read_visit_image(path, IngestMap(filename=r"v(\d+)"))
    with pytest.raises(LayoutError, match="NOWHERE, mapped as the gain, is missing"):
        read_visit_image(path, IngestMap(gain="NOWHERE"))
    with pytest.raises(LayoutError, match="the visit, from FILTER, is 'w', not a whole number"):
        read_visit_image(path, IngestMap(visit="FILTER"))


def test_a_table_is_no_image(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("A", "E", array=np.zeros(3))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "t.fits")
    with pytest.raises(LayoutError, match="there is no image in this file"):
        read_visit_image(tmp_path / "t.fits")
