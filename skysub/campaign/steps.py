"""The steps that a recipe can name: what is done to one detector of one visit, and what comes out."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.config import BackgroundConfig
from skysub.background.estimate import subtract_background
from skysub.background.model import Background, BackgroundList
from skysub.background.superpixels import candidate_grids
from skysub.campaign.lookup import closest, merged
from skysub.campaign.recipe import built, plain
from skysub.errors import RecipeError
from skysub.pipeline.config import CalibrateImageConfig
from skysub.visit.planes import BACKGROUND_IGNORED, check_plane_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from skysub.pipeline.calibrate_image import CalibrateImageResult
    from skysub.visit.image import VisitImage

__all__ = [
    "STEPS",
    "BackgroundStep",
    "Findings",
    "Layout",
    "SingleFit",
    "Step",
    "StepResult",
    "find_step",
    "is_loaded",
    "product_names",
]

_PSF_PLACES = 8
"""Places along an axis at which a PSF's size is kept for a map."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a step finds out about one detector of one visit, its pixels left out."""

    background: BackgroundList
    """Layers that were subtracted."""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    """Summary statistics, by name."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """What is missing or to be doubted: name, and a sentence for people."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage, in the order they were done."""
    maps: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Small arrays over the detector, such as the noise of each superpixel, by name."""
    objects: Mapping[str, Any] = field(default_factory=dict)
    """What `skysub.campaign.store.objects` can keep, such as the PSF, by name."""


@dataclass(frozen=True, kw_only=True)
class StepResult(Findings):
    """What a step makes of one detector of one visit."""

    visit_image: VisitImage
    """Pixels with their background subtracted, mask with what was detected."""

    def without_pixels(self) -> Findings:
        """Return what was found out alone."""
        return Findings(
            background=self.background,
            figures=self.figures,
            flags=self.flags,
            timings=self.timings,
            maps=self.maps,
            objects=self.objects,
        )


@dataclass(frozen=True)
class SingleFit:
    """A step that is one background fit, so that a detector can be cut into blocks for it."""

    settings: Callable[[Any], tuple[BackgroundConfig, tuple[str, ...]]]
    """From the step's configuration: how the fit is done, and which mask planes are left out."""
    findings: Callable[[Background], Findings]
    """From the fit to what the step says of it; pixels are the input's with the fit subtracted."""


@dataclass(frozen=True)
class Layout:
    """Room that a step's background needs in the store."""

    layers: int
    grid: tuple[int, int]
    """Superpixels (gy, gx)."""
    terms: int
    """Coefficients of a layer."""


@dataclass(frozen=True)
class Step:
    """A step: a plain function of a visit image and a configuration, with what a plan must know of it."""

    name: str
    version: int
    """Raised when the same input and configuration give other numbers: earlier results are then redone."""
    configuration: type
    """Frozen dataclass of its settings."""
    work: Callable[[VisitImage, Any], StepResult]
    """From a visit image, whose arrays it may use up, and a configuration."""
    layout: Callable[[tuple[int, int], Any], Layout]
    """From the shape (ny, nx) of a detector and a configuration."""
    single_fit: SingleFit | None = None
    """How a detector is done block by block; None where a step needs the whole detector at once."""
    presets: Callable[[Mapping[str, Any]], Any] | None = None
    """From the settings that a recipe gives to the configuration they are changes of; None: the defaults."""
    product: str = "preliminary_visit_image"
    """Name of the pixels it makes; the background's is this with ``_background``."""
    memory_images: float = 6.0
    """Memory that one detector needs, in units of its float32 image."""
    seconds_per_megapixel: float = 0.03
    """First guess of its time on one core; a plan prefers what finished units took."""

    @property
    def background_product(self) -> str:
        """Name of its background."""
        return f"{self.product}_background"

    def configured(self, settings: Mapping[str, Any]) -> Any:
        """Return the configuration that settings of a recipe mean.

        Raises
        ------
        RecipeError
            Where a key is unknown (with the nearest known one) or a value is refused.
        """
        where = f"steps.{self.name}"
        given = dict(settings)
        # names first: a preset would hide a misspelt key
        config = built(self.configuration, given, where)
        if self.presets is None:
            return config
        return built(self.configuration, merged(plain(self.presets(given)), given), where)


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
    ignored: tuple[str, ...] = BACKGROUND_IGNORED

    def __post_init__(self) -> None:
        check_plane_names("ignored", self.ignored)


