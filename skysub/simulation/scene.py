"""What a simulated sky holds: every number of every component, and the scenes that have a name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from skysub.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "BANDS",
    "PIXEL_SCALE",
    "SCENES",
    "Airglow",
    "Band",
    "Cirrus",
    "Defects",
    "Electronics",
    "Fringes",
    "Galaxies",
    "Moonlight",
    "Probes",
    "ScatteredLight",
    "Scene",
    "Stars",
    "Vignetting",
    "named_scene",
]

PIXEL_SCALE = 0.2
"""arcsec per pixel."""


@dataclass(frozen=True, slots=True)
class Band:
    """What a filter sees; LSST's numbers."""

    zero_point: float
    """AB magnitude of one electron per second."""
    sky: float
    """Dark sky, electron per pixel in 30 s."""
    galaxy_color: float
    """Mean magnitude of galaxies in this band minus that in i."""
    fringing: bool = False


BANDS: Mapping[str, Band] = {
    "u": Band(26.52, 29.0, 2.2),
    "g": Band(28.51, 383.0, 1.0),
    "r": Band(28.36, 877.0, 0.35),
    "i": Band(28.17, 1456.0, 0.0),
    "z": Band(27.78, 2224.0, -0.2, fringing=True),
    "y": Band(26.82, 2329.0, -0.3, fringing=True),
}


@dataclass(frozen=True, slots=True)
class Airglow:
    """The dark sky itself: a level, a gradient over the field and a slow wave, visit by visit."""

    gradient: float = 0.02
    """Change over the field's diameter, fraction of the level."""
    wave: float = 0.004
    """Amplitude of the wave, fraction of the level."""
    wave_length: float = 0.5
    """Degree."""


@dataclass(frozen=True, slots=True)
class Moonlight:
    """Moonlight scattered in the air: a level with a plane and a quadratic term."""

    level: float = 0.0
    """Fraction of the dark sky."""
    gradient: float = 0.0
    """Change over the field's diameter, fraction of the dark sky; from 0.02 to 0.2 on real nights."""
    curvature: float = 0.0
    """Quadratic term at the field's edge, fraction of the dark sky."""


@dataclass(frozen=True, slots=True)
class ScatteredLight:
    """Ghost annuli and wedges with sharp edges, placed over the focal plane visit by visit."""

    ghosts: float = 0.0
    """Mean number of ghost annuli per cell of 4200 x 4200 pixels."""
    wedges: float = 0.0
    """Mean number of wedges per cell."""
    faintest: float = 1e-4
    """Lowest surface brightness, fraction of the dark sky; drawn evenly in its logarithm."""
    brightest: float = 1e-2
    radius: tuple[float, float] = (600.0, 2500.0)
    """Outer radius of annuli and reach of wedges, pixel."""
    edge: float = 4.0
    """Width of the edges, pixel."""


@dataclass(frozen=True, slots=True)
class Fringes:
    """Interference of night-sky lines in the silicon; a pattern fixed to the detector, in z and y alone."""

    amplitude: float = 0.0
    """Half of peak to peak, fraction of the dark sky."""
    period: float = 150.0
    """Pixel."""


@dataclass(frozen=True, slots=True)
class Vignetting:
    """Light lost toward the edge of the field, and what the flat field leaves of it."""

    depth: float = 0.0
    """Light lost at the edge of the field, fraction."""
    start: float = 1.3
    """Distance from the axis where it begins, degree."""
    flat_error: float = 0.02
    """Part of the loss that the flat field misses."""
    masked_below: float = 0.3
    """Pixels with less light than this are NO_DATA, as no flat can save them."""


@dataclass(frozen=True, slots=True)
class Cirrus:
    """Dust of the Galaxy in starlight: a Gaussian field of power k^index, fixed on the sky."""

    surface_brightness: float | None = None
    """Mean, mag per arcsec2; from 26 to 28 on real skies. None: no cirrus."""
    index: float = -2.9
    contrast: float = 0.4
    """Standard deviation over mean."""
    outer_scale: float = 0.5
    """Power is flat above this scale, degree."""


