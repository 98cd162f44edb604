"""The background of Dask arrays, block by block, with the bits of the NumPy path.

A graph has three stages: the statistics of each block, one small task that gathers them and fits, and the
subtraction of the model from each block. The last stage reads its block again rather than wait for the fit
with the pixels in memory, so that an image may be larger than any worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import DaskMethodsMixin, compute
from dask.delayed import Delayed, delayed

from skysub.background import block_tasks
from skysub.background.block_graphs import read_again
from skysub.background.config import BackgroundConfig
from skysub.background.pixels import checked_ignored, working_dtype
from skysub.background.superpixels import candidate_grids
from skysub.errors import InvalidImageError, UndersampledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from skysub.background.model import Background
    from skysub.background.superpixels import SuperpixelGrid

__all__ = ["LazyBackground", "align_chunks", "fit_blocks", "subtract_blocks"]


@dataclass(frozen=True, eq=False)
class LazyBackground(DaskMethodsMixin):
    """The background of one image of a Dask array, not computed yet.

    It is a Dask collection: ``compute()`` gives the `Background`, and ``dask.compute`` or
    ``client.compute`` take it together with arrays, so that statistics are measured once.
    """

    grid: SuperpixelGrid
    """The superpixels that statistics are measured on."""
    config: BackgroundConfig
    chunks: tuple[tuple[int, ...], tuple[int, ...]]
    """Chunks of the image along y and x, pixel."""
    fit: Delayed
    """The `Background` to be."""

    def __repr__(self) -> str:
        ny, nx = self.shape
        gy, gx = self.grid.shape
        return f"<LazyBackground of {ny} x {nx} pixels, {gy} x {gx} superpixels, order {self.config.order}>"

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of the image, pixel."""
        return self.grid.image_shape

    def evaluate(self, *, y: slice = slice(None), x: slice = slice(None)) -> da.Array:
        """Model at each pixel of a window, as `Background.evaluate` gives it, in the image's chunks.

        Returns
        -------
        model
            (ny, nx) Dask array of float32, unit of the image.
        """
        return self._over_pixels(block_tasks.evaluated)[y, x]

    def uncertainty(self, *, y: slice = slice(None), x: slice = slice(None)) -> da.Array:
        """Give the standard deviation of the model, as `Background.uncertainty` does, in the image's chunks.

        Returns
        -------
        uncertainty
            (ny, nx) Dask array of float32, unit of the image.
        """
        return self._over_pixels(block_tasks.uncertainty)[y, x]

    def _over_pixels(self, window_of: Callable[..., NDArray[np.float32]]) -> da.Array:
        rows, columns = (da.arange(sum(cuts), chunks=(cuts,)) for cuts in self.chunks)
        meta = np.empty((0, 0), np.float32)
        return da.blockwise(window_of, "yx", rows, "y", columns, "x", self.fit, None, meta=meta)

    def __dask_graph__(self) -> Any:
        return self.fit.__dask_graph__()

    def __dask_keys__(self) -> list[Any]:
        keys: list[Any] = self.fit.__dask_keys__()
        return keys

    def __dask_layers__(self) -> Any:
        return self.fit.__dask_layers__()

    def __dask_tokenize__(self) -> Any:
        return self.fit.__dask_tokenize__()

    __dask_optimize__ = staticmethod(Delayed.__dask_optimize__)
    __dask_scheduler__ = staticmethod(Delayed.__dask_scheduler__)

    def __dask_postcompute__(self) -> Any:
        return self.fit.__dask_postcompute__()

    def __dask_postpersist__(self) -> Any:
        rebuild, state = self.fit.__dask_postpersist__()
        return _rebuilt, (self, rebuild, state)


def fit_blocks(
    image: da.Array, ignored: Any = None, config: BackgroundConfig | None = None, *, threads: int = 1
) -> LazyBackground | list[LazyBackground]:
    """Estimate the background of a Dask array; `skysub.fit_background` hands such arrays here.

    Nothing is computed, unless ``config.undersampled`` is "refine": which grid is the answer then depends
    on the pixels, so statistics are computed at once, on the scheduler in force, until a grid holds the
    order (as a rule the first does).

    Parameters
    ----------
    image
        (ny, nx), or a stack (detector, ny, nx) where each detector has a background of its own. Any
        chunks; where they cut superpixels the pixels beside their borders are moved, see `align_chunks`.
    ignored
        As for NumPy: None, bool, or ``(mask, bits)``, of the shape of ``image``; Dask arrays or NumPy's.
    config
        Settings; LSST's by default.
    threads
        Threads within the task of a block.

    Returns
    -------
    background
        One to be computed; for a stack a list with one of each detector.

    Raises
    ------
    InvalidImageError
        When shapes disagree or are not known, or a type cannot be worked on.
    """
    return _estimated(_Inputs.of(image, ignored, config, threads))[1]


