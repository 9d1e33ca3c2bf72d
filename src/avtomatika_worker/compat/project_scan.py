"""Reads a project written for the official SDK, without running any of it, and lists what will differ."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from avtomatika_worker.compat.former_names import ARGUMENTS, ATTRIBUTES
from avtomatika_worker.compat.former_settings import ALIASES, MEANINGLESS, MEANINGLESS_VARIABLES
from avtomatika_worker.skills.contract import CANCELLED, FAILURE, SUCCESS

_SKIPPED: Final = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", "site-packages", ".tox"})
_TEXTS: Final = re.compile(r"(?:.*\.)?env(?:\..*)?|.*\.(?:ya?ml|toml|cfg|ini|txt|sh)|Dockerfile.*")
_NAMES: Final = {
    **{name: f"it has no effect: {advice}" for name, advice in MEANINGLESS_VARIABLES.items()},
    **{theirs: f"it is {ours} here" for theirs, ours in ALIASES.items()},
}
_SETTING: Final = re.compile(r"\b(" + "|".join(_NAMES) + r")\b\"?\s*[=:]")
_PIN: Final = re.compile(r"avtomatika[-_]worker(?:\[[^\]]*\])?\s*==\s*1\.0b\d+")
_LARGEST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One place, what was found there, and what to do about it."""

    file: str
    line: int
    what: str
    advice: str


def scan(project: Path) -> list[Difference]:
    """Return the differences, sorted by file and line. Unreadable files are skipped."""
    found: list[Difference] = []
    for path in _files(project):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        shown = str(path.relative_to(project))
        found += _in_code(shown, text) if path.suffix == ".py" else _in_text(shown, text)
    return sorted(found, key=lambda each: (each.file, each.line))


def _files(project: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(project):
        directories[:] = sorted(set(directories) - _SKIPPED)
        for name in sorted(names):
            path = Path(parent, name)
            wanted = (name.endswith(".py") or _TEXTS.fullmatch(name)) and path.is_file()
            if wanted and path.stat().st_size <= _LARGEST:
                yield path


def _in_text(file: str, text: str) -> Iterator[Difference]:
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _SETTING.search(line):
            yield Difference(file, number, match[1], _NAMES[match[1]])
        if _PIN.search(line):
            yield Difference(file, number, "a pinned release of the official SDK", "this one's version is 1.1.0")


def _in_code(file: str, text: str) -> Iterator[Difference]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two for what is nested too deeply
        return
    if "avtomatika_worker" not in text and "rxon" not in text:
        return
    for node in ast.walk(tree):
        for what, advice in _differences(node):
            yield Difference(file, getattr(node, "lineno", 1), what, advice)


def _differences(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from _imported([each.name for each in node.names])
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield from _imported([node.module or ""])
    elif isinstance(node, ast.Call):
        if _name_of(node.func) == "Worker":
            yield from (
                (f"Worker({word.arg}=)", ARGUMENTS[word.arg]) for word in node.keywords if word.arg in ARGUMENTS
            )
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield from _attribute(node, node.value.id)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_skill(node):
        yield from _in_skill(node)


def _imported(modules: list[str]) -> Iterator[tuple[str, str]]:
    for module in modules:
        if module.partition(".")[0] == "rxon":
            yield (
                f"import of {module}",
                "it is not installed: import these names from avtomatika_worker or avtomatika_worker.types",
            )
        elif module == "avtomatika_worker.s3":
            yield f"import of {module}", "use TaskFiles"
        elif module == "avtomatika_worker.typing":
            yield f"import of {module}", "use avtomatika_worker.types"


def _attribute(node: ast.Attribute, owner: str) -> Iterator[tuple[str, str]]:
    if node.attr in ATTRIBUTES and re.search(r"worker|bp|blueprint", owner, re.IGNORECASE):
        yield f"{owner}.{node.attr}", ATTRIBUTES[node.attr]
    elif node.attr in MEANINGLESS and isinstance(node.ctx, ast.Store):
        yield f"{owner}.{node.attr}", f"it has no effect: {MEANINGLESS[node.attr]}"


def _is_skill(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    called = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    return any(isinstance(each, ast.Attribute) and each.attr == "skill" for each in called)


def _in_skill(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str]]:
    declares = any(
        word.arg in {"output_statuses", None}
        for each in function.decorator_list
        for word in getattr(each, "keywords", [])
    )
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = _name_of(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            if raised == "ValueError":
                text = f"raise ValueError in skill {function.name}, line {node.lineno}"
                yield text, "the task is retried; raise InvalidInputError or PermanentError to fail at once"
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Dict) and not declares:
            yield from _own_status(node.value, function.name)


def _own_status(returned: ast.Dict, skill: str) -> Iterator[tuple[str, str]]:
    for key, value in zip(returned.keys, returned.values, strict=True):
        status = value.value if isinstance(value, ast.Constant) else SUCCESS
        if isinstance(key, ast.Constant) and key.value == "status" and status not in {SUCCESS, FAILURE, CANCELLED}:
            text = f"status {status!r} of skill {skill}, line {returned.lineno}"
            yield text, f"the task fails: declare it, as in @worker.skill(…, output_statuses=[{status!r}])"


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
