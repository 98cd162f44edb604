"""What calibration took for amplifiers of a detector, seen again once sky frames are known.

Fringes lie across boundaries of amplifiers, and along their rows, and a detector alone cannot tell: its steps
and drift hold a part of them. Where frames of many visits say what the pattern is, that part is given back.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.layered import interpolated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.amplifiers import AmplifierBackground
    from skysub.background.superpixels import SuperpixelGrid
    from skysub.pipeline.joint.record import DetectorRecord

__all__ = ["layer_means", "pattern_layer", "put_back", "without_pattern"]

_EXPLAINED = 0.5
"""Share of a layer's power that a pattern explains from which the layer was nothing but that pattern."""


def layer_means(layer: AmplifierBackground, grid: SuperpixelGrid) -> NDArray[np.float64]:
    """(gy, gx) means of a layer over the superpixels, or cells, of a grid."""
    sums = np.add.reduceat(layer.evaluate(), grid.y_edges[:-1], axis=0, dtype=np.float64)
    sums = np.add.reduceat(sums, grid.x_edges[:-1], axis=1)
    means: NDArray[np.float64] = sums / np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    return means


def put_back(record: DetectorRecord, layer: AmplifierBackground | None = None) -> DetectorRecord:
    """The record as if its amplifiers had not been looked for, or ``layer`` had been found in their place."""
    background = record.background
    if background.amplifiers is None:
        return record
    back = layer_means(background.amplifiers, background.grid)
    if layer is not None:
        back -= layer_means(layer, background.grid)
    mean = (background.statistics.mean + back).astype(np.float32)
    statistics = dataclasses.replace(background.statistics, mean=mean)
    return record.replace(background=dataclasses.replace(background, statistics=statistics, amplifiers=layer))


def pattern_layer(layer: AmplifierBackground, pattern: NDArray[np.float32]) -> AmplifierBackground:
    """What of a pattern would be taken for steps and drift of a layer's amplifiers.

    ``pattern`` is (cy, cx), linear between the centres of cells.
    """
    size = layer.rows_per_bin if layer.drift else 0
    steps, drift = [], []
    for amplifier in layer.amplifiers:
        part = interpolated(pattern, layer.shape, range(*amplifier.y), range(*amplifier.x))
        rows = part.mean(axis=1, dtype=np.float64)
        steps.append(float(rows.mean()))
        if size:
            first = np.arange(0, len(rows), size)
            count = np.diff(np.append(first, len(rows)))
            drift.append(np.add.reduceat(rows, first) / count - steps[-1])
    weight = np.array([a.shape[0] * a.shape[1] for a in layer.amplifiers], np.float64)
    level = float(np.sum(weight * steps) / np.sum(weight))
    return dataclasses.replace(layer, steps=np.array(steps) - level, drift=tuple(drift))


def without_pattern(record: DetectorRecord, pattern: NDArray[np.float32]) -> tuple[DetectorRecord, bool]:
    """The record with what of a pattern its amplifiers had taken given back to the superpixels.

    ``pattern`` is (cy, cx), linear between the centres of cells, unit of the image. Also returned is whether
    hardly anything is left of the layer.
    """
    layer = record.background.amplifiers
    if layer is None:
        return record, False
    taken = pattern_layer(layer, pattern)
    left = dataclasses.replace(
        layer,
        steps=layer.steps - taken.steps,
        drift=tuple(a - b for a, b in zip(layer.drift, taken.drift, strict=True)),
    )
    return put_back(record, left), _power(left) < (1 - _EXPLAINED) * _power(layer)


def _power(layer: AmplifierBackground) -> float:
    """Sum of squares of a layer over its pixels."""
    return float(
        np.sum([
            a.shape[0] * a.shape[1] * (step**2 + (float(np.mean(drift**2)) if len(drift) else 0.0))
            for a, step, drift in zip(
                layer.amplifiers, layer.steps.tolist(), layer.drift or _nothing(layer.steps), strict=True
            )
        ])
    )  # fmt: skip


def _nothing(steps: NDArray[np.float64]) -> Sequence[NDArray[np.float64]]:
    return [np.zeros(0)] * len(steps)
