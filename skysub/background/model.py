"""The background of an image as a model: made from superpixel statistics, evaluated, added up."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

import numpy as np

from skysub.background.chebyshev import (
    degrees,
    fit_chebyshev,
    monomial_coefficients,
)
from skysub.background.compiled import for_kernels, once
from skysub.background.config import BackgroundConfig
from skysub.background.threads import in_threads
from skysub.errors import InvalidImageError, NoUsableSuperpixelsError, UndersampledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.amplifiers import AmplifierBackground
    from skysub.background.faint_light import FaintLight
    from skysub.background.spline import SplineSurface
    from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics

__all__ = ["Background", "BackgroundList", "fit_statistics", "median_filtered", "why_none"]

_STRIP = 128


@dataclass(frozen=True, eq=False)
class Background:
    """One layer of background: the superpixel statistics of an image and the polynomial fit to them.

    With a spline as ``config.model`` the superpixels themselves are the model; order is then 0, the one
    coefficient is their median, and ``covariance`` is that of an error that all have in common. It holds no
    pixels, so it pickles to a few tens of kilobytes.
    """

    grid: SuperpixelGrid
    statistics: SuperpixelStatistics
    """As measured; the fit may have filtered it (``config.superpixel_filter``)."""
    coefficients: NDArray[np.float64]
    """(n_terms,) float64, unit of the image; afw's order: 1; x, y; x2, xy, y2; ..."""
    covariance: NDArray[np.float64]
    """(n_terms, n_terms) float64 covariance of ``coefficients``, unit of the image squared."""
    order: int
    """Total degree that was fit; below ``config.order`` where too few superpixels were usable."""
    usable: NDArray[np.bool_]
    """(gy, gx) bool: the superpixels that entered the fit."""
    chi2_per_freedom: float
    """Scatter of superpixels about the model in units of their errors, squared."""
    config: BackgroundConfig = field(default_factory=BackgroundConfig)
    reduced: str = ""
    """Why ``order`` is below the one asked for; empty where it is not."""
    faint_light: FaintLight | None = None
    """Light of undetected sources that the model holds; None where nobody has estimated it."""
    amplifiers: AmplifierBackground | None = None
    """What amplifiers add to the polynomial, a layer of its own; None where nothing was found."""

    def __repr__(self) -> str:
        return (
            f"Background(shape={self.shape}, superpixels={self.grid.shape}, usable={int(self.usable.sum())}, "
            f"order={self.order}, chi2_per_freedom={self.chi2_per_freedom:.3g})"
        )

    def _repr_html_(self) -> str:
        from skysub.html import card, picture

        gy, gx = self.grid.shape
        rows = {
            "image": f"{self.shape[0]} x {self.shape[1]} pixels",
            "superpixels": f"{gy} x {gx}, {int(self.usable.sum())} used",
            "model": f"{self.config.model} of order {self.order}"
            if not self.is_spline
            else self.config.model,
            "median": f"{np.nanmedian(np.where(self.usable, self.statistics.mean, np.nan)):.6g}",
        }
        rows |= {"chi2 per degree of freedom": f"{self.chi2_per_freedom:.3g}"} if not self.is_spline else {}
        rows |= {"reduced": self.reduced} if self.reduced else {}
        return card("Background", rows, [picture(self.statistics.mean, "the superpixels")])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of the image, pixel."""
        return self.grid.image_shape

    def sky_alone(self) -> Background:
        """The same background without the light of undetected sources, whose uncertainty it takes over.

        Itself where that light is not known.
        """
        if self.faint_light is None:
            return self
        coefficients, covariance = self.coefficients.copy(), self.covariance.copy()
        coefficients[0] -= self.faint_light.value
        covariance[0, 0] += self.faint_light.uncertainty**2
        statistics = self.statistics
        if self.is_spline:
            statistics = replace(statistics, mean=statistics.mean - np.float32(self.faint_light.value))
        return replace(
            self, coefficients=coefficients, covariance=covariance, statistics=statistics, faint_light=None
        )

    @property
    def is_spline(self) -> bool:
        """Whether the model is a spline through the superpixels, not a polynomial."""
        return self.config.model != "chebyshev"

    def smooth(self) -> Background:
        """The same background without what amplifiers add: the polynomial alone."""
        return self if self.amplifiers is None else replace(self, amplifiers=None)

    def evaluate(
        self, *, y: slice = slice(None), x: slice = slice(None), faint_light: bool = True
    ) -> NDArray[np.float32]:
        """Model at each pixel of a window (rows ``y``, columns ``x``); the whole image by default.

        Parameters
        ----------
        faint_light
            Keep the light of undetected sources in it; False for the sky alone, as `sky_alone` has it.
            What amplifiers add is always in it; ``smooth()`` and ``amplifiers`` have the two apart.

        Returns
        -------
        model
            (ny, nx) float32 of the window, unit of the image; a window has the very bits of the
            same cut of the whole.

        Raises
        ------
        ValueError
            When a slice has a step.
        """
        if not faint_light:
            return self.sky_alone().evaluate(y=y, x=x)
        if self.is_spline:
            return self._surface.evaluate(*_window(y, x, self.shape))
        model = self._over_window("evaluate", self._monomials, y, x)
        if self.amplifiers is not None:
            model += self.amplifiers.evaluate(y=y, x=x)
        return model

    def uncertainty(
        self, *, y: slice = slice(None), x: slice = slice(None), faint_light: bool = True
    ) -> NDArray[np.float32]:
        """Standard deviation of the model at each pixel of a window, from the fit's covariance.

        What is not known of steps and drift of amplifiers is added in quadrature.

        Parameters
        ----------
        faint_light
            As for `evaluate`: that of the sky alone includes what is not known of undetected sources.

        Returns
        -------
        uncertainty
            (ny, nx) float32 of the window, unit of the image.
        """
        if not faint_light:
            return self.sky_alone().uncertainty(y=y, x=x)
        if self.is_spline:
            independent = self._surface.uncertainty(self.statistics.error, *_window(y, x, self.shape))
            common = np.float32(np.sqrt(self.covariance[0, 0]))
            return np.hypot(independent, common) if common else independent
        # the variance is a polynomial of twice the order
        variance = _variance_power(self.covariance, self.order)
        deviation = self._over_window("evaluate_deviation", variance, y, x)
        if self.amplifiers is not None:
            np.hypot(deviation, self.amplifiers.uncertainty(y=y, x=x), out=deviation)
        return deviation

    def subtract_from(
        self,
        image: NDArray[np.floating],
        *,
        y: slice = slice(None),
        x: slice = slice(None),
        threads: int = 1,
        out: NDArray[np.floating] | None = None,
    ) -> NDArray[np.floating]:
        """``image - model`` over a window: what amplifiers add first, then the polynomial.

        Parameters
        ----------
        image
            Pixels of the window, (ny, nx) native float32 or float64.
        out
            C-contiguous array of the image's shape and type to put the answer into, ``image`` itself for
            instance; a new array by default.

        Raises
        ------
        InvalidImageError
            When the image is not as large as the window, or ``out`` is not like the image.
        """
        from skysub.background import evaluation_kernels as kernels

        (y0, y1), (x0, x1) = _window(y, x, self.shape)
        if image.shape != (y1 - y0, x1 - x0):
            raise InvalidImageError(
                f"Shape of the image {image.shape} does not match that of the window {(y1 - y0, x1 - x0)}"
            )
        if out is None:
            out = np.empty(image.shape, image.dtype)
        elif out.shape != image.shape or out.dtype != image.dtype or not out.flags.c_contiguous:
            raise InvalidImageError(
                f"out must be C-contiguous of shape {image.shape} and type {image.dtype}, "
                f"not {out.shape} and {out.dtype}"
            )
        if self.is_spline:
            return self._surface.subtract_from(image, (y0, y1), (x0, x1), threads=threads, out=out)
        if self.amplifiers is not None:
            self.amplifiers.subtract(image, out, y0=y0, x0=x0)
            image = out
        monomials, in_place = self._monomials, out is image

        def strip(start: int, stop: int) -> None:
            if in_place:
                kernels.subtract_in_place(out[start:stop], y0 + start, x0, *self.shape, monomials)
            else:
                kernels.subtract(
                    for_kernels(image[start:stop]), y0 + start, x0, *self.shape, monomials, out[start:stop]
                )

        def rows_of(rows: range) -> None:
            # in strips, so that an image that has to be made contiguous is never copied whole
            for start in range(rows.start, rows.stop, _STRIP):
                strip(start, min(start + _STRIP, rows.stop))

        once(kernels, f"subtract {image.dtype} {in_place}", lambda: strip(0, 0))
        in_threads(rows_of, image.shape[0], threads)
        return out

    def __add__(self, other: Background | BackgroundList) -> BackgroundList:
        return BackgroundList([self]) + other

    def _over_window(
        self, name: str, monomials: NDArray[np.float64], y: slice, x: slice
    ) -> NDArray[np.float32]:
        from skysub.background import evaluation_kernels as kernels

        (y0, y1), (x0, x1) = _window(y, x, self.shape)
        out = np.empty((y1 - y0, x1 - x0), np.float32)
        kernel = getattr(kernels, name)
        once(kernels, name, lambda: kernel(y0, x0, *self.shape, monomials, out[:0]))
        kernel(y0, x0, *self.shape, monomials, out)
        return out

    @functools.cached_property
    def _surface(self) -> SplineSurface:
        from skysub.background.spline import surface_of

        return surface_of(self)

    @functools.cached_property
    def _monomials(self) -> NDArray[np.float64]:
        return monomial_coefficients(self.coefficients, self.order)


class BackgroundList(Sequence[Background]):
    """Layers of background that add up, in order, as LSST's BackgroundList does."""

    def __init__(self, layers: Sequence[Background] = ()) -> None:
        shapes = {layer.shape for layer in layers}
        if len(shapes) > 1:
            raise ValueError(f"layers of one list must share one image shape, not {sorted(shapes)}")
        self._layers = tuple(layers)

    @overload
    def __getitem__(self, index: int) -> Background: ...
    @overload
    def __getitem__(self, index: slice) -> BackgroundList: ...
    def __getitem__(self, index: int | slice) -> Background | BackgroundList:
        if isinstance(index, slice):
            return BackgroundList(self._layers[index])
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        shape = f", shape={self._layers[0].shape}" if self._layers else ""
        orders = ", ".join(str(layer.order) for layer in self._layers)
        return f"BackgroundList({len(self)} layers{shape}, orders=[{orders}])"

    def _repr_html_(self) -> str:
        return "".join(layer._repr_html_() for layer in self) or repr(self)

    def __iter__(self) -> Iterator[Background]:
        return iter(self._layers)

    def __add__(self, other: Background | BackgroundList) -> BackgroundList:
        more = (other,) if isinstance(other, Background) else other
        return BackgroundList([*self, *more])

    def __radd__(self, other: int) -> BackgroundList:
        if other != 0:
            return NotImplemented
        return self

    def sky_alone(self) -> BackgroundList:
        """The same layers, each without the light of undetected sources."""
        return BackgroundList([layer.sky_alone() for layer in self])

    def evaluate(
        self, *, y: slice = slice(None), x: slice = slice(None), faint_light: bool = True
    ) -> NDArray[np.float32]:
        """Sum of the layers' models over a window, (ny, nx) float32, added in order in float32.

        ``faint_light`` as for `Background.evaluate`.

        Raises
        ------
        ValueError
            When the list is empty.
        """
        if not self._layers:
            raise ValueError("an empty list of layers has no model")
        total = self._layers[0].evaluate(y=y, x=x, faint_light=faint_light)
        for layer in self._layers[1:]:
            total += layer.evaluate(y=y, x=x, faint_light=faint_light)
        return total

    def uncertainty(
        self, *, y: slice = slice(None), x: slice = slice(None), faint_light: bool = True
    ) -> NDArray[np.float32]:
        """Standard deviation of the last layer's model: it was fit to what the others had left.

        Earlier layers' errors are part of the residual that the last layer measured.
        """
        if not self._layers:
            raise ValueError("an empty list of layers has no model")
        return self._layers[-1].uncertainty(y=y, x=x, faint_light=faint_light)


