"""Tables of settings, made from the docstrings and defaults of the classes that hold them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["entries", "model_rows", "rows"]


def entries(cls: type) -> Iterator[tuple[list[str], str]]:
    """Names and description of each entry under Parameters of a class's docstring."""
    section = inspect.cleandoc(cls.__doc__ or "").split("Parameters\n----------\n")[1]
    section = re.split(r"\n\n\w+\n-+\n", section)[0]
    for names, text in re.findall(r"^(\S.*)\n((?:(?: .*)?(?:\n|$))+)", section, re.MULTILINE):
        yield names.split(", "), _one_line(textwrap.dedent(text))


def rows(config: Any, place: str = "", *, without: Collection[str] = ()) -> Iterator[str]:
    """Rows of a table of a dataclass's settings: path, default, meaning.

    Settings that are dataclasses themselves follow where they stand; those named in ``without`` have a table
    of their own. A setting that the class does not describe is an error, and so is a description of one that
    is not there.
    """
    cls = type(config)
    described = list(_described(cls))
    named = {name for names, _ in described for name in names}
    held = {field.name for field in dataclasses.fields(config)}
    if named != held:
        raise ValueError(f"{cls.__name__}: docstring and fields differ in {', '.join(sorted(named ^ held))}")
    for names, text in described:
        values = [getattr(config, name) for name in names]
        inner = [
            (name, value)
            for name, value in zip(names, values, strict=True)
            if dataclasses.is_dataclass(value) and name not in without
        ]
        if "None" in text or not inner:
            paths = ", ".join(f"`{place}{name}`" for name in names)
            meaning = _cell(text.replace("None to", "`null` to"))
            yield f"| {paths} | {', '.join(map(_shown, values))} | {meaning} |"
        for name, value in inner:
            yield from rows(value, f"{place}{name}.")


def model_rows(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """Rows of a table of a pydantic model's keys: key, default, meaning.

    What a key means is the text below it in the class that declares it, base classes included; a key without
    one is an error.
    """
    texts = {name: text for cls in reversed(model.__mro__) for name, text in _texts_below(cls)}
    for name, field in model.model_fields.items():
        if name not in texts:
            raise ValueError(f"{model.__name__}.{name} has no text below it that says what it means")
        key = f"{place}{field.alias or name}"
        default = field.get_default(call_default_factory=True)
        needed = default is PydanticUndefined
        inner = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        shown = "needed" if needed else "" if inner else _shown(default)
        yield f"| `{key}` | {shown} | {_cell(texts[name])} |"
        if inner:
            yield from model_rows(field.annotation, f"{key}.")


def _described(cls: type) -> Iterator[tuple[list[str], str]]:
    """Names and description of settings: under Parameters, else the text below the fields.

    Fields that follow each other and have one text between them share it.
    """
    if "Parameters\n" in inspect.cleandoc(cls.__doc__ or ""):
        yield from entries(cls)
        return
    texts = dict(_texts_below(cls))
    together: list[str] = []
    for field in dataclasses.fields(cls):
        together.append(field.name)
        if field.name in texts:
            yield together, texts[field.name]
            together = []


def _texts_below(cls: type) -> Iterator[tuple[str, str]]:
    """Fields that a class declares itself, and what stands as a string below each."""
    if cls in {BaseModel, object} or "__annotations__" not in vars(cls):
        return
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, below in itertools.pairwise(body.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, _one_line(text)


def _shown(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return "on"
    if value in ("", (), {}):
        return "empty"
    return _cell("`" + json.dumps(value, default=str).replace('"', "") + "`")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("``", "`")


def _cell(text: str) -> str:
    """Text within a table's row: a bar would end the cell."""
    return text.replace("|", "\\|")
