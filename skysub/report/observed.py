"""When and under which sky a visit was taken, from the header of one of its detectors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.io.fits import Header

__all__ = ["derived_figures", "observed"]

_TIMES = ("DATE-AVG", "DATE-BEG", "DATE-OBS", "DATE")
_MJDS = ("MJD-AVG", "MJD-BEG", "MJD-OBS", "MJD", "TAI-OBS")
_AIRMASS = ("AIRMASS", "AMSTART", "AIRMASS1", "SECZ")
_MOON_AWAY = ("MOONANGL", "MOON-ANG", "MOONDIST", "MOONSEP", "MOON_SEP")
_MOON_LIT = ("MOONFRAC", "MOONILL", "MOON-ILL")
"""Keywords by which observatories say it; the first that a header has is taken."""


def observed(header: Header | Mapping[str, Any]) -> tuple[str, ...]:
    """What a header says of time, airmass and Moon, in words for people; what it lacks is left out."""
    words = []
    time = next((str(header[key]).strip() for key in _TIMES if _is_time(header.get(key))), "")
    mjd = _number(header, _MJDS)
    if time:
        words.append(time.replace("T", " ")[:19] + " UTC")
    elif mjd is not None:
        words.append(f"MJD {mjd:.4f}")
    airmass = _number(header, _AIRMASS)
    if airmass is not None and airmass >= 1:
        words.append(f"airmass {airmass:.2f}")
    away = _number(header, _MOON_AWAY)
    if away is not None and 0 <= away <= 180:
        words.append(f"Moon {away:.0f}\N{DEGREE SIGN} away")
    lit = _number(header, _MOON_LIT)
    if lit is not None and 0 <= lit <= 1:
        words.append(f"{100 * lit:.0f} % lit")
    return tuple(words)


def derived_figures(figures: Mapping[str, Any], unit: str) -> dict[str, float]:
    """Figures in the units that observers think in, where a step's figures allow.

    "seeing" is the full width at half maximum of a Gaussian of the PSF's size, 2 sqrt(2 ln 2) sigma, in
    arcsec; "skyBrightness" is the sky in mag per square arcsec. ``unit`` is that of the sky's level: the
    input's, which "zeroPoint" belongs to.
    """
    known = {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    made = {}
    scale = known.get("pixelScale", 0.0)
    if scale > 0 and known.get("psfSigma", 0.0) > 0:
        made["seeing"] = 2 * math.sqrt(2 * math.log(2)) * known["psfSigma"] * scale
    sky = known.get("skyBg", known.get("sky", 0.0))
    zero = 31.4 if unit == "nJy" else known.get("zeroPoint")
    if scale > 0 and sky > 0 and zero is not None:
        made["skyBrightness"] = zero - 2.5 * math.log10(sky / scale**2)
    return made


def _number(header: Header | Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = header.get(key)
        if isinstance(value, bool) or value is None:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            return number
    return None


def _is_time(value: object) -> bool:
    text = str(value).strip() if value is not None else ""
    # a date alone is the night, not the time; but better than nothing
    return len(text) >= 10 and text[:4].isdigit() and text[4] == "-" and text[7] == "-"
