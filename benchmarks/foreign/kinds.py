"""The kinds of scene: what each is made of, and a second drawing of every kind."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass

import numpy as np

__all__ = ["KINDS", "Kind", "kind_of", "stream"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Everything that is fixed about a scene before its random numbers are drawn."""

    about: str
    sky: float = 877.0
    """Level of the sky, electron per pixel."""
    sky_magnitude: float = 21.2
    """Surface brightness of that sky, mag/arcsec2: it ties magnitudes to electrons."""
    pixel: float = 0.2
    """Edge of a pixel, arcsec."""
    fwhm: float = 4.0
    """Of the PSF, pixel."""
    beta: float | None = None
    """Exponent of a Moffat PSF; None for a Kolmogorov PSF."""
    gain: float = 1.0
    """Electrons per adu."""
    whole: bool = True
    """Pixels are whole numbers of adu."""
    unit: str = "adu"
    read_noise: float = 6.0
    """Electrons."""
    full_well: float = 110_000.0
    """Electrons at which pixels saturate and bleed."""
    shape: str = "mixed"
    """Of the sky: "linear", "mixed" (tilt, curvature, slow wave), "hill", "moon" (1/r^2), "two_moons",
    "twilight" (exponential), "dome" (r^2 and r^4) or "airglow" (a field of k^-4)."""
    gradient: float = 0.02
    """Highest minus lowest sky over the level."""
    slope: float = 0.31
    """Of the galaxy counts, per magnitude."""
    end: float = 27.0
    """Magnitude at which galaxy counts end."""
    density: float = 1.0
    """Of galaxies, in units of 22 per arcmin2 and magnitude at 24."""
    clustering: float = 0.0
    """Share of galaxies that belong to groups."""
    stars: float = 1.0
    """Density of stars, in units of 6 per arcmin2 brighter than 24.5."""
    aureole: float = 0.0
    """Share of the light of sources in an r^-2 aureole."""
    bad_columns: int = 3
    cosmic_rays: int = 0
    correlation: float = 0.0
    """Sigma of the Gaussian by which noise is smoothed, as resampling does, pixel."""
    fringes: float = 0.0
    """Amplitude over the level."""
    ghosts: float = 0.0
    """Brightest ghost ring over the level."""
    amplifiers: tuple[int, int] = (1, 1)
    """Rows and columns of amplifiers."""
    steps: float = 0.0
    """Typical step between amplifiers, electron."""
    rows: float = 0.0
    """Amplitude of bands of 25 to 100 rows in each amplifier, electron."""
    dead_amplifier: bool = False
    vignetted: bool = False
    """A corner without light."""
    cirrus: float | None = None
    """Surface brightness of the rms of cirrus on all scales, mag/arcsec2."""
    target: str = ""
    """One large object: "galaxy", "envelope" or "spiral"."""
    target_radius: float = 150.0
    """Its half-light radius, pixel."""
    target_brightness: float = 25.0
    """Its mean surface brightness within that radius, mag/arcsec2."""

    @property
    def zero_point(self) -> float:
        """Magnitude of one electron in the exposure."""
        return self.sky_magnitude + 2.5 * np.log10(self.sky / self.pixel**2)

    def surface(self, magnitude: float) -> float:
        """Electrons per pixel of a surface brightness in mag/arcsec2."""
        return 10 ** (0.4 * (self.zero_point - magnitude)) * self.pixel**2


