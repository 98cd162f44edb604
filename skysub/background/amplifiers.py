"""What the amplifiers of a detector add to its sky: a step each, and a drift from row to row."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Amplifier", "AmplifierBackground", "amplifier_grid", "do_tile"]

_SECTION = re.compile(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*$")


@dataclass(frozen=True, slots=True)
class Amplifier:
    """The pixels of an image that one amplifier read.

    Parameters
    ----------
    name
        As the camera calls it.
    y, x
        First row and the row after the last, and the same for columns, of the image's own array (y before x,
        pixel (0, 0) is the lower left one).

    Raises
    ------
    ConfigError
        When a range is empty or begins below 0.
    """

    name: str
    y: tuple[int, int]
    x: tuple[int, int]

    def __post_init__(self) -> None:
        for axis in ("y", "x"):
            first, last = getattr(self, axis)
            if not 0 <= first < last:
                raise ConfigError(
                    f"amplifier {self.name}: its {axis} must run from a pixel of at least 0 to a larger one, "
                    f"not from {first} to {last}"
                )

    @classmethod
    def of_section(cls, name: str, section: str) -> Amplifier:
        """Amplifier of a section in FITS's words, ``"[x1:x2,y1:y2]"``: from 1, ends included, x first.

        A range that runs backwards, as amplifiers on the right are often given, is turned round.

        Raises
        ------
        ConfigError
            When it is no such section.
        """
        found = _SECTION.match(section)
        if found is None:
            raise ConfigError(
                f"amplifier {name}: a section is written '[x1:x2,y1:y2]', counted from 1 with both ends, "
                f"not {section!r}"
            )
        x1, x2, y1, y2 = (int(number) for number in found.groups())
        return cls(name, y=(min(y1, y2) - 1, max(y1, y2)), x=(min(x1, x2) - 1, max(x1, x2)))

    @property
    def section(self) -> str:
        """The same in FITS's words, ``"[x1:x2,y1:y2]"``."""
        return f"[{self.x[0] + 1}:{self.x[1]},{self.y[0] + 1}:{self.y[1]}]"

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, to cut them out of an array."""
        return slice(*self.y), slice(*self.x)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx), pixel."""
        return self.y[1] - self.y[0], self.x[1] - self.x[0]


