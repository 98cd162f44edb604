"""Files with one card changed, and bombs, read under a limit of memory; started as a process of its own.

``python -m tests.visit.mutants FOLDER COUNT SEED`` reads COUNT mutants of each file in FOLDER and all bombs,
and prints what came of them as JSON.
"""

import bz2
import gzip
import json
import lzma
import os
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from tests.visit.bombs import header, image_hdu

LIMIT = 2**30
"""Bytes of address space, libraries included."""

VALUES = (
    "0", "1", "-1", "2", "3", "7", "8", "16", "31", "32", "63", "64", "-32", "-64", "999", "1000",
    "2147483647", "2147483648", "4294967296", "1099511627776", "9223372036854775807",
    "9223372036854775808", "-2147483648", "1E400", "-1E400", "1E-400", "NaN", "INF", "1.5", "77.",
    "77.0", "1D3", "0.0", "-0.0", "T", "F", "''", "'  '", "'T'", "'77.'", "'-1'", "'MASK'", "'IMAGE'",
    "'BINTABLE'", "'RA---TAN'", "'LINEAR'", "'TPV'", "'nJy'", "'m/'", "'1PB(9)'", "'1QB(4294967295)'",
    "'999999999E'", "'0E'", "'(2,3)'", "'RICE_1'", "'PLIO_1'", "'HCOMPRESS_1'", "'GZIP_1'",
    "'NOCOMPRESS'", "'SUBTRACTIVE_DITHER_2'", "'unclosed", "&", "", "/ only a comment", "(1,2)",
    "1" * 60, "'" + "x" * 66 + "'",
)  # fmt: skip


def without_sums(raw):
    """The same file with its CHECKSUM and DATASUM cards turned into comments."""
    return re.sub(
        rb"(?:Z?HECKSUM|CHECKSUM|Z?DATASUM) *= ", lambda found: b"COMMENT   ".ljust(len(found[0])), raw
    )


def headers_of(raw):
    """Places of all cards."""
    places, position = [], 0
    while position < len(raw):
        start = position
        while raw[position : position + 80] != b"END".ljust(80):
            places.append(position)
            position += 80
        position += 80
        text = raw[start:position]

        def number(key, text=text):
            found = re.search(rb"%s *= +(-?\d+)" % key, text)
            return int(found[1]) if found else 0

        axes = [number(b"NAXIS%d " % i) for i in range(1, number(b"NAXIS ") + 1)]
        size = abs(number(b"BITPIX")) // 8 * (number(b"PCOUNT") + int(np.prod(axes))) if axes else 0
        position = -(-position // 2880) * 2880 + -(-size // 2880) * 2880
    return places


def mutant(rng, raw, places):
    """A copy in which one card is another."""
    at = int(rng.choice(places))
    card = raw[at : at + 80]
    match rng.integers(0, 7):
        case 0 | 1 | 2:
            value = VALUES[int(rng.integers(0, len(VALUES)))].encode()
            card = (card[:10] if card[8:9] == b"=" else b"VISIT   = ") + value.rjust(20)
        case 3:
            digit = [i for i in range(10, 80) if card[i : i + 1].isdigit()] or [10]
            place = int(rng.choice(digit))
            card = card[:place] + b"%d" % rng.integers(0, 10) + card[place + 1 :]
        case 4:
            place = int(rng.integers(0, 30))
            card = card[:place] + bytes([card[place] ^ 1 << int(rng.integers(0, 8))]) + card[place + 1 :]
        case 5:
            other = int(rng.choice(places))
            card = raw[other : other + 80]
        case _:
            card = b""
    return raw[:at] + card[:80].ljust(80) + raw[at + 80 :]


def bombs():
    """Name and bytes of files that claim, or unpack to, far more than they are."""
    image = image_hdu(np.random.default_rng(1).normal(9, 1, (60, 80)).astype(np.float32), VISIT=1, DETECTOR=2)
    for name, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        for size in (2**28, 2**30 + 2**28):
            edge = int((size / 4) ** 0.5)
            head = header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=edge, NAXIS2=edge, VISIT=1, DETECTOR=2)
            honest = _packed(pack, head, 4 * edge * edge // 2880 * 2880 + 2880)
            yield f"honest-{size}.fits.{name}", honest
            yield f"behind-{size}.fits.{name}", _packed(pack, image, size)
            yield f"before-{size}.fits.{name}", _packed(pack, b"", size)
            yield f"header-{size}.fits.{name}", _packed(pack, header(SIMPLE="T", BITPIX=8)[:2800], size, b" ")
            many = header(XTENSION="'IMAGE'", BITPIX=8, NAXIS=0)
            yield f"extensions-{size}.fits.{name}", _packed(pack, image, size, many)
    for edge in (2**15, 2**20, 2**31, 2**40):
        for naxis in (2, 9):
            axes = {f"NAXIS{i}": edge for i in range(1, naxis + 1)}
            first = {"SIMPLE": "T", "BITPIX": -64, "NAXIS": naxis}
            yield f"axes-{edge}-{naxis}.fits", header(**first, **axes, VISIT=1, DETECTOR=2) + bytes(2880)
            table = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1, "PCOUNT": 0}
            tiles = {"ZIMAGE": "T", "ZBITPIX": -32, "ZNAXIS": naxis, "ZCMPTYPE": "'GZIP_1'", "TFIELDS": 1}
            tiles |= {"TFORM1": "'1PB(9)'", "TTYPE1": "'COMPRESSED_DATA'", "VISIT": 1, "DETECTOR": 2}
            tiles |= {f"Z{keyword}": length for keyword, length in axes.items()}
            empty = header(SIMPLE="T", BITPIX=8, NAXIS=0)
            yield f"tiles-{edge}-{naxis}.fits", empty + header(**table, **tiles) + bytes(2880)
    for bits in (8, -32, -64):
        for edge in (20_000, 45_000):
            yield f"sparse-{bits}-{edge}.fits", (bits, edge)


