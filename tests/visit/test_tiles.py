"""Tiles unpacked here against astropy, bit for bit, and streams that are no tiles."""

import gzip
import importlib
import zlib

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skysub.errors import VisitFileError
from skysub.visit.fits import tile_kernels as kernels
from skysub.visit.fits import tiles
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.pixels import _unpack_by_astropy, read_float, read_integer
from skysub.visit.fits.tiles import DamagedTileError, UnusualTileError, unpack_tiles

QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def both(path):
    """Pixels of the compressed image by us, and by astropy, in native byte order."""
    with open_fits(path) as file:
        hdu = next(hdu for hdu in file.hdus if hdu.compressed)
        theirs = _unpack_by_astropy(file, hdu)
        return unpack_tiles(hdu, file.read(hdu)), theirs


def assert_same_bits(path):
    ours, theirs = both(path)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours.view(f"u{ours.itemsize}"), theirs.view(f"u{ours.itemsize}"))


@st.composite
def shapes(draw):
    ny, nx = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    tile = draw(st.sampled_from([(1, nx), (ny, nx), (draw(st.integers(1, ny)), draw(st.integers(1, nx)))]))
    return (ny, nx), tile


def integers(rng, shape, dtype, kind):
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if kind == "noise":
        return np.clip(rng.normal(100, 30, shape), low, high).astype(dtype)
    if kind == "constant":
        return np.full(shape, high if rng.random() < 0.5 else 3, dtype)
    if kind == "extremes":
        return rng.choice(np.array([low, high, 0], dtype), shape)
    values = rng.integers(low, high, shape, dtype, endpoint=True)
    values[rng.random(shape) < 0.7] = 1
    return values