def fit_statistics(
    grid: SuperpixelGrid, statistics: SuperpixelStatistics, config: BackgroundConfig
) -> Background:
    """Fit the polynomial to the statistics of an image's superpixels.

    A superpixel is usable when its value and its weight are finite and it has
    ``config.min_good_pixels`` good pixels. Where the usable ones cannot hold ``config.order`` the
    order is reduced to the highest they hold, and ``Background.reduced`` says why.

    Raises
    ------
    NoUsableSuperpixelsError
        When no superpixel is usable, and why.
    UndersampledError
        When the order would have to be reduced and ``config.undersampled`` is not "reduce".
    """
    if config.model != "chebyshev":
        from skysub.background.spline import spline_background

        return spline_background(grid, statistics, config)
    values = statistics.mean.astype(np.float64)
    errors = statistics.error.astype(np.float64)
    weights = _weights(statistics.error) if config.weighting else np.ones_like(values)
    usable = np.isfinite(values) & np.isfinite(weights) & (statistics.count >= config.min_good_pixels)
    if not usable.any():
        raise NoUsableSuperpixelsError(why_none(grid, statistics, config))
    if config.superpixel_filter:
        values = median_filtered(values, config.superpixel_filter)
    iy, ix = np.nonzero(usable)
    x, y, w = grid.x_centers[ix], grid.y_centers[iy], weights[usable]
    shape = grid.image_shape
    held_by_grid = min(config.order, min(grid.shape) - 1)
    fit = fit_chebyshev(x, y, values[usable], errors[usable], w, shape=shape, order=held_by_grid)
    reduced = ""
    if fit.order < config.order:
        reduced = _why_reduced(grid, len(x), config, fit.order, held_by_grid)
        if config.undersampled != "reduce":
            raise UndersampledError(
                f"{reduced}; use a lower order, smaller superpixels, or undersampled='reduce'"
            )
    return Background(
        grid=grid,
        statistics=statistics,
        coefficients=fit.coefficients,
        covariance=fit.covariance,
        order=fit.order,
        usable=usable,
        chi2_per_freedom=fit.chi2_per_freedom,
        config=config,
        reduced=reduced,
    )


