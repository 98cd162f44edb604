"""Visits in an object store: a server on this machine that speaks S3."""

import numpy as np
import pytest

from skysub.errors import InvalidImageError, VisitFileError, VisitFileNotFoundError
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.read import read_visit_header, read_visit_image
from skysub.visit.fits.write import write_visit_image
from tests.visit.layouts import SHAPE, assert_same_visit_image, make_psf, make_visit_image, write_decam


@pytest.fixture(scope="module")
def bucket():
    """URL of an empty bucket, and its file system."""
    server_module = pytest.importorskip(
        "moto.server", reason="moto and flask are not installed: pip install '.[dev]'"
    )
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = s3fs.S3FileSystem()
        store.mkdir("visits")
        yield "s3://visits", store
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("compression", ["none", "lossless"])
def test_round_trip(bucket, compression):
    url, _ = bucket
    given = make_visit_image(psf=make_psf())
    write_visit_image(given, f"{url}/{compression}/visit.fits", compression=compression)
    read = read_visit_image(f"{url}/{compression}/visit.fits")
    assert_same_visit_image(read, given)
    assert read.path == f"{url}/{compression}/visit.fits"


def test_headers_take_a_part_of_the_file(bucket, tmp_path):
    url, store = bucket
    big = make_visit_image(shape=(1200, 1000))
    write_visit_image(big, tmp_path / "big.fits", compression="none")
    store.put_file(tmp_path / "big.fits", "visits/big.fits")
    header = read_visit_header(f"{url}/big.fits")
    assert (header.visit, header.shape) == (big.visit, (1200, 1000))
    with open_fits(f"{url}/big.fits") as file:
        fetched = file._stream.cache.total_requested_bytes
        assert 0 < fetched < (tmp_path / "big.fits").stat().st_size / 10


def test_files_that_lie_beside_are_found(bucket, tmp_path):
    url, store = bucket
    path = write_decam(tmp_path, detectors=(33,))
    for each in tmp_path.iterdir():
        store.put_file(each, f"visits/decam/{each.name}")
    read = read_visit_image(f"{url}/decam/{path.name}")
    assert (read.visit, read.detector, read.shape) == (630780, 33, SHAPE)
    assert np.isnan(read.variance[5, 5])


def test_what_is_not_there(bucket):
    url, _ = bucket
    with pytest.raises(VisitFileNotFoundError, match=r"s3://visits/absent\.fits: there is no such file"):
        read_visit_image(f"{url}/absent.fits")
    with pytest.raises(VisitFileError, match=r"s3://nowhere/v\.fits: cannot be written"):
        write_visit_image(make_visit_image(), "s3://nowhere/v.fits")


def test_a_failed_write_leaves_the_old_object(bucket):
    url, store = bucket
    write_visit_image(make_visit_image(), f"{url}/kept.fits")
    before = store.cat_file("visits/kept.fits")
    with pytest.raises(InvalidImageError):
        write_visit_image(make_visit_image(unit="'" * 80), f"{url}/kept.fits")
    assert store.cat_file("visits/kept.fits") == before


@pytest.mark.usefixtures("bucket")
def test_a_store_that_does_not_answer(monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(VisitFileError, match=r"s3://visits/v\.fits: cannot be opened"):
        read_visit_image("s3://visits/v.fits")
    s3fs.S3FileSystem.clear_instance_cache()
