"""Windows of a detector's pixels as pictures: any product, any zoom, any stretch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import NotDoneError
from skysub.report.colour import sequential
from skysub.report.png import indexed, png

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.campaign.campaign import Campaign

__all__ = ["STRETCHES", "Pixels", "Window", "layers_of", "picture"]

STRETCHES = ("linear", "asinh", "sqrt")
_KEPT = 4
"""Arrays that are kept for the next click; one of 4000 x 4072 takes 65 MB."""
_SAMPLE = 40_000
"""Pixels that help to choose the limits of a picture."""
_LARGEST = 2048
"""Edge of a picture at most, pixel."""


@dataclass(frozen=True)
class Window:
    """A part of an image, and the size of the picture that is made of it."""

    y: slice
    x: slice
    height: int
    width: int


class Pixels:
    """Arrays of detectors, the latest kept in memory; safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], NDArray[Any]] = OrderedDict()

    def of(self, campaign: Campaign, visit: int, detector: int, layer: str) -> NDArray[Any]:
        """Return one layer (ny, nx) of a detector; `layers_of` names them.

        Raises
        ------
        NotDoneError
            When there is no such layer, or the unit is not done.
        """
        marker = campaign.marker(visit, detector)
        key = (str(campaign.path), marker["key"], marker["started"], visit, detector, layer)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        array = _read(campaign, visit, detector, layer)
        with self._lock:
            self._kept[key] = array
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return array


def layers_of(campaign: Campaign, visit: int, detector: int) -> dict[str, str]:
    """What can be looked at of a detector: name of a layer, and its name for people."""
    found: dict[str, str] = {}
    for product in campaign.products:
        if campaign.belongs_to(product) != "detector":
            continue
        kind = campaign.kind(product)
        try:
            if kind == "image":
                record = campaign.image_record(visit, detector, product)
                found |= {f"{product}/image": product, f"{product}/mask": f"{product}, mask"}
                if record["has_variance"]:
                    found[f"{product}/variance"] = f"{product}, variance"
            elif kind == "background" and len(campaign.background(product, visit, detector)):
                found[f"{product}/model"] = product
        except NotDoneError:
            continue
    return found


def picture(
    values: NDArray[Any], window: Window, stretch: str, limits: tuple[float, float] | None
) -> tuple[bytes, tuple[float, float]]:
    """Draw a window as PNG, row 0 at the bottom, and say which values are its darkest and brightest.

    Several pixels under one picture element are averaged; what is unknown is transparent.

    Parameters
    ----------
    limits
        Values of the darkest and the brightest colour; None: 1 and 99.5 hundredths of the window's pixels.
    """
    part = values[window.y, window.x]
    small = _resampled(part, min(window.height, _LARGEST), min(window.width, _LARGEST))
    low, high = limits or limits_of(part)
    with np.errstate(invalid="ignore"):
        scaled = np.clip((small - low) / (high - low if high > low else 1.0), 0.0, 1.0)
        if stretch == "asinh":
            scaled = np.arcsinh(10 * scaled) / np.arcsinh(10.0)
        elif stretch == "sqrt":
            scaled = np.sqrt(scaled)
    return png(indexed(scaled, 0.0, 1.0), sequential()), (low, high)


def limits_of(values: NDArray[Any]) -> tuple[float, float]:
    """Values between which most pixels lie, from a sample of them."""
    step = max(1, round((values.size / _SAMPLE) ** 0.5))
    sample = np.asarray(values[::step, ::step], np.float64)
    known = sample[np.isfinite(sample)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, [1.0, 99.5])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def _read(campaign: Campaign, visit: int, detector: int, layer: str) -> NDArray[Any]:
    product, _, plane = layer.rpartition("/")
    if plane == "model":
        return campaign.background(product, visit, detector).evaluate()
    if plane == "mask":
        return campaign.mask(visit, detector, product)
    if plane == "image":
        return campaign.visit_image(visit, detector, product).image
    variance = campaign.visit_image(visit, detector, product).variance if plane == "variance" else None
    if variance is None:
        raise NotDoneError(f"visit {visit} detector {detector} has no {layer}")
    return variance


def _resampled(part: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Means of the known pixels under each picture element, or each pixel repeated where they are few."""
    ny, nx = part.shape
    if ny <= height and nx <= width:
        rows = np.arange(height) * ny // height
        columns = np.arange(width) * nx // width
        repeated: NDArray[np.float32] = part[np.ix_(rows, columns)].astype(np.float32)
        return repeated
    height, width = min(height, ny), min(width, nx)
    from skysub.report.kernels import bin_mean

    values = np.ascontiguousarray(part, np.float32)
    mean = np.empty((height, width), np.float32)
    edges = [np.arange(count + 1) * length // count for count, length in ((height, ny), (width, nx))]
    bin_mean(values, np.zeros(values.shape, np.int8), 0, edges[0], edges[1], 0.0, mean)
    return mean
