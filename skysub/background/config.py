"""What a user may choose about the background of one image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from skysub.errors import ConfigError

__all__ = ["BackgroundConfig", "GridRule", "Model", "Statistic", "Undersampled"]

Statistic = Literal["meanclip", "mean", "median"]
Undersampled = Literal["reduce", "raise", "refine"]
GridRule = Literal["ceil", "floor_plus_one"]
Model = Literal["chebyshev", "akima", "natural", "bicubic", "reflect"]

_LEAST_NODES = {"akima": 5, "natural": 3, "bicubic": 2, "reflect": 1}
"""Superpixels along an axis that a spline of a kind needs (LSST afw's rule for its two)."""

MAX_ORDER = 20


@dataclass(frozen=True, slots=True)
class BackgroundConfig:
    """How superpixels are cut, summarised and fit; the defaults are LSST's.

    Parameters
    ----------
    superpixel
        Edge of a superpixel in pixels: one number, or ``(x, y)``. The image is divided evenly into
        superpixels of about this size, as LSST does, not into this size plus a remainder.
    statistic
        ``"meanclip"`` (iterative clipped mean), ``"mean"`` or ``"median"`` of the good pixels.
    clip_sigma, clip_passes
        Half-width of the clip in standard deviations, and the number of passes, for ``"meanclip"``.
    order
        Total degree of the Chebyshev polynomial.
    weighting
        Weight superpixels by 1 / standard error (LSST's choice, not its square), or all alike.
    undersampled
        When the usable superpixels cannot hold the order: ``"reduce"`` the order, ``"raise"``
        `UndersampledError`, or ``"refine"`` the grid.
    superpixel_filter
        Edge of a median filter over superpixel values (an odd number, LSST uses 3); 0 means none.
    min_good_pixels
        A superpixel with fewer good pixels is not used. LSST has no such limit: 0.
    model
        What is put through the superpixels. ``"chebyshev"``: a polynomial, fit to them (LSST's useApprox).
        The others are splines that pass through each superpixel at its centre; ``order`` and ``weighting``
        have no part in them. ``"akima"``, ``"natural"``: LSST afw's AKIMA_SPLINE and NATURAL_SPLINE;
        ``"bicubic"``: natural, with the ends of SExtractor and sep; ``"reflect"``: photutils'. They differ
        beyond the outermost centres, and Akima's also near jumps: see `skysub.background.spline`.
    grid_rule
        ``"ceil"``: ceil(n / superpixel) superpixels along an axis (LSST since 2025);
        ``"floor_plus_one"``: n // superpixel + 1 (LSST Data Preview 1).

    Raises
    ------
    ConfigError
        When a value is out of range.
    """

    superpixel: int | tuple[int, int] = 128
    statistic: Statistic = "meanclip"
    clip_sigma: float = 3.0
    clip_passes: int = 3
    order: int = 6
    weighting: bool = True
    undersampled: Undersampled = "reduce"
    superpixel_filter: int = 0
    min_good_pixels: int = 0
    grid_rule: GridRule = "ceil"
    model: Model = "chebyshev"

    def __post_init__(self) -> None:
        size = self.superpixel
        if isinstance(size, (tuple, list)):
            if len(size) != 2:
                raise ConfigError(f"superpixel must be one number or (x, y), not {size!r}")
            object.__setattr__(self, "superpixel", tuple(size))
        for edge in self.superpixel_xy:
            _whole("superpixel", edge, low=1)
        _choice("statistic", self.statistic, get_args(Statistic))
        _choice("undersampled", self.undersampled, get_args(Undersampled))
        _choice("grid_rule", self.grid_rule, get_args(GridRule))
        _choice("model", self.model, get_args(Model))
        if not (math.isfinite(self.clip_sigma) and self.clip_sigma > 0):
            raise ConfigError(f"clip_sigma must be a positive number, not {self.clip_sigma!r}")
        _whole("clip_passes", self.clip_passes, low=1)
        _whole("order", self.order, low=0, high=MAX_ORDER)
        _whole("min_good_pixels", self.min_good_pixels, low=0)
        _whole("superpixel_filter", self.superpixel_filter, low=0)
        if self.superpixel_filter and self.superpixel_filter % 2 == 0:
            raise ConfigError(f"superpixel_filter must be odd or 0, not {self.superpixel_filter}")

    @property
    def superpixel_xy(self) -> tuple[int, int]:
        """Edges of a superpixel along x and y, pixel."""
        size = self.superpixel
        return size if isinstance(size, tuple) else (size, size)

    @property
    def needed_superpixels(self) -> int:
        """Superpixels along an axis that the model needs."""
        return self.order + 1 if self.model == "chebyshev" else _LEAST_NODES[self.model]


def _whole(name: str, value: object, *, low: int, high: int | None = None) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name} must be a whole number {span}, not {value!r}")


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
