"""From counts to nJy and back: background taken off and calibration applied with a single rounding.

For a pixel I of the post-ISR image, a background B as `evaluate` gives it (float32), a ratio R and a factor c
(nJy per count), the calibrated pixel is N = fl32((I - B / R) c), everything in float64 until it is rounded
once. What comes back is fl32(N / c + B / R). It differs from I by one unit in the last place of float32 at
most, of I or of I - B / R, whichever is larger: the latter's digits are all that float32 can hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from skysub.background.threads import in_threads
from skysub.errors import CalibrationError, InvalidImageError
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from astropy.io.fits import Header
    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = [
    "SkyModel",
    "calibrate_pixels",
    "calibrate_variance",
    "calibration_cards",
    "calibration_of_header",
    "exchange_background",
    "layers_of",
    "restore_post_isr_image",
    "subtract_model",
]

_STRIP = 64
_MEAN, _ERROR, _BOX, _RATIO = "PHOTMEAN", "PHOTERR", "PHOTBOX", "PHOTRAT"
_UNIT = "PHOTUNIT"
"""Cards that say how a calibrated image was made of counts."""


class SkyModel(Protocol):
    """A background: `BackgroundList`, `Background`, or any other that is evaluated as they are."""

    def evaluate(self, *, y: slice = ..., x: slice = ...) -> NDArray[np.float32]:
        """Model at each pixel of a window, (ny, nx) float32; the bits of a pixel do not depend on it."""

    def uncertainty(self, *, y: slice = ..., x: slice = ...) -> NDArray[np.float32]:
        """Standard deviation of the model at each pixel of a window, (ny, nx) float32."""


def subtract_model(
    image: NDArray[np.float32],
    layers: SkyModel,
    *,
    ratio: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Counts without background, (ny, nx) float32: I - B / R rounded once."""
    return _by_strips(image, layers, ratio, lambda left, rows: left, threads=threads)  # noqa: ARG005


