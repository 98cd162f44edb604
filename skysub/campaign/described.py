"""Steps as ``run.json`` describes them, so that reading a store imports nothing that the store names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Never

from skysub.campaign.products.background import Background
from skysub.campaign.products.base import Entry, Product, Slot, Storing
from skysub.campaign.products.image import Image
from skysub.campaign.products.small import Grid, Object
from skysub.campaign.products.table import Table
from skysub.campaign.steps import Step
from skysub.errors import NotDoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from skysub.campaign.products.base import Again, Scope

__all__ = ["description_of", "step_described"]

_KINDS: dict[str, type[Product]] = {each.kind: each for each in (Image, Background, Grid, Object, Table)}


def description_of(step: Step, config: Any) -> dict[str, Any]:
    """Return what a reader must know of a step and its products, ready for JSON."""
    return {
        "inputs": list(step.inputs),
        "missing": step.bears(config),
        "outputs": [
            {"kind": each.kind, **{name: value for name, value in _fields(each) if _is_plain(value)}}
            for each in step.outputs
        ],
    }


def step_described(name: str, version: int, scope: Scope, description: Mapping[str, Any]) -> Step:
    """Return a step that stands for one whose module is not imported: its products can be read, not made.

    Raises
    ------
    RecipeError
        When the description is not one of a step.
    """

    def work(*_: Any) -> Never:
        raise NotDoneError(
            f"what is asked for is made by the step {name!r}, which a store alone cannot make skysub import: "
            "import its module first, if you trust it"
        )

    return Step(
        name=name,
        version=version,
        configuration=dict,
        work=work,
        outputs=tuple(_product(name, each) for each in description["outputs"]),
        scope=scope,
        inputs=tuple(description["inputs"]),
        missing=description["missing"],
    )


@dataclass(frozen=True, kw_only=True)
class _Unknown(Product):
    """A product of a kind that the step's own module defines."""

    step: str
    kind: ClassVar[str] = "unknown"

    def weight(self, shape: tuple[int, int] | None, config: Any, storing: Storing) -> float:
        self._refuse(shape, config, storing)

    def write(self, slot: Slot, made: dict[str, Any], storing: Storing) -> tuple[Any, Any]:
        self._refuse(slot, made, storing)

    def read(self, entry: Entry, again: Again | None = None) -> Any:
        self._refuse(entry, again)

    def exporter(self, value: Any, options: Mapping[str, Any]) -> Callable[[Path], object]:
        self._refuse(value, options)

    def _refuse(self, *_: Any) -> Never:
        raise NotDoneError(
            f"{self.name} is of a kind that the step {self.step!r} defines: import its module first, if you "
            "trust it"
        )


def _fields(product: Product) -> list[tuple[str, Any]]:
    return [(each.name, getattr(product, each.name)) for each in dataclasses.fields(product)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _product(step: str, described: Mapping[str, Any]) -> Product:
    kind = _KINDS.get(described["kind"])
    if kind is None:
        common = {name: described[name] for name in ("name", "per", "optional")}
        return _Unknown(step=step, **common)
    known = {each.name for each in dataclasses.fields(kind)}
    values = {name: _tuples(value) for name, value in described.items() if name in known}
    if kind is Background:
        values["layout"] = _no_layout
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _no_layout(*_: Any) -> Never:
    raise NotDoneError("a background cannot be planned for by a step that is not imported")