KINDS: dict[str, Kind] = {
    "r30s_slope031_27": Kind(about="30 s in r; counts of slope 0.31 that end at 27"),
    "deep20000_slope031_28": Kind(
        about="bright and deep; counts of slope 0.31 that end at 28", sky=20_000, end=28, gain=2, beta=3.5
    ),
    "deep20000_slope025_26": Kind(
        about="bright and deep; counts of slope 0.25 that end at 26", sky=20_000, slope=0.25, end=26
    ),
    "gradient20_fwhm7": Kind(
        about="a sky that changes by 20 %, seeing of 7 pixels", sky=5000, gradient=0.2, fwhm=7, gain=1.5
    ),
    "half_arcsec_pixels": Kind(
        about="undersampled: pixels of 0.5 arcsec, a PSF of 2.2",
        sky=5000,
        pixel=0.5,
        fwhm=2.2,
        beta=3.0,
        gain=2,
    ),
    "drizzled": Kind(
        about="resampled: noise of neighbouring pixels correlated",
        sky=5000,
        correlation=0.55,
        whole=False,
        unit="electron",
    ),
    "galaxy150": Kind(about="a galaxy of r_e 150 px, 25 mag/arcsec2 within it", target="galaxy"),
    "envelope200": Kind(
        about="light between the galaxies of a cluster, r_e 200 px, 27 mag/arcsec2 within it",
        sky=5000,
        target="envelope",
        target_radius=200,
        target_brightness=27.0,
        clustering=0.3,
    ),
    "cirrus": Kind(about="cirrus with an rms of 26.5 mag/arcsec2", sky=2000, cirrus=26.5, gain=0.7),
    "fringes": Kind(
        about="fringes of 0.4 % of the sky", sky=8000, sky_magnitude=18.6, fringes=0.004, gain=1.6, end=26
    ),
    "ghost_rings": Kind(about="rings of scattered light with sharp edges", sky=2000, ghosts=0.006),
    "amplifier_steps": Kind(
        about="16 amplifiers with steps of 2 e-, one dead; a vignetted corner",
        sky=1500,
        amplifiers=(2, 8),
        steps=2.0,
        dead_amplifier=True,
        vignetted=True,
        beta=3.0,
    ),
    "row_drift": Kind(
        about="two amplifiers with a step of 1.2 e- and bands of rows of +-1 e-",
        sky=900,
        amplifiers=(1, 2),
        steps=1.2,
        rows=1.0,
        gain=4.0,
        whole=False,
        fwhm=3.3,
        beta=3.0,
        read_noise=5,
    ),
    "aureole": Kind(about="8 % of the light of sources in an r^-2 aureole", aureole=0.08),
    "crowded15": Kind(about="stars 15 times as dense as at high galactic latitude", stars=15, beta=3.5),
    "u_like": Kind(
        about="30 e- of sky", sky=30, sky_magnitude=23.05, fwhm=4.8, gain=0.5, density=0.7, stars=0.6
    ),
    "short_read_noise": Kind(
        about="a short exposure, read noise of 15 e-, whole numbers of 5 e-",
        sky=120,
        sky_magnitude=20.5,
        read_noise=15,
        gain=5,
        cosmic_rays=60,
    ),
    "spiral_corner": Kind(
        about="a spiral with arms and knots in the frame's corner",
        target="spiral",
        target_radius=210,
        target_brightness=23.3,
        gain=0.9,
        fwhm=5,
    ),
    "moon_near": Kind(
        about="the Moon near the field: 1/r^2, 10 % over the detector", sky=5000, shape="moon", gradient=0.1
    ),
    "clustered": Kind(
        about="clustered galaxies with counts of slope 0.45", slope=0.45, clustering=0.5, sky=2000, gain=1.2
    ),
    "twilight": Kind(
        about="twilight: 15,000 e- that fall exponentially by 30 %",
        sky=15_000,
        sky_magnitude=18.7,
        shape="twilight",
        gradient=0.3,
        gain=1.8,
        end=26,
    ),
    "two_moons": Kind(
        about="light from beyond two sides of the frame, 1/r^2 each, 12 %",
        sky=3000,
        shape="two_moons",
        gradient=0.12,
        gain=1.3,
        beta=3.2,
    ),
    "dome_crowded": Kind(
        about="illumination that falls by 15 % from a centre, stars 10 times as dense",
        sky=1500,
        shape="dome",
        gradient=0.15,
        stars=10,
        beta=3.0,
    ),
    "infrared": Kind(
        about="20,000 e- of airglow with waves, 3 %",
        sky=20_000,
        sky_magnitude=17.5,
        shape="airglow",
        gradient=0.03,
        fwhm=3.2,
        pixel=0.3,
        gain=2.5,
        read_noise=12,
        slope=0.28,
        end=26,
    ),
}


