"""Hold the code to the project's budget: sizes, branches, casts, broad excepts, and module names that stand once.

Run as ``python scripts/check_structure.py``: prints what is over the budget, and exits with 1 then.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path("src/avtomatika_worker")

MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 60
BRANCHES: Final = 12
CASTS: Final = 40
BROAD_EXCEPTS: Final = 25

OFFICIAL_PATHS: Final = {"logging.py", "s3.py", "task_files.py", "types.py", "typing.py"}
"""Modules that stand where users of the official SDK import them from: their names are not ours to choose."""

_BROAD: Final = {"Exception", "BaseException"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Finding:
    """Something over the budget."""

    where: str
    problem: str


def check(source: Path = SOURCE) -> list[Finding]:
    """Return what is over the budget in the package at ``source``."""
    findings: list[Finding] = []
    casts: list[str] = []
    broad: list[str] = []
    names: dict[str, list[str]] = defaultdict(list)
    for path in sorted(source.rglob("*.py")):
        text = path.read_text("utf-8")
        where = path.relative_to(source).as_posix()
        if path.stem not in {"__init__", "__main__"} and where not in OFFICIAL_PATHS:
            names[path.stem].append(where)
        lines = text.splitlines()
        if len(lines) > MODULE_LINES:
            findings.append(Finding(where, f"{len(lines)} lines (at most {MODULE_LINES})"))
        tree = ast.parse(text)
        findings += _functions(tree, where)
        casts += (f"{where}:{node.lineno}" for node in ast.walk(tree) if _is_cast(node))
        for node in ast.walk(tree):
            if not _is_broad(node) or not isinstance(node, ast.ExceptHandler | ast.expr | ast.stmt):
                continue
            broad.append(f"{where}:{node.lineno}")
            if "#" not in lines[node.lineno - 1]:
                findings.append(Finding(broad[-1], "a broad except without its reason"))
    findings += _budgets(casts, broad)
    findings += [
        Finding(", ".join(places), f"the module name {name!r} stands {len(places)} times")
        for name, places in names.items()
        if len(places) > 1
    ]
    return findings


def _functions(tree: ast.Module, where: str) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, _Function):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES:
            yield Finding(f"{where}:{node.lineno}", f"{node.name} has {lines} lines (at most {FUNCTION_LINES})")
        if (branches := _branches(node)) > BRANCHES:
            yield Finding(f"{where}:{node.lineno}", f"{node.name} has {branches} branches (at most {BRANCHES})")


def _branches(function: _Function) -> int:
    """Count what may go one way or another, each operand of ``and`` and ``or`` included; not in functions inside."""
    count = 0
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Function | ast.Lambda | ast.ClassDef):
            continue
        match node:
            case ast.If() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler() | ast.IfExp():
                count += 1
            case ast.BoolOp():
                count += len(node.values) - 1
            case ast.comprehension():
                count += len(node.ifs)
            case ast.match_case():
                count += 1
            case _:
                pass
        waiting += ast.iter_child_nodes(node)
    return count


def _is_cast(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (isinstance(called, ast.Name) and called.id == "cast") or (
        isinstance(called, ast.Attribute) and called.attr == "cast"
    )


def _is_broad(node: ast.AST) -> bool:
    """Whether a node ends whatever was raised: an except, a ``suppress`` or an ``__exit__`` that may do so.

    An except whose last statement raises it again, or another, ends nothing.
    """
    match node:
        case ast.ExceptHandler():
            return (node.type is None or _names_all(node.type)) and not isinstance(node.body[-1], ast.Raise)
        case ast.Call(func=ast.Name("suppress") | ast.Attribute(attr="suppress")):
            return any(map(_names_all, node.args))
        case ast.FunctionDef("__exit__") | ast.AsyncFunctionDef("__aexit__"):
            return not (isinstance(node.returns, ast.Constant) and node.returns.value is None)
        case _:
            return False


def _names_all(types: ast.expr) -> bool:
    if isinstance(types, ast.Tuple):
        return any(map(_names_all, types.elts))
    return isinstance(types, ast.Name) and types.id in _BROAD


def _budgets(casts: list[str], broad: list[str]) -> Iterator[Finding]:
    for what, places, most in (("casts", casts, CASTS), ("broad excepts", broad, BROAD_EXCEPTS)):
        if len(places) >= most:
            yield Finding(", ".join(places), f"{len(places)} {what} (fewer than {most})")


def main() -> int:
    """Print the findings."""
    findings = check()
    for finding in findings:
        print(f"{finding.where}: {finding.problem}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
