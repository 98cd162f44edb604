"""Find recipes and profiles by path or name, read their YAML, and let one build on another."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import yaml

from skysub.errors import RecipeError

__all__ = ["available", "closest", "find_yaml", "merged", "read_yaml", "set_value"]

_PACKAGE = Path(__file__).resolve().parents[1]


def find_yaml(name: str, folder: str) -> Path:
    """File of a recipe (``folder`` "workflows") or a profile ("cluster").

    Looked up as: a path given, then the user's configuration folder, then what skysub came with.

    Raises
    ------
    RecipeError
        When there is none, with the names there are.
    """
    given = Path(name).expanduser()
    if given.suffix in {".yaml", ".yml"} and given.is_file():
        return given.resolve()
    for place in _places(folder):
        # "workflows/calibrate_image.yaml" means the packaged recipe wherever one stands
        found = place / f"{given.stem if given.parent.name in {'', folder} else name}.yaml"
        if found.is_file():
            return found
    kind = "recipe" if folder == "workflows" else "cluster profile"
    names = available(folder)
    raise RecipeError(
        f"there is no {kind} {name!r}: it is neither a YAML file nor one of {', '.join(names)}"
        f"{closest(given.stem, names)}"
    )


def available(folder: str) -> list[str]:
    """Names that `find_yaml` knows without a path."""
    return sorted({file.stem for place in _places(folder) for file in place.glob("*.yaml")})


def read_yaml(path: Path, folder: str) -> dict[str, Any]:
    """Content of a YAML file, with the files that its ``import`` names below it.

    ``import`` is a name or path, or a list of them, later ones on top; paths are relative to the file.

    Raises
    ------
    RecipeError
        When a file cannot be read, is no mapping, or imports go round in a circle.
    """
    return _read(path, folder, ())


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``top`` over it: mappings are merged key by key, anything else is replaced."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def set_value(tree: dict[str, Any], assignment: str) -> dict[str, Any]:
    """``tree`` with one ``a.b.c=value`` put in; the value is read as YAML.

    Raises
    ------
    RecipeError
        When the assignment has no key, or its value is not YAML.
    """
    key, equals, text = assignment.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise RecipeError(f"--set needs key=value, as in steps.background.order=4, not {assignment!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {key}: {text!r} is not a YAML value: {_one_line(error)}") from None
    for name in reversed(names):
        value = {name: value}
    return merged(tree, value)


def closest(word: str, known: list[str]) -> str:
    """``"; did you mean 'x'?"`` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _places(folder: str) -> list[Path]:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    # in a checkout the folders stand beside the package, in an installation inside it
    return [config / "skysub" / folder, _PACKAGE / "packaged" / folder, _PACKAGE.parent / folder]


def _read(path: Path, folder: str, above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above:
        chain = " -> ".join(str(p) for p in (*above, path))
        raise RecipeError(f"imports go round in a circle: {chain}")
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not sound YAML: {_one_line(error)}") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} must hold keys and values, not {type(tree).__name__}")
    imports = tree.pop("import", [])
    names = [imports] if isinstance(imports, str) else imports
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(f"{path}: import must be a name or a list of names, not {imports!r}")
    base: dict[str, Any] = {}
    for name in names:
        beside = (path.parent / name).resolve()
        other = beside if beside.is_file() else find_yaml(name, folder)
        base = merged(base, _read(other, folder, (*above, path)))
    return merged(base, tree)


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
