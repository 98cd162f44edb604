"""The sky of one image, whatever it is: a file or an array in, the image without its sky out."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.config import BackgroundConfig
from skysub.background.pixels import checked_ignored, checked_image
from skysub.background.threads import in_threads
from skysub.errors import ConfigError, InvalidImageError, NoUsableSuperpixelsError, SkyIsGoneError
from skysub.pipeline.config import CalibrateImageConfig
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.model import BackgroundList
    from skysub.visit.fits.lenient import OpenedImage
    from skysub.visit.ingest import IngestMap
    from skysub.visit.planes import MaskPlanes

__all__ = ["SubtractConfig", "Subtracted", "subtract", "subtract_config"]

_SAMPLE = 4
"""Shares are counted in every so many rows of a large image,"""
_LARGE = 1 << 20
"""which is one of so many pixels."""
_NEAR_ZERO = 0.1
"""Sky, in units of the noise per pixel, below which an image seems to have none."""
_FEW_BINS = 5


@dataclass(frozen=True, slots=True)
class SubtractConfig:
    """Settings of `subtract`.

    Parameters
    ----------
    calibrate
        How sources are masked and the sky is fit; no PSF is looked for, no pixel replaced.
    final
        None: what that fit is subtracted. Otherwise this model, of all pixels that are not masked: a spline,
        for instance, where the sky has more structure than a polynomial follows. Like other programs' splines
        it has no corrections of the level.
    """

    calibrate: CalibrateImageConfig = field(default_factory=CalibrateImageConfig)
    final: BackgroundConfig | None = None


@dataclass(frozen=True, eq=False)
class Subtracted:
    """An image without its sky, what was taken from it, and how sure that is."""

    image: NDArray[np.floating]
    """(ny, nx), or (colour, ny, nx), float32, or float64 where an array of that came in: sky subtracted. Only
    the sky was taken: pixels of sources, defects and cosmic rays are as they were."""
    background: NDArray[np.float32]
    """What was subtracted, of the same shape."""
    planes_mask: NDArray[np.signedinteger] = field(repr=False)
    """Of the same shape, int32 or int64: what is known of each pixel, as ``planes`` names it."""
    planes: MaskPlanes
    """The meaning of the bits of ``planes_mask``; DETECTED marks light of sources, CR cosmic rays."""
    models: tuple[BackgroundList, ...] = field(repr=False)
    """The model behind ``background``; of a colour camera one per colour."""
    sky: float
    """Median of the sky, unit of the image."""
    noise: float
    """Noise per pixel without sources, unit of the image; NaN where it cannot be told."""
    unit: str = "adu"
    flags: dict[str, str] = field(default_factory=dict)
    """What is doubtful: a short name, and a sentence for people."""
    guesses: tuple[str, ...] = ()
    """What the file did not say and was guessed, a sentence each."""
    seconds: float = 0.0
    """Time that it took, reading included."""
    path: str = ""
    """The file; empty for arrays."""
    opened: OpenedImage | None = field(default=None, repr=False)
    """The file as it was read; None for arrays."""
    original: NDArray[np.floating] | None = field(default=None, repr=False)
    """The pixels before; None once they are no longer held."""

    def __repr__(self) -> str:
        of = f"{self.path!r}, " if self.path else ""
        return (
            f"Subtracted({of}shape={self.image.shape}, sky={self.sky:.6g} {self.unit}, "
            f"noise={self.noise:.4g}, masked={self.masked:.3g}, flags={' '.join(self.flags) or 'none'})"
        )

    def _repr_html_(self) -> str:
        from skysub.desk.picture import picture_element
        from skysub.html import card

        rows = {
            "sky": f"{self.sky:.6g} {self.unit}",
            "noise per pixel": f"{self.noise:.4g}",
            "masked": f"{100 * self.masked:.1f} %",
            "guessed": "; ".join(self.guesses) or "nothing",
        }
        rows |= self.flags or {"flags": "none"}
        title = f"Subtracted {self.path}".rstrip()
        return card(title, rows, [picture_element(self)])

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool of the image's shape: True where a pixel had no part in the sky (source, defect, no data)."""
        left_out: NDArray[np.bool_] = self.planes_mask != 0
        return left_out

    @functools.cached_property
    def masked(self) -> float:
        """Share of the pixels that had no part in the sky."""
        mask = self.planes_mask
        step = _SAMPLE if mask.size > _LARGE else 1
        return float(np.count_nonzero(mask[..., ::step, :]) / mask[..., ::step, :].size)

    @property
    def model(self) -> BackgroundList:
        """The model of an image of one colour.

        Raises
        ------
        ValueError
            When there are several colours; see ``models``.
        """
        if len(self.models) > 1:
            raise ValueError(
                f"there are {len(self.models)} colours, each with a model of its own: see models"
            )
        return self.models[0]

    @property
    def order(self) -> int:
        """Highest order of the polynomials of the model."""
        return max(layer.order for model in self.models for layer in model)

    def uncertainty(self) -> NDArray[np.float32]:
        """Return the standard deviation of the background at each pixel, float32 of the image's shape."""
        parts: list[NDArray[Any]] = [model.uncertainty() for model in self.models]
        return parts[0] if self.opened is None else np.asarray(self.opened.whole(parts), np.float32)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write image, mask and background as one FITS file, from which `skysub.restore` gets all back.

        Raises
        ------
        VisitFileError
            When it cannot be written.
        """
        from skysub.desk.restore import write_result

        write_result(self, path)

    def picture(self, path: str | os.PathLike[str], *, edge: int = 480) -> None:
        """Write a picture (PNG): image, mask, background and what is left, side by side.

        Parameters
        ----------
        edge
            Pixels that the longer side of each of the four has at most.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        from skysub.desk.picture import write_picture

        write_picture(self, path, edge=edge)


