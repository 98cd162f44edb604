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

    def with_more(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> Places:
        """These and places of which nothing else is known."""
        nothing = np.full(len(y), np.nan)
        more = {"y": y, "x": x}
        return Places(
            **{
                f.name: np.concatenate([getattr(self, f.name), more.get(f.name, nothing)])
                for f in fields(self)
            }
        )

    def replaced(self, chosen: NDArray[np.bool_], sums: NDArray[np.float64]) -> Places:
        """The same, but the fit of the chosen places is that of sums that `measure_children` wrote."""
        pc, pp, ppv, chi, p, y_variance, x_variance, _ = sums[chosen].T
        with np.errstate(divide="ignore", invalid="ignore"):
            new = {
                "flux": pc / pp,
                "flux_error": np.sqrt(ppv) / pp,
                "y_error": np.sqrt(y_variance),
                "x_error": np.sqrt(x_variance),
                "chi2": chi / p,
                "good": p,
            }
        made = {}
        for f in fields(self):
            values = getattr(self, f.name).copy()
            if f.name in new:
                values[chosen] = new[f.name]
            made[f.name] = values
        return Places(**made)
