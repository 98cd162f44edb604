r"""Splines through superpixels: the background that photutils, sep, and LSST without Approximate have.

Superpixels (filtered by a median where the configuration says so) are nodes at their centres. A spline along
y goes through each column of them, one along x through what these give at a row of pixels, all in float64.

=========== =============================================================== =================================
model       between the outermost centres                                   beyond them
=========== =============================================================== =================================
"akima"     Akima's cubics (LSST afw AKIMA_SPLINE; GSL)                     parabola of the end's derivatives
"natural"   cubic spline, no curvature at the ends (afw NATURAL_SPLINE)     straight
"bicubic"   the same                                                        the last cubics go on
            (SExtractor and sep mean this; see `SplineSurface.model`)
"reflect"   cubic spline of the superpixels mirrored about the border       the mirrored spline
            (photutils; scipy.ndimage.zoom)
=========== =============================================================== =================================

A superpixel that is not usable is left out of its column; a column with too few for its kind of spline has
the highest that they allow (afw: 1 constant, 2 linear, 3 natural, 5 Akima); one with none is left out of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.compiled import for_kernels, once
from skysub.background.threads import in_threads
from skysub.errors import NoUsableSuperpixelsError, UndersampledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics

__all__ = ["SplineSurface", "spline_background", "surface_of"]

_STRIP = 128
_LEAST = {"akima": 5, "natural": 3, "bicubic": 2, "reflect": 1}


@dataclass(frozen=True, eq=False)
class SplineSurface:
    """A spline through a grid of values."""

    x_nodes: NDArray[np.float64]
    """(gx,) float64, pixel, rising."""
    y_nodes: NDArray[np.float64]
    """(gy,) float64, pixel, rising."""
    values: NDArray[np.float64]
    """(gy, gx) float64."""
    known: NDArray[np.bool_]
    """(gy, gx) bool: the values that are there."""
    model: str
    """As `skysub.BackgroundConfig` has it; or "sextractor", "bicubic" with the slip of SExtractor's and sep's
    elimination, for evenly spaced values that are all known."""

    def evaluate(
        self, y: tuple[int, int], x: tuple[int, int], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the surface over rows ``y`` and columns ``x`` (first, behind the last), (ny, nx) float32.

        NaN everywhere where no value is known. ``out`` is an array to put it into.
        """
        from skysub.background import spline_kernels as kernels

        if out is None:
            out = np.empty((y[1] - y[0], x[1] - x[0]), np.float32)
        nodes, at_rows, code = self._at_rows(y[0], 0)
        once(kernels, "spline rows", lambda: kernels.rows(nodes, at_rows, code, x[0], out[:0]))
        for start in range(0, len(out), _STRIP):
            strip = out[start : start + _STRIP]
            nodes, at_rows, code = self._at_rows(y[0] + start, len(strip))
            if not len(nodes):
                strip[:] = np.nan
                continue
            kernels.rows(nodes, at_rows, code, x[0], strip)
        return out

    def subtract_from(
        self,
        image: NDArray[np.floating],
        y: tuple[int, int],
        x: tuple[int, int],
        *,
        threads: int,
        out: NDArray[np.floating],
    ) -> NDArray[np.floating]:
        """``image`` minus the surface over a window, into ``out``, which may be ``image``."""
        from skysub.background import spline_kernels as kernels

        def rows_of(rows: range) -> None:
            for start in range(rows.start, rows.stop, _STRIP):
                cut = slice(start, min(start + _STRIP, rows.stop))
                nodes, at_rows, code = self._at_rows(y[0] + start, cut.stop - start)
                kernels.subtract(for_kernels(image[cut]), nodes, at_rows, code, x[0], out[cut])

        nodes, at_rows, code = self._at_rows(y[0], 0)
        once(
            kernels,
            f"spline subtract {image.dtype}",
            lambda: kernels.subtract(for_kernels(image[:0]), nodes, at_rows, code, x[0], out[:0]),
        )
        in_threads(rows_of, len(image), threads)
        return out

    def uncertainty(
        self, error: NDArray[np.floating], y: tuple[int, int], x: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Standard deviation of the surface when values have the independent errors ``error`` (gy, gx).

        Exact but for "akima", which is no weighted sum of the values: it is given the deviation of "natural"
        through the same ones, which is right on the average, to a fifth or so at most pixels between centres,
        and up to half too small or too large beyond them. The median of filtered superpixels scatters less
        than they do, which is not taken into account. One whose error is not finite has the largest.
        """
        from skysub.background import spline_kernels as kernels

        out = np.empty((y[1] - y[0], x[1] - x[0]), np.float32)
        columns = np.flatnonzero(self.known.any(axis=0))
        finite = np.isfinite(error) & self.known
        if not len(columns) or not finite.any():
            out[:] = np.nan
            return out
        variance = np.where(finite, error, error[finite].max()).astype(np.float64) ** 2
        model = "natural" if self.model == "akima" else self.model
        along_x = _weights(self.x_nodes[columns], model, x)
        gy = len(self.y_nodes)
        for start in range(0, len(out), _STRIP):
            strip = out[start : start + _STRIP]
            span = (y[0] + start, y[0] + start + len(strip))
            along_y = np.zeros((len(columns), gy, len(strip)))
            weights: dict[bytes, NDArray[np.float64]] = {}
            for i, column in enumerate(columns):
                there = self.known[:, column]
                key = there.tobytes()
                if key not in weights:
                    weights[key] = _weights(self.y_nodes[there], model, span)
                along_y[i, there] = weights[key]
            kernels.deviation(along_y, along_x, np.ascontiguousarray(variance[:, columns]), strip)
        return out

    def _at_rows(self, y0: int, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Nodes along x, the values of each column's spline at rows of pixels, and the kind along x."""
        from skysub.background import spline_kernels as kernels

        counts = self.known.sum(axis=0)
        there = counts > 0
        code = np.array([_code(self.model, int(count)) for count in counts[there]], np.int64)
        values, known = (np.ascontiguousarray(array[:, there]) for array in (self.values, self.known))
        out = np.empty((rows, int(there.sum())))
        nodes = np.ascontiguousarray(self.y_nodes, np.float64)
        once(kernels, "spline columns", lambda: kernels.columns(nodes, values, known, code, y0, out[:0]))
        kernels.columns(nodes, values, known, code, y0, out)
        return self.x_nodes[there], out, _code(self.model, len(code))


def spline_background(
    grid: SuperpixelGrid, statistics: SuperpixelStatistics, config: BackgroundConfig
) -> Background:
    """Background whose model is a spline through the superpixels.

    Raises
    ------
    NoUsableSuperpixelsError
        When no superpixel is usable, and why.
    UndersampledError
        When the grid, or a column of it, has too few for the kind of spline and ``config.undersampled`` is
        not "reduce".
    """
    from skysub.background.model import Background, why_none

    usable = np.isfinite(statistics.mean) & (statistics.count >= max(config.min_good_pixels, 1))
    if not usable.any():
        raise NoUsableSuperpixelsError(why_none(grid, statistics, config))
    reduced = _why_reduced(grid, usable, config)
    if reduced and config.undersampled != "reduce":
        raise UndersampledError(
            f"{reduced}; use smaller superpixels, another model, or undersampled='reduce'"
        )
    level = np.median(statistics.mean[usable].astype(np.float64))
    return Background(
        grid=grid,
        statistics=statistics,
        coefficients=np.array([level]),
        covariance=np.zeros((1, 1)),
        order=0,
        usable=usable,
        chi2_per_freedom=float("nan"),
        config=config,
        reduced=reduced,
    )


def surface_of(background: Background) -> SplineSurface:
    """Return the spline of a background: through its usable superpixels, filtered if its settings say so."""
    from skysub.background.model import median_filtered

    config, grid = background.config, background.grid
    values = background.statistics.mean.astype(np.float64)
    known = background.usable
    values[~known] = np.nan
    if config.superpixel_filter:
        values = median_filtered(values, config.superpixel_filter)
    return SplineSurface(
        x_nodes=grid.x_centers, y_nodes=grid.y_centers, values=values, known=known, model=config.model
    )


def _code(model: str, count: int) -> int:
    """Kind of spline that so many nodes allow."""
    from skysub.background import spline_kernels as kernels

    if count <= 1:
        return kernels.CONSTANT
    whole = {"bicubic": kernels.BICUBIC, "reflect": kernels.REFLECT, "sextractor": kernels.SEXTRACTOR}
    if model in whole:
        return whole[model]
    if count == 2:
        return kernels.LINEAR
    return kernels.AKIMA if model == "akima" and count >= _LEAST["akima"] else kernels.NATURAL


def _weights(nodes: NDArray[np.float64], model: str, span: tuple[int, int]) -> NDArray[np.float64]:
    """(node, pixel) squares of the weights that a spline gives its nodes at pixels of a span."""
    from skysub.background import spline_kernels as kernels

    n = len(nodes)
    code = np.full(n, _code(model, n), np.int64)
    out = np.empty((span[1] - span[0], n))
    kernels.columns(np.ascontiguousarray(nodes), np.eye(n), np.ones((n, n), bool), code, span[0], out)
    return np.ascontiguousarray((out**2).T)


def _why_reduced(grid: SuperpixelGrid, usable: NDArray[np.bool_], config: BackgroundConfig) -> str:
    needed, (gy, gx) = config.needed_superpixels, grid.shape
    head = f"the {config.model} spline is simpler in parts: it needs {needed} superpixels along an axis, "
    if min(gy, gx) < needed:
        return head + f"and the grid has {gy} x {gx}"
    counts = usable.sum(axis=0)
    few = int(((counts > 0) & (counts < needed)).sum())
    if few:
        return head + f"and {few} of {gx} columns have fewer usable ones"
    if int((counts > 0).sum()) < needed:
        return head + f"and {int((counts > 0).sum())} of {gx} columns have any usable one"
    return ""
