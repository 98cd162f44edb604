"""Backgrounds as LSST's BackgroundList FITS: three uncompressed images per layer, refit when read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.config import MAX_ORDER, BackgroundConfig
from skysub.background.model import Background, BackgroundList, fit_statistics
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.errors import LayoutError
from skysub.visit.fits.emit import Block, cards, plain_image, write_blocks
from skysub.visit.fits.file import FitsFile, Hdu, open_fits
from skysub.visit.fits.pixels import read_float, read_integer
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["read_background", "write_background"]

_AKIMA, _REDUCE, _CHEBYSHEV = 5, 1, 0
_UNDERSAMPLED = {"raise": 0, "reduce": 1, "refine": 2}


def write_background(
    background: Background | Sequence[Background],
    path: str | os.PathLike[str],
    *,
    xy0: tuple[int, int] = (0, 0),
) -> None:
    """Write a background, or layers that add up, as LSST's BackgroundList FITS.

    Per layer there are three HDUs, the first layer's image being the primary: superpixel values (float32),
    a mask of zeros (int32) and, where a variance would be, the standard error itself (float32), as afw does
    it. Coefficients are not stored; readers fit them again. The file appears when it is complete.

    Parameters
    ----------
    background
        One layer, or several of one image.
    path
        Local path or URL.
    xy0
        (x, y) of the image's first pixel in the coordinates of the whole detector.

    Raises
    ------
    LayoutError
        When there is no layer, or one has settings that the file cannot say (see ``docs/formats.md``), so
        that readers would fit another model.
    VisitFileError
        When the file cannot be written.
    """
    layers = [background] if isinstance(background, Background) else list(background)
    if not layers:
        raise LayoutError(
            f"{path}: a list of no layers cannot be written: a FITS file has at least one image"
        )
    blocks: list[tuple[Block, str]] = []
    for index, layer in enumerate(layers):
        _check_writable(f"{path}: layer {index}", layer)
        ny, nx = layer.shape
        more = cards(
            {
                "INTERPSTYLE": _AKIMA,
                "UNDERSAMPLESTYLE": _UNDERSAMPLED[layer.config.undersampled],
                "APPROXSTYLE": _CHEBYSHEV,
                "APPROXORDERX": layer.order,
                "APPROXORDERY": layer.order,
                "APPROXWEIGHTING": layer.config.weighting,
                "BKGD_X0": xy0[0],
                "BKGD_Y0": xy0[1],
                "BKGD_WIDTH": nx,
                "BKGD_HEIGHT": ny,
            }
        )
        planes = cards({f"MP_{name}": AFW_PLANES[name] for name in AFW_PLANES.names})
        usable = layer.usable
        values = np.where(usable, layer.statistics.mean, np.float32(np.nan)).astype(np.float32)
        blocks += [
            (plain_image(values, primary=index == 0), more),
            (plain_image(np.zeros(values.shape, np.int32)), more + planes),
            (plain_image(layer.statistics.error.astype(np.float32)), more),
        ]
    write_blocks(path, blocks)


def read_background(path: str | os.PathLike[str]) -> BackgroundList:
    """Read LSST's BackgroundList FITS; each layer is fit again and gives the same model.

    Superpixels' numbers of pixels are not in such files: `SuperpixelStatistics.count` is the area of those
    that have a value, and 0 elsewhere.

    Raises
    ------
    VisitFileNotFoundError, VisitFileError
        When the file is missing or damaged.
    LayoutError
        When it is no BackgroundList, or a layer is of a kind that is not a polynomial (splines).
    NoUsableSuperpixelsError
        When a layer has no superpixel to fit.
    """
    with open_fits(path) as file:
        hdus = file.hdus
        if len(hdus) % 3 or not all(hdu.is_image and not hdu.compressed for hdu in hdus):
            raise LayoutError(
                f"{file.path}: a BackgroundList has three images per layer; this file has {len(hdus)} HDUs: "
                f"{', '.join(str(hdu.shape) for hdu in hdus)}"
            )
        return BackgroundList([_layer(file, hdus[i : i + 3]) for i in range(0, len(hdus), 3)])


def _layer(file: FitsFile, hdus: list[Hdu]) -> Background:
    where = f"{file.path}: layer {hdus[0].index // 3}"
    if len({hdu.shape for hdu in hdus}) != 1:
        raise LayoutError(
            f"{where}: its three images have the shapes {', '.join(str(h.shape) for h in hdus)}"
        )
    style = _whole(where, hdus[0], "APPROXSTYLE", default=-1)
    if style != _CHEBYSHEV:
        raise LayoutError(
            f"{where}: APPROXSTYLE is {style}: this layer is a spline, not a polynomial; skysub reads layers "
            "with APPROXSTYLE = 0 (useApprox in LSST's configuration)"
        )
    order = _whole(where, hdus[0], "APPROXORDERX", default=1, high=MAX_ORDER)
    order_y = _whole(where, hdus[0], "APPROXORDERY", default=-1, high=MAX_ORDER)
    if order_y not in {-1, order}:
        raise LayoutError(f"{where}: its orders in x and y are {order} and {order_y}; they must be equal")
    weighting = hdus[0].cards.get("APPROXWEIGHTING", True)
    if not isinstance(weighting, bool):
        raise LayoutError(f"{where}: APPROXWEIGHTING is {weighting!r}, neither T nor F")
    shape = tuple(_whole(where, hdus[0], f"BKGD_{edge}", low=1, high=2**20) for edge in ("HEIGHT", "WIDTH"))
    mean, error = read_float(file, hdus[0]), read_float(file, hdus[2])
    if read_integer(file, hdus[1]).any():
        raise LayoutError(f"{where}: its mask is not zero, which no BackgroundList has")
    gy, gx = mean.shape
    if gy > shape[0] or gx > shape[1]:
        raise LayoutError(f"{where}: {gy} x {gx} superpixels do not fit into an image of {shape}")
    grid = SuperpixelGrid.of_counts((shape[0], shape[1]), gy=gy, gx=gx)
    area = np.outer(np.diff(grid.y_edges), np.diff(grid.x_edges))
    count = np.where(np.isfinite(mean), area, 0).astype(np.int32)
    config = BackgroundConfig(
        superpixel=(-(-shape[1] // gx), -(-shape[0] // gy)), order=order, weighting=weighting
    )
    return fit_statistics(grid, SuperpixelStatistics(mean=mean, error=error, count=count), config)


def _check_writable(where: str, layer: Background) -> None:
    gy, gx = layer.grid.shape
    even = SuperpixelGrid.of_counts(layer.shape, gy=gy, gx=gx)
    if not (
        np.array_equal(even.x_edges, layer.grid.x_edges) and np.array_equal(even.y_edges, layer.grid.y_edges)
    ):
        raise LayoutError(f"{where}: its superpixels are not spread evenly, which is all the file can say")
    if layer.config.superpixel_filter:
        raise LayoutError(
            f"{where}: it was fit to filtered superpixels "
            f"(superpixel_filter={layer.config.superpixel_filter}), which the file cannot say; "
            "readers would fit another model"
        )


def _whole(
    where: str, hdu: Hdu, keyword: str, *, low: int = -1, high: int = 2**31, default: Any = None
) -> int:
    value = hdu.cards.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        shown = "missing" if value is None else repr(getattr(value, "text", value))
        raise LayoutError(f"{where}: {keyword} is {shown}; a BackgroundList has a whole number there")
    return value
