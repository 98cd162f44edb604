"""Planes of an image in blocks of rows, each worked on where it lies; what tasks share is small.

A task holds arrays of the shape of the whole image, of which only the rows that it needs are ever touched:
the system gives memory to these alone.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from skysub.background.rows import Plane

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["AtOnce", "Executor", "RowBlocks", "Source", "sheet"]

_SMALL = 1 << 20
"""Bytes up to which an array is worth no memory map of its own."""
_THREADS = 1
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Python names it from 3.12 on."""


class Source(Protocol):
    """Where the pixels of an image come from; it travels to workers."""

    @property
    def key(self) -> Hashable:
        """What tells it from others."""

    def rows(self, name: str, rows: range) -> Mapping[str, NDArray[Any]]:
        """Rows of one of its planes, (len(rows), nx), and of others that were read with it, by name."""


class Executor(Protocol):
    """Who does tasks."""

    def submit(self, block: int, function: Callable[..., Any], *args: Any) -> Any:
        """Begin a task, best where the block with this number lies; a future, which may be an argument."""

    def results(self, futures: Sequence[Any]) -> list[Any]:
        """Results of tasks, waited for."""


class AtOnce:
    """Does each task when it is given, in this process."""

    def submit(self, block: int, function: Callable[..., Any], *args: Any) -> Any:
        """Do a task; its result is its own future."""
        del block
        return function(*args)

    def results(self, futures: Sequence[Any]) -> list[Any]:
        """Return the futures."""
        return list(futures)


