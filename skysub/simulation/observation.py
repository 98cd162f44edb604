"""Where a detector lies on the focal plane, where a visit points, and how the night was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import ConfigError
from skysub.simulation.scene import BANDS, PIXEL_SCALE
from skysub.simulation.seeds import random_stream

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from skysub.simulation.scene import Scene

__all__ = ["FIELD_RADIUS", "GAP", "Observation", "observe", "spiral"]

GAP = 50
"""Pixels between neighbouring detectors."""
FIELD_RADIUS = 1.75 * 3600 / PIXEL_SCALE
"""Radius of the field, pixel."""
MOFFAT_BETA = 3.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One detector in one visit.

    Three systems of pixels of 0.2 arcsec: the detector's (x, y); the focal plane's, with the optical
    axis at 0 and ``focal = pixel + (x0, y0)``; the sky's, tangent plane of the field's centre.
    """

    visit: int
    detector: int
    band: str
    shape: tuple[int, int]
    """(ny, nx), pixel."""
    x0: float
    y0: float
    """Focal-plane position of the centre of pixel (0, 0), pixel."""
    dither_x: float
    dither_y: float
    """Sky position of the optical axis, pixel."""
    rotation: float
    """Of the camera on the sky, radian."""
    seeing: float
    """Full width at half maximum of the PSF, a Moffat profile of beta 3, pixel."""
    zero_point: float
    """AB magnitude of one electron in this exposure."""
    exposure_time: float
    """Second."""
    sky_level: float
    """Dark sky, electron per pixel."""
    read_noise: float
    """Electron."""
    ra: float
    dec: float
    """Centre of the field, degree."""

    @property
    def psf_scale(self) -> float:
        """Scale radius of the Moffat profile, pixel."""
        return self.seeing / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))

    @property
    def psf_area(self) -> float:
        """Effective number of pixels of the PSF, (sum p)^2 / sum p^2: 5 pi a^2 / 4 for beta 3."""
        return 1.25 * math.pi * self.psf_scale**2

    @property
    def depth(self) -> float:
        """Magnitude of a point source at 5 sigma of the dark sky."""
        return self.zero_point - 2.5 * math.log10(5 * math.sqrt(self.psf_area * self.pixel_variance))

    @property
    def pixel_variance(self) -> float:
        """Of an empty pixel of the dark sky, electron squared."""
        return self.sky_level + self.read_noise**2

    def flux(self, magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
        """Electrons of sources of these AB magnitudes."""
        flux: NDArray[np.float64] = 10 ** (0.4 * (self.zero_point - magnitude))
        return flux

    def surface_brightness(self, magnitude: float) -> float:
        """Electrons per pixel of a surface brightness, mag per arcsec2."""
        return 10 ** (0.4 * (self.zero_point - magnitude)) * PIXEL_SCALE**2

    def to_pixel(
        self, sky_x: NDArray[np.float64], sky_y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Detector pixels of sky positions."""
        dx, dy = sky_x - self.dither_x, sky_y - self.dither_y
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        return c * dx - s * dy - self.x0, s * dx + c * dy - self.y0

    def sky_of_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Sky position of a detector pixel."""
        fx, fy = x + self.x0, y + self.y0
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        return c * fx + s * fy + self.dither_x, -s * fx + c * fy + self.dither_y

    def wcs(self) -> WCS:
        """TAN projection of this detector, about the field's centre; east is to the left at rotation 0."""
        from astropy.wcs import WCS

        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = [self.ra, self.dec]
        x, y = self.to_pixel(np.zeros(1), np.zeros(1))
        wcs.wcs.crpix = [float(x[0]) + 1, float(y[0]) + 1]
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        scale = PIXEL_SCALE / 3600
        wcs.wcs.cd = [[-scale * c, -scale * s], [-scale * s, scale * c]]
        wcs.wcs.set()
        return wcs


def observe(
    scene: Scene, visit: int, detector: int, *, seed: int, shape: tuple[int, int], band: str
) -> Observation:
    """Place a detector and draw the conditions of a visit.

    Raises
    ------
    ConfigError
        When a number is negative, the shape too small, or the band is not LSST's.
    """
    if band not in BANDS:
        raise ConfigError(f"there is no band {band!r}; choose one of {', '.join(BANDS)}")
    if min(seed, visit, detector) < 0:
        raise ConfigError(f"seed, visit and detector must be 0 or more, not {seed}, {visit} and {detector}")
    if len(shape) != 2 or min(shape) < 16:
        raise ConfigError(f"shape must be (ny, nx) of at least 16 x 16 pixels, not {shape}")
    light = BANDS[band]
    ny, nx = shape
    night = random_stream(seed, "night", visit)
    dither = scene.dither * night.standard_normal(2)
    rotation = math.radians(scene.rotation) * night.standard_normal()
    seeing = scene.seeing * (1 + 0.05 * night.standard_normal())
    visit_zero_point = 0.02 * night.standard_normal()
    detector_zero_point = 0.005 * random_stream(seed, "throughput", detector).standard_normal()
    column, row = spiral(detector)
    shift = scene.axis_distance * 3600 / PIXEL_SCALE / math.sqrt(2)
    return Observation(
        visit=visit,
        detector=detector,
        band=band,
        shape=(ny, nx),
        x0=column * (nx + GAP) - (nx - 1) / 2 + shift,
        y0=row * (ny + GAP) - (ny - 1) / 2 + shift,
        dither_x=float(dither[0]),
        dither_y=float(dither[1]),
        rotation=rotation,
        seeing=float(np.clip(seeing, 0.7 * scene.seeing, 1.5 * scene.seeing)),
        zero_point=light.zero_point
        + 2.5 * math.log10(scene.exposure_time)
        + visit_zero_point
        + detector_zero_point,
        exposure_time=scene.exposure_time,
        sky_level=light.sky * scene.exposure_time / 30,
        read_noise=scene.electronics.read_noise,
        ra=scene.ra,
        dec=scene.dec,
    )


def spiral(number: int) -> tuple[int, int]:
    """Column and row of a detector on the focal plane: a square spiral from the centre outward.

    The first n detectors form a compact block whatever n is (4: 2 x 2; 9: 3 x 3), and a detector's
    place does not depend on how many are simulated.
    """
    x = y = 0
    step, leg = 1, 0
    directions = ((1, 0), (0, 1), (-1, 0), (0, -1))
    while number > 0:
        dx, dy = directions[leg % 4]
        walked = min(step, number)
        x, y = x + dx * walked, y + dy * walked
        number -= walked
        leg += 1
        step += leg % 2 == 0
    return x, y
