"""Shards encoded by us against Zarr's own bytes, and read by Zarr where skysub is not."""

import subprocess
import sys

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

from skysub.campaign.store.address import place_at
from skysub.campaign.store.arrays import create_images, write_plane
from skysub.campaign.store.shards import ShardFormat, shard_parts

KINDS = {
    "none": None,
    "lz4": BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
    "zstd": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    "shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
}


def codecs(compression):
    blosc = KINDS[compression]
    return [Crc32cCodec()] if blosc is None else [blosc, Crc32cCodec()]


def joined(layout, pixels):
    return np.frombuffer(b"".join(shard_parts(layout, pixels)), np.uint8)


def pixels_of(kind, shape, dtype):
    rng = np.random.default_rng(3)
    if dtype == "int32":
        pixels = np.where(rng.random(shape) < 0.1, rng.integers(1, 2**31 - 1, shape), 0).astype(dtype)
        filling = 0
    else:
        pixels = rng.normal(900, 30, shape).astype(dtype)
        filling = np.nan
    if kind == "holes":
        pixels[: shape[0] // 2, : shape[1] // 2] = filling
    elif kind == "empty":
        pixels[:] = filling
    elif kind == "negative zero":
        pixels[:] = -0.0 if dtype == "float32" else 0
    elif kind == "starts with filling":
        pixels[0] = filling
    return pixels


@pytest.mark.parametrize("compression", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("kind", ["all", "holes", "empty", "negative zero", "starts with filling"])
@pytest.mark.parametrize("counts", [(8, 8), (1, 1), (3, 5), (2, 9)])
def test_the_bytes_are_zarrs(compression, dtype, kind, counts):
    chunk = (20, 24)
    shape = tuple(n * edge for n, edge in zip(counts, chunk, strict=True))
    pixels = pixels_of(kind, shape, dtype)
    for fill in (0, np.nan) if dtype == "float32" else (0, 7):
        kept = {}
        array = zarr.create_array(
            MemoryStore(kept), shape=(2, 1, *shape), dtype=dtype, chunks=(1, 1, *chunk),
            shards=(1, 1, *shape), compressors=codecs(compression), fill_value=fill, zarr_format=3,
        )  # fmt: skip
        array[1, 0] = pixels
        theirs = kept.get("c/1/0/0/0")
        ours = joined(ShardFormat.of(array), pixels)
        if theirs is None:
            # nothing but the filling: an index that says so, as Zarr keeps no shard for that
            assert ours[:-4].view("<u8").tolist() == [2**64 - 1] * 2 * counts[0] * counts[1]
            kept["c/1/0/0/0"] = cpu.Buffer.from_bytes(ours.tobytes())
            np.testing.assert_array_equal(array[1, 0], pixels)
        else:
            assert ours.tobytes() == theirs.to_bytes()


def test_a_detector_smaller_than_the_largest_has_its_own_chunks_alone():
    kept = {}
    array = zarr.create_array(
        MemoryStore(kept), shape=(1, 1, 100, 240), dtype="float32", chunks=(1, 1, 20, 24),
        shards=(1, 1, 100, 240), compressors=codecs("lz4"), fill_value=np.nan, zarr_format=3,
    )  # fmt: skip
    pixels = pixels_of("all", (50, 30), "float32")
    whole = np.full((100, 240), np.nan, np.float32)
    whole[:50, :30] = pixels
    array[0, 0] = whole
    ours = joined(ShardFormat.of(array), pixels)
    assert ours.tobytes() == kept["c/0/0/0/0"].to_bytes()
    # 3 x 2 chunks of 5 x 10
    assert np.count_nonzero(ours[-804:-4].view("<u8") != 2**64 - 1) == 12


def test_other_layouts_are_left_to_zarr():
    def made(**more):
        settings = {"shape": (40, 48), "dtype": "float32", "chunks": (20, 24), "shards": (40, 48)} | more
        return ShardFormat.of(zarr.create_array(MemoryStore({}), zarr_format=3, **settings))

    assert made(compressors=codecs("lz4")) is not None
    assert made(compressors=KINDS["lz4"]) is None
    assert made(compressors=[Crc32cCodec(), KINDS["lz4"]]) is None
    assert made(compressors=zarr.codecs.GzipCodec()) is None
    assert made(shards=None) is None
    assert made(dtype="uint8") is None


READ = """
import sys, numpy as np, zarr
assert "skysub" not in sys.modules
array = zarr.open_array(sys.argv[1], mode="r")
np.save(sys.argv[2], array[1, 0])
assert "skysub" not in sys.modules
"""


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_zarr_reads_them_without_skysub(tmp_path, compression):
    store = place_at(tmp_path / "images.zarr")
    create_images(
        store, "made", planes=["image", "mask"], visits=[1, 2], detectors=[0], shape=(700, 1100),
        compression=compression, unit="electron",
    )  # fmt: skip
    for plane, dtype in (("image", "float32"), ("mask", "int32")):
        pixels = pixels_of("holes", (700, 1100), dtype)
        write_plane(store, "made", plane, (1, 0), pixels)
        command = [
            sys.executable,
            "-c",
            READ,
            str(tmp_path / "images.zarr/made" / plane),
            str(tmp_path / "read"),
        ]
        subprocess.run(command, check=True, cwd=tmp_path)
        np.testing.assert_array_equal(np.load(tmp_path / "read.npy"), pixels)


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize(("dtype", "fill"), [("float32", np.nan), ("int32", 0)])
def test_pixels_that_end_within_a_chunk(compression, dtype, fill):
    pixels = pixels_of("all", (50, 60), dtype)
    kept = {}
    array = zarr.create_array(
        MemoryStore(kept), shape=(2, 1, 50, 60), dtype=dtype, chunks=(1, 1, 20, 24),
        shards=(1, 1, 60, 72), compressors=codecs(compression), fill_value=fill, zarr_format=3,
    )  # fmt: skip
    array[1, 0] = pixels
    assert joined(ShardFormat.of(array), pixels).tobytes() == kept["c/1/0/0/0"].to_bytes()