@dataclass(frozen=True, slots=True)
class Galaxies:
    """Field galaxies: 46 x 10^(0.31 (i - 25)) per arcmin2 and magnitude, flatter beyond i = 26."""

    density: float = 1.0
    """Multiple of the real density."""
    brightest: float = 17.0
    faintest: float = 28.0
    """i magnitude."""
    faint_slope: float = 0.2
    """Slope beyond i = 26."""


@dataclass(frozen=True, slots=True)
class Stars:
    """Stars of slope 0.18: at density 1, 6 per arcmin2 brighter than 24.5."""

    density: float = 1.0
    brightest: float = 15.0
    faintest: float = 27.0
    slope: float = 0.18
    aureole: float = 0.03
    """Part of a star's light in its r^-2 aureole."""
    aureole_core: float = 10.0
    aureole_radius: float = 1500.0
    """Where the aureole flattens, and where it ends, pixel."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Objects put near the middle of every detector, to be scored."""

    galaxy_radius: float | None = None
    """Effective radius of one large exponential galaxy, pixel."""
    small_galaxies: int = 0
    """Number of exponential galaxies with effective radii of 5 to 20 pixel."""
    surface_brightness: float = 25.0
    """Mean within the effective radius, mag per arcsec2, of both kinds."""
    star_magnitudes: tuple[float, ...] = ()
    """One bright star per detector; the detectors take these in turn."""


@dataclass(frozen=True, slots=True)
class Electronics:
    """What amplifiers and detectors add."""

    read_noise: float = 5.5
    """Electron."""
    saturation: float = 133_000.0
    """Electron."""
    amplifier_pedestal: float = 0.0
    """Standard deviation among the 16 amplifiers, electron."""
    amplifier_gain: float = 0.0
    """Standard deviation of the gain error among amplifiers, fraction of the sky."""
    detector_offset: float = 0.0
    """Standard deviation among detectors, electron."""


@dataclass(frozen=True, slots=True)
class Defects:
    """Bad columns, fixed to a detector, and cosmic rays, per 4000 x 4072 pixels and 30 s."""

    bad_columns: int = 8
    cosmic_rays: int = 60


