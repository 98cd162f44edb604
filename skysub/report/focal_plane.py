"""Where the detectors of a visit lie, from their world coordinates; side by side where those are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "FocalPlane",
    "Footprint",
    "Place",
    "arrange",
    "borrowed",
    "footprint",
    "footprint_at",
    "footprint_pixels",
]

SPARSEST = 0.02
"""Detectors that cover less of their common rectangle are not one camera's."""
CLOSEST = 0.5
"""Centres nearer than this, in detectors' sizes, mean that the coordinates say nothing of the place."""


@dataclass(frozen=True)
class Footprint:
    """Three points of a detector on the sky, each a unit vector (3,)."""

    centre: NDArray[np.float64]
    right: NDArray[np.float64]
    """Middle of the edge of the last column."""
    top: NDArray[np.float64]
    """Middle of the edge of the last row."""


@dataclass(frozen=True)
class Place:
    """Where a detector is drawn: fractions of the frame's width and height, from its upper left corner."""

    left: float
    top: float
    width: float
    height: float
    angle: float
    """Turn about its centre, degree, clockwise."""
    mirrored: bool
    """Columns run from right to left before it is turned."""


@dataclass(frozen=True)
class FocalPlane:
    """A visit's detectors in one frame."""

    places: Mapping[int, Place]
    """By detector."""
    aspect: float
    """Width over height of the frame."""
    north: float | None
    """Direction of north, degree clockwise from up; None where detectors are merely side by side."""
    east: float | None
    """The same of east."""
    width: float | None
    """Width of the frame on the sky, degree."""


def footprint(wcs: Any, shape: tuple[int, int]) -> Footprint | None:
    """Return where an image (ny, nx) with astropy's ``wcs`` lies; None where that is not celestial."""
    if wcs is None or not wcs.has_celestial:
        return None
    try:
        return footprint_at(wcs.celestial.all_pix2world(*footprint_pixels(shape), 0))
    except ValueError:
        return None