def subtract_blocks(
    image: da.Array, ignored: Any = None, config: BackgroundConfig | None = None, *, threads: int = 1
) -> tuple[da.Array, LazyBackground | list[LazyBackground]]:
    """Estimate the background of a Dask array and subtract it.

    Blocks are read (or computed) a second time once the fit is known, in place of being held until then;
    ``image.persist()`` first where memory is cheaper than the second reading. Parameters and errors are
    those of `fit_blocks`.

    Returns
    -------
    subtracted
        ``image - model`` in the chunks of ``image``, lazily; float32, or float64 where the image is that
        or a wide integer.
    background
        What `fit_blocks` returns.
    """
    inputs = _Inputs.of(image, ignored, config, threads)
    boxes, backgrounds = _estimated(inputs)
    axes = inputs.image.ndim
    models = [
        da.from_delayed(box, (cut.stop - cut.start, 1, 1)[-axes:], meta=np.empty((0,) * axes, object))
        for box, cut in zip(boxes, inputs.detector_chunks(), strict=True)
    ]
    model = models[0] if len(models) == 1 else da.concatenate(models)
    subtracted = da.map_blocks(
        block_tasks.subtracted,
        read_again(inputs.image, after=model),
        model,
        threads=threads,
        chunks=inputs.image.chunks,
        meta=np.empty((0,) * axes, working_dtype(inputs.image.dtype)),
    )
    return subtracted, backgrounds


