"""PSF models compared on stars whose true PSF is known, made by GalSim: the table of docs/calibrate_image.md.

    python benchmarks/psf_models.py [--stars 150] [--seed 1] [--runs 3]

The true PSF is a Kolmogorov profile with a faint halo, which no Moffat profile is. Its size varies by 10 %
over a detector of 4000 x 4072 pixels and its shape by 0.06. Models are fit to stamps of stars and judged at
40 places without stars: size and e1 against the truth's by adaptive moments, and the sum of abs(model - true)
over a stamp. piff is compared where it is installed. Times are medians of processor time on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import galsim
import numpy as np

from skysub.psf.model import fit_psf
from skysub.psf.stars import adaptive_moments, cut_stamps

SHAPE = (4000, 4072)
SIZE = 31
NOISE = 30.0


def true_profile(x, y):
    """Profile at a place of the detector."""
    u, v = 2 * x / SHAPE[1] - 1, 2 * y / SHAPE[0] - 1
    fwhm = 4.0 * (1 + 0.05 * u + 0.05 * v * v - 0.02 * u * v)
    core = galsim.Kolmogorov(fwhm=fwhm).shear(g1=0.03 * u * v, g2=-0.03 * v)
    halo = galsim.Gaussian(fwhm=4 * fwhm)
    return 0.97 * core + 0.03 * halo


def drawn(x, y, size=SIZE):
    """Profile sampled at pixels (size, size), the pixel's response included, about the nearest pixel."""
    offset = galsim.PositionD(x - round(x), y - round(y))
    image = galsim.Image(size, size, scale=1.0)
    true_profile(x, y).drawImage(image, offset=offset)
    return image.array.astype(np.float64)


def scene(count, seed):
    """Stars far apart: image, places and fluxes."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, NOISE, SHAPE).astype(np.float32)
    cells = [(j, i) for j in range(1, 15) for i in range(1, 15)]
    chosen = rng.permutation(len(cells))[:count]
    at = np.array([cells[k] for k in chosen], float) * 270 + rng.uniform(-60, 60, (count, 2))
    flux = 10 ** rng.uniform(np.log10(2e4), np.log10(6e5), count)
    half = SIZE
    for (y, x), f in zip(at, flux, strict=True):
        cut = slice(round(y) - half, round(y) + half + 1), slice(round(x) - half, round(x) + half + 1)
        image[cut] += rng.normal(0, 1, (2 * half + 1,) * 2) * np.sqrt(f * drawn(x, y, 2 * half + 1).clip(0))
        image[cut] += f * drawn(x, y, 2 * half + 1)
    free = [cells[k] for k in rng.permutation(len(cells)) if k not in set(chosen)][:40]
    places = np.array(free, float) * 270 + rng.uniform(0, 1, (len(free), 2))
    return image, at, flux, places


def judged(stamps, places):
    true = np.array([drawn(x, y) for y, x in places])
    true /= true.sum((1, 2))[:, None, None]
    stamps = stamps / stamps.sum((1, 2))[:, None, None]
    own, theirs = adaptive_moments(stamps), adaptive_moments(true)
    size = own.size / theirs.size - 1
    e1 = own.ellipticity[0] - theirs.ellipticity[0]
    return size.mean(), size.std(), e1.std(), np.abs(stamps - true).sum((1, 2)).mean()


def ours(image, at, places, *, order, residual):
    unusable = np.zeros(SHAPE, bool)
    stars, _ = cut_stamps(image, unusable, at[:, 1], at[:, 0], np.full(len(at), NOISE), size=SIZE)
    psf = fit_psf(stars, shape=SHAPE, order=order)
    if not residual:
        psf = dataclasses.replace(psf, residual=np.zeros_like(psf.residual))
    return psf.stamps(x=places[:, 1], y=places[:, 0])


def with_piff(image, at, places, *, model, interpolation):
    import piff

    whole = galsim.Image(image, xmin=1, ymin=1)
    wcs = galsim.PixelScale(1.0)
    stars = []
    for y, x in at:
        bounds = galsim.BoundsI(
            round(x) + 1 - SIZE // 2,
            round(x) + 1 + SIZE // 2,
            round(y) + 1 - SIZE // 2,
            round(y) + 1 + SIZE // 2,
        )
        cut = whole[bounds].copy()
        cut.wcs = wcs
        weight = galsim.Image(bounds, init_value=1 / NOISE**2, wcs=wcs)
        stars.append(piff.Star(piff.StarData(cut, galsim.PositionD(x + 1, y + 1), weight=weight), None))
    psf = piff.SimplePSF(model, interpolation)
    psf.fit(stars, {0: wcs}, None)
    out = []
    for y, x in places:
        image = galsim.Image(SIZE, SIZE, scale=1.0)
        image.setCenter(round(x) + 1, round(y) + 1)
        psf.draw(x=x + 1, y=y + 1, image=image)
        out.append(image.array.astype(float))
    return np.array(out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stars", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    image, at, _, places = scene(given.stars, given.seed)
    models = {
        "Moffat + mean residual, order 2": lambda: ours(image, at, places, order=2, residual=True),
        "Moffat, order 2": lambda: ours(image, at, places, order=2, residual=False),
        "Moffat + mean residual, constant": lambda: ours(image, at, places, order=0, residual=True),
    }
    try:
        import piff
    except ImportError:
        print("piff is not installed; it is left out")
    else:
        models |= {
            f"piff {piff.__version__} PixelGrid 21, BasisPolynomial 2": lambda: with_piff(
                image,
                at,
                places,
                model=piff.PixelGrid(1.0, 21),
                interpolation=piff.BasisPolynomial(2),
            ),
            f"piff {piff.__version__} Moffat, Polynomial 2": lambda: with_piff(
                image, at, places, model=piff.Moffat(2.6), interpolation=piff.Polynomial(2)
            ),
        }
    ours(image, at[:20], places, order=0, residual=True)
    print("| model | s | size, mean and scatter | e1 scatter | sum of abs(model - true) |")
    print("| --- | --- | --- | --- | --- |")
    for name, made in models.items():
        seconds = []
        for _ in range(given.runs if "piff" not in name else 1):
            clock = time.process_time()
            stamps = made()
            seconds.append(time.process_time() - clock)
        mean, scatter, e1, off = judged(stamps, places)
        taken = f"{statistics.median(seconds):.2g}"
        print(f"| {name} | {taken} | {mean:+.4f}, {scatter:.4f} | {e1:.4f} | {off:.3f} |", flush=True)


if __name__ == "__main__":
    main()
