"""Backgrounds as LSST's BackgroundList FITS: three uncompressed images per layer, refit when read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.chebyshev import design_matrix
from skysub.background.config import MAX_ORDER, BackgroundConfig, Model
from skysub.background.faint_light import FaintLight
from skysub.background.layered import LayeredBackground
from skysub.background.model import Background, BackgroundList, fit_statistics
from skysub.background.spline import surface_of
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.errors import LayoutError, NoUsableSuperpixelsError, UndersampledError
from skysub.visit.fits.amplifiers import amplifier_layer_blocks, is_amplifier_layer, read_amplifier_layer
from skysub.visit.fits.emit import Block, cards, write_blocks
from skysub.visit.fits.file import FitsFile, Hdu, open_fits
from skysub.visit.fits.layer_hdus import layer_blocks
from skysub.visit.fits.layer_parts import exact_cards, is_part, part_blocks, with_exact_numbers, with_part
from skysub.visit.fits.pixels import read_float, read_integer

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["read_background", "write_background"]

_AKIMA, _CUBIC, _REDUCE, _CHEBYSHEV, _NO_APPROXIMATION = 5, 3, 1, 0, -1
_STYLES = {"akima": _AKIMA, "natural": 2}
"""Splines that the file can say."""
_SAME = 1e-9
"""Difference of coefficients, over the largest, up to which two models are the same."""
_PIECE = 25
"""Letters of a sentence in one card."""
_UNDERSAMPLED = {"raise": 0, "reduce": 1, "refine": 2}


def write_background(
    background: Background | Sequence[Background],
    path: str | os.PathLike[str],
    *,
    xy0: tuple[int, int] = (0, 0),
) -> None:
    """Write a background, or layers that add up, as LSST's BackgroundList FITS.

    Per layer there are three HDUs, the first layer's image being the primary: superpixel values (float32), a
    mask of zeros (int32) and, where a variance would be, the standard error itself (float32), as afw does it.
    Coefficients are not stored; readers fit them again. Where plain least squares of the superpixels would
    give another model, as of robust fits and corrected levels, the values are the model's own at the centres
    of all superpixels, so that readers get the model that was subtracted. The light of undetected sources
    stands in the cards FAINTLIGHT, FAINTERROR and FAINTSOURCEn. What amplifiers add to a layer follows it as
    three HDUs of their own: a layer of constants between which nothing is interpolated. So do steps and small
    structure of a joint fit, whose coefficients stand in cards as well: such a background comes back to the
    same bits. The file appears when it is complete.

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
                "INTERPSTYLE": _STYLES.get(layer.config.model, _AKIMA),
                "UNDERSAMPLESTYLE": _UNDERSAMPLED[layer.config.undersampled],
                "APPROXSTYLE": _NO_APPROXIMATION if layer.is_spline else _CHEBYSHEV,
                "APPROXORDERX": layer.order,
                "APPROXORDERY": layer.order,
                "APPROXWEIGHTING": layer.config.weighting,
                "BKGD_X0": xy0[0],
                "BKGD_Y0": xy0[1],
                "BKGD_WIDTH": nx,
                "BKGD_HEIGHT": ny,
                **_faint_cards(layer.faint_light),
                **exact_cards(layer),
            }
        )
        values, errors = _to_fit_again(layer)
        blocks += layer_blocks(values, errors, more, primary=index == 0)
        if layer.amplifiers is not None:
            blocks += amplifier_layer_blocks(layer.amplifiers, xy0=xy0)
        blocks += part_blocks(layer, xy0=xy0)
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
        When it is no BackgroundList, or a layer is neither a polynomial nor a spline that is known.
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
        layers: list[Background] = []
        for i in range(0, len(hdus), 3):
            of_layer = hdus[i : i + 3]
            where = f"{file.path}: layer {i // 3}"
            if is_part(of_layer):
                if not layers:
                    raise LayoutError(f"{where}: a part of a layer stands before any layer")
                layers[-1] = with_part(where, layers[-1], file, of_layer)
                continue
            if not is_amplifier_layer(of_layer):
                layers.append(_layer(file, of_layer))
                continue
            added = read_amplifier_layer(where, file, of_layer)
            if not layers or layers[-1].amplifiers is not None or layers[-1].shape != added.shape:
                raise LayoutError(
                    f"{where}: what amplifiers add must follow a layer of an image of the same shape"
                )
            layers[-1] = replace(layers[-1], amplifiers=added)
        return BackgroundList(layers)


