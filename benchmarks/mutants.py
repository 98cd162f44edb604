"""Put small faults into the code, one at a time, and see whether the tests notice.

    coverage run --rcfile RC -m pytest tests/pipeline ...
    python benchmarks/mutants.py [--coverage FILE] --count 100 --seed 1 [--only pipeline,campaign]

RC sets `dynamic_context = test_function` and the data file. A fault is one change of an operator, a
comparison, a number, a condition, the order of two arguments, or a call that is left out; places and
changes are drawn at random, as many from each folder. Each is put into a copy of the tree. The tests that
run its line are run until one fails; where all pass, or none is known to run it, those of the mirrored
folder are run as well. A fault without any effect that a caller could see counts as survived: read the
list. Prints a line for each fault, and the share that was noticed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
OPERATORS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.FloorDiv: "*"}
OPERATORS |= {ast.Mod: "*", ast.BitAnd: "|", ast.BitOr: "&"}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


@dataclasses.dataclass(frozen=True)
class Fault:
    path: Path
    line: int
    start: int
    stop: int
    new: str
    was: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.stop :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.was.split())} -> {' '.join(self.new.split())}"


class Places(ast.NodeVisitor):
    """All faults that could be put into one module."""

    def __init__(self, path: Path, source: bytes) -> None:
        self.path, self.source = path, source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.faults: list[Fault] = []

    def offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.AST) -> str:
        start, stop = self.span(node)
        return self.source[start:stop].decode()

    def add(self, node: ast.AST, new: str) -> None:
        start, stop = self.span(node)
        self.faults.append(Fault(self.path, node.lineno, start, stop, new, self.text(node)))

    def visit_Raise(self, node: ast.Raise) -> None:
        """What errors say is no arithmetic."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nor are messages."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for each in (*node.args.defaults, *node.args.kw_defaults):
            if each is not None:
                self.visit(each)
        for each in node.body:
            self.visit(each)

    def visit_If(self, node: ast.If) -> None:
        if self.text(node.test).endswith("TYPE_CHECKING"):
            return
        if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            self.add(node.test, f"not ({self.text(node.test)})")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        other = COMPARISONS.get(type(node.ops[0]))
        if other and len(node.ops) == 1:
            self.add(node, f"(({self.text(node.left)}) {other} ({self.text(node.comparators[0])}))")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = OPERATORS.get(type(node.op))
        # a path's slash would be noticed by any import
        paths = isinstance(node.op, ast.Div) and self.path.parts[1] in {"campaign", "cluster"}
        strings = paths or any(
            isinstance(each, ast.Constant) and isinstance(each.value, str) for each in ast.walk(node)
        )
        if other and not strings:
            self.add(node, f"(({self.text(node.left)}) {other} ({self.text(node.right)}))")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        word = " or " if isinstance(node.op, ast.And) else " and "
        self.add(node, "(" + word.join(f"({self.text(each)})" for each in node.values) + ")")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
            self.add(node, f"({self.text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, str(not node.value))
        elif isinstance(node.value, int):
            self.add(node, str(node.value + 1))
        elif isinstance(node.value, float):
            self.add(node, repr(node.value * 2 if node.value else 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in NAMES:
            start, _ = self.span(node)
            stop = self.span(node.func)[1]
            head = self.source[start : stop - len(name)].decode()
            self.faults.append(
                Fault(self.path, node.lineno, start, stop, head + NAMES[name], self.text(node.func))
            )
        if len(node.args) >= 2 and not any(isinstance(each, ast.Starred) for each in node.args[:2]):
            first, second = node.args[:2]
            start, stop = self.span(first)[0], self.span(second)[1]
            swapped = f"{self.text(second)}, {self.text(first)}"
            self.faults.append(
                Fault(self.path, node.lineno, start, stop, swapped, self.source[start:stop].decode())
            )
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.add(node, "pass")
            self.visit(node.value)


def faults_of(path: Path, root: Path) -> list[Fault]:
    source = (root / path).read_bytes()
    places = Places(path, source)
    places.visit(ast.parse(source))
    return places.faults


def drawn(root: Path, folders: list[str], count: int, seed: int) -> list[Fault]:
    """As many faults from each folder, and from a folder each module with the chance of its size."""
    chance = random.Random(seed)
    chosen = []
    for i, folder in enumerate(folders):
        paths = sorted(each.relative_to(root) for each in (root / "skysub" / folder).rglob("*.py"))
        paths = [each for each in paths if not each.name.endswith("kernels.py")]
        possible = [fault for path in paths for fault in faults_of(path, root)]
        wanted = count * (i + 1) // len(folders) - count * i // len(folders)
        chosen += chance.sample(possible, min(wanted, len(possible)))
    return chosen


def covering(coverage_file: Path, fault: Fault, root: Path) -> list[str]:
    """Node ids of tests that run a line, without their parameters."""
    import coverage

    data = coverage.CoverageData(str(coverage_file))
    data.read()
    contexts: set[str] = set()
    for measured in data.measured_files():
        if measured.endswith(f"/{fault.path}"):
            contexts |= set(data.contexts_by_lineno(measured).get(fault.line, []))
    nodes = set()
    for context in contexts:
        module, _, function = context.rpartition(".")
        file = Path(*module.split(".")).with_suffix(".py")
        if function and (root / file).exists():
            nodes.add(f"{file}::{function}")
    return sorted(nodes, key=lambda node: (fault.path.stem not in node, node))


def mirrored(fault: Fault, root: Path) -> list[str]:
    """Test files of the mirrored folder: those named like the module first, then those that name it."""
    folder = Path("tests", *fault.path.parts[1:-1])
    while not (root / folder).is_dir():
        folder = folder.parent
    module = ".".join(fault.path.with_suffix("").parts)

    def far(path: Path) -> tuple[bool, bool, int]:
        return fault.path.stem not in path.stem, module not in path.read_text(), path.stat().st_size

    files = sorted((root / folder).rglob("test_*.py"), key=far)
    return [str(path.relative_to(root)) for path in files]


def run(root: Path, arguments: list[str], seconds: float) -> str:
    """ "noticed", "passed" or "slow" (which a suite would notice as well, by not ending)."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "slow"
    return "passed" if code in {0, 5} else "noticed"


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of what git knows, with numba's caches, which a change of Python code leaves good."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "tree"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, listed.decode().split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
        for cache in (ROOT / "skysub").rglob("*.nb?"):
            target = copy / cache.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(cache, target)
        yield copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="background,pipeline,campaign,cluster")
    parser.add_argument("--coverage", type=Path, help="data file; without it mirrored tests alone are run")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for the tests of one fault")
    parser.add_argument("--skip", type=int, default=0, help="faults of the draw that were tried before")
    given = parser.parse_args()
    counts = {"noticed": 0, "slow": 0, "survived": 0}
    with copied_tree() as root:
        for fault in drawn(root, given.only.split(","), given.count, given.seed)[given.skip :]:
            clock = time.monotonic()
            file = root / fault.path
            whole = file.read_bytes()
            file.write_bytes(fault.applied(whole))
            nodes = covering(given.coverage, fault, root) if given.coverage else []
            outcome = run(root, nodes[:60], given.limit) if nodes else "passed"
            if outcome == "passed":
                outcome = run(root, mirrored(fault, root), given.limit)
            file.write_bytes(whole)
            outcome = "survived" if outcome == "passed" else outcome
            counts[outcome] += 1
            print(f"{outcome:8} {time.monotonic() - clock:5.0f} s  {len(nodes):3} tests  {fault}", flush=True)
    total = sum(counts.values())
    print(f"{counts}: {100 * (total - counts['survived']) / max(total, 1):.0f} % noticed")


if __name__ == "__main__":
    main()