def subtract(
    image: Any,
    ignored: Any = None,
    config: SubtractConfig | CalibrateImageConfig | BackgroundConfig | str | None = None,
    *,
    ingest: IngestMap | None = None,
    detector: int | None = None,
    again: bool = False,
    threads: int | None = None,
    bare: bool = False,
) -> Subtracted:
    """Subtract the sky from one image: sources are masked, the sky fit to what is left and taken off.

    Parameters
    ----------
    image
        Path or URL of a FITS file of any kind; or a `VisitImage`; or an array (ny, nx), masked or not, or
        astropy's CCDData. Arrays are not modified; NaN is left out.
    ignored
        For arrays: pixels to leave out: None, (ny, nx) bool, or ``(mask, bits)``.
    config
        ``"default"``; ``"lsst"`` (the flow of LSST's Data Preview 1); a `BackgroundConfig`: superpixels and
        order of the default flow or, where its model is a spline, that spline in the end; or a
        `CalibrateImageConfig` or `SubtractConfig` for all there is to choose.
    ingest
        For files: what is known by hand of where things are.
    detector
        For files of several detectors: which.
    again
        Subtract what is left of the sky even where the header says that it is gone.
    threads
        Threads to share the work among; all processors by default. The result does not depend on it.
    bare
        For files: leave out world coordinates and astropy's header, which are slow to load.

    Raises
    ------
    SkyIsGoneError
        When the header says that the sky has been subtracted already, unless ``again``.
    NoUsableSuperpixelsError
        When no pixel shows the sky.
    InvalidImageError, ConfigError, VisitFileError, LayoutError
        When image, settings or file are of no use; the message says what to do.
    """
    start = time.perf_counter()
    settings = subtract_config(config)
    threads = threads or _processors()
    opened: OpenedImage | None = None
    if isinstance(image, (str, os.PathLike)):
        if ignored is not None:
            raise InvalidImageError("ignored goes with arrays; a file has a mask of its own")
        from skysub.visit.fits.lenient import open_image

        opened = open_image(image, ingest, detector=detector, bare=bare)
        if opened.sky_is_gone and not again:
            raise SkyIsGoneError(_gone(opened))
        channels, flags = opened.channels, dict(opened.flags)
        if opened.sky_is_gone:
            flags["again"] = f"The header says that the sky was gone before: {opened.sky_is_gone}."
    else:
        channels, flags = (_of_array(image, ignored),), {}
    found = [_sky_of(channel, settings, threads) for channel in channels]
    for each, name in zip(found, opened.colours if opened and opened.colours else [""], strict=True):
        flags |= {(f"{flag}_{name}" if name else flag): text for flag, text in each.flags.items()}
    parts = ([c.image for c in channels], [e.model for e in found], [e.visit_image.mask for e in found])
    pixels: NDArray[Any]
    model: NDArray[Any]
    mask: NDArray[Any]
    if opened is None:
        pixels, model, mask = _float_pixels(image, channels[0]), parts[1][0], parts[2][0]
    else:
        pixels, model, mask = (opened.whole(list(each)) for each in parts)
    # one layer of one channel has been subtracted on the way
    ready = len(found) == 1 and len(found[0].layers) == 1 and settings.final is None
    ready = ready and pixels.dtype == np.float32
    left = found[0].visit_image.image.reshape(pixels.shape) if ready else _minus(pixels, model, threads)
    result = Subtracted(
        image=left,
        background=model,
        planes_mask=mask,
        planes=found[0].visit_image.planes,
        models=tuple(each.layers for each in found),
        sky=float(np.median([each.level for each in found])),
        noise=float(np.median([each.noise for each in found])),
        unit=channels[0].unit,
        flags=flags,
        guesses=opened.guesses if opened else (),
        seconds=time.perf_counter() - start,
        path=opened.path if opened else "",
        opened=opened,
        original=pixels,
    )
    if abs(result.sky) < _NEAR_ZERO * result.noise and not (opened and opened.sky_is_gone):
        flags["sky_near_zero"] = (
            f"The sky is {result.sky:.3g} at a noise of {result.noise:.3g} per pixel: it may have been "
            "subtracted before."
        )
    return result


