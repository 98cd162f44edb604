"""Steps: what is done to a detector or a visit, what that needs, and what comes out."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from skysub.campaign.recipe import as_json, built
from skysub.errors import RecipeError
from skysub.settings.lookup import closest, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from skysub.campaign.given import Given
    from skysub.campaign.products.base import Product, Scope

__all__ = ["RAW", "Findings", "Step", "StepResult", "find_step", "loaded_step", "shipped_steps"]

RAW = "raw"
"""Name of the input that is the detector's own file."""

_TABLE = "table:"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a step finds out about a unit, beside its products."""

    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    """Summary statistics, by name."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """What is missing or to be doubted: name, and a sentence for people."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage, in the order they were done."""


@dataclass(frozen=True, kw_only=True)
class StepResult(Findings):
    """What a step makes of a unit."""

    products: Mapping[str, Any]
    """By name: all that the step declares, but for optional ones that it did not make. A product of a step
    over visits that belongs to detectors is itself a mapping from detectors."""

    def findings(self) -> Findings:
        """Return what was found out alone."""
        return Findings(figures=self.figures, flags=self.flags, timings=self.timings)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step: a plain function of its inputs and a configuration, with what a plan must know of it.

    Raises
    ------
    RecipeError
        When inputs, outputs and scope do not go together.
    """

    name: str
    version: int
    """Raised when the same inputs and configuration give other numbers: earlier results are then redone."""
    configuration: type
    """Frozen dataclass of its settings."""
    work: Callable[[Given, Any], StepResult]
    """From its inputs, whose arrays it may use up, and a configuration."""
    outputs: tuple[Product, ...]
    """What it makes."""
    scope: Scope = "detector"
    """What one unit of it is: a detector of a visit, or a visit."""
    inputs: tuple[str, ...] = (RAW,)
    """What it needs: "raw" (the detector's file), products of earlier steps by name, and tables that the
    recipe names, as "table:NAME". A product of detectors is, to a step over visits, that of all detectors of
    the visit. "ONE|OTHER" is the first of some products that an earlier step of the recipe makes;
    "table:NAME?" is left out where the recipe names no such table."""
    files: Callable[[Any], Sequence[str]] | None = None
    """From the configuration: paths or addresses of files that it names for the step to read. Their content
    is part of the units' keys."""
    missing: int | Callable[[Any], int] = 0
    """How many detectors of a visit may be missing in its inputs, because they failed: a number, or a
    function of the configuration. For steps over visits."""
    blocks: Callable[[tuple[int, int], Any], NDArray[np.int64] | None] | None = None
    """From the shape (ny, nx) of a detector and the configuration to rows at which its image may well be cut,
    0 and ny among them, where ``work`` takes images in blocks (`skysub.background.rows`); None where it needs
    the whole detector at once."""
    presets: Callable[[Mapping[str, Any]], Any] | None = None
    """From the settings that a recipe gives to the configuration they are changes of; None: the defaults."""
    memory_images: float = 6.0
    """Memory that one unit needs, in units of a detector's float32 image."""
    seconds_per_megapixel: float = 0.03
    """First guess of a unit's time on one core; a plan prefers what finished units took."""

    def __post_init__(self) -> None:
        where = f"step {self.name}"
        names = [product.name for product in self.outputs]
        for name in names:
            if names.count(name) > 1 or name == RAW or "/" in name or not name:
                raise RecipeError(f"{where}: {name!r} is no name for a product of its own")
        if self.scope != "detector" and RAW in self.inputs:
            raise RecipeError(f"{where} goes over {self.scope}s, so it cannot read the file of a detector")
        if self.scope == "detector" and self.missing:
            raise RecipeError(f"{where} goes over detectors, so none can be missing")
        for product in self.outputs:
            if product.per not in {None, self.scope} and (self.scope, product.per) != ("visit", "detector"):
                raise RecipeError(
                    f"{where} goes over {self.scope}s, so {product.name} cannot be of a {product.per}"
                )
            if product.kind in {"image", "background"} and self.of(product) != "detector":
                raise RecipeError(f"{where}: {product.name} is an {product.kind}, which detectors alone have")

    def of(self, product: Product) -> Scope:
        """What a product of this step belongs to."""
        return product.per or self.scope

    def output(self, name: str) -> Product:
        """Return a product by its name."""
        return next(product for product in self.outputs if product.name == name)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that it needs."""
        return tuple(name.removeprefix(_TABLE) for name in self.inputs if name.startswith(_TABLE))

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the products that it needs."""
        return tuple(name for name in self.inputs if name != RAW and not name.startswith(_TABLE))

    def with_inputs(self, made: Collection[str], tables: Collection[str]) -> Step:
        """The step with settled inputs: of alternatives the one that is ``made``, of tables those given."""
        settled = []
        for name in self.inputs:
            if name.startswith(_TABLE) and name.endswith("?"):
                if name.removeprefix(_TABLE)[:-1] in tables:
                    settled.append(name[:-1])
                continue
            ways = name.split("|")
            settled.append(next((way for way in ways if way in made), ways[0]))
        return self if tuple(settled) == self.inputs else replace(self, inputs=tuple(settled))

    def bears(self, config: Any) -> int:
        """How many detectors may be missing."""
        return self.missing(config) if callable(self.missing) else self.missing

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
        return built(self.configuration, merged(as_json(self.presets(given)), given), where)


def shipped_steps() -> dict[str, Step]:
    """Steps that skysub brings, by name."""
    from skysub.campaign.shipped import STEPS

    return STEPS


def find_step(name: str) -> Step:
    """Return a step by its name, or one of your own as ``package.module:attribute``.

    Raises
    ------
    RecipeError
        When there is none.
    """
    steps = shipped_steps()
    if name in steps:
        return steps[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise RecipeError(
            f"steps: there is no step {name!r}{closest(name, list(steps))}; known: {', '.join(steps)}, "
            "or package.module:attribute"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"steps: {name} cannot be imported: {error}") from None
    if not isinstance(found, Step):
        raise RecipeError(f"steps: {name} is no skysub.campaign.steps.Step, but {type(found).__name__}")
    return found


def loaded_step(name: str) -> Step | None:
    """Return a step of skysub's, or of a module that this process imported by its own will; else None."""
    module, _, attribute = name.partition(":")
    found = shipped_steps().get(name) or getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, Step) else None