@QUICK
@given(
    where=shapes(),
    dtype=st.sampled_from([np.uint8, np.int16, np.int32]),
    algorithm=st.sampled_from(["RICE_1", "GZIP_1", "GZIP_2"]),
    kind=st.sampled_from(["noise", "constant", "extremes", "sparse"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers(tmp_path, where, dtype, algorithm, kind, seed):
    shape, tile = where
    pixels = integers(np.random.default_rng(seed), shape, dtype, kind)
    path = tmp_path / "tiles.fits"
    hdu = fits.CompImageHDU(pixels, compression_type=algorithm, tile_shape=tile)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    if algorithm != "RICE_1" and dtype == np.uint8:
        with pytest.raises(UnusualTileError):
            both(path)
    else:
        assert_same_bits(path)
    with open_fits(path) as file:
        np.testing.assert_array_equal(read_integer(file, file.hdus[1]), pixels)


@QUICK
@given(
    where=shapes(),
    algorithm=st.sampled_from(["RICE_1", "GZIP_1", "GZIP_2"]),
    method=st.sampled_from([-1, 1, 2]),
    level=st.sampled_from([0.0, 4.0, 16.0, -0.37, -1e3]),
    dither_seed=st.integers(1, 10000),
    holes=st.floats(0, 0.5),
    flat=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_floats(tmp_path, where, algorithm, method, level, dither_seed, holes, flat, seed):
    shape, tile = where
    if algorithm == "RICE_1" and level == 0:
        level = 8.0
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 5, shape).astype(np.float32)
    pixels[rng.random(shape) < 0.2] = 0
    pixels[rng.random(shape) < holes] = np.nan
    if flat:
        # nothing to quantise: these tiles are packed by gzip, whatever the others are
        pixels[: shape[0] // 2] = 7.25
    path = tmp_path / "tiles.fits"
    hdu = fits.CompImageHDU(
        pixels,
        compression_type=algorithm,
        tile_shape=tile,
        quantize_level=level,
        quantize_method=method,
        dither_seed=dither_seed,
    )
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    assert_same_bits(path)
    with open_fits(path) as file:
        assert read_float(file, file.hdus[1]).dtype == np.float32


def test_random_numbers_run_on_from_tile_to_tile(tmp_path):
    # more pixels than there are random numbers, and more tiles
    for shape, tile in (((3, 25000), (1, 25000)), ((10050, 3), (1, 3))):
        pixels = np.random.default_rng(1).normal(0, 5, shape).astype(np.float32)
        hdu = fits.CompImageHDU(
            pixels, compression_type="RICE_1", tile_shape=tile, quantize_method=1, dither_seed=9999
        )
        path = tmp_path / "tiles.fits"
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
        assert_same_bits(path)


def test_random_numbers_are_those_of_the_standard():
    table = kernels.dither_table()
    assert table[0] == np.float32(16807 / 2147483647)
    # FITS standard 4.0, appendix I: the seed after 10000 numbers
    assert table[-1] == np.float32(1043618065 / 2147483647)


@QUICK
@given(
    stream=st.binary(max_size=200),
    width=st.sampled_from([8, 16, 32]),
    block=st.sampled_from([16, 32]),
    count=st.integers(0, 100),
    before=st.integers(0, 30),
    beyond=st.integers(0, 300),
)
def test_any_bytes_are_read_within_their_bounds(stream, width, block, count, before, beyond):
    # the same stream among other bytes gives the same pixels: nothing outside is looked at
    results = []
    for filling in (0, 255):
        data = np.full(before + len(stream) + 50, filling, np.uint8)
        data[before : before + len(stream)] = np.frombuffer(stream, np.uint8)
        out = np.full(count, -7, np.int32)
        good = kernels.unrice(data, before, before + len(stream), width, block, out)
        results.append((good, out.tolist()))
    assert results[0] == results[1]
    # an end that lies behind the array is the array's
    kernels.unrice(data, before, len(data) + beyond, width, block, out)
    kernels.unrice(data[:0], -5, 17, width, block, out)


def test_plain_rice_against_bit_by_bit():
    rng = np.random.default_rng(2)
    for _ in range(200):
        width, block = int(rng.choice([8, 16, 32])), int(rng.choice([16, 32]))
        stream = rng.integers(0, 256, int(rng.integers(1, 400)), np.uint8)
        if rng.random() < 0.5:
            stream[rng.random(len(stream)) < 0.6] = 0
        out = np.zeros(64, np.int32)
        good = kernels.unrice(stream, 0, len(stream), width, block, out)
        expected = bit_by_bit(stream, width, block, 64)
        assert good == (expected is not None)
        if good:
            np.testing.assert_array_equal(out, expected)


def bit_by_bit(stream, width, block, count):
    bits = iter("".join(f"{byte:08b}" for byte in stream))

    def take(n):
        return int("".join(next(bits) for _ in range(n)) or "0", 2)

    code, most = {8: (3, 6), 16: (4, 14), 32: (5, 25)}[width]
    pixels = []
    # PEP 479 does not reach plain functions: the end of the stream shows as StopIteration or RuntimeError
    try:
        value = take(width)
        while len(pixels) < count:
            split = take(code) - 1
            for _ in range(min(block, count - len(pixels))):
                if split < 0:
                    difference = 0
                elif split >= most:
                    difference = take(width)
                else:
                    zeros = 0
                    while take(1) == 0:
                        zeros += 1
                    difference = (zeros << split) | take(split)
                value += difference // 2 if difference % 2 == 0 else -(difference // 2) - 1
                pixels.append(value)
    except (StopIteration, RuntimeError):
        return None
    dtype = {8: np.uint8, 16: np.int16, 32: np.int32}[width]
    return np.array([pixel % 2**width for pixel in pixels], np.uint32).astype(dtype).astype(np.int32)


def test_gzip_with_and_without_isal(tmp_path, monkeypatch):
    pytest.importorskip("isal")
    path = tmp_path / "tiles.fits"
    pixels = np.random.default_rng(1).normal(100, 9, (20, 500)).astype(np.float32)
    hdu = fits.CompImageHDU(pixels, compression_type="GZIP_2", quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    for inflater in (zlib.decompressobj, importlib.import_module("isal.isal_zlib").decompressobj):
        monkeypatch.setattr(tiles, "_inflater", lambda inflater=inflater: inflater)
        np.testing.assert_array_equal(both(path)[0], pixels)


@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_2"])
def test_tiles_that_are_cut_or_lie_elsewhere(tmp_path, algorithm):
    path = tmp_path / "tiles.fits"
    pixels = np.random.default_rng(1).normal(100, 9, (20, 50)).astype(np.int32)
    hdu = fits.CompImageHDU(pixels, compression_type=algorithm)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    raw = path.read_bytes()
    with open_fits(path) as file:
        at = file.hdus[1].offset
    for length, place in ((3, 0), (2**30, 0), (40, 2**30), (40, -1), (-1, 0)):
        data = bytearray(raw)
        data[at : at + 8] = np.array([length, place], ">i4").tobytes()
        path.write_bytes(data)
        with open_fits(path) as file, pytest.raises(VisitFileError, match="unpacked"):
            read_integer(file, file.hdus[1], verify=False)


def test_a_tile_that_unpacks_to_far_more_than_it_should(tmp_path):
    path = tmp_path / "tiles.fits"
    packed = np.frombuffer(gzip.compress(bytes(2**22)), np.uint8)
    hdu = fits.CompImageHDU(np.zeros((1, 6000), np.int32), compression_type="GZIP_2")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    with open_fits(path) as file:
        hdu = file.hdus[1]
        data = np.concatenate([file.read(hdu)[: hdu.raw.get("NAXIS1")], packed])
        data[:8] = np.frombuffer(np.array([len(packed), 0], ">i4").tobytes(), np.uint8)
        with pytest.raises(DamagedTileError, match="more than its tile"):
            unpack_tiles(hdu, data)