class RowBlocks:
    """An image in blocks of rows.

    Parameters
    ----------
    shape
        (ny, nx) of the image, pixel.
    cuts
        Rows at which blocks begin, and ny.
    halo
        Rows on both sides that a block holds beside its own. Tasks that need more fetch them.
    source, dtypes
        Where pixels come from, and the types of its planes by name.
    executor
        Who works.
    held
        Bytes of planes of the source that a process keeps between tasks.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        cuts: Sequence[int],
        *,
        halo: int,
        source: Source,
        dtypes: Mapping[str, Any],
        executor: Executor,
        held: int,
    ) -> None:
        self.shape, self.source, self.executor = shape, source, executor
        self.dtypes = {name: np.dtype(dtype) for name, dtype in dtypes.items()}
        self.cuts = [int(cut) for cut in cuts]
        self._budget = held
        self.blocks = [
            range(max(0, a - halo), min(shape[0], b + halo))
            for a, b in zip(self.cuts[:-1], self.cuts[1:], strict=True)
        ]
        """Rows that each block holds."""

    def plane(self, name: str) -> Plane:
        """Return a plane of the source."""
        return _Read(self, name)

    def run(
        self,
        block: int,
        function: Callable[..., Any],
        planes: Sequence[Any],
        args: Mapping[str, Any],
        *,
        rows: range,
        units: range,
        extra: Sequence[Any] = (),
    ) -> Any:
        """Begin a task, ``function(task, *extra, *parts)``, that needs some rows of planes; its future."""
        parts: list[Any] = []
        specs = [plane.spec(rows, parts) for plane in planes]
        task = _Task(
            shape=self.shape,
            rows=rows,
            units=units,
            held=self.blocks[block],
            planes=tuple(specs),
            args=_cut(args, rows),
            source=self.source,
            budget=self._budget,
        )
        return self.executor.submit(block, function, task, *extra, *parts)

    def over(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        spans: NDArray[np.int64],
    ) -> list[Any]:
        """See `skysub.background.rows.over_rows`."""
        middle = (spans[:, 0] + spans[:, 1]) // 2
        starts = np.searchsorted(middle, self.cuts)
        futures = []
        for block, (a, b) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            if a < b:
                rows = range(int(spans[a:b, 0].min()), int(spans[a:b, 1].max()))
                futures.append(
                    self.run(block, _over, planes, args, rows=rows, units=range(a, b), extra=(work,))
                )
        return self.executor.results(futures)


class _InBlocks(Plane):
    """What planes in blocks have in common."""

    def __init__(self, group: RowBlocks, dtype: np.dtype[Any]) -> None:
        self.group, self.dtype, self.shape = group, dtype, group.shape

    def over(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        spans: NDArray[np.int64],
    ) -> list[Any]:
        return self.group.over(work, planes, args, spans)

    def made(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        dtype: np.dtype[Any],
        *,
        kept: bool,
    ) -> Plane:
        lazy = _Made(self.group, work, planes, args, dtype)
        if not kept:
            return lazy
        group = self.group
        return _Kept(
            group,
            dtype,
            [group.run(b, _rows, [lazy], {}, rows=rows, units=rows) for b, rows in enumerate(group.blocks)],
        )

    def copy(self) -> Plane:
        return self

    def change(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        spans: NDArray[np.int64] | None,
    ) -> None:
        del work, planes, args, spans
        raise TypeError("this plane is not kept, so it cannot be changed")

    def spec(self, rows: range, parts: list[Any]) -> Any:
        """What a task needs to make some rows of the plane; what must be sent to it goes to ``parts``."""
        raise NotImplementedError


class _Read(_InBlocks):
    """A plane of the source."""

    def __init__(self, group: RowBlocks, name: str) -> None:
        super().__init__(group, group.dtypes[name])
        self._name = name

    def spec(self, rows: range, parts: list[Any]) -> Any:
        del rows, parts
        return _FromSource(self._name, self.dtype)


class _Made(_InBlocks):
    """A plane that is made of others each time that it is needed."""

    def __init__(
        self,
        group: RowBlocks,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(group, dtype)
        # what is kept may be changed later on
        self._work, self._planes, self._args = work, [plane.copy() for plane in planes], args

    def spec(self, rows: range, parts: list[Any]) -> Any:
        planes = tuple(plane.spec(rows, parts) for plane in self._planes)  # type: ignore[attr-defined]
        return _Worked(self._work, planes, _cut(self._args, rows), self.dtype)


class _Kept(_InBlocks):
    """A plane whose blocks are kept by whoever works on them."""

    def __init__(self, group: RowBlocks, dtype: np.dtype[Any], blocks: list[Any]) -> None:
        super().__init__(group, dtype)
        self._blocks = blocks

    def copy(self) -> Plane:
        return _Kept(self.group, self.dtype, list(self._blocks))

    def spec(self, rows: range, parts: list[Any]) -> Any:
        group, wanted = self.group, []
        have = self._holding(rows)
        if have is not None:
            wanted = [(group.blocks[have], rows, have)]
        else:
            for block, (a, b) in enumerate(zip(group.cuts[:-1], group.cuts[1:], strict=True)):
                own = range(max(a, rows.start), min(b, rows.stop))
                if own:
                    wanted.append((group.blocks[block], own, block))
        placed = []
        for held, own, block in wanted:
            placed.append((held, own, len(parts)))
            parts.append(self._blocks[block])
        return _FromParts(tuple(placed), self.dtype)

    def change(
        self,
        work: Callable[..., Any],
        planes: Sequence[Plane],
        args: Mapping[str, Any],
        spans: NDArray[np.int64] | None,
    ) -> None:
        group, changed = self.group, []
        for block, held in enumerate(group.blocks):
            rows = units = held
            if spans is not None:
                touched = np.flatnonzero((spans[:, 0] < held.stop) & (spans[:, 1] > held.start))
                units = range(int(touched[0]), int(touched[-1]) + 1)
                rows = range(
                    min(held.start, int(spans[touched, 0].min())),
                    max(held.stop, int(spans[touched, 1].max())),
                )
            changed.append(
                group.run(block, _change, [self, *planes], args, rows=rows, units=units, extra=(work,))
            )
        self._blocks = changed

    def _holding(self, rows: range) -> int | None:
        """Block that holds all of some rows."""
        middle = (rows.start + rows.stop) // 2
        block = min(int(np.searchsorted(self.group.cuts, middle, side="right")) - 1, len(self._blocks) - 1)
        held = self.group.blocks[block]
        return block if held.start <= rows.start and rows.stop <= held.stop else None


@dataclass(frozen=True)
class _FromSource:
    name: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Worked:
    work: Callable[..., Any]
    planes: tuple[Any, ...]
    args: dict[str, Any]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _FromParts:
    placed: tuple[tuple[range, range, int], ...]
    """Rows that a part holds, those of them that are wanted, and the number of the part."""
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Task:
    """What a task is told, but for the parts of planes that are sent to it."""

    shape: tuple[int, int]
    rows: range
    units: range
    held: range
    planes: tuple[Any, ...]
    args: dict[str, Any]
    source: Source
    budget: int

    def arrays(self, parts: Sequence[Any]) -> list[NDArray[Any]]:
        """Arrays of the whole shape, of which the task's rows are filled."""
        return [self._array(spec, parts) for spec in self.planes]

    def _array(self, spec: Any, parts: Sequence[Any]) -> NDArray[Any]:
        if isinstance(spec, _FromSource):
            held = self.held
            if held.start <= self.rows.start and self.rows.stop <= held.stop:
                return _READ.rows(self.source, spec, self.shape, held, self.budget)
            return _on_sheet(self.source.rows(spec.name, self.rows)[spec.name], spec, self.shape, self.rows)
        out = sheet(self.shape, spec.dtype)
        if isinstance(spec, _FromParts):
            for held, own, part in spec.placed:
                out[own.start : own.stop] = parts[part][own.start - held.start : own.stop - held.start]
            return out
        planes = [self._array(each, parts) for each in spec.planes]
        spec.work(self.rows, out, *planes, threads=_THREADS, **spec.args)
        return out


