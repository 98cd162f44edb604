"""A PSF model of any kind as a table of stamps: over nodes of the detector, and over parts of a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidPsfError
from skysub.psf.stars import adaptive_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LANES", "PsfTable"]

LANES = 8
"""Rows of stamps are filled up to a multiple of this many pixels."""
_NODES, _SPACING = 9, 480
"""Nodes along an axis at most, and their distance in pixels at least."""
_OFFSETS = (-0.5, -0.25, 0.0, 0.25)
"""Parts of a pixel at which a model is asked; others follow by whole pixels."""
_LARGEST = 81
"""Edge of a stamp, pixel; what lies beyond is left out."""
_SMALLEST = 11
_CORE = 0.9995


@dataclass(frozen=True, eq=False)
class PsfTable:
    """PSF of one detector, tabulated; bilinear between nodes."""

    table: NDArray[np.float32]
    """(my, mx, 7, 7, s, w): stamps of sum 1 by node, and by place of the centre off the middle pixel along y
    and x, -3/4 to 3/4; rows are filled up with zeros."""
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    """(my,), (mx,): nodes, pixel, rising."""
    size: int
    """Edge s of a stamp, pixel; odd."""
    defined: NDArray[np.bool_]
    """(my, mx): nodes where the model gave a PSF; the others have that of the nearest one that did."""
    moments: NDArray[np.float64]
    """(3, my, mx): adaptive moments xx, xy, yy, pixel squared; NaN where there are none."""
    area: NDArray[np.float64]
    """(my, mx): effective area 1 / sum p^2, pixel."""

    @classmethod
    def of(cls, psf: Any, shape: tuple[int, int]) -> PsfTable:
        """Tabulate a model.

        Parameters
        ----------
        psf
            Something with ``stamps(x=, y=)`` or ``stamp(x=, y=)`` as `skysub.psf.model.MoffatPsf` has them,
            or with a ``sigma``: a circular Gaussian.
        shape
            (ny, nx) of the detector, pixel.

        Raises
        ------
        InvalidPsfError
            When the model is none of these, or gives no PSF anywhere.
        """
        y, x = (_nodes(n) for n in shape)
        raw = _ask(psf, y, x)
        sums = raw.sum((-2, -1))
        with np.errstate(invalid="ignore"):
            good = np.isfinite(raw).all((-2, -1)) & (sums > 0.05)
            good &= raw.max((-2, -1)) * raw.shape[-1] ** 2 > 1.5 * sums
        defined = good.all((2, 3))
        if not defined.any():
            raise InvalidPsfError(
                "the PSF is undefined (NaN, without light or flat) all over the detector; "
                "give another model, or fit one to its stars by skysub.calibrate_image"
            )
        raw[defined] /= sums[defined][..., None, None]
        _fill(raw, defined)
        middle = raw[:, :, 2, 2]
        m = adaptive_moments(middle.reshape(-1, *middle.shape[2:]))
        moments = np.array([a.reshape(defined.shape) for a in (m.xx, m.xy, m.yy)])
        return cls(
            table=_phases(raw),
            y=y,
            x=x,
            size=raw.shape[-1],
            defined=defined,
            moments=moments,
            area=1 / np.maximum((middle**2).sum((-2, -1)), 1e-30),
        )

    @property
    def half(self) -> int:
        """Pixels from the middle of a stamp to its edge."""
        return self.size // 2

    @property
    def core(self) -> int:
        """Radius, pixel, of the square that holds nearly all of the PSF's squares, which fluxes come from."""
        power = (self.table[:, :, 3, 3, :, : self.size].astype(np.float64) ** 2).mean((0, 1))
        half = self.half
        for radius in range(3, half):
            square = slice(half - radius, half + radius + 1)
            if power[square, square].sum() > _CORE * power.sum():
                return radius
        return half

    @property
    def sigma(self) -> float:
        """Typical determinant radius, pixel; from the effective area where moments do not exist."""
        xx, xy, yy = self.moments
        with np.errstate(invalid="ignore"):
            radius = (xx * yy - xy**2) ** 0.25
        known = radius[np.isfinite(radius)]
        typical = known if known.size else np.sqrt(self.area.ravel() / (4 * np.pi))
        return float(np.median(typical))

    def at(self, y: float, x: float) -> NDArray[np.float32]:
        """Stamps (7, 7, s, w) at a place."""
        from skysub.measurement import psf_kernels

        out = np.empty(self.table.shape[2:], np.float32)
        row, column = self.node_of(np.array([y]), np.array([x]))[:, 0]
        psf_kernels.blend(self.table, row, column, out)
        return out

    def node_of(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2, n) fractional node of places, rows and columns."""
        return np.array(
            [
                np.interp(y, self.y, np.arange(len(self.y), dtype=float)),
                np.interp(x, self.x, np.arange(len(self.x), dtype=float)),
            ]
        )

    def values_at(
        self, values: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Values at nodes (my, mx), bilinear at places (n,)."""
        row, column = self.node_of(y, x)
        my, mx = self.defined.shape
        a, b = np.minimum(row.astype(int), max(my - 2, 0)), np.minimum(column.astype(int), max(mx - 2, 0))
        f, g = row - a, column - b
        a2, b2 = np.minimum(a + 1, my - 1), np.minimum(b + 1, mx - 1)
        low = (1 - g) * values[a, b] + g * values[a, b2]
        high = (1 - g) * values[a2, b] + g * values[a2, b2]
        out: NDArray[np.float64] = (1 - f) * low + f * high
        return out


