"""A picture per scene: what a model of the sky got right, on one colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.errors import ConfigError, how_to_install
from skysub.simulation.metrics import block_mean
from skysub.simulation.sky import SKY_PLANES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from skysub.simulation.truth import Truth

__all__ = ["draw_scene"]


def draw_scene(
    image: NDArray[np.floating],
    truth: Truth,
    model: NDArray[np.floating],
    path: str | Path,
    *,
    title: str = "",
) -> None:
    """Draw image, true sky, model and model - truth, each less the median sky, on one colour scale.

    Pixels without light (NO_DATA) stay white.

    Parameters
    ----------
    image, model
        (ny, nx), electron per pixel.
    path
        Where the picture goes; its suffix tells the format.

    Raises
    ------
    ConfigError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"pictures need matplotlib; {how_to_install('pictures')}") from error

    sky, lightless = truth.total(*SKY_PLANES), truth.lightless
    level = float(np.median(sky[::8, ::8]))
    cell = max(1, min(image.shape) // 500)
    panels = {
        "image": _binned(image, cell) - level,
        "true sky": _binned(sky, cell) - level,
        "model": _binned(model, cell) - level,
        "model - true sky": _binned(model - sky, cell),
    }
    if lightless is not None:
        hidden = _binned(lightless, cell) > 0
        for values in panels.values():
            values[hidden] = np.nan
    # wide enough for the sky's structure and for what is wrong with the model, not for sources
    span = max(
        float(np.nanpercentile(np.abs(panels[name]), 99.5))
        for name in ("true sky", "model", "model - true sky")
    )
    span = max(span, truth.sigma / cell, 0.5)
    figure = Figure(figsize=(16, 4.6), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        shown = axes.imshow(
            values, origin="lower", cmap="RdBu_r", vmin=-span, vmax=span, interpolation="nearest"
        )
        axes.set_title(f"{name}\nmean {np.nanmean(values):+.2f}, std {np.nanstd(values):.2f}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown, ax=figure.axes, shrink=0.9, label=f"electron per pixel, less {level:.0f}")
    figure.suptitle(
        title
        or f"{truth.scene.name}: visit {truth.visit}, detector {truth.detector}, {truth.observation.band}"
    )
    figure.savefig(path, dpi=110)


def _binned(values: NDArray[np.floating] | NDArray[np.bool_], cell: int) -> NDArray[np.float64]:
    ny, nx = (n // cell * cell for n in values.shape)
    return block_mean(values[:ny, :nx], np.arange(0, ny + 1, cell), np.arange(0, nx + 1, cell))