def subtract_config(
    config: SubtractConfig | CalibrateImageConfig | BackgroundConfig | str | None,
) -> SubtractConfig:
    """Settings of `subtract` from what users give.

    Raises
    ------
    ConfigError
        When there is no configuration of a name, or it is of another kind.
    """
    final = None
    if isinstance(config, SubtractConfig):
        settings, final = config.calibrate, config.final
    elif config is None or isinstance(config, str):
        settings = CalibrateImageConfig.named(config or "default")
    elif isinstance(config, BackgroundConfig):
        settings = CalibrateImageConfig()
        if config.model == "chebyshev":
            settings = replace(settings, sky=replace(settings.sky, background=config))
        else:
            final = config
    elif isinstance(config, CalibrateImageConfig):
        settings = config
    else:
        raise ConfigError(
            "config must be 'default', 'lsst', a BackgroundConfig, CalibrateImageConfig or SubtractConfig, "
            f"not {type(config).__name__}"
        )
    rays = settings.cosmic_rays
    rays = None if rays is None else replace(rays, interpolate=False)
    return SubtractConfig(replace(settings, psf=None, cosmic_rays=rays), final)


@dataclass(frozen=True, eq=False)
class _Found:
    """The sky of one channel."""

    layers: BackgroundList
    model: NDArray[np.float32]
    visit_image: VisitImage
    level: float
    noise: float
    flags: dict[str, str]


