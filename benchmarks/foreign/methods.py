"""Ways to the sky of a scene: those that a user has, and one that knows the sources."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

import skysub
from skysub.background.clipping import superpixel_statistics
from skysub.background.robust import RobustConfig, fit_robust
from skysub.background.superpixels import SuperpixelGrid

if TYPE_CHECKING:
    from collections.abc import Callable

    from foreign.scenes import Scene

__all__ = ["METHODS", "Answer", "oracle_mask"]

_ORACLE_LIGHT = 0.05
"""Light of detected sources that an oracle leaves in a pixel, in its noise."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What a method found, in the unit of the scene's image."""

    model: np.ndarray
    uncertainty: np.ndarray | None = None
    masked: float = float("nan")
    """Share of the pixels without defects that it left out."""
    flags: tuple[str, ...] = field(default=())


def calibrated(scene: Scene, *, name: str) -> Answer:
    """`skysub.calibrate_image` as it ships, without its search for cosmic rays and its PSF."""
    config = dataclasses.replace(skysub.CalibrateImageConfig.named(name), cosmic_rays=None, psf=None)
    visit_image = scene.visit_image
    result = skysub.calibrate_image(visit_image, config)
    layers = result.preliminary_visit_image_background
    found = result.preliminary_visit_image
    detected = (found.mask & found.planes.bits("DETECTED")) != 0
    return Answer(
        model=layers.evaluate(),
        uncertainty=layers.uncertainty(),
        masked=float(detected[~scene.defects].mean()),
        flags=tuple(result.flags),
    )


def plain(scene: Scene) -> Answer:
    """`skysub.fit_background` with nothing left out but defects."""
    found = skysub.fit_background(scene.image, scene.defects)
    return Answer(model=found.evaluate(), uncertainty=found.uncertainty(), masked=0.0)


def oracle_mask(scene: Scene) -> np.ndarray:
    """(ny, nx) bool: more than 0.05 sigma of light of detected sources.

    That limit is doubled until half of the pixels without defects remain.
    """
    light = scene.sources - scene.undetected
    limit = _ORACLE_LIGHT * scene.sigma
    good = ~scene.defects
    while (light[good] > limit).mean() > 0.5:
        limit *= 2
    return light > limit


def oracle(scene: Scene, *, robust: bool) -> Answer:
    """The fit with a perfect mask: the detected sources are known, the undetected ones are not.

    Pixels of `oracle_mask` are left out, and what light of detected sources the others hold is subtracted.
    The fit is then that of `default` (robust) or of `plain`.
    """
    mask = oracle_mask(scene) & ~scene.defects
    ignored = mask | scene.defects
    image = scene.image - (scene.sources - scene.undetected) / np.float32(scene.electrons)
    if robust:
        config = skysub.BackgroundConfig()
        grid = SuperpixelGrid.over(image.shape, config)
        statistics = superpixel_statistics(image, ignored.view(np.uint8), 1, grid, config)
        # as `default` does, superpixels with hardly a pixel of sky are not used
        config = dataclasses.replace(config, min_good_pixels=128 * 128 // 50)
        found = fit_robust(grid, statistics, config, RobustConfig()).background
    else:
        found = skysub.fit_background(image, ignored)
    return Answer(
        model=found.evaluate(),
        uncertainty=found.uncertainty(),
        masked=float(mask[~scene.defects].mean()),
    )


def source_mask(scene: Scene) -> np.ndarray:
    """(ny, nx) bool: 5 sigma above a plain fit after smoothing by the PSF, grown by 4 pixels; not defects."""
    bad = scene.defects
    residual = np.where(bad, 0, scene.image - skysub.fit_background(scene.image, bad).evaluate())
    smoothed = ndimage.gaussian_filter(residual, scene.kind.fwhm / 2.355)
    sample = smoothed[~bad][::7]
    noise = 1.4826 * np.median(np.abs(sample - np.median(sample)))
    return ndimage.binary_dilation(smoothed > 5 * noise, iterations=4) & ~bad


def with_sep(scene: Scene, *, size: int) -> Answer:
    """Sep's background of a mesh of ``size`` pixels, sources of 5 sigma left out."""
    import sep

    mask = source_mask(scene)
    found = sep.Background(scene.image, mask=mask | scene.defects, bw=size, bh=size, fw=3, fh=3)
    return Answer(model=found.back(), masked=float(mask[~scene.defects].mean()))


def with_photutils(scene: Scene) -> Answer:
    """`photutils.background.Background2D` of 64 pixels, sources of 5 sigma left out."""
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, SExtractorBackground

    mask = source_mask(scene)
    found = Background2D(
        scene.image,
        (64, 64),
        mask=mask | scene.defects,
        filter_size=(3, 3),
        sigma_clip=SigmaClip(sigma=3.0),
        bkg_estimator=SExtractorBackground(),
        exclude_percentile=95,
    )
    return Answer(model=found.background, masked=float(mask[~scene.defects].mean()))


METHODS: dict[str, Callable[[Scene], Answer]] = {
    "default": functools.partial(calibrated, name="default"),
    "lsst": functools.partial(calibrated, name="lsst"),
    "plain": plain,
    "oracle": functools.partial(oracle, robust=True),
    "oracle_plain": functools.partial(oracle, robust=False),
    "sep": functools.partial(with_sep, size=64),
    "sep256": functools.partial(with_sep, size=256),
    "photutils": with_photutils,
}
"""A method is a function of a `Scene`; add one here to have it scored."""