def amplifier_grid(shape: tuple[int, int], *, rows: int, columns: int) -> tuple[Amplifier, ...]:
    """Amplifiers that divide an image of ``shape`` (ny, nx) evenly, row by row from the lower left.

    Raises
    ------
    ConfigError
        When there are fewer pixels than amplifiers along an axis.
    """
    if not (1 <= rows <= shape[0] and 1 <= columns <= shape[1]):
        raise ConfigError(f"{rows} x {columns} amplifiers do not fit an image of {shape[0]} x {shape[1]}")
    y = [shape[0] * i // rows for i in range(rows + 1)]
    x = [shape[1] * i // columns for i in range(columns + 1)]
    return tuple(
        Amplifier(f"{j}{i}" if columns <= 10 else f"{j}-{i}", y=(y[j], y[j + 1]), x=(x[i], x[i + 1]))
        for j in range(rows)
        for i in range(columns)
    )


def do_tile(amplifiers: Sequence[Amplifier], shape: tuple[int, int]) -> bool:
    """Whether amplifiers cover an image of ``shape`` (ny, nx), each pixel once, under names of their own."""
    if any(a.y[1] > shape[0] or a.x[1] > shape[1] for a in amplifiers):
        return False
    if len({a.name for a in amplifiers}) < len(amplifiers):
        return False
    if sum(a.shape[0] * a.shape[1] for a in amplifiers) != shape[0] * shape[1]:
        return False
    # as many pixels as there are, so that none is left out unless two amplifiers share one
    return not any(
        max(a.y[0], b.y[0]) < min(a.y[1], b.y[1]) and max(a.x[0], b.x[0]) < min(a.x[1], b.x[1])
        for a, b in itertools.combinations(amplifiers, 2)
    )


@dataclass(frozen=True, eq=False)
class AmplifierBackground:
    """A step and a drift with the rows for each amplifier of one image: a layer of its own.

    Their mean over the image is 0: the level is the polynomial's.
    """

    shape: tuple[int, int]
    """Shape (ny, nx) of the image, pixel."""
    amplifiers: tuple[Amplifier, ...]
    steps: NDArray[np.float64]
    """(n,) float64 offset of each amplifier, unit of the image."""
    step_errors: NDArray[np.float64]
    """(n,) float64 standard deviations of ``steps``."""
    rows_per_bin: int = 0
    """Rows over which a value of ``drift`` holds, counted from an amplifier's first row; 0 without drift."""
    drift: tuple[NDArray[np.float64], ...] = ()
    """For each amplifier (bins,) float64 deviation of its rows from its step; empty without drift."""
    drift_errors: tuple[NDArray[np.float64], ...] = ()
    """Their standard deviations."""

    def __post_init__(self) -> None:
        n = len(self.amplifiers)
        if self.steps.shape != (n,) or self.step_errors.shape != (n,):
            raise ConfigError(
                f"{n} amplifiers need as many steps and errors, not {self.steps.shape} and "
                f"{self.step_errors.shape}"
            )
        for values in (self.drift, self.drift_errors):
            bins = [-(-a.shape[0] // self.rows_per_bin) for a in self.amplifiers] if values else []
            if [len(each) for each in values] != bins:
                raise ConfigError(
                    f"drift in bins of {self.rows_per_bin} rows needs {bins} values, not "
                    f"{[len(each) for each in values]}"
                )
        if not do_tile(self.amplifiers, self.shape):
            named = ", ".join(f"{a.name} {a.section}" for a in self.amplifiers)
            raise ConfigError(
                f"the amplifiers {named} do not tile an image of {self.shape[0]} x {self.shape[1]} pixels"
            )

    def __repr__(self) -> str:
        drift = f", drift in bins of {self.rows_per_bin} rows" if self.drift else ""
        return (
            f"AmplifierBackground(shape={self.shape}, amplifiers={len(self.amplifiers)}, "
            f"steps {float(self.steps.min()):.3g} to {float(self.steps.max()):.3g}{drift})"
        )

    def evaluate(self, *, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.float32]:
        """Layer at each pixel of a window, (ny, nx) float32, unit of the image; the whole by default."""
        return self._painted(self._rows(self.steps, self.drift), y, x)

    def uncertainty(self, *, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.float32]:
        """Standard deviation at each pixel of a window, (ny, nx) float32, unit of the image."""
        rows = self._rows(self.step_errors**2, tuple(each**2 for each in self.drift_errors))
        return self._painted([np.sqrt(each) for each in rows], y, x)

    def subtract(
        self, image: NDArray[np.floating], out: NDArray[np.floating], *, y0: int = 0, x0: int = 0
    ) -> None:
        """Put ``image``, whose first pixel is (y0, x0), minus this layer into ``out``; both may be one."""
        for amplifier, values in zip(self.amplifiers, self._rows(self.steps, self.drift), strict=True):
            cut, own = _overlap(amplifier, y0, x0, image.shape)
            if cut is not None:
                np.subtract(image[cut], values.astype(out.dtype)[own, None], out=out[cut])

    def described(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        return {
            "shape": list(self.shape),
            "amplifiers": {a.name: a.section for a in self.amplifiers},
            "rows_per_bin": self.rows_per_bin if self.drift else 0,
        }

    def as_array(self) -> NDArray[np.float64]:
        """(2, n + bins) float64: steps, then the drift of each amplifier, and the errors of all of them."""
        values = np.concatenate([self.steps, *self.drift])
        errors = np.concatenate([self.step_errors, *self.drift_errors])
        return np.stack([values, errors])

    @classmethod
    def of_array(cls, description: Mapping[str, Any], array: NDArray[np.float64]) -> AmplifierBackground:
        """Return the layer that `described` and `as_array` were given.

        Raises
        ------
        ConfigError
            When the numbers do not fit the description.
        """
        amplifiers = tuple(Amplifier.of_section(*each) for each in description["amplifiers"].items())
        n, size = len(amplifiers), int(description["rows_per_bin"])
        ends = n + np.cumsum([-(-a.shape[0] // size) for a in amplifiers]) if size else np.array([n])
        if array.ndim != 2 or array.shape != (2, ends[-1]):
            raise ConfigError(f"{n} amplifiers in bins of {size} rows do not fit an array of {array.shape}")
        drift, errors = (
            tuple(np.ascontiguousarray(each) for each in np.split(values[n:], ends[:-1] - n)) if size else ()
            for values in array
        )
        return cls(
            shape=(int(description["shape"][0]), int(description["shape"][1])),
            amplifiers=amplifiers,
            steps=array[0, :n].copy(),
            step_errors=array[1, :n].copy(),
            rows_per_bin=size,
            drift=drift,
            drift_errors=errors,
        )

    def _rows(
        self, steps: NDArray[np.float64], drift: Iterable[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """For each amplifier its value in each of its rows."""
        drift = tuple(drift)
        rows = []
        for number, (amplifier, step) in enumerate(zip(self.amplifiers, steps, strict=True)):
            values = np.full(amplifier.shape[0], step)
            if drift:
                values += np.repeat(drift[number], self.rows_per_bin)[: amplifier.shape[0]]
            rows.append(values)
        return rows

    def _painted(self, rows: list[NDArray[np.float64]], y: slice, x: slice) -> NDArray[np.float32]:
        for part in (y, x):
            if part.step not in {None, 1}:
                raise ValueError(f"a window has no step, not {part}")
        (y0, y1, _), (x0, x1, _) = y.indices(self.shape[0]), x.indices(self.shape[1])
        out = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), np.float32)
        for amplifier, values in zip(self.amplifiers, rows, strict=True):
            cut, own = _overlap(amplifier, y0, x0, out.shape)
            if cut is not None:
                out[cut] = values.astype(np.float32)[own, None]
        return out


def _overlap(
    amplifier: Amplifier, y0: int, x0: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice] | None, slice]:
    """Where a window of ``shape`` from (y0, x0) overlaps an amplifier, and which of the amplifier's rows."""
    first, last = max(amplifier.y[0], y0), min(amplifier.y[1], y0 + shape[0])
    left, right = max(amplifier.x[0], x0), min(amplifier.x[1], x0 + shape[1])
    if first >= last or left >= right:
        return None, slice(0, 0)
    own = slice(first - amplifier.y[0], last - amplifier.y[0])
    return (slice(first - y0, last - y0), slice(left - x0, right - x0)), own
