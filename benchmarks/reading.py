"""How fast a visit is read, beside a plain read of the same bytes, and astropy and fitsio on the same files.

Usage: python benchmarks/reading.py [--shape 4000x4072] [--rounds 7]

One full-size detector with image, mask and variance is written in every compression; each reader opens it in
turn, in one process, files in the page cache, and the medians and their ratio to the plain read are printed.
A header-only opening is timed over many files.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from skysub.visit.fits.read import read_visit_header, read_visit_image
from skysub.visit.fits.write import write_visit_image
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES


def make(shape: tuple[int, int]) -> VisitImage:
    rng = np.random.default_rng(1)
    image = rng.normal(900, 30, shape).astype(np.float32)
    mask = np.where(rng.random(shape, np.float32) < 0.08, AFW_PLANES.bits("DETECTED"), 0).astype(np.int32)
    variance = np.full(shape, 900, np.float32) + rng.normal(0, 5, shape).astype(np.float32)
    return VisitImage(image=image, mask=mask, planes=AFW_PLANES, variance=variance, visit=1, detector=0)


def plain_read(path: Path) -> int:
    with path.open("rb", buffering=0) as stream:
        data = np.empty(path.stat().st_size, np.uint8)
        return stream.readinto(data)


def by_astropy(path: Path) -> list[np.ndarray]:
    with fits.open(path, memmap=False) as hdus:
        return [hdu.data.astype(hdu.data.dtype.newbyteorder("=")) for hdu in hdus[1:4]]


def by_fitsio(path: Path) -> list[np.ndarray]:
    import fitsio

    with fitsio.FITS(path) as hdus:
        return [hdus[i].read() for i in (1, 2, 3)]


def medians(readers: dict, path: Path, rounds: int) -> dict[str, float]:
    seconds = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            began = time.perf_counter()
            read(path)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", default="4000x4072")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    ny, nx = (int(n) for n in options.shape.split("x"))
    readers = {"plain read": plain_read, "skysub": read_visit_image, "astropy": by_astropy}
    try:
        import fitsio  # noqa: F401

        readers["fitsio"] = by_fitsio
    except ImportError:
        print("fitsio is not installed and is left out")
    visit_image = make((ny, nx))
    pixels = 3 * 4 * ny * nx / 1e6
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'compression':12}{'on disk':>10}{'reader':>14}{'seconds':>10}{'MB/s':>16}{'x plain':>9}")
        for compression in ("none", "lossy16", "lossless"):
            path = Path(folder) / f"{compression}.fits"
            write_visit_image(visit_image, path, compression=compression, threads=2)
            read_visit_image(path)
            found = medians(readers, path, options.rounds)
            for name, seconds in found.items():
                disk = f"{path.stat().st_size / 1e6:.0f} MB"
                rate = pixels / seconds
                print(
                    f"{compression:12}{disk:>10}{name:>14}{seconds:10.3f}{rate:16.0f}"
                    f"{seconds / found['plain read']:9.1f}"
                )
        began = time.perf_counter()
        for _ in range(1000):
            read_visit_header(path)
        print(f"header of one file: {time.perf_counter() - began:.2f} ms (mean of 1000)")


if __name__ == "__main__":
    main()
