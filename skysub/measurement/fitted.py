"""What a fit of the PSF tells of places."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Places"]


@dataclass(frozen=True, eq=False)
class Places:
    """What was fit at places (n,), of sources or others."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    y_error: NDArray[np.float64]
    x_error: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_error: NDArray[np.float64]
    chi2: NDArray[np.float64]
    good: NDArray[np.float64]
    """Share of the PSF that fell on good pixels."""

    def of(self, chosen: NDArray[Any]) -> Places:
        """Some of the places, or all in another order."""
        return Places(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})
