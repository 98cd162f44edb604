"""Mutated files: each ends in a good visit image or an error of ours, soon and in little memory."""

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from skysub.errors import SkysubError
from skysub.visit.fits.file import open_fits
from skysub.visit.fits.read import read_visit_header, read_visit_image
from tests.visit.mutants import without_sums

MUTATIONS_PER_LAYOUT = 90
LAYOUTS = ("afw-none", "afw-lossless", "afw-lossy16", "afw-psf", "lsst_images", "decam", "plain", "sdss")
# what headers, tables and codecs take whatever the size of the image
OVERHEAD = 2 * 2**20

_CARDS = (
    b"NAXIS1  =           2147483647", b"NAXIS2  =                   -1", b"NAXIS   =                  999",
    b"BITPIX  =                   64", b"PCOUNT  =        1099511627776", b"ZNAXIS1 =              9999999",
    b"ZNAXIS2 =                    1", b"ZTILE1  =                    0", b"ZCMPTYPE= 'HCOMPRESS_1'   ",
    b"ZCMPTYPE= 'NOCOMPRESS '       ", b"TFORM1  = '1PB(4294967295)'   ", b"MP_BAD  =                   99",
    b"BUNIT   = 'parsnip '          ", b"BSCALE  =                  NaN", b"EXTNAME = 'MASK    '          ",
    b"CRVAL1  =                1E400", b"CTYPE1  = 'RA---ZZZ'          ", b"TFIELDS =                    9",
    b"END                           ", b"XTENSION= 'TABLE   '          ", b"GCOUNT  =                    7",
)  # fmt: skip


def mutated(rng, raw):
    """A copy with one to three things wrong, most of them in headers."""
    data = bytearray(raw)
    heads = [i for i in range(0, len(data), 80) if data[i : i + 8] in (b"SIMPLE  ", b"XTENSION")]
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(0, 8)
        start = int(rng.choice(heads))
        at = min(start + 80 * int(rng.integers(0, 60)), len(data) - 80)
        match kind:
            case 0:
                data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del data[int(rng.integers(0, len(data))) :]
                data.extend(b"" if rng.random() < 0.5 else bytes(2880))
            case 2:
                new = _CARDS[int(rng.integers(0, len(_CARDS)))]
                data[at : at + 80] = new.ljust(80)
            case 3:
                keyword = _CARDS[int(rng.integers(0, len(_CARDS)))]
                where = data.find(keyword[:9], start)
                if where >= 0:
                    data[where : where + 80] = keyword.ljust(80)
            case 4:
                data[at : at + 80] = rng.integers(0, 256, 80, np.uint8).tobytes()
            case 5:
                data[at + 10 : at + 30] = f"{int(rng.integers(-5, 2**40)):>20}".encode()
            case 6:
                length = int(rng.integers(1, 4000))
                place = int(rng.integers(0, len(data)))
                data[place : place + length] = rng.integers(
                    0, 256, min(length, max(len(data) - place, 0)), np.uint8
                ).tobytes()
            case _:
                del data[at : at + 80]
        heads = [head for head in heads if head < len(data) - 80] or [0]
        if len(data) < 200:
            break
    return bytes(data)


def unpacked_size(path):
    with open_fits(path) as file:
        return sum(max(4 * int(np.prod(hdu.shape)), hdu.nbytes) if hdu.shape else 0 for hdu in file.hdus)


def beside(path):
    return (
        [path.with_name(path.name.replace("ooi", product)) for product in ("ood", "oow")]
        if "ooi" in path.name
        else []
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutated_files_end_well(tmp_path, files, layout):
    source = files[layout]
    # sums would keep all that follows from being reached
    raw = without_sums(source.read_bytes())
    target = tmp_path / source.name
    for other in beside(source):
        shutil.copy(other, tmp_path / other.name)
    size = sum(unpacked_size(path) for path in (source, *beside(source)))
    read_visit_image(source)
    rng = np.random.default_rng(sum(layout.encode()))
    good, refused, nameless, slowest = 0, 0, 0, 0.0
    for index in range(MUTATIONS_PER_LAYOUT):
        target.write_bytes(mutated(rng, raw))
        began = time.monotonic()
        tracemalloc.start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                header = read_visit_header(target)
                image = read_visit_image(target)
        except SkysubError as error:
            refused += 1
            nameless += str(tmp_path) not in str(error)
        else:
            good += 1
            assert image.shape == header.shape == image.mask.shape
            assert image.image.dtype == np.float32
            named = image.planes.bits(*image.planes)
            assert not (image.mask & ~named).any()
            if image.variance is not None:
                assert (image.variance[image.mask == 0] > 0).all()
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        slowest = max(slowest, time.monotonic() - began)
        assert peak < 4 * size + OVERHEAD, f"mutation {index} took {peak} bytes for {size}"
    assert good + refused == MUTATIONS_PER_LAYOUT
    assert nameless == 0
    # files with DATASUM are hardly ever taken for good by chance; without it flips of pixels are
    assert refused > MUTATIONS_PER_LAYOUT // 4
    # a hang would be minutes
    assert slowest < 30


def test_there_are_enough_of_them():
    assert MUTATIONS_PER_LAYOUT * len(LAYOUTS) >= 500


def looked_at(tmp_path, files, count, seed, *, bombs):
    """What came of mutants of every layout, read by a process that may have one GiB."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for layout in LAYOUTS:
        for path in (files[layout], *beside(files[layout])):
            shutil.copy(path, folder / path.name)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.visit.mutants",
            folder,
            str(count),
            str(seed),
            "bombs" if bombs else "",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        # address space of threads that are not needed
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_one_card_changed_ends_well(tmp_path, files):
    found = looked_at(tmp_path, files, 40, 1, bombs=False)
    assert found["raw"] == []
    assert set(found["ends"]) == {"good", "refused"}
    assert sum(found["ends"].values()) == 2 * 40 * len(LAYOUTS)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_five_thousand_cards_and_fifty_bombs_end_well(tmp_path, files, seed):
    found = looked_at(tmp_path, files, 125, 100 + seed, bombs=seed == 0)
    print(found)
    assert found["raw"] == []
    assert set(found["ends"]) == {"good", "refused"}
    assert found["bombs"] == (0 if seed else 52)
    assert found["peak"] < 2**30
    assert found["slowest"][0] < 30
