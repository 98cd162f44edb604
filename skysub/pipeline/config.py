"""What a user may choose about the calibration of one detector's image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from skysub.background.config import BackgroundConfig
from skysub.background.robust import RobustConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import ConfigError
from skysub.pipeline.characterise import PsfConfig
from skysub.pipeline.cosmic_rays import CosmicRayConfig
from skysub.sources.mask import SourceMaskConfig
from skysub.visit.plane_table import planes_with
from skysub.visit.planes import check_plane_names

__all__ = ["CalibrateImageConfig", "CorrectionsConfig", "SkyConfig"]

_LEAST_SUPERPIXEL = 32
"""Edge below which superpixels are not made smaller, pixel."""
_PER_DEGREE = 2.5
"""Superpixels along the shorter axis, for each degree of the polynomial, that an image should have."""


@dataclass(frozen=True, slots=True)
class CorrectionsConfig:
    """Small known biases of the sky level, each of which can be left out.

    Parameters
    ----------
    clip_skew
        Counts are skewed, and a clip that is symmetric about the mean cuts more of the upper tail.
    noise_peaks
        Masking every peak above a threshold also masks the peaks of noise, never its troughs.
    masked_faint
        The mask leaves out sources down to ``peak_threshold``, fainter than the 5 sigma from which catalogues
        hold them. Their light belongs to the background, and is added by the counts of brighter ones.
    faint_light
        Estimate the light of sources too faint to be masked, from the counts of those just bright enough. It
        stays in the background of record, and is a product beside it (`skysub.FaintLight`).
    faint_magnitudes
        That light, in magnitudes' worth of the light per magnitude of sources at 14 to 28 sigma. It ranges
        over 0.3 to 6 with slope and end of the counts, which no single image knows.
    faint_uncertainty
        Relative uncertainty of that number.
    """

    clip_skew: bool = True
    noise_peaks: bool = True
    masked_faint: bool = True
    faint_light: bool = True
    faint_magnitudes: float = 2.2
    faint_uncertainty: float = 0.4

    def __post_init__(self) -> None:
        for name in ("faint_magnitudes", "faint_uncertainty"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} must be zero or a positive number, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class SkyConfig:
    """How sky and source mask are found in turns.

    Parameters
    ----------
    background
        Superpixels, clip and highest order.
    robust
        Weights over superpixels and the prior on high degrees.
    mask
        The source mask.
    corrections
        Of the level.
    structure
        Add structure of the sky that the model does not follow to its uncertainty.
    amplifiers
        Look for steps between amplifiers and for drift of their rows; what there is evidence of is a layer
        of its own in the background (`skysub.background.amplifiers.AmplifierBackground`).
    passes
        Turns of mask and background at most.
    tolerance
        They end when the model moves by less than this fraction of its own error, rms over superpixels.
    """

    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    robust: RobustConfig = field(default_factory=RobustConfig)
    mask: SourceMaskConfig = field(default_factory=SourceMaskConfig)
    corrections: CorrectionsConfig = field(default_factory=CorrectionsConfig)
    structure: bool = True
    amplifiers: bool = True
    passes: int = 5
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.passes, bool) or not isinstance(self.passes, int) or self.passes < 1:
            raise ConfigError(f"passes must be a whole number of at least 1, not {self.passes!r}")
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise ConfigError(f"tolerance must be a positive number, not {self.tolerance!r}")

    def for_shape(self, shape: tuple[int, int]) -> SkyConfig:
        """Return these settings with superpixels small enough for an image of ``shape`` (ny, nx).

        Superpixels are halved, down to 32 pixels, until there are two and a half times as many of them
        along the shorter axis as the polynomial has degrees: a few large ones, most of them partly masked,
        tell neither structure of the sky from light nor one degree from another. Images of up to 1792
        pixels are concerned.
        """
        background = self.background
        while (
            min(SuperpixelGrid.over(shape, background).shape) < _PER_DEGREE * background.order
            and min(background.superpixel_xy) >= 2 * _LEAST_SUPERPIXEL
        ):
            size_x, size_y = background.superpixel_xy
            background = replace(background, superpixel=(size_x // 2, size_y // 2))
        return replace(self, background=background)


@dataclass(frozen=True, slots=True)
class CalibrateImageConfig:
    """Settings of `skysub.calibrate_image`; `named` gives the two that ship.

    Parameters
    ----------
    flow
        ``"default"``: source mask and robust sky in turns. ``"lsst"``: the flow of LSST's Data Preview 1,
        four layers of background with plain detection between them.
    sky
        Settings of the sky.
    fwhm
        Full width at half maximum of the PSF to start from, pixel.
    cosmic_rays, psf
        How cosmic rays are found and the PSF is modelled; None to leave either out. Aperture correction
        and zero points need the PSF.
    ignored_planes, saturated_planes
        Mask planes whose pixels are left out; those of the second kind still count as light in detection.
    """

    flow: Literal["default", "lsst"] = "default"
    sky: SkyConfig = field(default_factory=SkyConfig)
    fwhm: float = 4.0
    cosmic_rays: CosmicRayConfig | None = field(default_factory=CosmicRayConfig)
    psf: PsfConfig | None = field(default_factory=PsfConfig)
    ignored_planes: tuple[str, ...] = planes_with("no_science")
    saturated_planes: tuple[str, ...] = planes_with("saturated")

    def __post_init__(self) -> None:
        if self.flow not in {"default", "lsst"}:
            raise ConfigError(f"flow must be default or lsst, not {self.flow!r}")
        if not (math.isfinite(self.fwhm) and self.fwhm > 0):
            raise ConfigError(f"fwhm must be a positive number of pixels, not {self.fwhm!r}")
        if self.flow == "default" and self.sky.background.model != "chebyshev":
            raise ConfigError(
                f"sky.background.model is {self.sky.background.model!r}: the default flow tells sources from "
                "sky by a polynomial; a spline goes with flow 'lsst', or is put through the sky once "
                "sources are masked (`final` of skysub.subtract)"
            )
        check_plane_names("ignored_planes", self.ignored_planes)
        check_plane_names("saturated_planes", self.saturated_planes)

    @classmethod
    def named(cls, name: str) -> CalibrateImageConfig:
        """Return a configuration that ships: "default" or "lsst".

        Raises
        ------
        ConfigError
            When there is none of that name.
        """
        if name == "default":
            return cls()
        if name == "lsst":
            background = BackgroundConfig(grid_rule="floor_plus_one")
            return cls(
                flow="lsst",
                sky=replace(SkyConfig(), background=background),
                ignored_planes=("BAD", "EDGE", "NO_DATA"),
                saturated_planes=(),
            )
        raise ConfigError(f"there is no configuration {name!r}; those that ship are default and lsst")
