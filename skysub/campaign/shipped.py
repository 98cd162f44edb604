"""The steps that skysub brings, each as a plain function of its pipeline and what a plan must know of it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.config import BackgroundConfig
from skysub.background.estimate import subtract_background
from skysub.background.model import BackgroundList
from skysub.background.rows import Plane
from skysub.background.superpixels import candidate_grids
from skysub.campaign.products.background import Background, Layout
from skysub.campaign.products.image import Image
from skysub.campaign.products.small import Grid, Object
from skysub.campaign.reprocess_step import REPROCESS_VISIT_IMAGE
from skysub.campaign.shipped_visit import VISIT_BACKGROUND
from skysub.campaign.steps import Step, StepResult
from skysub.pipeline.config import CalibrateImageConfig
from skysub.visit.plane_table import planes_with
from skysub.visit.planes import check_plane_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.campaign.given import Given
    from skysub.pipeline.calibrate_image import CalibrateImageResult

__all__ = ["STEPS", "BackgroundStep"]

_IMAGE = "preliminary_visit_image"
_BACKGROUND = "preliminary_visit_image_background"

_PSF_PLACES = 8
"""Places along an axis at which a PSF's size is kept for a map."""


@dataclass(frozen=True)
class BackgroundStep:
    """Settings of the step ``background``: one fit, with the masks that the files bring.

    Parameters
    ----------
    fit
        How superpixels are cut, summarised and fit.
    ignored
        Mask planes whose pixels are left out; planes that a file does not have are passed over.
    """

    fit: BackgroundConfig = field(default_factory=BackgroundConfig)
    ignored: tuple[str, ...] = planes_with("lsst_background_ignored")

    def __post_init__(self) -> None:
        check_plane_names("ignored", self.ignored)


def _background(given: Given, config: BackgroundStep) -> StepResult:
    visit_image = given.visit_image()
    started = time.perf_counter()
    ignored = (visit_image.mask, visit_image.bits(*config.ignored))
    image: Any = visit_image.image
    out = None
    if not isinstance(image, Plane) and image.flags.writeable and image.flags.c_contiguous:
        out = image
    subtracted, layer = subtract_background(image, ignored, config.fit, out=out)
    seconds = time.perf_counter() - started
    return StepResult(
        products={_IMAGE: visit_image.replace(image=subtracted), _BACKGROUND: BackgroundList([layer])},
        figures={
            "sky": float(layer.coefficients[0]),
            "order": layer.order,
            "chi2_per_freedom": float(layer.chi2_per_freedom),
            "superpixels_used": int(layer.usable.sum()),
        },
        flags={"order_reduced": layer.reduced} if layer.reduced else {},
        timings={"background": seconds},
    )


def _background_layout(shape: tuple[int, int], config: BackgroundStep) -> Layout:
    grids = [grid.shape for grid in candidate_grids(shape, config.fit)[:1]]
    return Layout(layers=1, grid=grids[0], terms=_terms(config.fit.order))


def _calibrate_image(given: Given, config: CalibrateImageConfig) -> StepResult:
    from skysub.pipeline.calibrate_image import calibrate_image
    from skysub.pipeline.joint.record import facts_of

    result = calibrate_image(given.visit_image(), config, overwrite=True)
    last = result.preliminary_visit_image_background[-1]
    figures: dict[str, float | int | str] = {
        "sky": float(sum(layer.coefficients[0] for layer in result.preliminary_visit_image_background)),
        "order": last.order,
        "chi2_per_freedom": float(last.chi2_per_freedom),
        "superpixels_used": int(last.usable.sum()),
        "passes": result.passes,
    }
    if last.faint_light is not None:
        figures["faint_light"] = last.faint_light.value
        figures["faint_light_error"] = last.faint_light.uncertainty
    if result.amplifiers is not None:
        figures["amplifier_steps"] = float(np.ptp(result.amplifiers.steps))
        if result.amplifiers.drift:
            drift = np.concatenate(result.amplifiers.drift)
            figures["amplifier_drift"] = float(np.sqrt(np.mean(drift**2)))
    if result.zero_points is not None:
        figures |= {
            f"zero_point_{name}": value for name, value in dataclasses.asdict(result.zero_points).items()
        }
    clock = time.perf_counter()
    optional = {
        "psf": result.psf,
        "aperture_correction": result.aperture_correction,
        "sky_facts": facts_of(result),
        **_maps(result),
    }
    maps_seconds = time.perf_counter() - clock
    return StepResult(
        products={
            _IMAGE: result.preliminary_visit_image,
            _BACKGROUND: result.preliminary_visit_image_background,
            **{name: value for name, value in optional.items() if value is not None},
        },
        figures=figures | result.summary,
        flags=result.flags,
        timings={**result.timings, "maps": maps_seconds},
    )


