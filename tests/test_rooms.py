"""Imports go down the floors that docs/rooms.md lists, and never in a circle."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    name: int(floor)
    for floor, name in re.findall(
        r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/rooms.md").read_text(encoding="utf-8"), re.MULTILINE
    )
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "skysub").rglob("*.py"))
}


@functools.cache
def imports_of(path, *, late=True):
    """Modules of skysub that a module imports when it runs (for its types alone does not count)."""
    return list(_imports_of(path, late=late))


def _imports_of(path, *, late):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if typing or (not late and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            skipped.update(id(each) for part in node.body for each in ast.walk(part))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            found = name if name in MODULES else name.rpartition(".")[0]
            if found in MODULES:
                yield found


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {""} <= set(FLOORS) | {"__main__"}


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_a_room_imports_from_below(name):
    upward = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if room(module) == name
        for other in imports_of(path)
        if room(other) not in {"", name} and FLOORS[room(other)] >= FLOORS[name]
    ]
    assert upward == []


def test_no_import_goes_in_a_circle():
    graph = {module: {*imports_of(path, late=False)} - {module} for module, path in MODULES.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph)
