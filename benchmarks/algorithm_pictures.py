"""The pictures of docs/algorithm.md: ``python benchmarks/algorithm_pictures.py docs/images``."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

import skysub
from skysub.background.estimate import fit_background
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene

mpl.use("Agg")
from matplotlib import pyplot as plt

_SIZE = (4000, 4072)
_BIN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    visit_image, truth = simulate_detector(
        named_scene("galaxy:200"), visit=1, detector=0, seed=options.seed, shape=_SIZE
    )
    result = skysub.calibrate_image(visit_image)
    steps(visit_image.image, result).savefig(options.folder / "algorithm-steps.png", dpi=110)
    cut(visit_image, truth, result).savefig(options.folder / "algorithm-cut.png", dpi=110)


def steps(image: np.ndarray, result: skysub.CalibrateImageResult) -> plt.Figure:
    """Image, mask, superpixels, model, and what is left."""
    background = result.preliminary_visit_image_background[0].smooth()
    model = background.evaluate()
    mean = np.where(background.usable, background.statistics.mean, np.nan)
    masked = (
        result.preliminary_visit_image.mask
        & result.preliminary_visit_image.bits("DETECTED", "CR", "BAD", "SAT")
    ) != 0
    low, high = np.nanpercentile(mean, [1, 99])
    noise = result.summary["skyNoise"]
    panels = [
        ("image", binned(image), {"vmin": low - noise, "vmax": high + 3 * noise, "cmap": "gray"}),
        ("mask", binned(masked), {"vmin": 0, "vmax": 1, "cmap": "gray_r"}),
        ("superpixels", mean, {"vmin": low, "vmax": high, "cmap": "viridis"}),
        ("model", binned(model), {"vmin": low, "vmax": high, "cmap": "viridis"}),
        ("what is left", binned(image - model), {"vmin": -noise, "vmax": 3 * noise, "cmap": "gray"}),
    ]
    figure, axes = plt.subplots(1, 5, figsize=(14, 3.1), layout="constrained")
    for axis, (title, values, scale) in zip(axes, panels, strict=True):
        axis.imshow(
            values, origin="lower", interpolation="nearest", extent=(0, _SIZE[1], 0, _SIZE[0]), **scale
        )
        axis.set(title=title, xticks=[], yticks=[])
    return figure


def cut(visit_image: skysub.VisitImage, truth: object, result: skysub.CalibrateImageResult) -> plt.Figure:
    """A row of superpixels across the galaxy: what they hold unmasked and masked, and two models."""
    image = visit_image.image
    bad = (visit_image.mask, visit_image.bits("BAD", "SAT", "NO_DATA"))
    plain = fit_background(image, bad, skysub.BackgroundConfig(superpixel=128))
    robust = result.preliminary_visit_image_background[0].smooth()
    row = plain.grid.shape[0] // 2
    y = int(plain.grid.y_centers[row])
    x = np.arange(image.shape[1])
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    axis.plot(
        plain.grid.x_centers,
        plain.statistics.mean[row],
        "o",
        color="tab:gray",
        label="superpixels, nothing masked",
    )
    usable = robust.usable[row]
    axis.plot(
        robust.grid.x_centers[usable],
        robust.statistics.mean[row][usable],
        "s",
        color="tab:blue",
        label="superpixels of sky that the mask has left",
    )
    axis.plot(
        x, plain.evaluate(y=slice(y, y + 1))[0], "--", color="tab:gray", label="plain fit, nothing masked"
    )
    model = robust.evaluate(y=slice(y, y + 1))[0]
    error = robust.uncertainty(y=slice(y, y + 1))[0]
    axis.fill_between(x, model - error, model + error, color="tab:blue", alpha=0.25, lw=0)
    axis.plot(x, model, color="tab:blue", label="mask and robust fit, with its uncertainty")
    axis.plot(x, truth.sky[y], color="black", lw=1, label="true sky")
    middle = float(np.median(truth.sky))
    axis.set(xlabel="x, pixel", ylabel="electron per pixel", ylim=(middle - 12, middle + 40))
    axis.legend(frameon=False, fontsize=8)
    return figure


def binned(values: np.ndarray) -> np.ndarray:
    """Mean of squares of pixels."""
    ny, nx = (n // _BIN for n in values.shape)
    cut_out = np.asarray(values[: ny * _BIN, : nx * _BIN], float)
    return cut_out.reshape(ny, _BIN, nx, _BIN).mean((1, 3))


if __name__ == "__main__":
    main()
