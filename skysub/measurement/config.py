"""Settings of the final detection and measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skysub.errors import ConfigError
from skysub.visit.plane_table import planes_with

__all__ = ["APERTURES", "MeasurementConfig"]

APERTURES = (3.0, 4.5, 6.0, 9.0, 12.0, 17.0, 25.0, 35.0, 50.0, 70.0)
"""Radii of the circular apertures, pixel."""


@dataclass(frozen=True, slots=True)
class MeasurementConfig:
    """How sources are found, told apart and measured.

    Raises
    ------
    ConfigError
        When a number is out of range.
    """

    threshold: float = 4.5
    """Matched-filter signal over noise that a source must reach."""
    grow: float = 2.4
    """Detected footprints are painted this many sigma of the PSF larger, as LSST does."""
    passes: int = 3
    """Searches of the residual after the first detection; 0 takes the peaks of the image alone."""
    fit_steps: int = 4
    """Newton steps of the joint fit after each search."""
    psf_imperfection: float = 0.01
    """Share of a star's light that the PSF model may miss: less than this in a residual is no new source."""
    template_imperfection: float = 0.12
    """The same for templates of extended sources, whose arms and knots are not sources of their own."""
    saturated_imperfection: float = 0.1
    """The same for stars whose core is saturated."""
    most_sources: float = 0.012
    """Sources per pixel, in any cell of 128 pixels, beyond which the faintest are given up: too crowded."""
    noise_cell: int = 128
    """Edge of the cells in which the noise is measured, pixel."""
    sky_sources: int = 100
    sky_radius: float = 8.0
    """Number of empty places that are measured like sources, and the radius that must be empty, pixel."""
    unusable: tuple[str, ...] = planes_with("not_measured")
    """Planes whose pixels carry no light; those an image lacks are passed over."""
    saturated: str = "SAT"
    """Plane of pixels whose light is known to be too little."""
    threads: int = 1
    """Threads to share the work among; the result is bit for bit the same."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("threshold", 1.0, 1e6),
            ("grow", 0.0, 100.0),
            ("passes", 0, 10),
            ("fit_steps", 1, 50),
            ("psf_imperfection", 0.0, 1.0),
            ("template_imperfection", 0.0, 1.0),
            ("saturated_imperfection", 0.0, 1.0),
            ("most_sources", 1e-6, 1.0),
            ("noise_cell", 16, 100_000),
            ("sky_sources", 0, 100_000),
            ("sky_radius", 0.0, 1000.0),
            ("threads", 1, 10_000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not (math.isfinite(value) and least <= value <= most):
                raise ConfigError(f"{name} must be from {least} to {most}, not {value!r}")
