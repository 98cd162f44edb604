"""A campaign's unit beside what a user's own script does with the same file.

    python benchmarks/own_script.py FILE.fits [--rounds 3]

The script: astropy reads, sep finds a background, extracts, masks what it found and finds the background
again, astroscrappy searches for cosmic rays, photutils builds a PSF from the brightest round objects, astropy
writes. Both are timed in one process with one thread, by processor time, with and without cosmic rays and
PSF; the unit writes its products to a Zarr store. Medians in seconds; the first round compiles and
is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from astropy.io import fits

BARE = ["steps.calibrate_image.cosmic_rays=null", "steps.calibrate_image.psf=null"]
STARS = 60


def script(path: Path, output: Path, *, whole: bool) -> None:
    import sep

    with fits.open(path, memmap=False) as hdus:
        header = hdus[1].header
        image, mask, variance = (
            np.ascontiguousarray(hdu.data.astype(hdu.data.dtype.newbyteorder("="))) for hdu in hdus[1:4]
        )
    ignored = mask != 0
    first = sep.Background(image, mask=ignored, bw=128, bh=128)
    sep.set_extract_pixstack(3_000_000)
    found, segments = sep.extract(
        image - first.back(), 3.0, err=first.globalrms, mask=ignored, segmentation_map=True
    )
    sky = sep.Background(image, mask=ignored | (segments > 0), bw=128, bh=128)
    image = image - sky.back()
    if whole:
        import astroscrappy

        rays, image = astroscrappy.detect_cosmics(
            image, inmask=ignored, invar=variance, gain=1.0, psffwhm=4.0
        )
        mask = mask | (rays.astype(mask.dtype) << 3)
        effective_psf(image, found)
    planes = [fits.ImageHDU(image, header), fits.ImageHDU(mask), fits.ImageHDU(variance)]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(output, overwrite=True)


def effective_psf(image: np.ndarray, found: np.ndarray) -> None:
    from astropy.nddata import NDData
    from astropy.table import Table
    from photutils.psf import EPSFBuilder, extract_stars

    ny, nx = image.shape
    inside = (found["x"] > 20) & (found["y"] > 20) & (found["x"] < nx - 20) & (found["y"] < ny - 20)
    round_ones = found[
        inside & (found["flag"] == 0) & (found["a"] < 1.3 * found["b"]) & (found["peak"] < 5e4)
    ]
    chosen = round_ones[np.argsort(-round_ones["flux"])][:STARS]
    stars = extract_stars(NDData(image), Table({"x": chosen["x"], "y": chosen["y"]}), size=27)
    EPSFBuilder(oversampling=2, maxiters=5, progress_bar=False)(stars)


def unit(path: Path, scratch: Path, *, whole: bool):
    from skysub.campaign.plan import make_plan
    from skysub.campaign.recipe import load_recipe
    from skysub.campaign.unit import process_units

    out = scratch / f"unit-{whole}"
    recipe = load_recipe("calibrate_image", inputs=[str(path)], settings=[] if whole else BARE)
    run = make_plan(recipe, out).freeze()
    (one,) = run.units()

    def work() -> None:
        (receipt,) = process_units(str(run.folder), [one.to_json()])
        assert receipt.state == "done", receipt.message
        shutil.rmtree(run.folder / "units")

    return work


def seconds(work, rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| what | script | skysub | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scratch = Path(folder)
        for whole in (False, True):
            name = "with cosmic rays and PSF" if whole else "without"
            work = unit(options.file, scratch, whole=whole)
            ours = seconds(work, options.rounds)
            theirs = seconds(
                lambda whole=whole: script(options.file, scratch / "out.fits", whole=whole), options.rounds
            )
            print(f"| {name} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