def find_step(name: str) -> Step:
    """Return a step by its name, or one of your own as ``package.module:attribute``.

    Raises
    ------
    RecipeError
        When there is none.
    """
    if name in STEPS:
        return STEPS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise RecipeError(
            f"steps: there is no step {name!r}{closest(name, list(STEPS))}; known: {', '.join(STEPS)}, "
            "or package.module:attribute"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"steps: {name} cannot be imported: {error}") from None
    if not isinstance(found, Step):
        raise RecipeError(f"steps: {name} is no skysub.campaign.steps.Step, but {type(found).__name__}")
    return found


def product_names(record: Mapping[str, Any]) -> tuple[str, str]:
    """Names of pixels and background that a run makes, from its ``run.json``.

    The step itself is not imported: a store may come from anybody, and must not choose what runs here.
    """
    step = STEPS.get(record["step"])
    product = str(record.get("product", Step.product)) if step is None else step.product
    return product, f"{product}_background"


def is_loaded(name: str) -> bool:
    """Whether a step is one of skysub's, or of a module that this process has imported by its own will."""
    return name in STEPS or name.partition(":")[0] in sys.modules


def _background(visit_image: VisitImage, config: BackgroundStep) -> StepResult:
    started = time.perf_counter()
    ignored = (visit_image.mask, visit_image.bits(*config.ignored))
    image = visit_image.image
    out = image if image.flags.writeable and image.flags.c_contiguous else None
    subtracted, layer = subtract_background(image, ignored, config.fit, out=out)
    seconds = time.perf_counter() - started
    found = _background_findings(layer)
    return StepResult(
        visit_image=visit_image.replace(image=subtracted),
        background=found.background,
        figures=found.figures,
        flags=found.flags,
        timings={"background": seconds},
    )


def _background_findings(layer: Background) -> Findings:
    return Findings(
        background=BackgroundList([layer]),
        figures={
            "sky": float(layer.coefficients[0]),
            "order": layer.order,
            "chi2_per_freedom": float(layer.chi2_per_freedom),
            "superpixels_used": int(layer.usable.sum()),
        },
        flags={"order_reduced": layer.reduced} if layer.reduced else {},
    )


def _background_layout(shape: tuple[int, int], config: BackgroundStep) -> Layout:
    grids = [grid.shape for grid in candidate_grids(shape, config.fit)[:1]]
    return Layout(layers=1, grid=grids[0], terms=_terms(config.fit.order))


def _calibrate_image(visit_image: VisitImage, config: CalibrateImageConfig) -> StepResult:
    from skysub.pipeline.calibrate_image import calibrate_image

    result = calibrate_image(visit_image, config, overwrite=True)
    last = result.preliminary_visit_image_background[-1]
    figures: dict[str, float | int | str] = {
        "sky": float(sum(layer.coefficients[0] for layer in result.preliminary_visit_image_background)),
        "order": last.order,
        "chi2_per_freedom": float(last.chi2_per_freedom),
        "superpixels_used": int(last.usable.sum()),
        "passes": result.passes,
    }
    if result.zero_points is not None:
        figures |= {
            f"zero_point_{name}": value for name, value in dataclasses.asdict(result.zero_points).items()
        }
    clock = time.perf_counter()
    maps = _maps(result)
    objects = {"psf": result.psf, "aperture_correction": result.aperture_correction}
    return StepResult(
        visit_image=result.preliminary_visit_image,
        background=result.preliminary_visit_image_background,
        figures=figures | result.summary,
        flags=result.flags,
        timings=result.timings | {"maps": time.perf_counter() - clock},
        maps=maps,
        objects={name: value for name, value in objects.items() if value is not None},
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
        layout=_background_layout,
        single_fit=SingleFit(
            settings=lambda config: (config.fit, config.ignored), findings=_background_findings
        ),
        # measured: 611 MiB, libraries included, on 4000 x 4072
        memory_images=6.0,
    ),
    "calibrate_image": Step(
        name="calibrate_image",
        version=3,
        configuration=CalibrateImageConfig,
        work=_calibrate_image,
        layout=_calibrate_image_layout,
        # measured with cosmic rays and PSF: 642 MiB; the rest is for fields with more sources
        memory_images=7.5,
        presets=_calibrate_image_preset,
        seconds_per_megapixel=0.1,
    ),
}
"""Steps by name."""