class _ReadOnce:
    """Planes of sources that this process keeps, the last used ones first, up to so many bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, NDArray[Any]]] = OrderedDict()

    def rows(
        self, source: Source, spec: _FromSource, shape: tuple[int, int], held: range, budget: int
    ) -> NDArray[Any]:
        key = (source.key, spec.name, held)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found[1]
        read = source.rows(spec.name, held)
        array = _on_sheet(read[spec.name], spec, shape, held)
        with self._lock:
            # those of a detector that is over go first
            for other in [each for each in self._kept if each[0] != source.key]:  # type: ignore[index]
                del self._kept[other]
            for name, plane in read.items():
                also = (source.key, name, held)
                if name == spec.name:
                    self._keep(key, array, plane.nbytes, budget)
                elif also not in self._kept and self._size + plane.nbytes <= budget:
                    own = _FromSource(name, plane.dtype)
                    self._keep(also, _on_sheet(plane, own, shape, held), plane.nbytes, budget)
        return array

    @property
    def _size(self) -> int:
        return sum(size for size, _ in self._kept.values())

    def _keep(self, key: Hashable, array: NDArray[Any], size: int, budget: int) -> None:
        while self._kept and self._size + size > budget:
            self._kept.popitem(last=False)
        if size <= budget:
            self._kept[key] = size, array


_READ = _ReadOnce()


def sheet(shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Array of zeros of which only those rows take memory that are touched."""
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= _SMALL:
        return np.zeros(shape, dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), dtype).reshape(shape)


def _on_sheet(pixels: NDArray[Any], spec: _FromSource, shape: tuple[int, int], rows: range) -> NDArray[Any]:
    out = sheet(shape, spec.dtype)
    out[rows.start : rows.stop] = pixels
    return out


def _cut(args: Mapping[str, Any], rows: range) -> dict[str, Any]:
    """Arguments, as far as some rows need them."""
    return {
        name: value.within(rows.start, rows.stop) if hasattr(value, "within") else value
        for name, value in args.items()
    }


def _over(task: _Task, work: Callable[..., Any], *parts: Any) -> Any:
    return work(task.units, *task.arrays(parts), threads=_THREADS, **task.args)


def _rows(task: _Task, *parts: Any) -> NDArray[Any]:
    (array,) = task.arrays(parts)
    return array[task.rows.start : task.rows.stop].copy()


def _change(task: _Task, work: Callable[..., Any], *parts: Any) -> NDArray[Any]:
    plane, *others = task.arrays(parts)
    work(task.units, plane, *others, threads=_THREADS, **task.args)
    return plane[task.held.start : task.held.stop].copy()