def stream(kind: str, variant: str, seed: int, part: str) -> np.random.Generator:
    """Random numbers of one part of one scene, which no other part disturbs."""
    names = [zlib.crc32(word.encode()) for word in (kind, variant, part)]
    return np.random.default_rng([seed, *names])


def kind_of(name: str, variant: str = "A", seed: int = 1) -> Kind:
    """Return the kind as it stands (variant "A"), or with its parameters drawn anew for each seed ("B").

    What makes the kind what it is stays: only its amounts change.
    """
    if name not in KINDS:
        raise KeyError(f"no kind {name!r}; there are {', '.join(KINDS)}")
    kind = KINDS[name]
    if variant == "A":
        return kind
    if variant != "B":
        raise KeyError(f"no variant {variant!r}; there are A and B")
    rng = stream(name, variant, seed, "kind")
    coarse = kind.fwhm < 3
    changes = {
        "sky": float(np.clip(kind.sky * 10 ** rng.uniform(-0.3, 0.3), 20, 30_000)),
        "fwhm": float(rng.uniform(1.7, 2.9) if coarse else np.clip(kind.fwhm * rng.uniform(0.75, 1.4), 3, 7)),
        "beta": float(rng.uniform(2.6, 4.5)) if rng.random() < 0.5 else None,
        "gain": float(np.clip(kind.gain * 10 ** rng.uniform(-0.4, 0.4), 0.5, 5)),
        "read_noise": float(np.clip(kind.read_noise * rng.uniform(0.6, 1.6), 3, 15)),
        "slope": float(np.clip(kind.slope + rng.uniform(-0.06, 0.06), 0.25, 0.45)),
        "end": float(np.clip(kind.end + rng.uniform(-1, 1), 26, 28)),
        "density": kind.density * float(rng.uniform(0.6, 1.5)),
        "stars": kind.stars * float(rng.uniform(0.6, 1.6)),
        "gradient": kind.gradient * float(rng.uniform(0.6, 1.4)),
        "full_well": float(rng.choice([60_000, 90_000, 150_000])),
        "bad_columns": int(rng.integers(0, 8)),
        "aureole": kind.aureole * float(rng.uniform(0.6, 1.4)),
        "fringes": kind.fringes * float(rng.uniform(0.5, 1.5)),
        "ghosts": kind.ghosts * float(rng.uniform(0.4, 1.6)),
        "steps": kind.steps * float(rng.uniform(0.6, 1.5)),
        "rows": kind.rows * float(rng.uniform(0.6, 1.5)),
        "correlation": kind.correlation * float(rng.uniform(0.8, 1.4)),
        "target_radius": kind.target_radius * float(rng.uniform(0.7, 1.15)),
        "target_brightness": kind.target_brightness + float(rng.uniform(-0.6, 0.5)),
    }
    if kind.sky > 15_000:
        # still what it is: above the full well there would be no image
        changes["full_well"] = 150_000.0
    if kind.unit == "adu" and rng.random() < 0.3:
        changes["unit"] = "electron"
    if kind.shape == "mixed" and not kind.cirrus:
        changes["shape"] = str(rng.choice(["mixed", "linear", "hill"]))
    if kind.cirrus:
        changes["cirrus"] = kind.cirrus + float(rng.uniform(-0.7, 0.7))
    if kind.amplifiers == (2, 8):
        changes["amplifiers"] = ((2, 8), (1, 4), (2, 2), (2, 4))[int(rng.integers(4))]
    return dataclasses.replace(kind, **changes)
