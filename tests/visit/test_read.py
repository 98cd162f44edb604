import bz2
import gzip
import lzma
import math
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

import skysub
from skysub.errors import LayoutError
from skysub.visit.fits.decam import PLANES, planes_of_quality
from skysub.visit.fits.read import read_visit_header, read_visit_headers, read_visit_image
from skysub.visit.ingest import IngestMap
from tests.visit.layouts import (
    SHAPE,
    assert_same_bits,
    assert_same_visit_image,
    make_visit_image,
    rewrite,
    write_decam,
    write_plain,
)


def set_on(visit_image, name):
    return (visit_image.mask & visit_image.planes.bits(name)) != 0


# ingest, shape, unit, visit, detector, band, sky from and to, planes that are set, whether there is variance
FROM_NAME = IngestMap(filename=r"-(?P<visit>\d+)\.fit", detector=0)
ESO = IngestMap(visit="ESO GEN EXPO NO", detector=0, band="=R")
SHARED = {
    "sdss/post_isr_image_5754_13.fits": (
        None, (1489, 2048), "electron", 5754, 13, "r", 1800, 1900, {"SAT", "INTRP", "CR", "NO_DATA"}, True,
    ),
    "sdss/frame-g-000094-1-0131.fits.bz2": (
        IngestMap(add_sky=True), (1489, 2048), "adu", 940139, 51, "g", 105, 120, set(), False,
    ),
    "eso_emmi/galaxies.fits": (
        ESO, (1024, 1024), "adu", 24887, 0, "R", 6800, 6900,
        set(), False,
    ),
    "lco/banzai_test_frame.fits.fz": (
        None, (1020, 1523), "adu", 201606250060, 29, "w", 530, 536, set(), True,
    ),
    "decam/testcase4__c4d_170316_062107_ooi_z_ls9.N2.fits": (
        None, (251, 245), "adu", 630780, 33, "z", 3160, 3180, {"CR", "NO_DATA"}, True,
    ),
    "decam/testcase5__c4d_150411_035242_ooi_z_v1-N10.fits": (
        None, (150, 150), "adu", 431608, 41, "z", 3630, 3650, {"BAD", "NO_DATA"}, True,
    ),
    "decam/testcase8__c4d_171113_060340_ooi_r_ls9.N6.fits": (
        None, (375, 280), "adu", 695765, 37, "r", 170, 180, set(), True,
    ),
    "apogee/aligned_eso085-030-004.fit": (
        FROM_NAME, (682, 1024), "adu", 4, 0, "Clear", 8000, 8300, set(),
        False,
    ),
    "apogee/aligned_eso085-030-005.fit": (
        FROM_NAME, (682, 1024), "adu", 5, 0, "Clear", 8100, 8400, set(),
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_public_images_open(shared, name):
    ingest, shape, unit, visit, detector, band, low, high, planes, variance = SHARED[name]
    read = read_visit_image(shared / "data" / name, ingest)
    assert (read.shape, read.unit) == (shape, unit)
    assert (read.visit, read.detector, read.band) == (visit, detector, band)
    assert low < np.nanmedian(read.image) < high
    assert {plane for plane in read.planes if set_on(read, plane).any()} == planes
    assert (read.variance is not None) == variance
    assert read.exposure_time > 1
    assert read.image.dtype == np.dtype("=f4")


def test_all_public_images_are_in_the_table(shared):
    found = {str(path.relative_to(shared / "data")) for path in (shared / "data").rglob("*.f*")}
    assert {name for name in found if "_ood_" not in name and "_oow_" not in name} == set(SHARED)


def test_sdss_frame_is_calibrated_without_its_sky(shared):
    path = shared / "data/sdss/frame-g-000094-1-0131.fits.bz2"
    calibrated, counts = read_visit_image(path), read_visit_image(path, IngestMap(add_sky=True))
    assert calibrated.unit == "nanomaggy"
    assert abs(np.median(calibrated.image)) < 0.01
    sky = counts.image - calibrated.image * calibrated.photo_calib / counts.photo_calib
    # a star bright enough shows that the calibration varies from column to column
    assert 100 < np.percentile(sky, 1) < np.percentile(sky, 99) < 125


def test_public_pixels_are_those_that_astropy_reads(shared):
    path = shared / "data/sdss/post_isr_image_5754_13.fits"
    read = read_visit_image(path)
    with fits.open(path) as hdus:
        assert_same_bits(read.image, hdus["IMAGE"].data.astype("=f4"))
        assert_same_bits(read.mask, hdus["MASK"].data.astype("=i4"))
        assert_same_bits(read.variance, hdus["VARIANCE"].data.astype("=f4"))
        assert read.planes.bits("CR") == 1 << hdus["MASK"].header["MP_CR"]


@pytest.mark.parametrize("compression", ["none", "lossless"])
def test_afw_exposure(files, compression):
    assert_same_visit_image(read_visit_image(files[f"afw-{compression}"]), make_visit_image())


def test_afw_exposure_with_quantised_pixels(files):
    read, given = read_visit_image(files["afw-lossy16"]), make_visit_image()
    assert np.isnan(read.image[3, 4])
    # half a step of a sixteenth of the noise
    assert np.nanmax(np.abs(read.image - given.image)) < 0.51 * 25 / 16 * 1.1
    assert_same_bits(read.mask, given.mask)
    with fits.open(files["afw-lossy16"]) as hdus:
        assert_same_bits(read.image, hdus["IMAGE"].data.astype("=f4"))


def test_origin_from_ltv_where_there_is_no_linear_wcs(tmp_path, files):
    with fits.open(files["afw-none"]) as hdus:
        for hdu in hdus[1:]:
            for key in ("CTYPE", "CRPIX", "CRVAL", "CUNIT"):
                del hdu.header[f"{key}1A"], hdu.header[f"{key}2A"]
            hdu.header["LTV1"], hdu.header["LTV2"] = -100, -200
        rewrite(hdus, tmp_path / "ltv.fits")
    assert read_visit_image(tmp_path / "ltv.fits").xy0 == (100, 200)


def test_planes_are_named_by_the_file(tmp_path, files):
    with fits.open(files["afw-none"]) as hdus:
        hdus["MASK"].header["MP_BAD"], hdus["MASK"].header["MP_SAT"] = 1, 0
        rewrite(hdus, tmp_path / "swapped.fits")
    assert read_visit_image(tmp_path / "swapped.fits").planes.bits("SAT") == 1


def test_lsst_images_planes_have_our_names(files):
    read = read_visit_image(files["lsst_images"])
    assert read.mask.dtype == np.int64
    assert np.argwhere(set_on(read, "SAT")).tolist() == [[1, 1]]
    assert np.argwhere(set_on(read, "CR")).tolist() == [[1, 2]]
    assert np.argwhere(set_on(read, "FAR")).tolist() == [[2, 0], [2, 1]]
    assert (read.xy0, read.unit, read.photo_calib) == ((7, 8), "nJy", 1.0)


@pytest.mark.parametrize("kind", [fits.ImageHDU, fits.CompImageHDU])
@pytest.mark.parametrize("stored", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_integers_of_every_kind(tmp_path, kind, stored):
    # unsigned integers lie in files as signed ones with BZERO, which decoders may or may not have applied
    numbers = np.random.default_rng(3).integers(0, 120, SHAPE).astype(stored)
    numbers[0, :2] = np.iinfo(stored).min, np.iinfo(stored).max
    flags = (numbers % 4).astype(stored)
    hdus = [fits.PrimaryHDU(header=fits.Header({"VISIT": 1, "DETECTOR": 2}))]
    hdus += [kind(numbers, name="SCI"), kind(flags, name="FLAGS")]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    ingest = IngestMap(image="SCI", mask="FLAGS", planes={"SAT": 0, "CR": 1})
    read = read_visit_image(tmp_path / "x.fits", ingest)
    assert np.array_equal(read.image, numbers.astype(np.float32))
    assert np.array_equal(read.mask, flags)


@pytest.mark.parametrize("kind", [fits.ImageHDU, fits.CompImageHDU])
def test_scaled_integers_with_blanks(tmp_path, kind):
    numbers = np.random.default_rng(3).integers(0, 120, SHAPE).astype(np.int16)
    numbers[3, 3] = -5
    hdu = kind(numbers, name="SCI")
    hdu.header.update({"BSCALE": 0.5, "BZERO": 7.0, "BLANK": -5})
    with warnings.catch_warnings():
        # astropy holds that the array it was given cannot have blanks
        warnings.simplefilter("ignore", AstropyUserWarning)
        fits.HDUList([fits.PrimaryHDU(header=fits.Header({"VISIT": 1, "DETECTOR": 2})), hdu]).writeto(
            tmp_path / "x.fits"
        )
    expected = np.where(numbers == -5, np.nan, numbers * 0.5 + 7).astype(np.float32)
    assert_same_bits(read_visit_image(tmp_path / "x.fits").image, expected)


def test_unsigned_integers_of_64_bits_are_refused(tmp_path):
    numbers = np.zeros(SHAPE, np.uint64)
    fits.PrimaryHDU(numbers, fits.Header({"VISIT": 1, "DETECTOR": 2})).writeto(tmp_path / "x.fits")
    with pytest.raises(LayoutError, match="unsigned integers of 64 bits are not read"):
        read_visit_image(tmp_path / "x.fits")


@pytest.mark.parametrize("compress", [False, True])
def test_decam_triple(tmp_path, compress):
    path = write_decam(tmp_path, compress=compress)
    assert [header.detector for header in read_visit_headers(path)] == [33, 34]
    read = read_visit_image(path, detector=34)
    assert (read.visit, read.detector, read.band, read.gain, read.xy0) == (630780, 34, "z", 4.0, (1, 1))
    np.testing.assert_allclose(np.nanmedian(read.variance), 900, rtol=1e-5)
    assert np.isnan(read.variance[5, 5])
    assert set_on(read, "NO_DATA")[5, 5]
    expected = ["", "BAD", "NO_DATA", "SAT", "SAT", "CR", "SUSPECT", "SUSPECT", "STREAK"]
    for x, name in enumerate(expected):
        assert name == "" or set_on(read, name)[2, x], (x, name)
    assert read.mask[2, 0] == 0
    with pytest.raises(LayoutError, match=r"several detectors \(33, 34\)"):
        read_visit_image(path)
    with pytest.raises(LayoutError, match="does not hold detector 3;"):
        read_visit_image(path, detector=3)


def test_decam_quality_was_bits_before_version_3_5(tmp_path):
    read = read_visit_image(write_decam(tmp_path, version="V3.1.0"), detector=33)
    for x, name in enumerate(["", "BAD", "SAT", "INTRP", "CR", "BLEED", "SUSPECT", "EDGE"]):
        assert name == "" or set_on(read, name)[2, x], (x, name)
    assert set_on(read, "BAD")[2, 8]
    assert set_on(read, "SAT")[2, 8]
    with pytest.raises(LayoutError, match=r"values that V4.8.2 does not know: .*9"):
        planes_of_quality("file", np.array([[9]]), "V4.8.2")
    with pytest.raises(LayoutError, match="PLVER"):
        planes_of_quality("file", np.array([[1]]), "new")
    assert planes_of_quality("file", np.array([[4]]), "DES V3.2") == PLANES.bits("INTRP")


def test_bad_pixel_mask(tmp_path):
    read = read_visit_image(write_plain(tmp_path / "lco.fits"))
    assert (read.visit, read.detector) == (201606250060, 29)
    assert np.flatnonzero(set_on(read, "BAD")[1]).tolist() == [1, 3, 4]
    assert np.flatnonzero(set_on(read, "SAT")[1]).tolist() == [2, 3]
    np.testing.assert_allclose(read.variance, read.image / 2 + 16, rtol=1e-6)


def test_image_alone_has_no_variance_without_gain(tmp_path):
    data = np.full(SHAPE, 100, np.int16)
    data[0, 0] = -99
    header = fits.Header({"VISIT": 1, "DETECTOR": 2, "BSCALE": 0.5, "BZERO": 10.0, "BLANK": -99})
    hdu = fits.PrimaryHDU(header=fits.Header({"VISIT": 1, "DETECTOR": 2}))
    hdu.data = data
    hdu.writeto(tmp_path / "a.fits")
    raw = bytearray((tmp_path / "a.fits").read_bytes())
    end = raw.index(b"END" + b" " * 77)
    scaled = "".join(f"{key:8}= {header[key]:>20}".ljust(80) for key in ("BSCALE", "BZERO", "BLANK"))
    raw[end : end + 320] = scaled.encode() + b"END".ljust(80)
    (tmp_path / "a.fits").write_bytes(raw)
    read = read_visit_image(tmp_path / "a.fits")
    assert read.variance is None
    assert np.isnan(read.image[0, 0])
    assert set_on(read, "NO_DATA")[0, 0]
    assert read.image[1, 1] == 60
    assert (read.unit, read.gain) == ("adu", None)
    assert math.isnan(read.exposure_time)


def test_mapped_by_hand(tmp_path):
    rng = np.random.default_rng(3)
    sky = rng.normal(10, 1, SHAPE)
    flags = np.zeros(SHAPE, np.uint8)
    flags[4, 5] = 6
    weight = np.full(SHAPE, 0.25)
    weight[0, 0] = 0
    header = fits.Header({"SEQ": 17, "CHIP": "3", "FNAME": "r.MP9602", "TEXP": 12.5})
    hdus = [fits.PrimaryHDU(header=header)]
    hdus += [
        fits.ImageHDU(sky, name="SKY"),
        fits.ImageHDU(flags, name="FLAGS"),
        fits.ImageHDU(weight, name="W"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    ingest = IngestMap(
        image="SKY", mask="flags", weight=3, planes={"SAT": 1, "CR": 2, "NO_DATA": 3}, visit="SEQ",
        detector="CHIP", band="FNAME", exposure_time="TEXP", gain=2.5, unit="electron",
    )  # fmt: skip
    read = read_visit_image(tmp_path / "x.fits", ingest)
    assert_same_bits(read.image, sky.astype(np.float32))
    assert (read.visit, read.detector, read.band, read.exposure_time) == (17, 3, "r.MP9602", 12.5)
    assert (read.gain, read.unit) == (2.5, "electron")
    assert read.mask[4, 5] == read.planes.bits("SAT", "CR")
    assert read.mask[0, 0] == read.planes.bits("NO_DATA")
    assert np.isnan(read.variance[0, 0])
    assert read.variance[1, 1] == 4


def test_entries_of_the_map_stand_before_the_layout(files):
    ingest = IngestMap(visit=5, detector=6, band="=z", gain=9, unit="adu", filename=r"(?P<detector>\d)|afw")
    read = read_visit_image(files["afw-none"], ingest)
    assert (read.visit, read.detector, read.band, read.gain, read.unit) == (5, 6, "z", 9.0, "adu")


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_packed_files(tmp_path, files, suffix, pack):
    path = tmp_path / f"visit.fits{suffix}"
    path.write_bytes(pack(files["afw-none"].read_bytes()))
    assert_same_visit_image(read_visit_image(path), make_visit_image())


def test_urls_go_through_fsspec(files):
    import fsspec

    with fsspec.open("memory://bucket/visit.fits", "wb") as stream:
        stream.write(files["afw-lossless"].read_bytes())
    read = read_visit_image("memory://bucket/visit.fits")
    assert_same_visit_image(read, make_visit_image())
    assert read.path == "memory://bucket/visit.fits"


def test_files_are_closed_again(files):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are counted in /proc, which is not here")
    before = descriptors()
    kept = [read_visit_image(path) for path in files.values()]
    kept += [read_visit_header(path) for path in files.values()]
    assert len(kept) == 2 * len(files)
    assert descriptors() == before


def test_headers_are_read_without_pixels(tmp_path, files):
    header = read_visit_header(files["afw-none"])
    given = make_visit_image()
    assert (header.visit, header.detector, header.band) == (given.visit, given.detector, given.band)
    assert (header.shape, header.unit, header.planes) == (given.shape, given.unit, given.planes)
    # garbage for pixels makes no difference to it
    raw = bytearray(files["afw-none"].read_bytes())
    start = raw.index(b"XTENSION")
    first = raw.index(b"END" + b" " * 77, start) // 2880 * 2880 + 2880
    raw[first : first + SHAPE[0] * SHAPE[1] * 4] = os.urandom(SHAPE[0] * SHAPE[1] * 4)
    (tmp_path / "garbage.fits").write_bytes(raw)
    assert read_visit_header(tmp_path / "garbage.fits").visit == given.visit
    assert pickle.loads(pickle.dumps(header)).visit == given.visit


@pytest.mark.parametrize("parts", [1, 2])
def test_headers_in_gzip_are_read_without_unpacking_pixels(tmp_path, parts):
    import tracemalloc

    image = np.random.default_rng(2).normal(500, 25, (1000, 1000)).astype(np.float32)
    hdu = fits.PrimaryHDU(image, fits.Header({"VISIT": 12, "DETECTOR": 3}))
    hdu.writeto(tmp_path / "v.fits")
    whole = (tmp_path / "v.fits").read_bytes()
    step = len(whole) // parts
    packed = b"".join(gzip.compress(whole[i * step : (i + 1) * step], 1) for i in range(parts))
    (tmp_path / "v.fits.gz").write_bytes(packed)
    read_visit_header(tmp_path / "v.fits.gz")
    tracemalloc.start()
    header = read_visit_header(tmp_path / "v.fits.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (header.visit, header.shape) == (12, (1000, 1000))
    assert peak < image.nbytes / 4
    assert_same_bits(read_visit_image(tmp_path / "v.fits.gz").image, image)


def test_pixels_are_copied_at_most_once(tmp_path):
    import tracemalloc

    from skysub.visit.fits.write import write_visit_image

    big = make_visit_image(shape=(1000, 1000))
    write_visit_image(big, tmp_path / "big.fits", compression="none")
    read_visit_image(tmp_path / "big.fits")
    tracemalloc.start()
    read = read_visit_image(tmp_path / "big.fits")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    arrays = read.image.nbytes + read.mask.nbytes + read.variance.nbytes
    assert arrays <= peak < 1.1 * arrays
    assert all(a.flags.writeable and a.flags.c_contiguous for a in (read.image, read.mask, read.variance))


def test_reading_warns_of_nothing(files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in files.values():
            read_visit_image(path)


def test_public_names():
    assert skysub.read_visit_image is read_visit_image
    assert skysub.IngestMap is IngestMap
