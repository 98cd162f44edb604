"""Where detectors lie on the focal plane, from their world coordinates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.chebyshev import least_squares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from skysub.pipeline.joint.record import DetectorRecord

__all__ = ["directions_of", "extent", "place_detectors", "positions"]

_SAMPLES = 3
"""Points along each axis of a detector by which its world coordinates are made affine."""
_WIDEST = 20.0
"""Degrees beyond which detectors are not of one field: a tangent plane means nothing there."""


def place_detectors(records: Sequence[DetectorRecord]) -> dict[int, NDArray[np.float64]]:
    """Return (2, 3) places by detector number, of those whose place is known.

    The focal plane is the tangent plane about the mean position, in units of the median pixel, turned so that
    the rows of most detectors lie along x. Places that records state are taken as they are, and world
    coordinates only count where no record states one: two systems cannot be mixed.
    """
    stated = {record.detector: record.place for record in records if record.place is not None}
    if stated:
        return stated
    points = {record.detector: record.directions for record in records if record.directions is not None}
    if not points:
        return {}
    middles = {number: _unit(directions.sum(axis=0)) for number, directions in points.items()}
    # the median is not moved by one detector whose coordinates are of another field
    axis = _unit(np.median(np.stack(list(middles.values())), axis=0))
    near = {n for n, middle in middles.items() if float(middle @ axis) > math.cos(math.radians(_WIDEST))}
    shapes = {record.detector: record.shape for record in records}
    places = {number: _affine(points[number], axis, shapes[number]) for number in sorted(near)}
    if not places:
        return {}
    scales = [math.sqrt(abs(float(np.linalg.det(place[:, 1:])))) for place in places.values()]
    scale = float(np.median(scales))
    if not (math.isfinite(scale) and scale > 0):
        return {}
    # rows may run either way: angles count modulo half a turn
    doubled = [2 * math.atan2(place[1, 1], place[0, 1]) for place in places.values()]
    angle = 0.5 * math.atan2(sum(map(math.sin, doubled)), sum(map(math.cos, doubled)))
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    return {number: np.einsum("ij,jk->ik", turn, place) / scale for number, place in places.items()}


def positions(
    place: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Focal-plane x and y, pixel, of points of a detector."""
    return (
        place[0, 0] + place[0, 1] * x + place[0, 2] * y,
        place[1, 0] + place[1, 1] * x + place[1, 2] * y,
    )


def directions_of(wcs: Any, shape: tuple[int, int]) -> NDArray[np.float64] | None:
    """(9, 3) unit vectors of 3 x 3 points of a detector; None where its world coordinates are no use."""
    x, y = _points(shape)
    try:
        longitude, latitude = np.radians(np.asarray(wcs.all_pix2world(x, y, 0), np.float64))
    except Exception:  # noqa: BLE001 - wcslib raises many kinds; a detector without a place is what is left
        return None
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        return None
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)],
        axis=1,
    )


def _points(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, _SAMPLES), np.linspace(0, ny - 1, _SAMPLES))
    return x.ravel(), y.ravel()


def _affine(
    directions: NDArray[np.float64], axis: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Least squares of the gnomonic projection about ``axis``, radian per pixel."""
    east = np.cross([0.0, 0.0, 1.0], axis)
    east = _unit(east) if np.linalg.norm(east) > 1e-6 else np.array([1.0, 0.0, 0.0])
    north = np.cross(axis, east)
    depth = np.einsum("ki,i->k", directions, axis)
    projected = np.stack(
        [np.einsum("ki,i->k", directions, east) / depth, np.einsum("ki,i->k", directions, north) / depth],
        axis=1,
    )
    x, y = _points(shape)
    size = float(max(shape))
    terms = np.stack([np.ones_like(x), x / size, y / size], axis=1)
    found: NDArray[np.float64] = least_squares(terms, projected).T / np.array([1.0, size, size])
    return found


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vector / max(float(np.linalg.norm(vector)), 1e-300)
    return unit


def extent(
    places: Mapping[int, NDArray[np.float64]], shapes: Mapping[int, tuple[int, int]]
) -> tuple[float, float, float, float]:
    """Smallest box (x0, x1, y0, y1) of the focal plane that holds all detectors, pixel."""
    xs, ys = [], []
    for number, place in places.items():
        ny, nx = shapes[number]
        corner_x = np.array([-0.5, nx - 0.5, -0.5, nx - 0.5])
        corner_y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        x, y = positions(place, corner_x, corner_y)
        xs.append(x)
        ys.append(y)
    x, y = np.concatenate(xs), np.concatenate(ys)
    return float(x.min()), float(x.max()), float(y.min()), float(y.max())
