"""Scores as a table that people read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skysub.simulation.score import Scores

__all__ = ["COLUMNS", "score_cells", "score_table"]

COLUMNS: dict[str, tuple[str, str, str]] = {
    "rho": ("M1", "rho", ".2f"),
    "bias_sky": ("M2 T1", "e-", "+.3f"),
    "bias_faint": ("M2 T2", "e-", "+.3f"),
    "edge": ("M3", "e-", ".2f"),
    "lost_small": ("M4 small", "%", ".1f"),
    "lost_large": ("M4 large", "%", ".1f"),
    "ring": ("M5", "e-", "+.2f"),
    "star_ring": ("M6", "e-", "+.2f"),
    "detector_step_median": ("M7 med", "e-", ".2f"),
    "detector_step_max": ("M7 max", "e-", ".2f"),
    "amplifier_step": ("M7 amp", "e-", ".2f"),
    "aperture_mean": ("M8 mean", "sigma", "+.2f"),
    "aperture_scatter": ("M8 std", "", ".2f"),
    "shift_24": ("M9", "mmag", ".1f"),
    "star_density": ("M10", "/arcmin2", ".0f"),
    "cirrus": ("M11", "", ".2f"),
    "pull": ("M12 std", "", ".2f"),
    "coverage": ("M12 95%", "", ".2f"),
}
"""Field of `Scores` -> heading, unit, format."""


def score_cells(score: Scores) -> list[str]:
    """Cells of one line, in the order of `COLUMNS`; "-" where there was nothing to measure."""
    cells = []
    for name, (_, _, layout) in COLUMNS.items():
        value = getattr(score, name)
        cells.append(format(value, layout) if math.isfinite(value) else "-")
    return cells


def score_table(scores: Sequence[Scores], total: Scores) -> str:
    """Lines per detector and one over all; metrics that nothing was measured for are left out."""
    heads = [("visit", ""), ("detector", ""), *((head, unit) for head, unit, _ in COLUMNS.values())]
    rows = [[str(score.visit), str(score.detector), *score_cells(score)] for score in scores]
    rows.append(["all", "", *score_cells(total)])
    shown = [k for k in range(len(heads)) if k < 2 or any(row[k] != "-" for row in rows)]
    table = [[heads[k][0] for k in shown], [heads[k][1] for k in shown]] + [
        [row[k] for k in shown] for row in rows
    ]
    widths = [max(len(row[k]) for row in table) for k in range(len(shown))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join(line.rstrip() for line in lines)