def _sky_of(channel: VisitImage, config: SubtractConfig, threads: int) -> _Found:
    from skysub.background.model import BackgroundList
    from skysub.pipeline.calibrate_image import calibrate_image

    result = calibrate_image(channel, config.calibrate, threads=threads)
    preliminary, layers = result.preliminary_visit_image, result.preliminary_visit_image_background
    flags = {name: text for name, text in result.flags.items() if name != "no_variance"}
    if config.final is not None:
        from skysub.background.estimate import fit_background

        bits = preliminary.planes.bits(*preliminary.planes)
        try:
            layers = BackgroundList(
                [fit_background(channel.image, (preliminary.mask, bits), config.final, threads=threads)]
            )
        except NoUsableSuperpixelsError as error:
            raise NoUsableSuperpixelsError(f"no sky is left for the final model: {error}") from error
    model = np.empty(channel.shape, np.float32)

    def band(rows: range) -> None:
        model[rows.start : rows.stop] = layers.evaluate(y=slice(rows.start, rows.stop))

    in_threads(band, len(model), threads)
    return _Found(
        layers=layers,
        model=model,
        visit_image=preliminary,
        level=float(np.median(model[:: _FEW_BINS * 3, :: _FEW_BINS * 3])),
        noise=float(result.summary["skyNoise"]),
        flags=flags,
    )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _minus(pixels: NDArray[Any], model: NDArray[np.float32], threads: int) -> NDArray[np.floating]:
    left = np.empty(pixels.shape, pixels.dtype)
    flat, taken, out = pixels.reshape(-1), model.reshape(-1), left.reshape(-1)

    def part(span: range) -> None:
        cut = slice(span.start, span.stop)
        np.subtract(flat[cut], taken[cut], out=out[cut])

    in_threads(part, flat.size, threads)
    return left


def _of_array(image: Any, ignored: Any) -> VisitImage:
    """The visit image of what a user has in memory."""
    if isinstance(image, VisitImage):
        if ignored is not None:
            raise InvalidImageError("ignored goes with arrays; a VisitImage has a mask of its own")
        return image
    unit = "adu"
    if hasattr(image, "uncertainty") and hasattr(image, "data") and hasattr(image, "unit"):
        # astropy's CCDData and NDData
        unit = str(image.unit) if image.unit is not None else unit
        image, masked = image.data, image.mask
        ignored = masked if ignored is None and masked is not None else ignored
    if isinstance(image, np.ma.MaskedArray):
        own = np.ma.getmaskarray(image)
        if isinstance(ignored, np.ndarray) and ignored.dtype == np.bool_:
            own = own | ignored
        elif ignored is not None:
            raise InvalidImageError("a masked array has a mask of its own: `ignored` may add a bool array")
        image, ignored = image.data, own
    if type(image).__module__.partition(".")[0] == "dask":
        raise InvalidImageError(
            "a Dask array is subtracted block by block, by skysub.subtract_background(array, ignored); "
            "call array.compute() first to have its sources masked here"
        )
    pixels = checked_image(image)
    mask, bits = checked_ignored(ignored, pixels.shape)
    planes = np.where(np.isfinite(pixels), 0, AFW_PLANES.bits("NO_DATA")).astype(np.int32)
    if mask.size:
        planes[(mask & mask.dtype.type(bits)) != 0] |= AFW_PLANES.bits("BAD")
    return VisitImage(
        image=np.ascontiguousarray(pixels, np.float32),
        mask=planes,
        planes=AFW_PLANES,
        unit=unit,
        visit=0,
        detector=0,
    )


def _float_pixels(image: Any, channel: VisitImage) -> NDArray[np.floating]:
    """The user's pixels in the type that they are returned in."""
    data = getattr(image, "data", image) if not isinstance(image, np.ndarray) else image
    if isinstance(image, (np.ndarray, list, tuple)) or isinstance(data, np.ndarray):
        pixels = checked_image(np.asarray(data))
        if pixels.dtype == np.float64:
            return pixels
    return channel.image


def _gone(opened: OpenedImage) -> str:
    from skysub.visit.fits import sdss, subtracted

    cure = "to subtract what is left of it all the same, say so: --again, or again=True"
    if opened.layout == subtracted.LAYOUT.name:
        cure = f"`skysub restore {opened.path}` puts back what was taken; {cure}"
    elif opened.layout == sdss.LAYOUT.name:
        cure = f"--ingest add_sky=true, or ingest=IngestMap(add_sky=True), puts SDSS's sky back first; {cure}"
    message = f"the header says that the sky has been subtracted already ({opened.sky_is_gone})"
    return f"{opened.path}: {message}; {cure}"
