"""The steps of a recipe as one chain: who makes what, who needs it, and the keys of units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skysub.campaign.recipe import short_hash
from skysub.campaign.steps import RAW, find_step
from skysub.campaign.store.address import place_at
from skysub.campaign.store.local import checksum
from skysub.errors import InputsError, RecipeError
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from skysub.campaign.products.base import Product
    from skysub.campaign.steps import Step

__all__ = ["Chain", "Link", "chained", "linked", "step_files", "user_tables"]


@dataclass(frozen=True)
class Link:
    """A step with its settings, in a chain."""

    step: Step
    config: Any
    needs: tuple[str, ...]
    """Steps whose products it reads, in order."""
    tables: tuple[tuple[str, str], ...]
    """Tables and files that it reads, and the checksums of their bytes."""

    @property
    def name(self) -> str:
        """Name of the step."""
        return self.step.name

    @property
    def scope(self) -> str:
        """What one unit of it is."""
        return self.step.scope

    @property
    def reads_file(self) -> bool:
        """Whether it reads the detector's own file."""
        return RAW in self.step.inputs

    @cached_property
    def bears(self) -> int:
        """How many detectors may be missing."""
        return self.step.bears(self.config)

    def key(self, *inputs: Any) -> str:
        """Hash of step and settings with the mapping or the keys of what it reads."""
        first = [self.step.name, self.step.version, self.config]
        return short_hash([*first, *([self.tables] if self.tables else []), *inputs])


class Chain:
    """Steps in the order in which they are done.

    Raises
    ------
    RecipeError
        When two steps make a product of one name, or a step needs what none before it makes.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = {link.name: link for link in links}
        self.makers: dict[str, str] = {}
        for link in links:
            for name in link.step.upstream:
                if name not in self.makers:
                    known = list(self.makers)
                    raise RecipeError(
                        f"steps: {link.name} needs {name!r}, which no step before it makes"
                        f"{closest(name, known)}; these make: {', '.join(known) or 'nothing'}"
                    )
            for product in link.step.outputs:
                if product.name in self.makers:
                    raise RecipeError(
                        f"steps: {self.makers[product.name]} and {link.name} both make {product.name!r}: "
                        "a recipe may have one of them"
                    )
                self.makers[product.name] = link.name
        self.followers: dict[str, list[str]] = {
            name: [each.name for each in links if name in each.needs] for name in self.links
        }

    def __iter__(self) -> Iterator[Link]:
        return iter(self.links.values())

    def __getitem__(self, name: str) -> Link:
        return self.links[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the steps."""
        return tuple(self.links)

    @property
    def products(self) -> dict[str, Product]:
        """All products, by name."""
        return {product.name: product for link in self.links.values() for product in link.step.outputs}

    def ancestors(self, name: str) -> list[str]:
        """Steps whose products a step reads, directly or not, in order."""
        return self._ancestors[name]

    @cached_property
    def _ancestors(self) -> dict[str, list[str]]:
        return {name: self._above(name) for name in self.links}

    def _above(self, name: str) -> list[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for each in self.links[waiting.pop()].needs:
                if each not in found:
                    found.add(each)
                    waiting.append(each)
        return [each for each in self.links if each in found]

    @cached_property
    def whole_visit(self) -> set[str]:
        """Steps whose results depend on all detectors of a visit."""
        found: set[str] = set()
        for link in self.links.values():
            if link.scope != "detector" or found.intersection(link.needs):
                found.add(link.name)
        return found


def chained(steps: Mapping[str, Mapping[str, Any]], tables: Mapping[str, Any]) -> Chain:
    """Return the chain of steps by name with their settings.

    Parameters
    ----------
    tables
        What `user_tables` says.

    Raises
    ------
    RecipeError
        When a step or a setting is unknown, steps do not fit together, or a table is missing.
    """
    found = [(step := find_step(name), step.configured(settings)) for name, settings in steps.items()]
    return linked(found, tables)


def linked(steps: Iterable[tuple[Step, Any]], tables: Mapping[str, Any]) -> Chain:
    """Return the chain of steps with their configurations; else as `chained`."""
    links: list[Link] = []
    makers: dict[str, str] = {}
    for declared, config in steps:
        step = declared.with_inputs(makers, tables)
        for table in step.tables:
            if table not in tables:
                raise RecipeError(
                    f"steps: {step.name} needs the table {table!r}: say where it is by tables: "
                    f"{{{table}: PATH}}"
                )
        links.append(
            Link(
                step,
                config,
                tuple(dict.fromkeys(makers[each] for each in step.upstream if each in makers)),
                tuple((each, tables[each]["crc32c"]) for each in (*step.tables, *_own_files(step, tables))),
            )
        )
        makers |= {product.name: step.name for product in step.outputs}
    return Chain(links)


def _own_files(step: Step, tables: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in tables if name.startswith(f"{step.name}/"))


def step_files(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Path and checksum of each file that the steps' settings name, as STEP/FILE.

    Raises
    ------
    InputsError
        When there is no such file, or two of one step have the same name.
    RecipeError
        When a step or a setting is unknown.
    """
    found: dict[str, Any] = {}
    for name, settings in steps.items():
        step = find_step(name)
        for text in () if step.files is None else step.files(step.configured(settings)):
            place = place_at(text).absolute()
            try:
                entry = {"path": str(place), "crc32c": place.checksum()}
            except OSError as error:
                raise InputsError(
                    f"steps.{name}: the file {place} cannot be read: {error.strerror or error}"
                ) from None
            if found.setdefault(f"{name}/{place.name}", entry) != entry:
                raise InputsError(f"steps.{name}: there are two files of the name {place.name}: rename one")
    return found


def user_tables(tables: Mapping[str, str]) -> dict[str, Any]:
    """Path and checksum of each table that a recipe names.

    Raises
    ------
    InputsError
        When there is no such file.
    """
    found = {}
    for name, text in tables.items():
        path = Path(text).expanduser().absolute()
        try:
            found[name] = {"path": str(path), "crc32c": checksum(path)}
        except OSError as error:
            raise InputsError(f"the table {name} cannot be read: {path}: {error.strerror}") from None
    return found
