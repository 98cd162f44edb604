"""Work on an image by its rows: at once where it is an array, in blocks where no process holds all of it.

Functions of pixels are written for some rows of arrays that have the shape of the whole image, so that places
mean the same everywhere. `over_rows` calls such a function once for an array; for a `Plane` it calls it for
each block of rows, where the block lies, and gives back what each has found in the order of rows. What is
found must not depend on where the blocks end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Plane", "changed_rows", "copied", "made_rows", "over_rows", "rows_between", "sampled"]


class Plane(ABC):
    """An image, its mask or its flags, of which no process holds all; it stands where arrays (ny, nx) do."""

    ndim = 2
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def copy(self) -> Plane:
        """Return a plane that changes of this one leave alone."""

    @abstractmethod
    def over(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        spans: NDArray[np.int64],
    ) -> list[Any]:
        """See `over_rows`."""

    @abstractmethod
    def made(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        dtype: np.dtype[Any],
        *,
        kept: bool,
    ) -> Plane:
        """See `made_rows`."""

    @abstractmethod
    def change(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        spans: NDArray[np.int64] | None,
    ) -> None:
        """See `changed_rows`."""


def over_rows(
    work: Callable[..., Any],
    planes: Sequence[Any],
    *,
    spans: NDArray[np.int64],
    threads: int = 1,
    **args: Any,
) -> list[Any]:
    """Call ``work(units, *planes, threads=threads, **args)`` on ranges of units that make up all of them.

    Parameters
    ----------
    work
        A function of a module, that only reads. Of the planes it may use the rows of its units.
    planes
        Arrays or `Plane` objects of one shape (ny, nx).
    args
        What has a method ``within(first, last)`` is cut by it to the rows that are needed.
    spans
        (n, 2) int64: first row that each unit needs, and one past the last; their middles are in order.

    Returns
    -------
    found
        What each call has returned, in the order of units.
    """
    first = planes[0]
    if isinstance(first, Plane):
        return first.over(work, planes, args, spans)
    return [work(range(len(spans)), *planes, threads=threads, **args)]


def made_rows(
    work: Callable[..., Any],
    planes: Sequence[Any],
    dtype: Any,
    *,
    out: NDArray[Any] | None = None,
    kept: bool = False,
    threads: int = 1,
    **args: Any,
) -> Any:
    """Return a new plane, of whose rows ``work(rows, out, *planes, threads=threads, **args)`` fills some.

    Parameters
    ----------
    work
        A function of a module; each row must depend on the same row of the planes alone.
    out
        Array to fill, where the planes are arrays.
    kept
        In blocks: whether it is kept rather than made anew each time that it is needed. It can be changed
        only then.
    """
    first = planes[0]
    if isinstance(first, Plane):
        return first.made(work, planes, args, np.dtype(dtype), kept=kept)
    if out is None:
        out = np.empty(first.shape, dtype)
    work(range(len(first)), out, *planes, threads=threads, **args)
    return out


def changed_rows(
    work: Callable[..., Any],
    plane: Any,
    planes: Sequence[Any] = (),
    *,
    spans: NDArray[np.int64] | None = None,
    threads: int = 1,
    **args: Any,
) -> None:
    """Let ``work(units, plane, *planes, threads=threads, **args)`` change rows of a plane in place.

    ``spans`` are those of the units, as in `over_rows`; without them units are rows.
    """
    if isinstance(plane, Plane):
        plane.change(work, planes, args, spans)
        return
    work(range(len(plane) if spans is None else len(spans)), plane, *planes, threads=threads, **args)


def copied(plane: Any) -> Any:
    """Return a copy of an array or a plane."""
    return plane.copy()


def rows_between(edges: NDArray[np.int64], *, margin: int = 0) -> NDArray[np.int64]:
    """Spans of units between edges, the last of which is the number of rows; ``margin`` more on both sides.

    >>> rows_between(np.array([0, 4, 9]), margin=1).tolist()
    [[0, 5], [3, 9]]
    """
    spans = np.stack([edges[:-1] - margin, edges[1:] + margin], axis=1)
    clipped: NDArray[np.int64] = np.clip(spans, 0, edges[-1])
    return clipped


def sampled(planes: Sequence[Any], step: int) -> list[NDArray[Any]]:
    """Every so many pixels of every so many rows of planes, copies."""
    rows = np.arange(0, len(planes[0]), step)
    parts = over_rows(_sample, planes, spans=np.stack([rows, rows + 1], axis=1), step=step)
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _sample(units: range, *planes: NDArray[Any], step: int, threads: int) -> list[NDArray[Any]]:
    del threads
    rows = slice(units.start * step, (units.stop - 1) * step + 1, step)
    return [plane[rows, ::step].copy() for plane in planes]
