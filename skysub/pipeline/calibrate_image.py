"""From a post-ISR image of one detector to its sky, its mask and its character."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.estimate import less_background
from skysub.background.model import BackgroundList
from skysub.background.rows import Plane, copied, made_rows, sampled
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import InvalidImageError, NoUsableSuperpixelsError
from skysub.pipeline.amplifiers import Amplifiers, with_amplifiers
from skysub.pipeline.compilation import compile_beside
from skysub.pipeline.config import CalibrateImageConfig
from skysub.pipeline.lsst_sky import LSST_DETECTIONS, find_sky_as_lsst
from skysub.pipeline.sky import Sky, find_sky, first_guess
from skysub.pipeline.summary import summarise
from skysub.pipeline.timing import Stopwatch
from skysub.sources.compilation import compile_once
from skysub.sources.detect import find_footprints, smoothed_noise, smoothing_kernel
from skysub.sources.flags import (
    COSMIC_RAY,
    EXTENDED,
    IGNORED,
    SATURATED,
    SOURCE,
    count_pixels,
    mark_planes,
    working_flags,
)
from skysub.sources.noise import pixel_noise
from skysub.visit.fits.sky_state import SKY_CARD
from skysub.visit.image import VisitImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.amplifiers import AmplifierBackground
    from skysub.background.robust import RobustFit
    from skysub.pipeline.characterise import ApertureCorrection, Character
    from skysub.pipeline.zero_points import Reference, ZeroPoints
    from skysub.psf.model import MoffatPsf

__all__ = ["CalibrateImageResult", "calibrate_image"]

_VARIANCE_AGREES = 1.3
"""Ratio of measured to stated noise up to which they agree."""
_SAMPLE_STEP = 7
_AMPLIFIER_TURNS = 3
"""How often the sky is found at most, because steps or drift of amplifiers were found beside it."""
_LEAST_LIT = 0.05
"""Share of pixels that must be left for vignetted ones to be left out."""


@dataclass(frozen=True, eq=False)
class CalibrateImageResult:
    """What `calibrate_image` found."""

    preliminary_visit_image: VisitImage
    """Background subtracted, in the unit of the post-ISR image; its mask has DETECTED where light of sources
    was left out of the sky, and CR; it holds PSF, and photo_calib and corrected wcs where they were found."""
    preliminary_visit_image_background: BackgroundList
    """What was subtracted, in the unit of the post-ISR image: sky and the light of undetected sources, which
    stands beside it as ``preliminary_visit_image_background[0].faint_light`` and which ``sky_alone()`` takes
    off."""
    sky: Sky | None
    """Fit, mask statistics and noise behind the background; None for the flow of LSST."""
    amplifiers: AmplifierBackground | None = None
    """Steps and row drift of amplifiers that the background holds, a layer of its own there; None where the
    image gives no evidence of any. The amplifiers' pixels are in ``preliminary_visit_image.amplifiers``."""
    psf: MoffatPsf | None = None
    aperture_correction: ApertureCorrection | None = None
    zero_points: ZeroPoints | None = None
    summary: dict[str, float] = field(default_factory=dict)
    """LSST's summary statistics, by LSST's names; NaN where nothing is known."""
    flags: dict[str, str] = field(default_factory=dict)
    """What is missing or doubtful: a short name, and a sentence for people."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    passes: int = 1
    """Turns of source mask and background."""

    def __repr__(self) -> str:
        names = ("psf", "aperture_correction", "zero_points")
        found = [name for name in names if getattr(self, name) is not None]
        return (
            f"CalibrateImageResult({self.preliminary_visit_image!r}, "
            f"{self.preliminary_visit_image_background!r}, "
            f"found={' '.join(found) or 'none'}, flags={' '.join(self.flags) or 'none'})"
        )

    def _repr_html_(self) -> str:
        from skysub.html import card, picture, thumbnail

        layers = self.preliminary_visit_image_background
        image = self.preliminary_visit_image
        names = ("skyBg", "skyNoise", "psfSigma", "zeroPoint")
        rows = {
            name: f"{self.summary[name]:.5g}" for name in names if np.isfinite(self.summary.get(name, np.nan))
        }
        rows = {"visit, detector": f"{image.visit}, {image.detector}", "unit": image.unit} | rows
        rows |= self.flags or {"flags": "none"}
        left = picture(thumbnail(image.image), "the image without its background")
        below = picture(layers[-1].statistics.mean, "the superpixels of the background")
        return card("CalibrateImageResult", rows, [left, below])


def calibrate_image(
    visit_image: VisitImage,
    config: CalibrateImageConfig | None = None,
    *,
    reference: Reference | None = None,
    background_to_photometric_ratio: NDArray[np.float32] | None = None,
    overwrite: bool = False,
    threads: int = 1,
) -> CalibrateImageResult:
    """Measure and subtract the sky of one detector's image, and find what its pixels tell of themselves.

    Parameters
    ----------
    visit_image
        The post-ISR image, sky and all; not modified unless ``overwrite``. Pixels of the planes that the
        configuration ignores, and NaN, are left out.
    config
        Settings; ``CalibrateImageConfig()`` by default.
    reference
        Stars with known places and magnitudes, for the zero points (`skysub.read_reference`).
    background_to_photometric_ratio
        (ny, nx) float32: the pixels times this are flat for the sky rather than for stars. The sky B is
        then measured on that product and B / ratio is subtracted; the list of layers holds B.
    overwrite
        Make the result of the very arrays of image and mask where they can be written to, for a caller who
        is done with them: two float32 images less memory, and quicker.
    threads
        Threads to share the work among; the sky and the mask are bit for bit the same.

    Raises
    ------
    NoUsableSuperpixelsError
        When there is no background at all; everything less is said in ``flags`` of the result.
    InvalidImageError
        When it is no `VisitImage`, or the ratio does not fit the image.
    """
    if not isinstance(visit_image, VisitImage):
        raise InvalidImageError(
            f"calibrate_image takes a VisitImage, not {type(visit_image).__name__}: "
            "read one by skysub.read_visit_image(path), or make one of arrays by skysub.VisitImage(...)"
        )
    config = config or CalibrateImageConfig()
    pixels: Any = visit_image.image
    if isinstance(pixels, Plane) and (
        config.flow != "default" or background_to_photometric_ratio is not None
    ):
        raise InvalidImageError(
            f"{_who(visit_image)}: an image in blocks can be calibrated with flow='default' and without a "
            "background_to_photometric_ratio alone; give it as a whole"
        )
    if config.flow == "default":
        config = replace(config, sky=config.sky.for_shape(visit_image.shape))
    work = _Work(visit_image, config, background_to_photometric_ratio, overwrite=overwrite, threads=threads)
    try:
        work.find_rough_steps()
        work.find_cosmic_rays()
        work.find_sky()
    except NoUsableSuperpixelsError as error:
        raise NoUsableSuperpixelsError(
            f"{_who(visit_image)}: no background can be measured: {error}"
        ) from error
    preliminary = work.subtracted()
    character = work.characterise(preliminary)
    preliminary, zero_points = work.calibrated(preliminary, character, reference)
    psf = None if character is None else character.psf
    correction = None if character is None else character.aperture_correction
    with work.stopwatch("summary"):
        summary = summarise(
            preliminary, work.layers, psf=psf, aperture_correction=correction, zero_points=zero_points
        )
    return CalibrateImageResult(
        preliminary_visit_image=preliminary,
        preliminary_visit_image_background=work.layers,
        sky=work.sky,
        amplifiers=None if work.sky is None else work.sky.background.amplifiers,
        psf=psf,
        aperture_correction=correction,
        zero_points=zero_points,
        summary=summary,
        flags=work.quality_flags,
        timings=dict(work.stopwatch.seconds),
        passes=len(work.layers) if work.sky is None else work.sky.passes,
    )


class _Work:
    """The arrays that the stages share, and the stages one by one."""

    def __init__(
        self,
        visit_image: VisitImage,
        config: CalibrateImageConfig,
        ratio: NDArray[np.float32] | None,
        *,
        overwrite: bool,
        threads: int,
    ) -> None:
        self.visit_image, self.config, self.ratio, self.threads = visit_image, config, ratio, threads
        self.overwrite = overwrite
        self.stopwatch = Stopwatch()
        self.quality_flags: dict[str, str] = {}
        self.layers = BackgroundList()
        self.sky: Sky | None = None
        self.image = visit_image.image
        if ratio is not None:
            if ratio.shape != self.image.shape:
                raise InvalidImageError(
                    f"{_who(visit_image)}: the ratio has the shape {ratio.shape}, the image "
                    f"{self.image.shape}"
                )
            self.image = self.image * ratio.astype(np.float32, copy=False)
        self.whole = self.image
        """The image as it came, where ``image`` is without what amplifiers add."""
        self.amplifiers = Amplifiers(visit_image.amplifiers, visit_image.shape)
        self.grid = SuperpixelGrid.over(visit_image.shape, config.sky.background)
        compile_beside()
        compile_once(visit_image.mask.dtype)
        with self.stopwatch("flags"):
            self.flags = self._flagged(config.ignored_planes)
            lit = 1 - count_pixels(self.flags, (IGNORED,), self.grid).sum() / self.flags.size
            if "VIGNETTED" in config.ignored_planes and lit < _LEAST_LIT:
                self.flags = self._flagged(tuple(n for n in config.ignored_planes if n != "VIGNETTED"))
                self.quality_flags["vignetted"] = (
                    "Nearly all pixels are vignetted; the background was measured on them nevertheless."
                )
        with self.stopwatch("noise"):
            self.noise = pixel_noise(self.image, self.flags, self.grid)
        self._check_variance()

    def _flagged(self, ignored: tuple[str, ...]) -> NDArray[np.uint8]:
        return working_flags(
            self.visit_image.mask,
            ignored=self.visit_image.bits(*ignored),
            saturated=self.visit_image.bits(*self.config.saturated_planes),
            threads=self.threads,
        )

    @functools.cached_property
    def guess(self) -> RobustFit:
        """The sky as far as it shows without a source mask."""
        with self.stopwatch("first guess"):
            return first_guess(self.image, self.flags, self.noise, self.grid, config=self.config.sky)

    def find_cosmic_rays(self) -> None:
        """Flag cosmic rays, against a first guess of the sky."""
        config = self.config.cosmic_rays
        if config is None or not np.isfinite(self.noise).any():
            return
        from skysub.pipeline.cosmic_rays import find_cosmic_rays

        sky = self.guess.background
        with self.stopwatch("cosmic rays"):
            image = find_cosmic_rays(
                self.image,
                sky,
                self.flags,
                config,
                noise=float(np.nanmedian(self.noise)),
                fwhm=self.config.fwhm,
            )
        if self.whole is self.image:
            self.whole = image
        elif image is not self.image and self.amplifiers.layer is not None:
            self.whole = made_rows(
                with_amplifiers,
                (image, self.whole, copied(self.flags)),
                np.float32,
                layer=self.amplifiers.layer,
            )
        self.image = image

    def find_rough_steps(self) -> None:
        """Take off steps between amplifiers that are there to be seen before sources are masked."""
        config = self.config
        if config.flow != "default" or not config.sky.amplifiers or not np.isfinite(self.noise).any():
            return
        guess = self.guess.background
        with self.stopwatch("amplifiers"):
            if self.amplifiers.look_roughly(self.image, self.flags, guess, float(np.nanmedian(self.noise))):
                self.image = self.amplifiers.taken_off(self.whole)
                del self.guess

    def find_sky(self) -> None:
        """Layers of background by the configured flow; marks sources in the flags."""
        visit_image, config = self.visit_image, self.config
        if config.flow == "lsst":
            found = find_sky_as_lsst(
                self.image,
                visit_image.variance,
                self.flags,
                config.sky.background,
                fwhm=config.fwhm,
                stopwatch=self.stopwatch,
                threads=self.threads,
            )
            self.flags[~found.detected] &= np.uint8(0xFF & ~SOURCE)
            self.layers = found.layers
            reduced = next((layer.reduced for layer in found.layers if layer.reduced), "")
            if reduced:
                self.quality_flags["background_order_reduced"] = (
                    f"The background is simpler than asked for: {reduced}."
                )
            return
        sky = self._sky_beside_amplifiers()
        layer = self.amplifiers.layer
        if layer is not None:
            sky = replace(sky, background=replace(sky.background, amplifiers=layer))
            self.quality_flags["amplifiers"] = self.amplifiers.summary
        self.sky, self.noise = sky, sky.noise
        self.layers = BackgroundList([sky.background])
        self.quality_flags |= sky.flags

    def _sky_beside_amplifiers(self) -> Sky:
        """Sky and mask; found again when steps or drift of amplifiers show beside them."""
        visit_image, config = self.visit_image, self.config
        turn = 1
        while True:
            sky = find_sky(
                self.image,
                self.flags,
                config.sky,
                noise=self.noise,
                guess=self.guess,
                fwhm=config.fwhm,
                gain=1.0 if visit_image.unit == "electron" else visit_image.gain,
                stopwatch=self.stopwatch,
                threads=self.threads,
            )
            if not config.sky.amplifiers or turn == _AMPLIFIER_TURNS or not np.isfinite(sky.noise).any():
                return sky
            with self.stopwatch("amplifiers"):
                level = float(np.nanmedian(sky.noise))
                if not self.amplifiers.look(self.image, self.flags, sky.fit.background, level):
                    return sky
                self.image = self.amplifiers.taken_off(self.whole)
                del self.guess
            turn += 1

    def subtracted(self) -> VisitImage:
        """The image without its background, with the planes that were found."""
        with self.stopwatch("subtract"):
            # what is not the caller's own array may be used up
            image: Any = self.whole
            ours = self.overwrite or self.whole is not self.visit_image.image
            for layer in self.layers:
                # an image in blocks is subtracted where it is needed
                out = None
                if ours and not isinstance(image, Plane) and image.flags.writeable:
                    out = image if image.flags.c_contiguous else None
                image = less_background(image, layer, threads=self.threads, out=out)
                ours = True
            if self.ratio is not None:
                image /= self.ratio
        with self.stopwatch("mask planes"):
            planes = self.visit_image.planes.with_plane("CR", "INTRP", "DETECTED")
            given: Any = self.visit_image.mask
            mine = self.overwrite and not isinstance(given, Plane)
            mine = mine and given.flags.writeable and given.dtype == planes.dtype
            marks = {SOURCE | EXTENDED: planes.bits("DETECTED")}
            if self.config.cosmic_rays is not None:
                names = ("CR", "INTRP") if self.config.cosmic_rays.interpolate else ("CR",)
                marks[COSMIC_RAY] = planes.bits(*names)
            mask = mark_planes(
                given,
                self.flags,
                marks,
                cleared=planes.bits("DETECTED"),
                dtype=planes.dtype,
                out=given if mine else None,
                threads=self.threads,
            )
        header = self.visit_image.header
        if header is not None:
            header = header.copy()
            header[SKY_CARD] = (True, "sky subtracted by skysub")
        return self.visit_image.replace(image=image, mask=mask, planes=planes, header=header)

    def characterise(self, preliminary: VisitImage) -> Character | None:
        """PSF and aperture correction; None where they are not asked for or there is no noise to judge by."""
        config = self.config
        if config.psf is None or not np.isfinite(self.noise).any():
            return None
        from skysub.pipeline.characterise import characterise

        with self.stopwatch("psf"):
            kernel = smoothing_kernel(config.fwhm)
            white = smoothed_noise(kernel)
            footprints = None if self.sky is None else self.sky.mask.footprints
            if footprints is None:
                footprints = find_footprints(
                    preliminary.image,
                    self.flags,
                    np.zeros((1, 1)),
                    self.noise * white,
                    self.grid,
                    kernel=kernel,
                    peak_threshold=LSST_DETECTIONS[-1][0],
                    edge_threshold=LSST_DETECTIONS[-1][0] / 2,
                    threads=self.threads,
                )
            found = characterise(
                preliminary.image,
                made_rows(_unusable, (self.flags,), np.bool_),
                footprints,
                self.noise,
                grid=self.grid,
                config=config.psf,
                fwhm=config.fwhm,
                unit_flux=float(np.nanmedian(self.noise)) / white,
            )
        self.quality_flags |= found.flags
        return found

    def calibrated(
        self, preliminary: VisitImage, character: Character | None, reference: Reference | None
    ) -> tuple[VisitImage, ZeroPoints | None]:
        """The image with its PSF and, against the reference, its photo_calib and world coordinates."""
        psf = None if character is None else character.psf
        preliminary = preliminary.replace(psf=psf)
        if reference is None:
            return preliminary, None
        if psf is None or character is None or character.aperture_correction is None:
            self.quality_flags["no_zero_points"] = (
                "No zero points: they need stars, and no PSF star was found."
            )
            return preliminary, None
        if preliminary.wcs is None:
            self.quality_flags["no_zero_points"] = (
                "No zero points: the image has no world coordinates to start from."
            )
            return preliminary, None
        from skysub.pipeline.zero_points import find_zero_points

        with self.stopwatch("zero points"):
            stars = psf.stars
            flux = stars.flux * character.aperture_correction.at(stars.x, stars.y)
            found, quality_flags = find_zero_points(
                stars.x, stars.y, flux, preliminary.wcs, reference, shape=preliminary.shape
            )
        self.quality_flags |= quality_flags
        if found is None:
            return preliminary, None
        wcs = preliminary.wcs.deepcopy()
        wcs.wcs.crpix += (found.dx, found.dy)
        if np.isfinite(found.photometric):
            preliminary = preliminary.replace(photo_calib=found.photo_calib)
        return preliminary.replace(wcs=wcs), found

    def _check_variance(self) -> None:
        variance = self.visit_image.variance
        if not np.isfinite(self.noise).any():
            return
        if variance is None:
            self.quality_flags["no_variance"] = (
                "There is no variance; noise was measured from neighbouring pixels."
            )
            return
        (sample,) = sampled((variance,), _SAMPLE_STEP)
        sample = sample[np.isfinite(sample) & (sample > 0)]
        if not sample.size:
            self.quality_flags["no_variance"] = (
                "The variance is zero or unknown everywhere; noise was measured from neighbouring pixels."
            )
            return
        given, measured = float(np.sqrt(np.median(sample))), float(np.nanmedian(self.noise))
        if not 1 / _VARIANCE_AGREES < measured / given < _VARIANCE_AGREES:
            self.quality_flags["variance_disagrees"] = (
                f"Neighbouring pixels scatter by {measured:.3g}, the variance says {given:.3g}: the gain "
                "may be wrong, or the pixels correlated. The sky and its mask rest on the pixels."
            )


def _unusable(rows: range, out: NDArray[np.bool_], flags: NDArray[np.uint8], *, threads: int) -> None:
    del threads
    out[rows.start : rows.stop] = (flags[rows.start : rows.stop] & (IGNORED | SATURATED)) != 0


def _who(visit_image: VisitImage) -> str:
    where = f"{visit_image.path}: " if visit_image.path else ""
    return f"{where}visit {visit_image.visit} detector {visit_image.detector}"