def calibrate_pixels(
    image: NDArray[np.float32],
    layers: SkyModel,
    calibration: PhotometricCalibration,
    *,
    xy0: tuple[int, int] = (0, 0),
    ratio: NDArray[np.float32] | None = None,
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Pixels in nJy of a post-ISR image, (ny, nx) float32; see the formula above.

    Parameters
    ----------
    image
        (ny, nx) float32, counts, background and all; NaN stays NaN.
    layers
        What to subtract, counts; of an image times ``ratio`` where there is one.
    xy0
        (x, y) of the first pixel in the whole detector, to which the calibration refers.
    ratio
        (ny, nx) float32 background-to-photometric ratio; None for 1.
    out
        Array to put the answer into; ``image`` itself if it may be used up.

    Raises
    ------
    InvalidImageError
        When shapes disagree.
    """
    factor = _factors(calibration, image.shape, xy0)
    return _by_strips(image, layers, ratio, lambda left, rows: left * factor(rows), out=out, threads=threads)


def calibrate_variance(
    variance: NDArray[np.float32],
    calibration: PhotometricCalibration,
    *,
    xy0: tuple[int, int] = (0, 0),
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Variance in nJy squared of one in counts squared, (ny, nx) float32."""
    factor = _factors(calibration, variance.shape, xy0)
    made = np.empty_like(variance) if out is None else out
    for start in range(0, len(variance), _STRIP):
        rows = slice(start, min(start + _STRIP, len(variance)))
        made[rows] = variance[rows].astype(np.float64) * np.square(factor(rows))
    return made


def restore_post_isr_image(
    visit_image: VisitImage,
    background: SkyModel,
    *,
    ratio: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Pixels that a calibrated image was made of: image / factor + background, (ny, nx) float32, counts.

    Parameters
    ----------
    visit_image
        In nJy, as `reprocess_visit_image` makes it: its header has the factor.
    background
        What was subtracted (``visit_image_background``), in the post-ISR image's unit.
    ratio
        The background-to-photometric ratio that it was made with, where it was made with one.

    Raises
    ------
    CalibrationError
        When the header does not say how the image was calibrated, or a ratio is missing or too much.
    InvalidImageError
        When shapes disagree.
    """
    header = visit_image.header if visit_image.header is not None else {}
    who = f"visit {visit_image.visit} detector {visit_image.detector}"
    calibration = calibration_of_header(header, who)
    if bool(header.get(_RATIO, False)) != (ratio is not None):
        raise CalibrationError(
            f"{who}: it was calibrated {'with' if header.get(_RATIO) else 'without'} a "
            "background-to-photometric ratio: give the same here"
        )
    factor = _factors(calibration, visit_image.shape, visit_image.xy0)
    return _by_strips(
        visit_image.image,
        background,
        ratio,
        lambda pixels, rows: pixels / factor(rows),
        restore=True,
        threads=threads,
    )


def exchange_background(
    visit_image: VisitImage,
    applied: SkyModel,
    other: SkyModel,
    *,
    ratio: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> VisitImage:
    """The image as it is with another background subtracted, in counts or in nJy.

    Nothing but the two backgrounds is needed, and the way back is the same with both changed over: it gives
    each pixel to one unit in the last place of float32, of the pixel or of what the backgrounds differ by,
    whichever is larger.

    Parameters
    ----------
    visit_image
        Background-subtracted; one in nJy as `reprocess_visit_image` makes it, whose header has the factor.
    applied, other
        What was subtracted, and what is to be; both in the unit of the post-ISR image.
    ratio
        The background-to-photometric ratio that the image was made with, where it was made with one.

    Raises
    ------
    CalibrationError
        When the header of an image in nJy does not say how it was calibrated, or a ratio is missing or too
        much.
    InvalidImageError
        When shapes disagree.
    """
    header = visit_image.header if visit_image.header is not None else {}
    who = f"visit {visit_image.visit} detector {visit_image.detector}"
    factor: Callable[[slice], Any] = lambda rows: 1.0  # noqa: ARG005, E731
    if visit_image.unit == "nJy":
        factor = _factors(calibration_of_header(header, who), visit_image.shape, visit_image.xy0)
        if bool(header.get(_RATIO, False)) != (ratio is not None):
            raise CalibrationError(
                f"{who}: it was calibrated {'with' if header.get(_RATIO) else 'without'} a "
                "background-to-photometric ratio: give the same here"
            )
    shapes = [("background", each.shape) for model in (applied, other) for each in layers_of(model)]
    for name, shape in shapes if ratio is None else [*shapes, ("ratio", ratio.shape)]:
        if shape != visit_image.shape:
            raise InvalidImageError(f"{who}: the {name} has the shape {shape}, the image {visit_image.shape}")
    image, columns = visit_image.image, slice(0, visit_image.shape[1])
    made = np.empty(image.shape, np.float32)

    def rows_of(some: range) -> None:
        for start in range(some.start, some.stop, _STRIP):
            rows = slice(start, min(start + _STRIP, some.stop))
            change = applied.evaluate(y=rows, x=columns).astype(np.float64)
            change -= other.evaluate(y=rows, x=columns)
            if ratio is not None:
                change /= ratio[rows]
            made[rows] = image[rows] + change * factor(rows)

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        in_threads(rows_of, image.shape[0], threads)
    return visit_image.replace(image=made)


def calibration_cards(
    calibration: PhotometricCalibration, *, unit: str, ratio: bool = False
) -> dict[str, tuple[Any, str]]:
    """Header cards, value and comment, that `calibration_of_header` reads."""
    cards: dict[str, tuple[Any, str]] = {
        _MEAN: (calibration.mean, "nJy per count, times pixels"),
        _ERROR: (calibration.error, "standard deviation of PHOTMEAN"),
        _UNIT: (unit, "of post-ISR image, background"),
        _RATIO: (ratio, "background / photometric ratio"),
    }
    if calibration.field is not None:
        box = ",".join(str(edge) for edge in calibration.field.box)
        cards[_BOX] = (box, "x_min,y_min,x_max,y_max")
        for (q, p), value in np.ndenumerate(calibration.field.coefficients):
            cards[f"PHO{q:02d}_{p:02d}"] = (float(value), f"of T_{q}(y) T_{p}(x), nJy")
    return cards


def calibration_of_header(header: Header | Mapping[str, Any], who: str = "header") -> PhotometricCalibration:
    """Calibration that an image in nJy was made with.

    Raises
    ------
    CalibrationError
        When there are no such cards, or they cannot be right.
    """
    if _MEAN not in header:
        raise CalibrationError(f"{who}: there is no card {_MEAN}: skysub has not calibrated this image")
    try:
        mean, error = float(header[_MEAN]), float(header.get(_ERROR, 0.0))
        if _BOX not in header:
            return PhotometricCalibration(mean, error)
        x_min, y_min, x_max, y_max = (int(edge) for edge in str(header[_BOX]).split(","))
        places = [
            (int(name[3:5]), int(name[6:8]))
            for name in header
            if name.startswith("PHO") and name[5:6] == "_" and len(name) == 8
        ]
        matrix = np.zeros([1 + max(index) for index in zip(*places, strict=True)])
        for q, p in places:
            matrix[q, p] = float(header[f"PHO{q:02d}_{p:02d}"])
        field = ChebyshevField(coefficients=matrix, box=(x_min, y_min, x_max, y_max))
        return PhotometricCalibration(mean, error, field)
    except (TypeError, ValueError) as problem:
        raise CalibrationError(f"{who}: the cards of its calibration are damaged: {problem}") from problem


def layers_of(background: SkyModel) -> tuple[Any, ...]:
    """Layers of a background; itself where it is no list of them."""
    from skysub.background.model import BackgroundList

    return tuple(background) if isinstance(background, BackgroundList) else (background,)


def _factors(
    calibration: PhotometricCalibration, shape: tuple[int, ...], xy0: tuple[int, int]
) -> Callable[[slice], Any]:
    x0, y0 = xy0
    columns = slice(x0, x0 + shape[1])
    return lambda rows: calibration.over(y=slice(y0 + rows.start, y0 + rows.stop), x=columns)


def _by_strips(
    image: NDArray[np.float32],
    layers: SkyModel,
    ratio: NDArray[np.float32] | None,
    then: Callable[[NDArray[np.float64], slice], NDArray[np.float64]],
    *,
    restore: bool = False,
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """``then`` of pixels less their background; with ``restore``, of pixels, and the background added."""
    parts = layers_of(layers)
    shapes = [("background", part.shape) for part in parts]
    for name, shape in shapes if ratio is None else [*shapes, ("ratio", ratio.shape)]:
        if shape != image.shape:
            raise InvalidImageError(f"the {name} has the shape {shape}, the image {image.shape}")
    made = np.empty(image.shape, np.float32) if out is None else out

    def rows_of(some: range) -> None:
        for start in range(some.start, some.stop, _STRIP):
            rows = slice(start, min(start + _STRIP, some.stop))
            pixels = image[rows].astype(np.float64)
            if not parts:
                made[rows] = then(pixels, rows)
                continue
            model = layers.evaluate(y=rows, x=slice(0, image.shape[1])).astype(np.float64)
            if ratio is not None:
                model /= ratio[rows]
            made[rows] = then(pixels, rows) + model if restore else then(pixels - model, rows)

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        in_threads(rows_of, image.shape[0], threads)
    return made
