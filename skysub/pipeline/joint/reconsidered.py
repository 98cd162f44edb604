"""What calibration took for steps and drift of amplifiers, judged anew where sky frames are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.pipeline.joint.amplifier_layers import put_back, without_pattern
from skysub.pipeline.joint.fit import fit_system

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.robust import RobustConfig
    from skysub.pipeline.joint.fit import Fit, Observed
    from skysub.pipeline.joint.known import Known

__all__ = ["reconsidered"]

_CAPPED = 9.0
"""Square of a pull that counts at most."""
_TELLING = 16.0
"""Difference in sums of squares from which superpixels tell whether there is a layer of amplifiers."""


def reconsidered(
    known: Known, fit: Fit, observed: Sequence[Observed], robust: RobustConfig, *, light: float
) -> Known | None:
    """The same with what amplifiers had taken of the sky frames given back; None where that is nothing.

    A detector alone takes fringes for steps and drift of its amplifiers. The part of each layer that is the
    frames' goes back to the superpixels. What is left of the layer is kept where superpixels are nearer to
    the model with it than without it; where they cannot tell, unless hardly anything is left.
    """
    if not any(r.background.amplifiers is not None for r in known.records if r.detector in known.frames):
        return None
    strengths = fit.solution.coefficients[known.spline.size :]
    kept, dropped, empty = [], [], []
    for record in known.records:
        frames = known.frames.get(record.detector)
        if frames is None or record.background.amplifiers is None:
            kept.append(record)
            dropped.append(record)
            empty.append(False)
            continue
        pattern = np.einsum("k,kyx->yx", strengths, frames.frames.astype(np.float64)).astype(np.float32)
        left, nothing = without_pattern(record, pattern)
        kept.append(left)
        dropped.append(put_back(record))
        empty.append(nothing)
    squares = []
    for records in (kept, dropped):
        system = known.with_records(records).system(("offset",))
        again = fit_system(
            system, observed, robust, fit.solution.widths.only(("offset",)), light=light, start=fit.weights
        )
        squares.append([
            _squares(system.detectors[n].values - system.model(again.solution, n), one, fit.judge.spread[n])
            for n, one in enumerate(observed)
        ])  # fmt: skip
    chosen = []
    for n, (with_layer, without) in enumerate(zip(*squares, strict=True)):
        better = without - with_layer
        drop = empty[n] if abs(better) < _TELLING else better < 0
        chosen.append(dropped[n] if drop else kept[n])
    return known.with_records(chosen)


def _squares(off: NDArray[np.float64], one: Observed, spread: float) -> float:
    pulls = off[one.used] / (one.error[one.used] * spread)
    return float(np.sum(np.minimum(pulls**2, _CAPPED)))
