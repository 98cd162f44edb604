"""From a post-ISR image of one detector to its sky, its mask and its character."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.model import BackgroundList
from skysub.errors import InvalidImageError, NoUsableSuperpixelsError
from skysub.pipeline.config import CalibrateImageConfig
from skysub.pipeline.lsst_sky import find_sky_as_lsst
from skysub.pipeline.sky import Sky, find_sky
from skysub.pipeline.timing import Stopwatch
from skysub.sources.flags import EXTENDED, SOURCE, working_flags

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.visit.image import VisitImage

__all__ = ["CalibrateImageResult", "calibrate_image"]


@dataclass(frozen=True, eq=False)
class CalibrateImageResult:
    """What `calibrate_image` found."""

    preliminary_visit_image: VisitImage
    """Background subtracted; its mask has DETECTED where light of sources was left out of the sky."""
    preliminary_visit_image_background: BackgroundList
    """What was subtracted, in the unit of the post-ISR image."""
    sky: Sky | None
    """Fit, mask statistics and noise behind the background; None for the flow of LSST."""
    psf: Any = None
    aperture_correction: Any = None
    zero_points: dict[str, float] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    """LSST's summary statistics, by LSST's names."""
    flags: dict[str, str] = field(default_factory=dict)
    """What is missing or doubtful: a short name, and a sentence for people."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    passes: int = 1
    """Turns of source mask and background."""


def calibrate_image(
    visit_image: VisitImage,
    config: CalibrateImageConfig | None = None,
    *,
    background_to_photometric_ratio: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> CalibrateImageResult:
    """Measure and subtract the sky of one detector's image, and find what its pixels tell of themselves.

    Parameters
    ----------
    visit_image
        The post-ISR image, sky and all; never modified. Pixels of the planes that the configuration
        ignores, and NaN, are left out.
    config
        Settings; ``CalibrateImageConfig()`` by default.
    background_to_photometric_ratio
        (ny, nx) float32: the pixels times this are flat for the sky rather than for stars. The sky is
        then measured on that product B and B / ratio is subtracted; the list of layers holds B.
    threads
        Threads to share the work among; the answer is bit for bit the same.

    Raises
    ------
    NoUsableSuperpixelsError
        When there is no background at all; everything less is said in ``flags`` of the result.
    InvalidImageError
        When the ratio does not fit the image.
    """
    config = config or CalibrateImageConfig()
    stopwatch = Stopwatch()
    image = visit_image.image
    ratio = background_to_photometric_ratio
    if ratio is not None:
        if ratio.shape != image.shape:
            raise InvalidImageError(
                f"{_who(visit_image)}: the ratio has the shape {ratio.shape}, the image {image.shape}"
            )
        image = image * ratio.astype(np.float32, copy=False)
    with stopwatch("flags"):
        flags = working_flags(
            visit_image.mask,
            ignored=visit_image.bits(*config.ignored_planes),
            saturated=visit_image.bits(*config.saturated_planes),
            threads=threads,
        )
    try:
        found = _find(visit_image, image, flags, config, stopwatch=stopwatch, threads=threads)
    except NoUsableSuperpixelsError as error:
        raise NoUsableSuperpixelsError(
            f"{_who(visit_image)}: no background can be measured: {error}"
        ) from error
    layers, sky = found
    with stopwatch("subtract"):
        if ratio is None:
            subtracted = visit_image.image
            for layer in layers:
                subtracted = np.asarray(layer.subtract_from(subtracted, threads=threads), np.float32)
        else:
            subtracted = visit_image.image - layers.evaluate() / ratio
    with stopwatch("mask planes"):
        planes = visit_image.planes.with_plane("DETECTED")
        mask = visit_image.mask.astype(planes.dtype, copy=True)
        _set_plane(mask, planes.bits("DETECTED"), flags)
    preliminary = visit_image.replace(
        image=subtracted.astype(np.float32, copy=False), mask=mask, planes=planes
    )
    return CalibrateImageResult(
        preliminary_visit_image=preliminary,
        preliminary_visit_image_background=layers,
        sky=sky,
        flags={} if sky is None else dict(sky.flags),
        timings=dict(stopwatch.seconds),
        passes=len(layers) if sky is None else sky.passes,
    )


def _find(
    visit_image: VisitImage,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    config: CalibrateImageConfig,
    *,
    stopwatch: Stopwatch,
    threads: int,
) -> tuple[BackgroundList, Sky | None]:
    """Layers of background by the configured flow; marks sources in the flags."""
    if config.flow == "lsst":
        found = find_sky_as_lsst(
            image,
            visit_image.variance,
            flags,
            config.sky.background,
            fwhm=config.fwhm,
            stopwatch=stopwatch,
            threads=threads,
        )
        flags[~found.detected] &= np.uint8(0xFF & ~SOURCE)
        return found.layers, None
    sky = find_sky(
        image,
        flags,
        config.sky,
        fwhm=config.fwhm,
        gain=1.0 if visit_image.unit == "electron" else visit_image.gain,
        stopwatch=stopwatch,
        threads=threads,
    )
    return BackgroundList([sky.background]), sky


def _set_plane(mask: NDArray[np.signedinteger], bit: int, flags: NDArray[np.uint8]) -> None:
    from skysub.sources import kernels

    mask &= ~mask.dtype.type(bit)
    kernels.set_bits(flags, SOURCE | EXTENDED, mask.dtype.type(bit), mask)


def _who(visit_image: VisitImage) -> str:
    where = f"{visit_image.path}: " if visit_image.path else ""
    return f"{where}visit {visit_image.visit} detector {visit_image.detector}"
