"""The two functions users call: fit the background of an image, and subtract it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, overload

from skysub.background.clipping import superpixel_statistics
from skysub.background.config import BackgroundConfig
from skysub.background.model import Background, fit_statistics
from skysub.background.pixels import checked_ignored, checked_image
from skysub.background.rows import Plane, made_rows
from skysub.background.superpixels import candidate_grids
from skysub.errors import InvalidImageError, UndersampledError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["fit_background", "less_background", "subtract_background"]


@overload
def fit_background(
    image: NDArray[Any], ignored: Any = None, config: BackgroundConfig | None = None, *, threads: int = 1
) -> Background: ...
@overload
def fit_background(
    image: Any, ignored: Any = None, config: BackgroundConfig | None = None, *, threads: int = 1
) -> Any: ...
def fit_background(
    image: Any, ignored: Any = None, config: BackgroundConfig | None = None, *, threads: int = 1
) -> Any:
    """Estimate the background of one image: statistics of superpixels, and a Chebyshev polynomial.

    A Dask array is worked on lazily, block by block: see `skysub.background.blocks.fit_blocks`.

    Parameters
    ----------
    image
        (ny, nx) floating point or integer; never modified. Non-finite pixels are left out. float16 and
        integers of up to 16 bits are worked on as float32, wider integers as float64.
    ignored
        Pixels to leave out: None, (ny, nx) bool, or ``(mask, bits)``, where a pixel with
        ``mask & bits`` is left out; mask (ny, nx) integer.
    config
        Settings; LSST's by default.
    threads
        Threads to share the work among; the answer is bit for bit the same.

    Raises
    ------
    InvalidImageError
        When shapes disagree or a type cannot be worked on.
    NoUsableSuperpixelsError
        When nothing can be fit, and why.
    UndersampledError
        When too few superpixels are usable for the order and ``config.undersampled`` is "raise", or
        "refine" and no grid holds it.
    """
    if _is_dask(image):
        from skysub.background.blocks import fit_blocks

        return fit_blocks(image, ignored, config, threads=threads)
    config = config or BackgroundConfig()
    pixels: Any = image if isinstance(image, Plane) else checked_image(image)
    mask, bits = ignored if isinstance(image, Plane) else checked_ignored(ignored, pixels.shape)
    shape = (pixels.shape[0], pixels.shape[1])
    *coarser, finest = candidate_grids(shape, config)
    for grid in coarser:
        statistics = superpixel_statistics(pixels, mask, bits, grid, config, threads=threads)
        with suppress(UndersampledError):
            return fit_statistics(grid, statistics, config)
    return fit_statistics(
        finest, superpixel_statistics(pixels, mask, bits, finest, config, threads=threads), config
    )


@overload
def subtract_background(
    image: NDArray[Any],
    ignored: Any = None,
    config: BackgroundConfig | None = None,
    *,
    threads: int = 1,
    out: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.floating], Background]: ...
@overload
def subtract_background(
    image: Any,
    ignored: Any = None,
    config: BackgroundConfig | None = None,
    *,
    threads: int = 1,
    out: NDArray[np.floating] | None = None,
) -> tuple[Any, Any]: ...
def subtract_background(
    image: Any,
    ignored: Any = None,
    config: BackgroundConfig | None = None,
    *,
    threads: int = 1,
    out: NDArray[np.floating] | None = None,
) -> tuple[Any, Any]:
    """Estimate the background of one image and subtract it.

    Parameters and errors are those of `fit_background`. A Dask array is worked on lazily, block by block:
    see `skysub.background.blocks.subtract_blocks`.

    Parameters
    ----------
    out
        C-contiguous array of the answer's shape and type to put the answer into, ``image`` itself for
        instance. By default a new one: the system's work to hand out the memory then costs as much as the
        subtraction.

    Returns
    -------
    subtracted
        (ny, nx), ``image - model``: float32, or float64 where the image is that or a wide integer.
        Pixels left out of the fit are subtracted from as well; NaN stays NaN.
    background
        The model that was subtracted.
    """
    if _is_dask(image):
        from skysub.background.blocks import subtract_blocks

        if out is not None:
            raise InvalidImageError(
                "a Dask array is subtracted from lazily: store the result where it should go"
            )
        return subtract_blocks(image, ignored, config, threads=threads)
    pixels = image if isinstance(image, Plane) else checked_image(image)
    background = fit_background(pixels, ignored, config, threads=threads)
    return less_background(pixels, background, threads=threads, out=out), background


def less_background(
    image: Any, background: Background, *, threads: int = 1, out: NDArray[np.floating] | None = None
) -> Any:
    """Image minus a background, as `subtract_background` gives it; where it is a `Plane`, another one."""
    if not isinstance(image, Plane):
        return background.subtract_from(image, threads=threads, out=out)
    return made_rows(_subtract, (image,), image.dtype, background=background)


def _subtract(
    rows: range,
    out: NDArray[np.floating],
    image: NDArray[np.floating],
    *,
    background: Background,
    threads: int,
) -> None:
    cut = slice(rows.start, rows.stop)
    background.subtract_from(image[cut], y=cut, threads=threads, out=out[cut])


def _is_dask(image: Any) -> bool:
    """Whether an image is Dask's, asked without importing Dask."""
    return type(image).__module__.partition(".")[0] == "dask"
