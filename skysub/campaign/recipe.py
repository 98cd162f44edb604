"""What a user asks for: a recipe, checked where its YAML enters."""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from skysub.errors import RecipeError
from skysub.settings.explain import explained, refused
from skysub.settings.lookup import closest, find_yaml, read_yaml, set_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Products",
    "Recipe",
    "Source",
    "as_json",
    "built",
    "canonical",
    "load_recipe",
    "short_hash",
]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict)) else value


class Source(BaseModel):
    """Where some of the inputs lie, and how their files are mapped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """Globs; ``**`` goes into folders."""
    pattern: str = ""
    """A path with ``{visit}``, ``{detector}``, perhaps ``{band}`` and ``*``; it stands above headers."""
    table: str = ""
    """A table (CSV, ECSV, Parquet) with the column ``path`` and, over headers, visit, detector, band."""
    ingest: dict[str, Any] | None = None
    """How to read the files, for `skysub.read_visit_image`; None: by looking at each file."""

    @model_validator(mode="after")
    def _one_way(self) -> Source:
        given = [name for name in ("files", "pattern", "table") if getattr(self, name)]
        if len(given) != 1:
            says = " and ".join(given) if given else "none"
            raise ValueError(f"say where files are in one way: files, pattern or table (here: {says})")
        if self.pattern and not ("{visit}" in self.pattern and "{detector}" in self.pattern):
            example = "'raw/{visit}_{detector}.fits'"
            raise ValueError(
                f"pattern needs {{visit}} and {{detector}}, as in {example}, not {self.pattern!r}"
            )
        return self


class Products(BaseModel):
    """Which products are kept, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixels: Literal["stored", "on_demand"] = "stored"
    """``on_demand``: image and variance are made from the input again when somebody asks for them."""
    compression: Literal["lz4", "zstd", "none"] = "lz4"
    """Codec of the stored pixels; all are lossless."""
    durable: bool = False
    """Wait for the disk before a unit counts as done, so that a power failure loses nothing either."""