def footprint_pixels(shape: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Return x and y, from 0, of the pixels of an image (ny, nx) by which its footprint is known."""
    ny, nx = shape
    return [(nx - 1) / 2, nx - 0.5, (nx - 1) / 2], [(ny - 1) / 2, (ny - 1) / 2, ny - 0.5]


def footprint_at(sky: Sequence[NDArray[np.float64]] | None) -> Footprint | None:
    """Return the footprint whose `footprint_pixels` lie at longitudes and latitudes, degrees."""
    if sky is None:
        return None
    ra, dec = (np.radians(angles) for angles in sky)
    points = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    if not np.isfinite(points).all():
        return None
    return Footprint(*points)


def borrowed(
    number: int, known: Mapping[int, Footprint], others: Iterable[Mapping[int, Footprint]]
) -> Footprint | None:
    """Return where a detector of a visit must lie that left no coordinates, from other visits of its camera.

    Detectors keep their places on the camera: those of another visit are turned on the sky until the
    detector nearest to the wanted one lies where it does in this visit. None where no visit has both.

    Parameters
    ----------
    known
        Detectors of the visit whose places are known.
    others
        The same of other visits.
    """
    for other in others:
        there = other.get(number)
        shared = known.keys() & other.keys()
        if there is None or not shared:
            continue
        near = min(shared, key=lambda each: float(np.linalg.norm(other[each].centre - there.centre)))
        turn = _axes(known[near]) @ _axes(other[near]).T
        return Footprint(turn @ there.centre, turn @ there.right, turn @ there.top)
    return None


def arrange(footprints: Mapping[int, Footprint | None], shapes: Mapping[int, tuple[int, int]]) -> FocalPlane:
    """Arrange the detectors of a visit.

    They are drawn as the camera sees them: the frame is turned so that rows of the detector nearest the
    middle run to the right, and columns upward. Where a detector's place is not known, or the places
    cannot be those of one camera, all stand side by side in the order of their numbers.

    Parameters
    ----------
    footprints, shapes
        By detector; shapes are (ny, nx), pixel.
    """
    known = {number: each for number, each in footprints.items() if each is not None}
    plane = _on_sky(known) if known and len(known) == len(footprints) else None
    return plane or _side_by_side(shapes)


def _on_sky(footprints: Mapping[int, Footprint]) -> FocalPlane | None:
    numbers = list(footprints)
    middle = np.sum([each.centre for each in footprints.values()], axis=0)
    if np.linalg.norm(middle) == 0:
        return None
    middle /= np.linalg.norm(middle)
    flat = np.stack([_tangent(footprints[number], middle) for number in numbers])
    if not np.isfinite(flat).all():
        return None
    # (detector, point, axis): centre, half a width, half a height; axes are east and north
    centres, rights, tops = flat[:, 0], flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    widths, heights = 2 * np.linalg.norm(rights, axis=1), 2 * np.linalg.norm(tops, axis=1)
    if min(widths.min(), heights.min()) <= 0 or _piled_up(centres, np.minimum(widths, heights)):
        return None
    first = int(np.argmin(np.linalg.norm(centres, axis=1)))
    across = rights[first] / np.linalg.norm(rights[first])
    upward = np.array([-across[1], across[0]])
    if upward @ tops[first] < 0:
        upward = -upward
    frame = np.stack([across, upward], axis=1)
    centres, rights, tops = centres @ frame, rights @ frame, tops @ frame
    reach = np.abs(rights) + np.abs(tops)
    low, high = (centres - reach).min(axis=0), (centres + reach).max(axis=0)
    extent = high - low
    if (widths * heights).sum() < SPARSEST * extent.prod():
        return None
    places = {}
    for i, number in enumerate(numbers):
        (cx, cy), (rx, ry), (tx, ty) = centres[i] - low, rights[i], tops[i]
        mirrored = rx * ty - ry * tx < 0
        # screens count angles clockwise and downward
        angle = math.degrees(math.atan2(tx, ty))
        places[number] = Place(
            left=(cx - widths[i] / 2) / extent[0],
            top=1 - (cy + heights[i] / 2) / extent[1],
            width=widths[i] / extent[0],
            height=heights[i] / extent[1],
            angle=angle,
            mirrored=bool(mirrored),
        )
    (ex, nx), (ey, ny) = frame.T
    return FocalPlane(
        places=places,
        aspect=float(extent[0] / extent[1]),
        north=math.degrees(math.atan2(nx, ny)),
        east=math.degrees(math.atan2(ex, ey)),
        width=math.degrees(float(extent[0])),
    )


def _axes(each: Footprint) -> NDArray[np.float64]:
    """Orthonormal axes (3, 3) of a detector, as columns: its centre, along rows, along columns."""
    axes: list[NDArray[np.float64]] = []
    for vector in (each.centre, each.right, each.top):
        rest = vector - sum(((vector @ axis) * axis for axis in axes), np.zeros(3))
        axes.append(rest / np.linalg.norm(rest))
    return np.stack(axes, axis=1)


def _tangent(each: Footprint, middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gnomonic projection about ``middle``: (3, 2) of east and north, radian."""
    pole = np.array([0.0, 0.0, 1.0])
    east = np.cross(pole, middle)
    length = np.linalg.norm(east)
    east = np.array([0.0, 1.0, 0.0]) if length < 1e-9 else east / length
    north = np.cross(middle, east)
    points = np.stack([each.centre, each.right, each.top])
    depth = points @ middle
    if (depth <= 0.1).any():
        return np.full((3, 2), np.nan)
    return np.stack([points @ east, points @ north], axis=1) / depth[:, None]


def _piled_up(centres: NDArray[np.float64], sizes: NDArray[np.float64]) -> bool:
    order = np.argsort(centres[:, 0])
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            if centres[j, 0] - centres[i, 0] > CLOSEST * sizes[i]:
                break
            if np.linalg.norm(centres[i] - centres[j]) < CLOSEST * sizes[i]:
                return True
    return False


def _side_by_side(shapes: Mapping[int, tuple[int, int]]) -> FocalPlane:
    numbers = sorted(shapes)
    ny = max(shape[0] for shape in shapes.values())
    nx = max(shape[1] for shape in shapes.values())
    columns = min(len(numbers), max(1, round(math.sqrt(len(numbers) * ny / nx))))
    lines = -(-len(numbers) // columns)
    gap = 0.03
    width, height = columns * (1 + gap) - gap, lines * (1 + gap) - gap
    places = {}
    for i, number in enumerate(numbers):
        line, column = divmod(i, columns)
        own = shapes[number]
        places[number] = Place(
            left=column * (1 + gap) / width,
            top=(line * (1 + gap) + 1 - own[0] / ny) / height,
            width=own[1] / nx / width,
            height=own[0] / ny / height,
            angle=0.0,
            mirrored=False,
        )
    return FocalPlane(places=places, aspect=width * nx / (height * ny), north=None, east=None, width=None)
