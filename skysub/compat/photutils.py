"""`photutils.background.Background2D` on compiled threads, without photutils or SciPy."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.pixels import checked_image
from skysub.background.spline import SplineSurface
from skysub.background.threads import in_threads
from skysub.compat import kernels
from skysub.compat.cells import cell_edges, each_band, processors
from skysub.errors import ConfigError, InvalidImageError, NoUsableSuperpixelsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Background2D"]

_NEIGHBOURS = 10
"""Cells from which one without a value is interpolated."""
_DEFAULT = object()

_LEVELS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "SExtractorBackground": lambda mean, median, deviation: np.where(
        deviation == 0,
        mean,
        np.where(np.abs(mean - median) < 0.3 * deviation, 2.5 * median - 1.5 * mean, median),
    ),
    "MedianBackground": lambda mean, median, deviation: median,  # noqa: ARG005 (one signature)
    "MeanBackground": lambda mean, median, deviation: mean,  # noqa: ARG005 (one signature)
    "ModeEstimatorBackground": lambda mean, median, deviation: 3.0 * median - 2.0 * mean,  # noqa: ARG005
    "MMMBackground": lambda mean, median, deviation: 3.0 * median - 2.0 * mean,  # noqa: ARG005
}
"""Estimators that are offered, of what the clip leaves of a cell."""


class Background2D:
    """Background and noise of an image, with the arguments and names of photutils' ``Background2D``.

    Parameters
    ----------
    data
        (ny, nx) array of numbers. Pixels that are not finite are left out.
    box_size
        Height and width of a cell, pixel, or one number for both.
    mask, coverage_mask
        (ny, nx) bool: pixels to leave out, and pixels without data, where the background is ``fill_value``.
    exclude_percentile
        A cell is left out where more than this percentage of its pixels is masked or clipped.
    filter_size
        Height and width, in cells, of the median filter over cells; odd.
    filter_threshold
        Filter only cells whose level is above this; all where it is None.
    sigma_clip
        astropy's ``SigmaClip``, or None for no clip; 3 sigma about the median, 10 passes, by default.
    bkg_estimator, bkg_rms_estimator
        photutils' objects or names of their classes: SExtractorBackground (the default), MedianBackground,
        MeanBackground, ModeEstimatorBackground, MMMBackground; StdBackgroundRMS.
    threads
        Threads; all processors by default. The answer is the same.

    Raises
    ------
    InvalidImageError
        When arrays are not (ny, nx) and of one shape, or carry units.
    ConfigError
        When an argument is out of range, or of a kind that is not offered here.
    NoUsableSuperpixelsError
        When no cell has enough pixels.
    """

    def __init__(
        self,
        data: Any,
        box_size: int | tuple[int, int],
        *,
        mask: Any = None,
        coverage_mask: Any = None,
        fill_value: float = 0.0,
        exclude_percentile: float = 10.0,
        filter_size: int | tuple[int, int] = (3, 3),
        filter_threshold: float | None = None,
        sigma_clip: Any = _DEFAULT,
        bkg_estimator: Any = None,
        bkg_rms_estimator: Any = None,
        interpolator: Any = None,
        threads: int | None = None,
    ) -> None:
        if hasattr(data, "unit"):
            raise InvalidImageError("units are not carried here: pass data.value or data.data")
        if interpolator is not None and type(interpolator).__name__.strip("_") != "BkgZoomInterpolator":
            raise ConfigError(
                f"the interpolator {type(interpolator).__name__} is not offered here; the default is "
                "photutils' zoom interpolator, a cubic spline"
            )
        _check_interpolator(interpolator)
        if not 0 <= exclude_percentile <= 100:
            raise ConfigError(f"exclude_percentile must be from 0 to 100, not {exclude_percentile!r}")
        image = checked_image(np.asarray(data))
        self.shape: tuple[int, int] = (image.shape[0], image.shape[1])
        height, width = _pair("box_size", box_size)
        self.box_size = np.array([min(height, self.shape[0]), min(width, self.shape[1])])
        self.filter_size = np.array(_pair("filter_size", filter_size))
        if (self.filter_size % 2 == 0).any():
            raise ConfigError(f"filter_size must be odd, not {filter_size!r}")
        self.filter_threshold, self.fill_value = filter_threshold, fill_value
        self.exclude_percentile = exclude_percentile
        self.coverage_mask = _bool("coverage_mask", coverage_mask, self.shape)
        self._threads = threads or processors()
        masked = _bool("mask", mask, self.shape)
        if self.coverage_mask is not None:
            masked = self.coverage_mask if masked is None else masked | self.coverage_mask
        level_of = _estimator("bkg_estimator", bkg_estimator, "SExtractorBackground", tuple(_LEVELS))
        _estimator("bkg_rms_estimator", bkg_rms_estimator, "StdBackgroundRMS", ("StdBackgroundRMS",))
        stats = self._statistics(image, masked, _clip(sigma_clip))
        self.n_pixels_mesh: NDArray[np.int64] = stats[0]
        """(gy, gx) pixels of each cell that the clip left."""
        level, noise = _LEVELS[level_of](*stats[1:]), stats[3].copy()
        few = self.n_pixels_mesh <= (1 - exclude_percentile / 100) * self.box_size.prod()
        level[few], noise[few] = np.nan, np.nan
        if few.all():
            raise NoUsableSuperpixelsError(
                f"all cells of {self.box_size[0]} x {self.box_size[1]} pixels have more than "
                f"{exclude_percentile} % of them masked; raise exclude_percentile, or mask less"
            )
        self._least = float(np.nanmin(level))
        filled = _filled(level)
        self.background_mesh: NDArray[np.float64] = self._filtered(filled, filled)
        """(gy, gx) level of each cell, filtered."""
        self.background_rms_mesh: NDArray[np.float64] = self._filtered(_filled(noise), filled)
        """(gy, gx) standard deviation of the pixels of each cell, filtered."""
        self._dtype = image.dtype

    def __repr__(self) -> str:
        return (
            f"Background2D(shape={self.shape}, box_size={tuple(self.box_size.tolist())}, "
            f"background_median={self.background_median:.6g}, "
            f"background_rms_median={self.background_rms_median:.4g})"
        )

    @property
    def background(self) -> NDArray[np.floating]:
        """Background at each pixel, (ny, nx) in the type of the data; made anew each time."""
        return self._over_image(self.background_mesh)

    @property
    def background_rms(self) -> NDArray[np.floating]:
        """Noise at each pixel, (ny, nx) in the type of the data; made anew each time."""
        return self._over_image(self.background_rms_mesh)

    @functools.cached_property
    def background_median(self) -> float:
        """Median of the cells' levels."""
        return float(np.median(self.background_mesh))

    @functools.cached_property
    def background_rms_median(self) -> float:
        """Median of the cells' noise."""
        return float(np.median(self.background_rms_mesh))

    @property
    def npixels_mesh(self) -> NDArray[np.int64]:
        """The same as ``n_pixels_mesh``, by its name before photutils 3."""
        return self.n_pixels_mesh

    def _statistics(
        self,
        image: NDArray[np.floating],
        masked: NDArray[np.bool_] | None,
        clip: tuple[float, float, int, bool],
    ) -> tuple[NDArray[Any], ...]:
        """Count, mean, median and standard deviation of each cell."""
        mask = np.empty((0, 0), np.uint8) if masked is None else masked.view(np.uint8)
        y_edges, x_edges = (
            cell_edges(n, int(size)) for n, size in zip(self.shape, self.box_size, strict=True)
        )
        cells = len(y_edges) - 1, len(x_edges) - 1
        count = np.empty(cells, np.int64)
        mean, median, deviation = (np.empty(cells) for _ in range(3))

        def measure(band: int, tiles: NDArray[Any], sizes: NDArray[np.int64]) -> None:
            del sizes
            tiles.sort(axis=1)
            kernels.clipped_moments(tiles, *clip, count[band], mean[band], median[band], deviation[band])

        each_band(image, mask, y_edges, x_edges, measure, threads=self._threads)
        return count, mean, median, deviation

    def _filtered(self, values: NDArray[np.float64], level: NDArray[np.float64]) -> NDArray[np.float64]:
        """Medians over windows, of what of them lies inside; where the level is above the threshold."""
        fh, fw = self.filter_size.tolist()
        if (fh, fw) == (1, 1):
            return values
        padded = np.pad(values, ((fh // 2,) * 2, (fw // 2,) * 2), constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (fh, fw))
        smooth = np.nanmedian(windows.reshape(*values.shape, -1), axis=2)
        if self.filter_threshold is None or self.filter_threshold < self._least:
            return smooth
        return np.where(level > self.filter_threshold, smooth, values)

    def _over_image(self, values: NDArray[np.float64]) -> NDArray[np.floating]:
        (gy, gx), (height, width) = values.shape, self.box_size.tolist()
        y_nodes, x_nodes = (size * np.arange(n) + (size - 1) / 2 for size, n in ((height, gy), (width, gx)))
        surface = SplineSurface(x_nodes, y_nodes, values, np.ones(values.shape, bool), "reflect")
        out = np.empty(self.shape, self._dtype)
        low, high = values.min(), values.max()

        def band(rows: range) -> None:
            part = out[rows.start : rows.stop]
            into = part if out.dtype == np.float32 else None
            made = surface.evaluate((rows.start, rows.stop), (0, self.shape[1]), out=into)
            np.clip(made, low, high, out=part)

        in_threads(band, self.shape[0], self._threads)
        if self.coverage_mask is not None:
            out[self.coverage_mask] = self.fill_value
        return out


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cells without a value are means of the nearest ten that have one, weighted by inverse distance.

    Several may be as far as the tenth: they share its place; photutils takes whichever its tree has first.
    """
    good = np.isfinite(values)
    if good.all():
        return values
    filled = values.copy()
    y, x = np.nonzero(good)
    known = values[good]
    for j, i in np.argwhere(~good):
        distance = np.hypot(y - j, x - i)
        last = np.sort(distance)[min(_NEIGHBOURS, len(distance)) - 1]
        closer, tied = distance < last, distance == last
        weight = np.where(closer, 1 / distance, 0.0)
        places = min(_NEIGHBOURS, len(distance)) - closer.sum()
        weight[tied] = places / tied.sum() / last
        filled[j, i] = (weight * known).sum() / weight.sum()
    return filled


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = np.atleast_1d(np.asarray(value))
    if pair.size not in {1, 2} or pair.dtype.kind not in "iu" or (pair < 1).any():
        raise ConfigError(f"{name} must be one or two whole numbers of at least 1, not {value!r}")
    return int(pair[0]), int(pair[-1])


def _bool(name: str, value: Any, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    if value is None or value is np.ma.nomask:
        return None
    array = np.asarray(value)
    if array.shape != shape:
        raise InvalidImageError(f"Shape of {name} {array.shape} does not match that of the data {shape}")
    return np.ascontiguousarray(array, np.bool_)


def _estimator(argument: str, given: Any, default: str, offered: tuple[str, ...]) -> str:
    name = default if given is None else given if isinstance(given, str) else type(given).__name__
    if name not in offered:
        raise ConfigError(f"{argument} {name} is not offered here; those that are: {', '.join(offered)}")
    return name


def _clip(given: Any) -> tuple[float, float, int, bool]:
    """Lower and upper half-width, most passes, and whether they are about the mean."""
    if given is _DEFAULT:
        return 3.0, 3.0, 10, False
    if given is None:
        return np.inf, np.inf, 0, False
    lower, upper, passes = (getattr(given, name, None) for name in ("sigma_lower", "sigma_upper", "maxiters"))
    centre, spread = getattr(given, "cenfunc", "median"), getattr(given, "stdfunc", "std")
    if lower is None or upper is None:
        raise ConfigError(f"sigma_clip must be astropy's SigmaClip or None, not {type(given).__name__}")
    if centre not in {"median", "mean"} or spread != "std" or getattr(given, "grow", False):
        raise ConfigError(
            "sigma_clip is offered with cenfunc 'median' or 'mean', stdfunc 'std' and without grow; "
            f"this one has {centre!r}, {spread!r} and {getattr(given, 'grow', False)!r}"
        )
    most = 1 << 30 if passes is None or not np.isfinite(passes) else int(passes)
    return float(lower), float(upper), most, centre == "mean"


def _check_interpolator(interpolator: Any) -> None:
    for name, offered in (("order", 3), ("mode", "reflect"), ("clip", True)):
        if getattr(interpolator, name, offered) != offered:
            raise ConfigError(f"an interpolator with {name} other than {offered!r} is not offered here")
