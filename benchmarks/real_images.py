"""Real images: residuals on sky blocks that no method has seen, pictures, and a galaxy's flux.

    python benchmarks/real_images.py DATA                                # two tables
    python benchmarks/real_images.py DATA --only apogee4,lco --draws 1
    python benchmarks/real_images.py DATA --pictures docs/images/real    # image, mask, model, residual

DATA is a folder with the public images named in IMAGES. 15 % of the blocks are hidden, in each of some random
draws, and a block is judged on its pixels away from sources: those of 2 sigma above the median of their
surroundings, grown by 6 pixels, a mask that owes nothing to any of the methods. Figures are in the image's
unit: mean and rms about zero of the blocks' mean residual, and what of that rms is noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import ndimage

import skysub
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

IMAGES = {
    "sdss_star": "sdss/post_isr_image_5754_13.fits",
    "sdss_frame": "sdss/frame-g-000094-1-0131.fits.bz2",
    "emmi": "eso_emmi/galaxies.fits",
    "lco": "lco/banzai_test_frame.fits.fz",
    "apogee4": "apogee/aligned_eso085-030-004.fit",
    "apogee5": "apogee/aligned_eso085-030-005.fit",
    "decam4": "decam/testcase4__c4d_170316_062107_ooi_z_ls9.N2.fits",
    "decam5": "decam/testcase5__c4d_150411_035242_ooi_z_v1-N10.fits",
    "decam8": "decam/testcase8__c4d_171113_060340_ooi_r_ls9.N6.fits",
}
GALAXIES = ("decam8",)
"""Images that a galaxy fills: what a quality plane says of its middle is not believed."""

BRIGHT = {
    "sdss_star": [(830, 580, 300), (1990, 60, 170)],
    "sdss_frame": [(1750, 1489, 750), (1010, 80, 180)],
    "apogee4": [(575, 125, 150), (515, 325, 100), (40, 640, 60), (330, 90, 100)],
    "apogee5": [(575, 125, 150), (515, 325, 100), (40, 640, 60), (330, 90, 100)],
    "decam8": [(140, 160, 150)],
}
"""Circles (x, y, radius) of light that reaches far, in which nothing is judged, pixel."""


def read(data: Path, name: str) -> VisitImage:
    """One image, sky and all, its defects in BAD."""
    from astropy.io import fits

    path = data / IMAGES[name]
    if name == "sdss_star":
        return skysub.read_visit_image(path)
    with fits.open(path) as hdus:
        planes = [hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2]
        image = planes[0].astype(np.float32)
        bad = np.zeros(image.shape, bool)
        if name == "sdss_frame":
            image = image / hdus[1].data[None, :] + sky_of_sdss(hdus)
        elif name == "lco":
            bad = planes[1] > 0
    if name.startswith("decam") and name not in GALAXIES:
        bad = fits.getdata(str(path).replace("_ooi_", "_ood_")) != 0
    return VisitImage(
        image=np.ascontiguousarray(image, np.float32),
        mask=bad.astype(np.int32) * AFW_PLANES.bits("BAD"),
        planes=AFW_PLANES,
        variance=None,
        unit="adu",
        visit=1,
        detector=1,
        band="r",
        exposure_time=1.0,
    )


def sky_of_sdss(hdus) -> np.ndarray:
    """The sky that SDSS subtracted from a frame, counts."""
    table = hdus[2].data[0]
    places = np.meshgrid(table["YINTERP"], table["XINTERP"], indexing="ij")
    return ndimage.map_coordinates(table["ALLSKY"], places, order=1, mode="nearest")


def smoothed_detection(residual: np.ndarray, bad: np.ndarray, *, sigmas: float, growth: int) -> np.ndarray:
    """Pixels above some sigma after smoothing by 1.7 pixels, grown."""
    residual = np.where(bad, 0, residual)
    light = ndimage.gaussian_filter(residual, 1.7)
    noise = 1.4826 * np.median(np.abs(light[~bad][::5] - np.median(light[~bad][::5])))
    return ndimage.binary_dilation(light > sigmas * noise, iterations=growth)


def judged(visit_image: VisitImage, name: str) -> np.ndarray:
    """Pixels to judge by: away from whatever stands out of its surroundings."""
    image = visit_image.image
    bad = (visit_image.mask != 0) | ~np.isfinite(image)
    size = 8
    ny, nx = (n // size * size for n in image.shape)
    filled = np.where(bad, np.median(image[~bad]), image)
    blocks = np.median(filled[:ny, :nx].reshape(ny // size, size, nx // size, size), axis=(1, 3))
    local = ndimage.median_filter(blocks, 11, mode="nearest")
    local = np.pad(
        np.kron(local, np.ones((size, size))), [(0, image.shape[0] - ny), (0, image.shape[1] - nx)], "edge"
    )
    y, x = np.indices(image.shape, sparse=True)
    for x0, y0, radius in BRIGHT.get(name, ()):
        bad = bad | (np.hypot(x - x0, y - y0) < radius)
    return ~bad & ~smoothed_detection(image - local, bad, sigmas=2.0, growth=6)


def calibrated(visit_image: VisitImage, name: str) -> tuple[np.ndarray, skysub.CalibrateImageResult]:
    config = dataclasses.replace(skysub.CalibrateImageConfig.named(name), cosmic_rays=None, psf=None)
    result = skysub.calibrate_image(visit_image, config)
    return result.preliminary_visit_image_background.evaluate(), result


def models(visit_image: VisitImage) -> dict[str, np.ndarray]:
    """The sky of an image by each method; sep and photutils leave out sources of 5 sigma, grown by 4."""
    import sep
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, SExtractorBackground

    model, result = calibrated(visit_image, "default")
    found = {"default": model, "default uncorrected": model - np.float32(result.sky.corrections.total)}
    found["lsst"] = calibrated(visit_image, "lsst")[0]
    bad = (visit_image.mask != 0) | ~np.isfinite(visit_image.image)
    image = np.where(bad, 0, visit_image.image).astype(np.float32)
    plain = skysub.fit_background(visit_image.image, bad).evaluate()
    mask = bad | smoothed_detection(visit_image.image - plain, bad, sigmas=5.0, growth=4)
    found["sep"] = sep.Background(image, mask=mask, bw=64, bh=64, fw=3, fh=3).back()
    found["photutils"] = Background2D(
        image,
        (64, 64),
        mask=mask,
        filter_size=(3, 3),
        sigma_clip=SigmaClip(sigma=3.0),
        bkg_estimator=SExtractorBackground(),
        exclude_percentile=95,
    ).background
    return found


def residuals(visit_image: VisitImage, name: str, *, draws: int) -> dict[str, np.ndarray]:
    """(n, 2) mean residual of each hidden block and its noise, by method."""
    good = judged(visit_image, name)
    ny, nx = visit_image.shape
    size = 64 if min(ny, nx) > 600 else 24
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(draws):
        chosen = np.random.default_rng(seed).random((-(-ny // size), -(-nx // size))) < 0.15
        hidden = np.kron(chosen, np.ones((size, size)))[:ny, :nx].astype(bool)
        bad = visit_image.mask.dtype.type(visit_image.planes.bits("BAD"))
        seen = visit_image.replace(mask=np.where(hidden, visit_image.mask | bad, visit_image.mask))
        answers = models(seen)
        for j, i in np.argwhere(chosen):
            cut = (slice(j * size, (j + 1) * size), slice(i * size, (i + 1) * size))
            if good[cut].sum() < 0.3 * size * size:
                continue
            pixels = visit_image.image[cut][good[cut]]
            middle = np.median(pixels)
            kept = np.abs(pixels - middle) <= 3 * 1.4826 * np.median(np.abs(pixels - middle)) + 1e-6
            noise = pixels[kept].std() / np.sqrt(kept.sum())
            for method, model in answers.items():
                left = pixels[kept] - model[cut][good[cut]][kept]
                found.setdefault(method, []).append((left.mean(), noise))
    return {method: np.array(values) for method, values in found.items()}


def table(data: Path, names: list[str], draws: int) -> None:
    methods = ["default", "default uncorrected", "lsst", "sep", "photutils"]
    print("| image (sky) | " + " | ".join(methods) + " | noise | blocks | default: masked, flags |")
    print("|" + " --- |" * 9)
    for name in names:
        visit_image = read(data, name)
        found = residuals(visit_image, name, draws=draws)
        cells = [f"{v[:, 0].mean():+.2f}, {np.sqrt(np.mean(v[:, 0] ** 2)):.2f}" for v in found.values()]
        noise = np.sqrt(np.mean(found["default"][:, 1] ** 2))
        model, result = calibrated(visit_image, "default")
        flags = f"{100 * result.sky.mask.masked:.0f} %; " + ", ".join(result.flags)
        cells += [f"{noise:.2f}", str(len(found["default"])), flags]
        print(f"| {name} ({np.median(model):.0f}) | " + " | ".join(cells) + " |", flush=True)


def galaxy_flux(data: Path) -> None:
    """Flux lost by the galaxy of decam8 within 140 pixels, against a constant sky from beyond 190 pixels."""
    visit_image = read(data, "decam8")
    image = visit_image.image
    y, x = np.indices(image.shape)
    radius = np.hypot(x - 136, y - 162)
    far = image[judged(visit_image, "decam8") & (radius > 190)]
    for _ in range(5):
        far = far[np.abs(far - far.mean()) < 3 * far.std()]
    inside = np.isfinite(image) & (radius < 140)
    flux = float((image - far.mean())[inside].sum())
    print(f"\ndecam8: sky {far.mean():.2f}, galaxy {flux:.3g}; flux lost:")
    for method, model in models(visit_image).items():
        print(f"| {method} | {100 * float((model - far.mean())[inside].sum()) / flux:+.1f} % |")


def draw(data: Path, names: list[str], path: Path) -> None:
    """Image, mask, model and residual of each, in blocks of some pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.5 * len(names)), layout="constrained")
    for row, name in zip(figure.subplots(len(names), 4, squeeze=False), names, strict=True):
        visit_image = read(data, name)
        model, result = calibrated(visit_image, "default")
        preliminary = result.preliminary_visit_image
        left_out = preliminary.mask != 0
        size = max(2, min(model.shape) // 120)
        binned = [
            means(values, good, size)
            for values, good in (
                (visit_image.image, np.isfinite(visit_image.image)),
                (left_out.astype(float), np.ones(model.shape, bool)),
                (model, np.ones(model.shape, bool)),
                (preliminary.image, ~left_out & np.isfinite(preliminary.image)),
            )
        ]
        spread = 2 * np.nanstd(binned[3])
        low, high = model.min() - spread, model.max() + spread
        residual = np.where(left_out, np.nan, preliminary.image)
        titles = [
            f"{name}, {low:.4g} to {high:.4g}",
            f"mask, {100 * result.sky.mask.masked:.0f} %",
            f"model, {model.min():.4g} to {model.max():.4g}",
            f"residual, +-{spread:.2g}; mean {np.nanmean(residual):+.2g}",
        ]
        limits = [(low, high), (0, 1), (low, high), (-spread, spread)]
        colours = ["viridis", "Greys", "viridis", "RdBu_r"]
        for axes, values, title, (least, most), colour in zip(
            row, binned, titles, limits, colours, strict=True
        ):
            axes.imshow(values, origin="lower", vmin=least, vmax=most, cmap=colour, interpolation="nearest")
            axes.set_title(title, fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70, pil_kwargs={"quality": 70})
    print(path)


def means(values: np.ndarray, good: np.ndarray, size: int) -> np.ndarray:
    """Means of blocks over their good pixels; NaN where there is less than a fifth of them."""
    ny, nx = (n // size * size for n in values.shape)
    shape = (ny // size, size, nx // size, size)
    count = good[:ny, :nx].reshape(shape).sum((1, 3))
    total = np.where(good, values, 0)[:ny, :nx].reshape(shape).sum((1, 3))
    return np.where(count >= size * size / 5, total / np.maximum(count, 1), np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default=",".join(IMAGES))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="PATH-1.jpg and so on, three images each; no tables")
    options = parser.parse_args()
    names = options.only.split(",")
    if options.pictures is not None:
        for first in range(0, len(names), 3):
            path = options.pictures.with_name(f"{options.pictures.name}-{first // 3 + 1}.jpg")
            draw(options.data, names[first : first + 3], path)
        return
    table(options.data, names, options.draws)
    if "decam8" in names:
        galaxy_flux(options.data)


if __name__ == "__main__":
    main()