def _maps(result: CalibrateImageResult) -> dict[str, NDArray[Any]]:
    maps: dict[str, NDArray[Any]] = {}
    if result.sky is not None:
        maps["noise"] = result.sky.noise
    if result.psf is not None:
        ny, nx = result.psf.shape
        y, x = ((np.arange(_PSF_PLACES) + 0.5) * n / _PSF_PLACES - 0.5 for n in (ny, nx))
        sizes = result.psf.moments(x=np.tile(x, _PSF_PLACES), y=np.repeat(y, _PSF_PLACES)).size
        maps["psf_sigma"] = sizes.reshape(_PSF_PLACES, _PSF_PLACES)
    return maps


def _calibrate_image_layout(shape: tuple[int, int], config: CalibrateImageConfig) -> Layout:
    background = (config.sky.for_shape(shape) if config.flow == "default" else config.sky).background
    grid = candidate_grids(shape, background)[0].shape
    layers = 1 if config.flow == "default" else 4
    return Layout(layers=layers, grid=grid, terms=_terms(background.order))


def _calibrate_image_blocks(shape: tuple[int, int], config: CalibrateImageConfig) -> NDArray[np.int64] | None:
    if config.flow != "default":
        return None
    return candidate_grids(shape, config.sky.for_shape(shape).background)[0].y_edges


def _calibrate_image_preset(settings: Mapping[str, Any]) -> CalibrateImageConfig:
    return CalibrateImageConfig.named(settings.get("flow", "default"))


def _terms(order: int) -> int:
    return (order + 1) * (order + 2) // 2


STEPS = {
    "background": Step(
        name="background",
        version=1,
        configuration=BackgroundStep,
        work=_background,
        outputs=(
            Image(name=_IMAGE, less=_BACKGROUND),
            Background(name=_BACKGROUND, layout=_background_layout),
        ),
        blocks=lambda shape, config: candidate_grids(shape, config.fit)[0].y_edges,
        # measured: 611 MiB, libraries included, on 4000 x 4072
        memory_images=6.0,
    ),
    "calibrate_image": Step(
        name="calibrate_image",
        version=6,
        configuration=CalibrateImageConfig,
        work=_calibrate_image,
        outputs=(
            Image(name=_IMAGE, less=_BACKGROUND, objects=(("psf", "psf"),)),
            Background(name=_BACKGROUND, layout=_calibrate_image_layout),
            Grid(name="noise", optional=True),
            Grid(name="psf_sigma", optional=True),
            Object(name="psf", optional=True),
            Object(name="aperture_correction", optional=True),
            Object(name="sky_facts", optional=True),
        ),
        # measured with cosmic rays and PSF: 642 MiB; the rest is for fields with more sources
        memory_images=7.5,
        blocks=_calibrate_image_blocks,
        presets=_calibrate_image_preset,
        seconds_per_megapixel=0.1,
    ),
    "visit_background": VISIT_BACKGROUND,
    "reprocess_visit_image": REPROCESS_VISIT_IMAGE,
}
"""Steps by name."""