def _nodes(n: int) -> NDArray[np.float64]:
    count = min(_NODES, max(1, round(n / _SPACING) + 1))
    return np.linspace(0, n - 1, count).round() if count > 1 else np.array([(n - 1) // 2], float)


def _ask(psf: Any, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stamps (my, mx, 4, 4, s, s) of a model at nodes and offsets; NaN where it has none."""
    offsets = np.array(_OFFSETS)
    at_y, at_x, dy, dx = (a.ravel() for a in np.meshgrid(y, x, offsets, offsets, indexing="ij"))
    if hasattr(psf, "stamps"):
        # half a pixel is rounded to even numbers: the nodes are moved there
        stamps = _tried(lambda: psf.stamps(x=_even(at_x) + dx, y=_even(at_y) + dy))
        found = [] if stamps is None else list(np.asarray(stamps, np.float64))
    elif hasattr(psf, "stamp"):
        places = zip(_even(at_x) + dx, _even(at_y) + dy, strict=True)
        found = [_tried(lambda a=a, b=b: psf.stamp(x=float(a), y=float(b))) for a, b in places]
    elif hasattr(psf, "sigma"):
        return _gaussian(psf.sigma, (len(y), len(x)))
    else:
        raise InvalidPsfError(
            f"a {type(psf).__name__} is no PSF: it has neither stamps(x=, y=) nor stamp(x=, y=) nor sigma"
        )
    sizes = [min(s.shape) for s in found if s is not None and s.ndim == 2 and s.size]
    if not sizes:
        raise InvalidPsfError("the PSF gives no stamp anywhere on the detector")
    size = min(max(*sizes, _SMALLEST), _LARGEST) | 1
    out = np.array([_of_size(s, size) for s in found])
    return out.reshape(len(y), len(x), len(offsets), len(offsets), size, size)


def _even(at: NDArray[np.float64]) -> NDArray[np.float64]:
    rounded: NDArray[np.float64] = np.round(at / 2) * 2
    return rounded


def _tried(ask: Any) -> NDArray[np.float64] | None:
    """What a model answers; None where it raises: foreign models do so off their domain."""
    try:
        return np.asarray(ask(), np.float64)
    except Exception:  # noqa: BLE001
        return None


def _of_size(stamp: NDArray[np.float64] | None, size: int) -> NDArray[np.float64]:
    """Stamp cut or filled up with zeros to (size, size) about its middle pixel, NaN for None."""
    if stamp is None or stamp.ndim != 2 or not stamp.size:
        return np.full((size, size), np.nan)
    out = np.zeros((size, size))
    half = size // 2
    cut = []
    for n in stamp.shape:
        reach = min(half, n // 2, n - 1 - n // 2)
        cut.append((slice(n // 2 - reach, n // 2 + reach + 1), slice(half - reach, half + reach + 1)))
    out[cut[0][1], cut[1][1]] = stamp[cut[0][0], cut[1][0]]
    return out


def _gaussian(sigma: float, nodes: tuple[int, int]) -> NDArray[np.float64]:
    try:
        known = 0.2 <= float(sigma) <= 30
    except (TypeError, ValueError):
        known = False
    if not known:
        raise InvalidPsfError(f"a Gaussian PSF must have a sigma from 0.2 to 30 pixels, not {sigma!r}")
    half = min(max(_SMALLEST // 2, int(np.ceil(5 * sigma))), _LARGEST // 2)
    i = np.arange(-half, half + 1)
    along = np.exp(-0.5 * ((i[None, :] - np.array(_OFFSETS)[:, None]) / sigma) ** 2)
    stamps = along[:, None, :, None] * along[None, :, None, :]
    stamps /= stamps.sum((-2, -1), keepdims=True)
    return np.broadcast_to(stamps, (*nodes, *stamps.shape)).copy()


def _fill(raw: NDArray[np.float64], defined: NDArray[np.bool_]) -> None:
    """Give nodes without a PSF that of the nearest node with one."""
    rows, columns = np.nonzero(defined)
    for a, b in zip(*np.nonzero(~defined), strict=True):
        nearest = np.argmin((rows - a) ** 2 + (columns - b) ** 2)
        raw[a, b] = raw[rows[nearest], columns[nearest]]


def _phases(raw: NDArray[np.float64]) -> NDArray[np.float32]:
    """Table (my, mx, 7, 7, s, w) from stamps at four offsets along each axis."""
    size = raw.shape[-1]
    width = -(-size // LANES) * LANES
    out = np.zeros((*raw.shape[:2], 7, 7, size, width), np.float32)
    for p in range(7):
        own_y, move_y = _source_of(p)
        for q in range(7):
            own_x, move_x = _source_of(q)
            stamps = raw[:, :, own_y, own_x]
            rows = np.clip(np.arange(size) - move_y, 0, size - 1)
            columns = np.clip(np.arange(size) - move_x, 0, size - 1)
            out[:, :, p, q, :, :size] = stamps[:, :, rows[:, None], columns[None, :]]
    return out


def _source_of(phase: int) -> tuple[int, int]:
    """Index into `_OFFSETS`, and whole pixels to move by, that give the phase (phase - 3) / 4."""
    quarter = phase - 3
    move = (quarter + 2) // 4
    return quarter - 4 * move + 2, move