def _weights(error: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / error, rounded to float32 as afw holds it; in float64 where float32 has no room for it."""
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        rounded = (np.float32(1) / error).astype(np.float64)
        exact = 1.0 / error.astype(np.float64)
    in_range = (rounded >= np.finfo(np.float32).tiny) & (rounded <= np.finfo(np.float32).max)
    return np.where(in_range, rounded, exact)


def why_none(grid: SuperpixelGrid, statistics: SuperpixelStatistics, config: BackgroundConfig) -> str:
    """Why no superpixel can be used."""
    gy, gx = grid.shape
    count = statistics.count
    head = f"none of the {gy} x {gx} superpixels can be used: "
    if not count.any():
        return head + "every pixel is masked or not finite"
    if not (count >= config.min_good_pixels).any():
        return (
            head + f"none has the {config.min_good_pixels} good pixels asked for (the most is {count.max()})"
        )
    if config.model != "chebyshev":
        return head + "none has a finite value"
    if config.weighting and not (count > 1).any():
        return head + "they are too small: a single good pixel has no error to weight by; use weighting=False"
    return head + "their variance is zero (constant pixels), so they have no weight; use weighting=False"


def _why_reduced(
    grid: SuperpixelGrid, usable: int, config: BackgroundConfig, order: int, held_by_grid: int
) -> str:
    gy, gx = grid.shape
    head = f"order {config.order} reduced to {order}: "
    if order == held_by_grid:
        return head + f"the grid has {gy} x {gx} superpixels"
    return head + f"only {usable} of {gy * gx} superpixels are usable, and they do not determine a higher one"


def median_filtered(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Median over size x size superpixels, edges mirrored; NaN first replaced by the median of all."""
    filled = np.where(np.isfinite(values), values, np.nanmedian(values)).astype(np.float32)
    half = size // 2
    padded = np.pad(filled, half, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    return np.median(windows, axis=(2, 3)).astype(np.float64)


def _window(y: slice, x: slice, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    bounds = []
    for name, cut, length in (("y", y, shape[0]), ("x", x, shape[1])):
        start, stop, step = cut.indices(length)
        if step != 1:
            raise ValueError(f"{name} must be a slice without a step, not {cut}")
        bounds.append((start, max(start, stop)))
    return bounds[0], bounds[1]


def _variance_power(covariance: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Monomial coefficients [q, p] of the model's variance: the sum of covariance times products of terms."""
    terms = len(degrees(order))
    tables = np.stack([monomial_coefficients(row, order) for row in np.eye(terms)])
    size = 2 * order + 1
    # products of monomials add their exponents: convolve the tables pairwise, weighted by covariance
    mixed = np.einsum("ij,jqp->iqp", covariance, tables)
    monomials = np.zeros((size, size))
    for table, other in zip(tables, mixed, strict=True):
        for q, p in np.argwhere(table):
            monomials[q : q + order + 1, p : p + order + 1] += table[q, p] * other
    return monomials