def align_chunks(array: da.Array, config: BackgroundConfig | None = None) -> da.Array:
    """Rechunk an image so that its chunks are unions of whole superpixels.

    Each border between chunks moves to the nearest edge of a superpixel, so that chunks stay about as
    large as they are, or grow to one superpixel. LSST spreads superpixels evenly, so edges are not
    multiples of one size: 4072 pixels in superpixels of 128 are 32 of 127 or 128 pixels.

    Parameters
    ----------
    array
        (ny, nx) or (detector, ny, nx); chunks along the detector axis stay.
    config
        Settings that define the superpixels; LSST's by default.

    Raises
    ------
    InvalidImageError
        When the array has other dimensions, or chunks of unknown sizes.
    """
    inputs = _Inputs.of(array, None, config, threads=1)
    return _aligned(inputs.image, inputs.grids()[0])


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What was asked for, checked."""

    image: da.Array
    mask: da.Array | None
    bits: int
    config: BackgroundConfig
    threads: int

    @classmethod
    def of(cls, image: da.Array, ignored: Any, config: BackgroundConfig | None, threads: int) -> _Inputs:
        image = _checked_array(image)
        mask, bits = _checked_mask(ignored, image)
        return cls(image=image, mask=mask, bits=bits, config=config or BackgroundConfig(), threads=threads)

    @property
    def stacked(self) -> bool:
        return self.image.ndim == 3

    def detectors(self) -> list[_Inputs]:
        """Each detector alone, as (ny, nx)."""
        if not self.stacked:
            return [self]
        masks = [None] * len(self.image) if self.mask is None else self.mask
        return [replace(self, image=i, mask=m) for i, m in zip(self.image, masks, strict=True)]

    def detector_chunks(self) -> list[slice]:
        """Detectors of each chunk; an image alone is one detector."""
        stops = np.cumsum(self.image.chunks[0] if self.stacked else (1,)).tolist()
        return [slice(a, b) for a, b in pairwise([0, *stops])]

    def grids(self) -> list[SuperpixelGrid]:
        return candidate_grids(self.image.shape[-2:], self.config)

    def statistics(self, grid: SuperpixelGrid) -> da.Array:
        """Statistics image, (gy, gx) or (detector, gy, gx), of `block_tasks.STATISTICS`."""
        aligned = _aligned(self.image, grid)
        counts = [
            tuple(np.diff(np.searchsorted(edges, np.cumsum([0, *sizes]))).tolist())
            for edges, sizes in zip((grid.y_edges, grid.x_edges), aligned.chunks[-2:], strict=True)
        ]
        return da.map_blocks(
            block_tasks.statistics,
            *([aligned] if self.mask is None else [aligned, self.mask.rechunk(aligned.chunks)]),
            bits=self.bits,
            grid=grid,
            config=self.config,
            threads=self.threads,
            chunks=(*aligned.chunks[:-2], *counts),
            meta=np.empty((0,) * aligned.ndim, block_tasks.STATISTICS),
        )


def _estimated(inputs: _Inputs) -> tuple[list[Delayed], LazyBackground | list[LazyBackground]]:
    """For each chunk of detectors a box of fits as `block_tasks.boxed` makes it, and what users are given."""
    chunks = inputs.detector_chunks()
    if inputs.config.undersampled == "refine":
        found = _refined(inputs)
        boxes = [delayed(block_tasks.boxed(found[cut], inputs.image.ndim), traverse=False) for cut in chunks]
        fits = [(background.grid, delayed(background, traverse=False)) for background in found]
    else:
        (grid,) = inputs.grids()
        blocks = inputs.statistics(grid).to_delayed()
        gather, pick = delayed(block_tasks.fitted, pure=True), delayed(block_tasks.unboxed, pure=True)
        boxes = [
            gather(of_chunk.tolist(), grid, inputs.config, cut.start if inputs.stacked else None)
            for of_chunk, cut in zip(blocks if inputs.stacked else [blocks], chunks, strict=True)
        ]
        fits = [
            (grid, pick(box, i))
            for box, cut in zip(boxes, chunks, strict=True)
            for i in range(cut.stop - cut.start)
        ]
    over = inputs.image.chunks[-2:]
    backgrounds = [
        LazyBackground(grid=grid, config=inputs.config, chunks=over, fit=fit) for grid, fit in fits
    ]
    return boxes, backgrounds if inputs.stacked else backgrounds[0]


def _refined(inputs: _Inputs) -> list[Background]:
    """Background of each detector on the first grid that holds the order; every grid is one computation."""
    left = dict(enumerate(inputs.detectors()))
    found: dict[int, Background] = {}
    *grids, last = inputs.grids()
    for grid in (*grids, last):
        measured = compute(*(detector.statistics(grid) for detector in left.values()))
        for i, statistics in zip(list(left), measured, strict=True):
            try:
                found[i] = block_tasks.fit_detector(
                    statistics, grid, inputs.config, i if inputs.stacked else None
                )
            except UndersampledError:
                if grid is last:
                    raise
            else:
                del left[i]
        if not left:
            break
    return [found[i] for i in sorted(found)]


def _aligned(array: da.Array, grid: SuperpixelGrid) -> da.Array:
    chunks = []
    for edges, sizes in zip((grid.y_edges, grid.x_edges), array.chunks[-2:], strict=True):
        nearest = np.searchsorted((edges[:-1] + edges[1:]) / 2, np.cumsum([0, *sizes]))
        chunks.append(tuple(np.diff(edges[np.unique(nearest)]).tolist()))
    return array.rechunk((*array.chunks[:-2], *chunks))


def _checked_array(image: Any) -> da.Array:
    if not isinstance(image, da.Array):
        raise InvalidImageError(
            f"an image must be a NumPy or Dask array, not {type(image).__module__}.{type(image).__name__}"
        )
    if image.ndim not in {2, 3}:
        raise InvalidImageError(
            f"a Dask array must have shape (ny, nx) or (detector, ny, nx), not {image.ndim} dimensions"
        )
    if any(math.isnan(n) for n in image.shape):
        raise InvalidImageError(
            f"the chunks of the image have unknown sizes (shape {image.shape}): "
            "call image.compute_chunk_sizes() first"
        )
    if 0 in image.shape:
        raise InvalidImageError(f"an image must have at least one pixel, not shape {image.shape}")
    working_dtype(image.dtype)
    if any(0 in sizes for sizes in image.chunks):
        return image.rechunk(tuple(tuple(n for n in sizes if n) for sizes in image.chunks))
    return image


def _checked_mask(ignored: Any, image: da.Array) -> tuple[da.Array | None, int]:
    """Mask as a Dask array, and bits; its values are looked at in the tasks of blocks only."""
    if ignored is None:
        return None, 0
    mask, *bits = ignored if isinstance(ignored, tuple) else (ignored,)
    if not isinstance(mask, da.Array):
        mask = np.asarray(mask)
    # asked with a mask of no pixels, so that the rules about types and bits are those of NumPy's path
    nothing = np.empty((0, 0), mask.dtype)
    _, checked_bits = checked_ignored((nothing, *bits) if isinstance(ignored, tuple) else nothing, (0, 0))
    if mask.shape != image.shape:
        raise InvalidImageError(
            f"Shape of the mask {mask.shape} does not match that of the image {image.shape}"
        )
    if not isinstance(mask, da.Array):
        mask = da.from_array(mask, chunks=image.chunks)
    return mask, checked_bits


def _rebuilt(graph: Any, lazy: LazyBackground, rebuild: Any, state: Any, **names: Any) -> LazyBackground:
    return replace(lazy, fit=rebuild(graph, *state, **names))