def _packed(pack, begin, size, piece=bytes(2880)):
    """What a stream of ``begin`` and ``size`` bytes of a repeated piece packs to, made in parts."""
    if pack is bz2.compress:
        packer = bz2.BZ2Compressor(1)
    elif pack is lzma.compress:
        packer = lzma.LZMACompressor(preset=0)
    else:
        import zlib

        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(begin)]
    repeated = piece * (2**20 // len(piece))
    parts += [packer.compress(repeated) for _ in range(size // len(repeated))]
    return b"".join([*parts, packer.flush()])


def _put(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    bits, edge = content
    path.write_bytes(header(SIMPLE="T", BITPIX=bits, NAXIS=2, NAXIS1=edge, NAXIS2=edge, VISIT=1, DETECTOR=2))
    os.truncate(path, 2880 + -(-edge * edge * abs(bits) // 8 // 2880) * 2880)


def main(folder, count, seed, with_bombs):
    from skysub.errors import SkysubError
    from skysub.visit.fits.read import read_visit_headers, read_visit_image

    sources = sorted(path for path in Path(folder).iterdir() if path.is_file() and "mutant" not in path.name)
    work = Path(folder) / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    raw_of = {path: without_sums(path.read_bytes()) for path in sources if not re.search("oo[dw]", path.name)}
    for path in sources:
        shutil.copy(path, work / path.name)
    ends, raw_errors, slowest = Counter(), [], (0.0, "")
    bomb_files = list(bombs()) if with_bombs else []
    for path in raw_of:
        # libraries and compiled loops come before the limit
        read_visit_image(path)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    def look(path, what):
        nonlocal slowest
        for read in (read_visit_headers, read_visit_image):
            began = time.monotonic()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    read(path)
                end = "good"
            except SkysubError as error:
                end = "refused" if str(path) in str(error) and len(str(error)) < 4000 else "nameless"
                if end == "nameless":
                    raw_errors.append(f"{what}: {read.__name__}: {error}"[:500])
            except BaseException:  # noqa: BLE001 - whatever it is, it is not ours
                end = "raw"
                raw_errors.append(f"{what}: {read.__name__}: {traceback.format_exc()[-1500:]}")
            ends[end] += 1
            slowest = max(slowest, (time.monotonic() - began, what))

    rng = np.random.default_rng(seed)
    for path, raw in raw_of.items():
        places = headers_of(raw)
        for _ in range(count):
            made = mutant(rng, raw, places)
            (work / path.name).write_bytes(made)
            at = next((i for i in range(0, len(raw), 80) if raw[i : i + 80] != made[i : i + 80]), 0)
            look(work / path.name, f"{path.name} at {at}: {made[at : at + 80]!r} for {raw[at : at + 80]!r}")
    for name, content in bomb_files:
        _put(work / name, content)
        look(work / name, name)
        (work / name).unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {"ends": ends, "raw": raw_errors, "slowest": slowest, "peak": peak, "bombs": len(bomb_files)}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "bombs")
