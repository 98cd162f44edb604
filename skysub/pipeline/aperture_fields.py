"""The aperture correction that `calibrate_image` finds, as fields by flux."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from skysub.visit.photometric import ChebyshevField

if TYPE_CHECKING:
    from skysub.pipeline.characterise import ApertureCorrection

__all__ = ["fields_of"]


def fields_of(correction: ApertureCorrection) -> dict[str, ChebyshevField]:
    """Fields by the names of `skysub.visit.calibrations.Calibrations`.

    The correction's error is the scatter of its stars over the root of their number for each coefficient; it
    is left out where a single star tells no scatter.
    """
    shape = correction.shape
    fields = {"psfFlux": ChebyshevField.of_terms(correction.coefficients, correction.order, shape=shape)}
    if math.isfinite(correction.scatter) and correction.stars > 0:
        error = correction.scatter * math.sqrt(len(correction.coefficients) / correction.stars)
        fields["psfFluxErr"] = ChebyshevField.constant(error, shape=shape)
    return fields
