"""The light of sources too faint to be seen one by one, which a measured sky holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skysub.errors import ConfigError

__all__ = ["FaintLight"]


@dataclass(frozen=True, slots=True)
class FaintLight:
    """Mean light of undetected sources in a background, per pixel, and how well it is known.

    The background of record is sky and this light together, because photometry wants the local mean. Whoever
    wants the sky alone takes it off (`skysub.background.model.Background.sky_alone`).

    Parameters
    ----------
    value
        Unit of the image.
    uncertainty
        Standard deviation of ``value``, unit of the image.
    provenance
        How it was found, in a sentence.

    Raises
    ------
    ConfigError
        When a number is not finite, or the uncertainty is negative.
    """

    value: float
    uncertainty: float
    provenance: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.uncertainty) and self.uncertainty >= 0):
            raise ConfigError(
                f"faint light must be a finite number with an uncertainty of at least 0, not {self.value!r} "
                f"+- {self.uncertainty!r}"
            )
