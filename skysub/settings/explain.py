"""What is wrong with a value that pydantic refuses, in one sentence that names the key and the rule."""

from __future__ import annotations

import re
import typing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError

__all__ = ["explained", "refused"]


def explained(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """What is wrong, in one sentence; ``where`` is the key under which the model stands."""
    # a misspelt key is the likeliest reason for one that is missing
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]
    if first["type"] == "extra_forbidden":
        *parents, word = first["loc"]
        known = _known_keys(model, parents)
        above = ".".join([*([where] if where else []), *(str(part) for part in parents)])
        inside = f" in {above}" if above else ""
        return f"unknown key {word!r}{inside}{closest(str(word), known)}; known: {', '.join(known)}"
    return refused(errors, where)


def refused(errors: Sequence[Any], where: str) -> str:
    """Say which value is refused, and what it must be: one of several kinds, where it may have several."""
    keys = [tuple(str(part) for part in each["loc"] if not _KIND.fullmatch(str(part))) for each in errors]
    place = ".".join([*([where] if where else []), *keys[0]])
    before = f"{place}: " if place else ""
    reason = errors[0].get("ctx", {}).get("error")
    if reason is not None:
        return f"{before}{reason}"
    if errors[0]["type"] == "missing":
        return f"{before}is missing"
    given = errors[0]["input"]
    rules = dict.fromkeys(_rule(each) for each, key in zip(errors, keys, strict=True) if key == keys[0])
    return f"{before}must be {' or '.join(rules)}, not {given!r}"


_KIND = re.compile(r"(constrained-)?(int|float|str|bool)|(literal|tuple|list|dict|function).*\[.*")
"""What pydantic adds to the place of an error in a value that may be of several kinds."""


def _rule(error: Any) -> str:
    if error["type"] in {"tuple_type", "list_type", "set_type", "frozen_set_type"}:
        given = error["input"]
        return f"a list, as [{given}]" if isinstance(given, str) else "a list"
    if error["type"] in {"dict_type", "model_type", "dataclass_type"}:
        return "keys and values"
    return str(error["msg"]).partition(", unable")[0].removeprefix("Input should be ")


def _known_keys(model: type[BaseModel], parents: list[Any]) -> list[str]:
    for part in parents:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [
            t
            for t in (annotation, *typing.get_args(annotation))
            if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        model = inner[0]
    return sorted(field.alias or name for name, field in model.model_fields.items())
