"""The over-subtraction flag against galaxies whose loss is known: who is named, and who lost light.

    python benchmarks/over_subtraction.py [--seeds 1,2,3] [--shape 2048x2048] [--flows default,lsst]

Scenes are made by GalSim (`benchmarks/foreign`), which shares no code with skysub.simulation: a field of
galaxies and stars, and eight more galaxies of half-light radii from 5 to 150 pixels and mean surface
brightnesses from 22.5 to 26.5 mag/arcsec2, some with de Vaucouleurs' profile. What a galaxy truly lost is the
background less the true sky and less the light of undetected sources, summed within four half-light radii,
over its light.

For each flow of calibrate_image: galaxies found, those that truly lost more than 5 %, the share of them that
the flag names, and the share of those named that did; of all, and of those whose background is known to 5 %
of their light, as the table's overSubtraction_lossErr says.
"""

from __future__ import annotations

import argparse
import math
import pickle
import sys
import time
from pathlib import Path

import galsim
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from foreign import detector, skies, sources
from foreign.kinds import kind_of, stream

import skysub
from skysub.pipeline.aperture_fields import fields_of
from skysub.pipeline.reprocess_visit_image import reprocess_visit_image
from skysub.visit.calibrations import find_calibrations
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

LOSS = 0.05
RADII = 4.0
PLANTED = 8
ZERO_POINT = 0.5
"""nJy per electron: any will do."""


def make_wcs(shape):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, -30.0]
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    wcs.wcs.set()
    return wcs


def make_field(seed, shape):
    """Visit image, true sky with undetected light, and the planted galaxies: x, y, radius, flux, n."""
    kind = kind_of("r30s_slope031_27", "A", seed)
    rng = stream("over_subtraction", "A", seed, "planted")
    planes = sources.render(
        sources.draw_catalogue(kind, shape, stream("over_subtraction", "A", seed, "catalogue")),
        kind,
        shape,
        detector.noise_of(kind),
    )
    light = planes.detected + planes.undetected
    psf = sources.make_psf(kind)
    planted = []
    for _ in range(PLANTED):
        radius = math.exp(rng.uniform(math.log(5), math.log(150)))
        brightness, n = rng.uniform(22.5, 26.5), float(rng.choice([1.0, 1.0, 1.0, 2.5, 4.0]))
        x, y = (rng.uniform(0.06 * edge, 0.94 * edge) for edge in (shape[1], shape[0]))
        flux = 2 * math.pi * radius**2 * kind.surface(brightness)
        profile = galsim.Sersic(n=n, half_light_radius=radius, flux=flux, trunc=10 * radius)
        profile = profile.shear(q=rng.uniform(0.5, 1.0), beta=rng.uniform(0, 180) * galsim.degrees)
        image = galsim.ImageF(shape[1], shape[0])
        galsim.Convolve(profile, psf, gsparams=galsim.GSParams(maximum_fft_size=32768)).drawImage(
            image, center=galsim.PositionD(x + 1, y + 1), scale=1.0, method="no_pixel"
        )
        light += image.array
        planted.append((x, y, radius, flux, n, brightness))
    sky = skies.light_of_sky(kind, shape, stream("over_subtraction", "A", seed, "sky"))
    offsets = np.zeros(shape)
    image, mask = detector.observe(
        sky + light, offsets, np.ones(shape, np.float32), kind, stream("over_subtraction", "A", seed, "noise")
    )
    visit_image = VisitImage(
        image=image,
        mask=mask,
        planes=AFW_PLANES,
        variance=((sky + light) / kind.gain**2 + (kind.read_noise / kind.gain) ** 2).astype(np.float32),
        unit=kind.unit,
        visit=seed,
        detector=1,
        band="r",
        exposure_time=30.0,
        gain=kind.gain,
        read_noise=kind.read_noise,
        wcs=make_wcs(shape),
        photo_calib=ZERO_POINT,
    )
    truth = (sky + planes.undetected) / kind.gain
    return visit_image, truth, [(x, y, r, f / kind.gain, n, b) for x, y, r, f, n, b in planted]


def one(seed, flow, shape):
    """Rows of planted galaxies: size, brightness, n, true loss, predicted loss, its error, flag, found."""
    visit_image, truth, planted = make_field(seed, shape)
    result = skysub.calibrate_image(visit_image, skysub.CalibrateImageConfig.named(flow))
    preliminary = result.preliminary_visit_image
    background = result.preliminary_visit_image_background
    correction = result.aperture_correction
    calibrations = find_calibrations(
        visit_image,
        calibrated=preliminary,
        aperture_corrections=None if correction is None else fields_of(correction),
    )
    started = time.process_time()
    final = reprocess_visit_image(
        visit_image, background, calibrations, mask=preliminary.mask, planes=preliminary.planes
    )
    seconds = time.process_time() - started
    off = background.evaluate().astype(np.float64) - truth
    y, x = np.ogrid[: shape[0], : shape[1]]
    table = final.source
    primary = np.nonzero(table["detect_isPrimary"])[0]
    rows = []
    for gx, gy, radius, flux, n, brightness in planted:
        within = np.hypot(x - gx, y - gy) < RADII * radius
        lost = float(off[within].sum() / flux)
        apart = np.hypot(table["x"][primary] - gx, table["y"][primary] - gy)
        near = primary[apart < max(3.0, 0.3 * radius)]
        if not len(near):
            rows.append((seed, radius, brightness, n, lost, np.nan, np.nan, False, False))
            continue
        k = near[np.argmax(np.nan_to_num(table["apFlux_12_0_instFlux"][near]))]
        rows.append(
            (
                seed,
                radius,
                brightness,
                n,
                lost,
                float(table["overSubtraction_loss"][k]),
                float(table["overSubtraction_lossErr"][k]),
                bool(table["overSubtraction_flag"][k]),
                True,
            )
        )
    return rows, seconds


def score(rows):
    lost = np.array([row[4] > LOSS for row in rows])
    named = np.array([row[7] for row in rows])
    return int(lost.sum()), int(named.sum()), int((lost & named).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--shape", default="2048x2048")
    parser.add_argument("--flows", default="default,lsst")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    shape = tuple(int(n) for n in options.shape.split("x"))
    for flow in options.flows.split(","):
        rows = []
        for seed in (int(text) for text in options.seeds.split(",")):
            kept = options.cache and options.cache / f"over_{flow}_{seed}_{options.shape}.pkl"
            if kept and kept.exists():
                made, seconds = pickle.loads(kept.read_bytes())
            else:
                made, seconds = one(seed, flow, shape)
                if kept:
                    kept.write_bytes(pickle.dumps((made, seconds)))
            for row in made:
                print(
                    f"{flow:8s} seed {row[0]} r_e {row[1]:6.1f} mu {row[2]:.1f} n {row[3]:.1f} "
                    f"lost {row[4]:7.3f} predicted {row[5]:7.3f} +- {row[6]:.3f} "
                    f"{'FLAG' if row[7] else '' if row[8] else 'not found'}",
                    flush=True,
                )
            rows += [row for row in made if row[8]]
        sure = [row for row in rows if row[6] < LOSS]
        for what, some in (("all found", rows), (f"of them background known to {LOSS:.0%}", sure)):
            lost, named, both = score(some)
            print(
                f"{flow:8s} {what}: {len(some)} galaxies, {lost} lost more than {LOSS:.0%}, {named} named; "
                f"named of those that lost {both / max(1, lost):.2f}, that lost of those named "
                f"{both / max(1, named):.2f}"
            )


if __name__ == "__main__":
    main()