@dataclass(frozen=True, slots=True)
class Scene:
    """A sky and the camera that looks at it; ``named_scene`` makes the ones with a name.

    All positions and patterns follow from the seed; a scene holds only amplitudes and densities.
    """

    name: str = "custom"
    airglow: Airglow = field(default_factory=Airglow)
    moonlight: Moonlight = field(default_factory=Moonlight)
    scattered: ScatteredLight = field(default_factory=ScatteredLight)
    fringes: Fringes = field(default_factory=Fringes)
    vignetting: Vignetting = field(default_factory=Vignetting)
    cirrus: Cirrus = field(default_factory=Cirrus)
    galaxies: Galaxies = field(default_factory=Galaxies)
    stars: Stars = field(default_factory=Stars)
    probes: Probes = field(default_factory=Probes)
    electronics: Electronics = field(default_factory=Electronics)
    defects: Defects = field(default_factory=Defects)
    band: str = "r"
    """The band to take when none is asked for."""
    exposure_time: float = 30.0
    """Second."""
    seeing: float = 4.0
    """Mean full width at half maximum of the PSF, pixel; visits vary by 5 %."""
    dither: float = 100.0
    """Standard deviation of the pointing, pixel."""
    rotation: float = 0.3
    """Standard deviation of the camera's rotation, degree."""
    axis_distance: float = 0.0
    """Distance of detector 0 from the optical axis, degree."""
    ra: float = 62.0
    dec: float = -37.0
    """Centre of the field, degree."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scene:
        """Scene from what `dataclasses.asdict` made of one, possibly by way of JSON."""
        made = {}
        for item in fields(cls):
            if item.name not in values:
                continue
            value = values[item.name]
            part = _PARTS.get(item.name)
            if part is not None:
                value = part(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
            made[item.name] = value
        return cls(**made)


_PARTS: Mapping[str, Callable[..., Any]] = {
    "airglow": Airglow,
    "moonlight": Moonlight,
    "scattered": ScatteredLight,
    "fringes": Fringes,
    "vignetting": Vignetting,
    "cirrus": Cirrus,
    "galaxies": Galaxies,
    "stars": Stars,
    "probes": Probes,
    "electronics": Electronics,
    "defects": Defects,
}

_QUIET = Scene(name="quiet")


def _moonlit(gradient: float) -> Scene:
    return replace(_QUIET, moonlight=Moonlight(level=1.5, gradient=gradient, curvature=gradient / 2))


def _ghosts(brightest: float) -> Scene:
    return replace(_QUIET, scattered=ScatteredLight(ghosts=2.0, wedges=0.7, brightest=brightest))


def _cirrus(surface_brightness: float) -> Scene:
    return replace(_QUIET, cirrus=Cirrus(surface_brightness))


def _galaxy(radius: float) -> Scene:
    return replace(_QUIET, probes=Probes(galaxy_radius=radius, small_galaxies=12))


def _crowded(density: float) -> Scene:
    return replace(_QUIET, stars=Stars(density=density, brightest=16.0, aureole=0.0))


def _bright_star(magnitude: float | None) -> Scene:
    magnitudes = (8.0, 10.0, 12.0, 14.0) if magnitude is None else (magnitude,)
    return replace(_QUIET, probes=Probes(star_magnitudes=magnitudes))


def _fringes(amplitude: float) -> Scene:
    return replace(_QUIET, fringes=Fringes(amplitude=amplitude), band="z")


def _amplifiers(pedestal: float) -> Scene:
    return replace(
        _QUIET,
        electronics=Electronics(amplifier_pedestal=pedestal, amplifier_gain=2e-4, detector_offset=2.0),
    )


def _vignetted(depth: float) -> Scene:
    return replace(_QUIET, vignetting=Vignetting(depth=depth), axis_distance=1.5)


SCENES: Mapping[str, tuple[Callable[[Any], Scene], float | None, str]] = {
    "quiet": (lambda _: _QUIET, None, "a dark, clear night: airglow, galaxies, stars and their aureoles"),
    "moonlit": (_moonlit, 0.1, "moonlight of 1.5 times the dark sky; NUMBER: its gradient over the field"),
    "ghosts": (_ghosts, 1e-2, "ghost annuli and wedges; NUMBER: the brightest, fraction of the sky"),
    "cirrus": (_cirrus, 26.5, "Galactic cirrus; NUMBER: mean surface brightness, mag per arcsec2"),
    "galaxy": (_galaxy, 100.0, "one large galaxy per detector; NUMBER: effective radius, pixel"),
    "crowded": (_crowded, 30.0, "dense star field without aureoles; NUMBER: density, 1 for 6 per arcmin2"),
    "bright_star": (
        _bright_star,
        None,
        "one star of magnitude 8, 10, 12 or 14 per detector; NUMBER: magnitude",
    ),
    "fringes": (_fringes, 2e-3, "fringes in z or y; NUMBER: amplitude, fraction of the sky"),
    "amplifiers": (_amplifiers, 1.0, "steps at amplifiers and detectors; NUMBER: pedestals, electron"),
    "vignetted": (_vignetted, 0.9, "the edge of the field; NUMBER: light lost there, fraction"),
}
"""Name -> how it is made of a number, that number's default, and what it shows."""


def named_scene(name: str) -> Scene:
    """Scene of a name, such as ``"quiet"``, or of a name and its number, such as ``"galaxy:50"``.

    Raises
    ------
    ConfigError
        When there is no scene of this name, or the number is none.
    """
    kind, colon, number = name.partition(":")
    if kind not in SCENES:
        raise ConfigError(f"there is no scene {kind!r}; choose one of {', '.join(SCENES)}")
    make, value, _ = SCENES[kind]
    if colon:
        if kind == "quiet":
            raise ConfigError("the scene 'quiet' takes no number")
        try:
            value = float(number)
        except ValueError:
            raise ConfigError(f"scene {name!r}: {number!r} is not a number") from None
        if not 0 <= value < 1e6:
            raise ConfigError(f"scene {name!r}: the number must be 0 or more, and below a million")
    return replace(make(value), name=name)
