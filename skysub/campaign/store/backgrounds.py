"""Backgrounds as arrays and back: packed into a marker, or as rows of the store's arrays."""

from __future__ import annotations

import base64
import dataclasses
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.amplifiers import AmplifierBackground
from skysub.background.config import BackgroundConfig
from skysub.background.faint_light import FaintLight
from skysub.background.layered import LayeredBackground
from skysub.background.model import Background, BackgroundList
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FIELDS", "as_arrays", "described", "from_arrays", "inline", "outline", "packed", "unpacked"]

FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mean": ("float32", ("gy", "gx")),
    "error": ("float32", ("gy", "gx")),
    "count": ("int32", ("gy", "gx")),
    "usable": ("bool", ("gy", "gx")),
    "coefficients": ("float64", ("term",)),
    "covariance": ("float64", ("term", "term_2")),
}
"""Arrays of one layer of background: type and dimensions."""


def as_arrays(layer: Background) -> dict[str, NDArray[Any]]:
    """Return the arrays of one layer, by the names of `FIELDS`."""
    statistics = layer.statistics
    arrays = {
        "mean": statistics.mean,
        "error": statistics.error,
        "count": statistics.count,
        "usable": layer.usable,
        "coefficients": layer.coefficients,
        "covariance": layer.covariance,
    }
    return {name: np.ascontiguousarray(array, FIELDS[name][0]) for name, array in arrays.items()}


def described(layer: Background) -> dict[str, Any]:
    """Return what `as_arrays` leaves out of a layer, ready for JSON."""
    return {
        "shape": list(layer.shape),
        "grid": list(layer.grid.shape),
        "order": layer.order,
        "chi2_per_freedom": _number(layer.chi2_per_freedom),
        "reduced": layer.reduced,
        "config": dataclasses.asdict(layer.config),
        **({} if layer.faint_light is None else {"faint_light": dataclasses.asdict(layer.faint_light)}),
        **({"parts": _parts(layer)} if isinstance(layer, LayeredBackground) else {}),
        **({} if layer.amplifiers is None else {"amplifiers": _of_amplifiers(layer.amplifiers)}),
    }


def from_arrays(description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Background:
    """Return the layer that `described` and `as_arrays` were given; arrays may be padded at their ends."""
    gy, gx = description["grid"]
    ny, nx = description["shape"]
    terms = (description["order"] + 1) * (description["order"] + 2) // 2
    cut = {
        name: np.ascontiguousarray(array[..., :gy, :gx]) for name, array in arrays.items() if array.ndim == 2
    }
    chi2 = description["chi2_per_freedom"]
    added = description.get("amplifiers")
    background = Background(
        grid=SuperpixelGrid.of_counts((ny, nx), gy=gy, gx=gx),
        statistics=SuperpixelStatistics(mean=cut["mean"], error=cut["error"], count=cut["count"]),
        coefficients=np.ascontiguousarray(arrays["coefficients"][:terms]),
        covariance=np.ascontiguousarray(arrays["covariance"][:terms, :terms]),
        order=description["order"],
        usable=cut["usable"],
        chi2_per_freedom=float("nan") if chi2 is None else chi2,
        config=BackgroundConfig(**description["config"]),
        reduced=description["reduced"],
        faint_light=FaintLight(**description["faint_light"]) if "faint_light" in description else None,
        amplifiers=None if added is None else AmplifierBackground.of_array(added, unpacked(added["values"])),
    )
    if "parts" not in description:
        return background
    parts: dict[str, Any] = {name: unpacked(array) for name, array in description["parts"].items()}
    own = {each.name: getattr(background, each.name) for each in dataclasses.fields(Background)}
    boxes = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in parts.pop("boxes", ()))
    return LayeredBackground(**own, boxes=boxes, **parts)


def _parts(layer: LayeredBackground) -> dict[str, Any]:
    """Return what a polynomial cannot follow, as text; few layers have it, and its shapes vary."""
    parts: dict[str, NDArray[Any] | None] = {
        "boxes": np.array(layer.boxes, np.int32).reshape(-1, 4) if layer.boxes else None,
        "steps": layer.steps,
        "cells": layer.cells,
        "deviation": layer.deviation,
    }
    return {name: packed(array) for name, array in parts.items() if array is not None}


def inline(layers: BackgroundList) -> list[dict[str, Any]]:
    """Return layers with their arrays as text, for a marker."""
    return [
        {**described(layer), "arrays": {name: packed(array) for name, array in as_arrays(layer).items()}}
        for layer in layers
    ]


def outline(layers: Sequence[Mapping[str, Any]]) -> BackgroundList:
    """Return the layers that `inline` described."""
    return BackgroundList(
        [
            from_arrays(each, {name: unpacked(array) for name, array in each["arrays"].items()})
            for each in layers
        ]
    )


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return one small array as text, for a marker."""
    little = array.astype(array.dtype.newbyteorder("<"))
    text = base64.b64encode(zlib.compress(little.tobytes(), 1)).decode()
    return {"dtype": little.dtype.str, "shape": list(array.shape), "zlib": text}


def unpacked(text: Mapping[str, Any]) -> NDArray[Any]:
    """Return one array that a marker holds as text."""
    data = zlib.decompress(base64.b64decode(text["zlib"]))
    array = np.frombuffer(data, np.dtype(text["dtype"])).reshape(text["shape"])
    return array.astype(array.dtype.newbyteorder("="))


def _of_amplifiers(layer: AmplifierBackground) -> dict[str, Any]:
    """Steps and drift with their errors: few numbers, of which no two detectors have as many."""
    return {**layer.described(), "values": packed(layer.as_array())}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