def _layer(file: FitsFile, hdus: list[Hdu]) -> Background:
    where = f"{file.path}: layer {hdus[0].index // 3}"
    if len({hdu.shape for hdu in hdus}) != 1:
        raise LayoutError(
            f"{where}: its three images have the shapes {', '.join(str(h.shape) for h in hdus)}"
        )
    style = _whole(where, hdus[0], "APPROXSTYLE", default=-1)
    model: Model = "chebyshev"
    if style != _CHEBYSHEV:
        model = _spline_model(where, hdus[0])
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
        superpixel=(-(-shape[1] // gx), -(-shape[0] // gy)), order=order, weighting=weighting, model=model
    )
    layer = fit_statistics(grid, SuperpixelStatistics(mean=mean, error=error, count=count), config)
    layer = replace(layer, faint_light=_faint_light(where, hdus[0]))
    return with_exact_numbers(where, layer, hdus[0])


def _to_fit_again(layer: Background) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(gy, gx) values and errors of superpixels from which least squares, or a spline, gives the model."""
    statistics = layer.statistics
    if isinstance(layer, LayeredBackground):
        return _model_at_centres(layer)
    if layer.is_spline:
        through = np.where(layer.usable, surface_of(layer).values, np.nan)
        return through.astype(np.float32), statistics.error.astype(np.float32)
    values = np.where(layer.usable, statistics.mean, np.float32(np.nan)).astype(np.float32)
    errors = statistics.error.astype(np.float32)
    with suppress(NoUsableSuperpixelsError, UndersampledError):
        config = replace(layer.config, order=layer.order)
        again = fit_statistics(layer.grid, replace(statistics, mean=values), config)
        scale = float(np.max(np.abs(layer.coefficients), initial=0.0))
        if again.order == layer.order and np.allclose(
            again.coefficients, layer.coefficients, rtol=0, atol=_SAME * scale
        ):
            return values, errors
    return _model_at_centres(layer)


def _model_at_centres(layer: Background) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    errors = layer.statistics.error.astype(np.float32)
    y, x = (c.ravel() for c in np.meshgrid(layer.grid.y_centers, layer.grid.x_centers, indexing="ij"))
    terms = design_matrix(x, y, shape=layer.shape, order=layer.order)
    model = np.einsum("ki,i->k", terms, layer.coefficients).reshape(layer.grid.shape)
    known = np.isfinite(errors) & (errors > 0)
    typical = np.median(errors[known]) if known.any() else np.float32(1)
    return model.astype(np.float32), np.where(known, errors, typical).astype(np.float32)


def _faint_cards(light: FaintLight | None) -> dict[str, Any]:
    if light is None:
        return {}
    plain = light.provenance.encode("ascii", "replace").decode("ascii")
    # a sentence may be longer than a card; doubled quotes take room as well
    pieces = [plain[i : i + _PIECE] for i in range(0, len(plain), _PIECE)] or [""]
    sources = {f"FAINTSOURCE{number}": f"{piece}|" for number, piece in enumerate(pieces, 1)}
    return {"FAINTLIGHT": light.value, "FAINTERROR": light.uncertainty, **sources}


def _faint_light(where: str, hdu: Hdu) -> FaintLight | None:
    value, error = (hdu.cards.get(name) for name in ("FAINTLIGHT", "FAINTERROR"))
    if value is None and error is None:
        return None
    pieces: list[str] = []
    # a bar ends a piece, because blanks at the end of a card's value are lost
    while isinstance(piece := hdu.cards.get(f"FAINTSOURCE{len(pieces) + 1}"), str):
        pieces.append(piece.removesuffix("|"))
    try:
        return FaintLight(
            float(value), float(error), "".join(pieces) or str(hdu.cards.get("FAINTSOURCE", ""))
        )
    except (TypeError, ValueError) as reason:
        raise LayoutError(
            f"{where}: FAINTLIGHT and FAINTERROR are {value!r} and {error!r}: {reason}"
        ) from None


def _spline_model(where: str, hdu: Hdu) -> Model:
    style = _whole(where, hdu, "INTERPSTYLE", default=-1)
    if style == _AKIMA:
        return "akima"
    # afw's natural and its cubic splines are one and the same
    if style in {_STYLES["natural"], _CUBIC}:
        return "natural"
    raise LayoutError(
        f"{where}: INTERPSTYLE is {style} (and APPROXSTYLE no polynomial); of LSST's interpolations "
        "skysub has AKIMA_SPLINE (5), NATURAL_SPLINE (2) and CUBIC_SPLINE (3)"
    )


def _check_writable(where: str, layer: Background) -> None:
    gy, gx = layer.grid.shape
    even = SuperpixelGrid.of_counts(layer.shape, gy=gy, gx=gx)
    if not (
        np.array_equal(even.x_edges, layer.grid.x_edges) and np.array_equal(even.y_edges, layer.grid.y_edges)
    ):
        raise LayoutError(f"{where}: its superpixels are not spread evenly, which is all the file can say")
    if layer.is_spline:
        if layer.config.model not in _STYLES:
            raise LayoutError(
                f"{where}: its model is {layer.config.model!r}; of splines the file can say "
                f"{' and '.join(_STYLES)} alone"
            )
        # the filtered superpixels are what is written: the spline goes through them
        return
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