class Recipe(BaseModel):
    """A kind of campaign: inputs, the steps in their order, products, and where it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    """What the campaign is, in a sentence for people."""
    inputs: Annotated[tuple[Source, ...], BeforeValidator(_as_list)] = ()
    """Where the input files are: one source or a list of them, each with the keys of `inputs` below."""
    steps: dict[str, dict[str, Any]]
    """Steps by name, in the order they are done, with their settings; `skysub.campaign.shipped` has those
    that skysub brings."""
    tables: dict[str, str] = Field(default_factory=dict)
    """Tables that steps read, by the names that steps have for them: paths of files that astropy reads."""
    products: Products = Products()
    """Which products are kept, and how."""
    cluster: dict[str, Any] = Field(default_factory=lambda: {"profile": "local"})
    """A profile by name or path, and what to change in it."""
    mode: Literal["auto", "detector", "block"] = "auto"
    """One task per detector, or detectors cut into blocks; auto counts detectors and workers."""

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        tree = dict(tree)
        if isinstance(tree.get("cluster"), str):
            tree["cluster"] = {"profile": tree["cluster"]}
        if isinstance(tree.get("steps"), dict):
            tree["steps"] = {name: {} if given is None else given for name, given in tree["steps"].items()}
        if isinstance(tree.get("inputs"), (list, tuple)):
            tree["inputs"] = [{"files": each} if isinstance(each, str) else each for each in tree["inputs"]]
        elif isinstance(tree.get("inputs"), str):
            tree["inputs"] = [{"files": tree["inputs"]}]
        return tree

    @model_validator(mode="after")
    def _some_step(self) -> Recipe:
        if not self.steps:
            raise ValueError("a recipe runs one step at least, not none")
        return self


def load_recipe(
    name: str, *, inputs: Iterable[str] = (), cluster: str | None = None, settings: Iterable[str] = ()
) -> Recipe:
    """Read a recipe by path or name, with the command line's choices over it.

    Parameters
    ----------
    name
        Path of a YAML file, or a name that `skysub.settings.lookup.find_yaml` finds.
    inputs
        Globs in place of those that the recipe names; with several sources in the recipe this is refused.
    cluster
        Profile in place of the recipe's.
    settings
        ``key=value`` assignments, applied last, in order.

    Raises
    ------
    RecipeError
        Where the recipe has an unknown key (with the nearest known one), a value of the wrong type, or
        cannot be read.
    """
    path = find_yaml(name, "workflows")
    tree = read_yaml(path, "workflows")
    globs = list(inputs)
    if globs:
        sources = _as_list(tree.get("inputs") or [])
        mappings = (
            [each.get("ingest") for each in sources if isinstance(each, dict)]
            if isinstance(sources, list)
            else []
        )
        if len(mappings) > 1:
            raise RecipeError(
                f"{path} names {len(mappings)} sources with mappings of their own, so inputs cannot be given "
                "from outside: edit its inputs"
            )
        source: dict[str, Any] = {"files": globs}
        if mappings and mappings[0] is not None:
            source["ingest"] = mappings[0]
        tree = {**tree, "inputs": [source]}
    if cluster is not None:
        tree = {**tree, "cluster": {"profile": cluster}}
    elif isinstance(tree.get("cluster"), str):
        tree = {**tree, "cluster": {"profile": tree["cluster"]}}
    changed = tree
    for assignment in settings:
        changed = set_value(_settable(changed, assignment), assignment)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        blamed = "--set" if changed is not tree and _is_sound(tree) else path
        raise RecipeError(f"{blamed}: {explained(error, Recipe)}") from None


def _settable(tree: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Return the tree as one assignment can be laid over it: a single source of inputs is a mapping there."""
    first, *rest = assignment.partition("=")[0].strip().split(".")
    steps = tree.get("steps")
    if first == "steps" and rest and isinstance(steps, dict) and steps and rest[0] not in steps:
        known = [str(name) for name in steps]
        raise RecipeError(
            f"--set {assignment}: the recipe's {_plural('step', known)} {', '.join(known)}, not {rest[0]!r}"
            f"{closest(rest[0], known)}"
        )
    sources = _as_list(tree.get("inputs"))
    if first != "inputs" or not rest or not isinstance(sources, list):
        return tree
    if len(sources) > 1:
        raise RecipeError(
            f"--set {assignment}: the recipe names {len(sources)} sources of inputs, so write a recipe with "
            "a list 'inputs', where each has files and ingest of its own"
        )
    return {**tree, "inputs": {"files": sources[0]} if isinstance(sources[0], str) else sources[0]}


def _plural(word: str, names: Sequence[str]) -> str:
    return f"{word} is" if len(names) == 1 else f"{word}s are"


def _is_sound(tree: dict[str, Any]) -> bool:
    try:
        Recipe.model_validate(tree)
    except ValidationError:
        return False
    return True


def built(cls: type, given: dict[str, Any], where: str) -> Any:
    """A configuration dataclass from a mapping, nested ones included.

    Raises
    ------
    RecipeError
        Where a key is unknown (with the nearest known one) or a value is refused.
    """
    _check_keys(cls, given, where)
    adapter: TypeAdapter[Any] = TypeAdapter(cls)
    # modules that need these names for annotations alone import them for type checkers only
    adapter.rebuild(_types_namespace=vars(collections.abc))
    try:
        return adapter.validate_python(given)
    except ValidationError as error:
        raise RecipeError(refused(error.errors(), where)) from None


def canonical(value: Any) -> str:
    """One text for equal configurations: JSON with sorted keys, dataclasses and models as mappings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_jsonable)


def as_json(value: Any) -> Any:
    """Return a configuration as mappings, lists and numbers, as JSON has them."""
    return json.loads(canonical(value))


def short_hash(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `canonical`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def _check_keys(cls: type, given: dict[str, Any], where: str) -> None:
    hints = typing.get_type_hints(cls, localns=vars(collections.abc))
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key, value in given.items():
        if key not in known:
            raise RecipeError(
                f"{where}: unknown key {key!r}{closest(str(key), known)}; known: {', '.join(known)}"
            )
        inner = _dataclass_in(hints[key])
        if inner is not None and isinstance(value, dict):
            _check_keys(inner, value, f"{where}.{key}")


def _dataclass_in(hint: Any) -> type | None:
    options = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
    return next((each for each in options if isinstance(each, type) and dataclasses.is_dataclass(each)), None)


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a configuration")
