"""What a user says by hand about files whose layout is not known here, or known differently."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skysub.errors import ConfigError
from skysub.visit.amplifiers import check_amplifiers
from skysub.visit.planes import MaskPlanes

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IngestMap", "by_hand"]


def by_hand(*names: str, **values: object) -> str:
    """How to say entries of an `IngestMap`, in Python and in a recipe, for the messages of readers."""
    given = dict.fromkeys(names, "...") | {name: str(value) for name, value in values.items()}
    python = ", ".join(f"{name}={value}" for name, value in given.items())
    recipe = ", ".join(f"{name}: {value.lower()}" for name, value in given.items())
    return f"IngestMap({python}); in a recipe: `ingest: {{{recipe}}}` under `inputs:`"


@dataclass(frozen=True, kw_only=True)
class IngestMap:
    r"""Where a file keeps what a visit image needs; what is None is found as the file's layout has it.

    With ``image`` given the file is read as this says and no layout is looked for. Without it, the
    other entries stand before what the file's own layout says.

    Parameters
    ----------
    image, mask, variance, weight
        Extensions, by name or number (0 is the primary). ``weight`` is an inverse variance and stands in
        place of ``variance``.
    planes
        Bit by plane name, for ``mask``; without it any pixel that is not zero is BAD.
    visit, detector
        A header keyword ("EXPNUM", "ESO GEN EXPO NO"), or the number itself.
    band
        A header keyword, or ``"=r"``: the band itself.
    exposure_time, gain, read_noise
        A header keyword, or the number itself (s, electron per adu, electron).
    unit
        Unit of the pixels, instead of BUNIT.
    amplifiers
        Which pixels which amplifier read, where neither the header nor
        `skysub.visit.amplifiers.CAMERAS` says it: ``"2x8"``, rows and columns of amplifiers of equal size, or
        sections of the detector by name in FITS's words, ``{"A": "[1:1024,1:4096]", ...}``.
    filename
        Regular expression that is searched in the file's name; its groups ``visit``, ``detector`` and
        ``band`` give those, e.g. ``r"v(?P<visit>\d+)_d(?P<detector>\d+)"``.
    add_sky
        For SDSS frames: add the sky back that SDSS subtracted, and undo its calibration, giving counts.
    bad_variance
        Largest part of the unmasked pixels that may lack a variance (NaN, zero, negative, infinite). Up to
        it such pixels are masked as BAD and NO_DATA, their variance becomes NaN, and `VisitImage.notes` says
        so; above it the variance is taken to be wrong as a whole, which is an error. 0 allows none.
    verify
        Compare headers with their CHECKSUM and data with their DATASUM, where the file has them.

    Raises
    ------
    ConfigError
        When entries contradict each other, a number is negative, ``bad_variance`` is no part of one,
        ``amplifiers`` are no sections, or ``filename`` is no regular expression.
    """

    image: str | int | None = None
    mask: str | int | None = None
    variance: str | int | None = None
    weight: str | int | None = None
    planes: Mapping[str, int] = field(default_factory=dict)
    visit: str | int | None = None
    detector: str | int | None = None
    band: str | None = None
    exposure_time: str | float | None = None
    gain: str | float | None = None
    read_noise: str | float | None = None
    unit: str | None = None
    amplifiers: str | Mapping[str, str] | None = None
    filename: str | None = None
    add_sky: bool = False
    bad_variance: float = 0.1
    verify: bool = True

    def __post_init__(self) -> None:
        if self.variance is not None and self.weight is not None:
            raise ConfigError("give variance or weight, not both: weight is 1 / variance")
        if self.image is None and not (self.mask is None and self.variance is None and self.weight is None):
            raise ConfigError("mask, variance and weight name extensions beside image: give image as well")
        if isinstance(self.bad_variance, (bool, str)) or not 0 <= self.bad_variance <= 1:
            raise ConfigError(f"bad_variance must be a part from 0 to 1, not {self.bad_variance!r}")
        MaskPlanes(self.planes)
        if self.amplifiers is not None:
            check_amplifiers(self.amplifiers)
        for name in ("visit", "detector"):
            value = getattr(self, name)
            if isinstance(value, (bool, float)) or (isinstance(value, int) and value < 0):
                raise ConfigError(f"{name} must be a header keyword or a whole number from 0, not {value!r}")
        for name in ("exposure_time", "gain", "read_noise"):
            value = getattr(self, name)
            if value is None or isinstance(value, str):
                continue
            if isinstance(value, bool) or not 0 <= value < math.inf or (name == "gain" and value == 0):
                least = "positive number" if name == "gain" else "number from 0"
                raise ConfigError(f"{name} must be a header keyword or a {least}, not {value!r}")
        if self.filename is not None:
            try:
                re.compile(self.filename)
            except re.error as error:
                raise ConfigError(f"filename is no regular expression: {error}") from error
